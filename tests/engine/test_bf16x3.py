"""`--activations bf16x3`: nearly float32's logits where there are tiles of bfloat16, one line where there are none.

Products are looked at in tests/kernels/test_matmul.py, same bits in test_same_bits.py, transformers in test_parity.py.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from cpu_kinds import environment
from engine.nano import HELDOUT, nano_files
from engine.toys import distance, hf_from_gguf, hf_logits, toy_model, write_gguf
from pythia_gguf.engine.model import load
from pythia_gguf.errors import UsageError
from pythia_gguf.kernels.matmul import known_activations

HAS_TILES = "bf16x3" in known_activations()
NEEDS_AMX = "needs Linux on a processor with AMX; float32 runs anywhere"


@pytest.mark.parametrize("quant", ["F16", "Q4_K_M"])
def test_logits_are_nearly_those_of_float32_or_it_is_refused(quant: str):
    path = nano_files()[quant]
    if not HAS_TILES:
        with pytest.raises(UsageError, match=NEEDS_AMX):
            load(path, activations="bf16x3")
        return
    exact, found = (load(path, gelu="erf", activations=name, cache="f32") for name in ("float32", "bf16x3"))
    ids = exact.tokenizer.encode(HELDOUT.read_text("utf-8")[:2000])[:200]
    apart = distance(found.logits(ids), exact.logits(ids))
    # Never the same: it is another product. Six layers of errors of 2**-18; bfloat16 itself is far from that.
    assert 0 < apart <= 2e-4
    hf = hf_from_gguf(path, "gelu")
    right, wrong = hf_logits(hf, ids), hf_logits(hf.to(torch.bfloat16), ids)
    assert distance(wrong, right) > 100 * 2e-4


def test_rows_that_are_not_whole_tiles_are_refused(tmp_path: Path):
    path = write_gguf(tmp_path / "toy.gguf", toy_model(hidden=72))
    refusal = "needs rows of whole 32 numbers, got 72 and 320" if HAS_TILES else NEEDS_AMX
    with pytest.raises(UsageError, match=refusal):
        load(path, activations="bf16x3")
    assert load(path, activations="float32").logits([1, 2, 3]).shape == (3, 300)


def test_a_processor_without_tiles_says_so_in_one_line():
    command = [sys.executable, "-m", "pythia_gguf", "score", str(nano_files()["F16"])]
    command += ["--prompt", "a", "--continuation", "b", "--activations", "bf16x3"]
    run = subprocess.run(command, env=environment("haswell"), capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout) == (2, "")
    assert run.stderr.strip().splitlines()[-1].endswith(NEEDS_AMX)
