"""What a sight did is the difference of two scores, at the checkpoints around the row that showed the text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import pythia_gguf
from pythia_gguf.data.index import make_index
from pythia_gguf.data.order import make_order
from pythia_gguf.data.rows import open_rows
from pythia_gguf.data.tokenizing import tokenize

NANO = Path(__file__).parents[2] / "examples" / "nano"
SEEN = " one two three four five six seven"
BATCH = 2


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Steps 0, 2, 4 and 9 of a run: the sample, its output matrix changed a little more with each."""
    run = tmp_path_factory.mktemp("runs") / "run"
    weights = load_file(NANO / "model.safetensors")
    change = np.random.default_rng(1).normal(0, 0.02, weights["embed_out.weight"].shape).astype(np.float16)
    for n in (0, 2, 4, 9):
        shutil.copytree(NANO, run / f"step{n}", ignore=shutil.ignore_patterns("heldout*"))
        save_file(
            weights | {"embed_out.weight": weights["embed_out.weight"] + change * np.float16(n)},
            run / f"step{n}" / "model.safetensors", metadata={"format": "pt"},
        )  # fmt: skip
    return run


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Documents that hold the text now and then, read once and a half in ten steps of two rows of 65 tokens."""
    folder = tmp_path_factory.mktemp("corpus")
    words = ["def", " main", " x", " the", " a", "\n", " of", " import"]
    rng = np.random.default_rng(5)
    lines = []
    for i in range(14):
        text = "".join(words[k] for k in rng.integers(0, len(words), 60)) + (SEEN + " end" if i % 3 == 0 else "")
        lines.append({"text": text, "meta": {"pile_set_name": "Books" if i % 2 else "Code"}})
    (folder / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prefix = folder / "c"
    tokenize([folder / "c.jsonl"], prefix, tokenizer=NANO / "tokenizer.json", processes=1)
    make_order(prefix, steps=10, batch=BATCH, context=64, seed=7)
    make_index(prefix)
    return prefix


def rows_that_show(prefix: Path) -> list[int]:
    """By looking at the text of every row."""
    library = pythia_gguf_tokenizer()
    rows = open_rows(prefix)
    try:
        texts = [library.decode(ids) for ids in rows.read_rows(0, rows.n_rows).tolist()]
    finally:
        rows.close()
    return [i for i, text in enumerate(texts) if SEEN in text]


def pythia_gguf_tokenizer():  # type: ignore[no-untyped-def]
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(NANO / "tokenizer.json"))


def test_changes_are_differences_of_scores(pythia, own_cache: Path, run: Path, corpus: Path, tmp_path: Path):
    expected_rows = [row for row in rows_that_show(corpus) if row < 20]
    assert len(expected_rows) > 2
    line = ("data", "effect", corpus, SEEN, "--model", f"{run}:Q8_0", "--batch", BATCH)
    code, out, err = pythia(*line, "--output-format", "json", "--max-sights", 100, "-o", tmp_path / "effect.png")
    assert code == 0, err
    told = json.loads(out)
    shown = [sight for sight in told["sights"] if sight["row"] < 20]
    assert [sight["row"] for sight in shown] == expected_rows
    scores = {n: pythia_gguf.load(f"{run}@step{n}", quant="Q8_0").score([("", SEEN)])[0].logprob for n in (0, 2, 4, 9)}
    for sight in shown:
        before = max(n for n in scores if n * BATCH <= sight["row"])
        after = min((n for n in scores if n * BATCH > sight["row"]), default=None)
        assert sight["step"] == sight["row"] // BATCH + 1
        assert sight["before"] == f"{run}@step{before}:Q8_0" and sight["logprob_before"] == scores[before]
        if after is None:
            assert (sight["after"], sight["logprob_after"], sight["change"]) == (None, None, None)
        else:
            assert sight["after"] == f"{run}@step{after}:Q8_0" and sight["logprob_after"] == scores[after]
            assert sight["change"] == scores[after] - scores[before]
        assert sight["source"] in ("Books", "Code")
    assert (tmp_path / "effect.png").read_bytes().startswith(b"\x89PNG")
    code, out, _ = pythia(*line, "--max-sights", 2)
    assert code == 0
    table = out.splitlines()
    assert f"step {'':0}" in table[0] and table[-1] == f"The first 2 sights of {told['n_sights']}."
    assert f"{scores[0]:.4f}" in table[2] or f"{scores[2]:.4f}" in table[2]


def test_what_cannot_be_told_is_one_line(pythia, run: Path, corpus: Path, tmp_path: Path):
    line = ("data", "effect", corpus, SEEN, "--batch", BATCH)
    for words, says in (
        (("--model", f"{run}@step2"), f"all steps are looked at. Give {run} without one"),
        (("--model", run, "-o", tmp_path / "no" / "effect.png"), "not a file in a folder that exists"),
        (("--model", "pythia-71m"), "Did you mean pythia-70m"),
    ):
        code, out, err = pythia(*line, *words)
        assert code in (2, 74) and out == "" and err.count("\n") == 1 and says in err, err
    code, out, _ = pythia("data", "effect", corpus, " nothing of it", "--model", run, "--batch", BATCH)
    assert (code, out) == (0, "No row of training shows all of it.\n")
