"""Perplexity on the sample's held-out text is llama-perplexity's, as frozen in tests/golden/tools.json."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from engine.nano import HELDOUT, ROOT, nano_files
from pythia_gguf.engine.logprobs import log_sum_exp
from pythia_gguf.engine.model import load
from pythia_gguf.engine.protocol import Part

GOLDEN = json.loads((ROOT / "tests" / "golden" / "tools.json").read_text())
CHUNKS, CONTEXT = 32, 256
TOLERANCE = 0.005


def perplexity(quant: str, gelu: str) -> float:
    """Windows of the text, of each the second half scored, as llama-perplexity does it."""
    model = load(nano_files()[quant], gelu=gelu, threads=2)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8"))
    session, total, n = model.sequences(n_context=CONTEXT), 0.0, 0
    for at in range(0, CHUNKS * CONTEXT, CONTEXT):
        seq = session.open()
        window = ids[at : at + CONTEXT]
        scored = window[CONTEXT // 2 + 1 :]
        rows = session.step([Part(seq=seq, ids=window, n_wanted=CONTEXT // 2)])[:-1]
        total += sum(log_sum_exp(row) - float(row[i]) for row, i in zip(rows, scored, strict=True))
        n += len(scored)
        session.close(seq)
    return math.exp(total / n)


# llama.cpp keeps activations as int8 of 32 or 256 values and its GELU as a float16 table, we as int8 of 32 and a
# polynomial: what a file loses to that differs by a part of what it loses at all, which is 0.3 % for most of them.
@pytest.mark.parametrize("quant", ["F16", "Q8_0", "Q4_K_M", "Q2_K", "IQ4_XS"])
def test_perplexity_is_llama_perplexitys(quant: str):
    theirs = GOLDEN["perplexity"][quant]["ppl"]
    assert perplexity(quant, "tanh") == pytest.approx(theirs, rel=TOLERANCE)


def test_nearest_wrong_window_misses():
    """All but the first token of a window scored."""
    model = load(nano_files()["F16"], gelu="tanh", threads=2)
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8"))[: CHUNKS * CONTEXT]
    losses = []
    for at in range(0, len(ids), CONTEXT):
        window = ids[at : at + CONTEXT]
        rows = model.logits(window)
        losses += [log_sum_exp(row) - float(row[i]) for row, i in zip(rows[:-1], window[1:], strict=True)]
    wrong = math.exp(float(np.mean(losses)))
    assert abs(wrong / GOLDEN["perplexity"]["F16"]["ppl"] - 1) > 2 * TOLERANCE
