"""Files of tokens, orders and sources, damaged many times: all that reads them says one line, or works.

The commands hear of one in fifty, since each takes longer than all reads of the library.
"""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from data.neox import write_corpus
from press.damage import damaged
from pythia_gguf.data.array_file import write_array
from pythia_gguf.data.order import make_order
from pythia_gguf.data.rows import open_rows
from pythia_gguf.data.statistics import token_statistics
from pythia_gguf.errors import ModelFileError

DOCUMENTS = [[5, 9, 7, 0], [], [300, 2, 0], [1] * 30 + [0], [8, 0]]


def mutants(pythia, folder: Path, n: int, seed: int) -> dict[str, list[int]]:
    """For each file how many mutants worked, and how many were refused."""
    rng = random.Random(seed)
    prefix = write_corpus(folder / "x", DOCUMENTS)
    write_array(folder / "x.sources.npy", np.array([0, 1, 1, 0, 0], np.uint16))
    (folder / "x.corpus.json").write_text('{"sources": [{"name": "a"}, {"name": "b"}], "eod": "x"}')
    order = make_order(prefix, steps=3, batch=2, context=8)
    files = [folder / "x.idx", folder / "x.bin", folder / "x.sources.npy", *order.files.values()]
    counts, messages = {path.name: [0, 0] for path in files}, set()
    for turn in range(n):
        path = files[turn % len(files)]
        whole = path.read_bytes()
        path.write_bytes(damaged(whole, rng))
        try:
            read_all(prefix)
            is_refused = False
        except ModelFileError as e:
            is_refused = True
            messages.add(str(e))
        counts[path.name][is_refused] += 1
        if turn % 50 == 0:
            check_commands(pythia, prefix)
        path.write_bytes(whole)
    assert all(message.isprintable() and len(message) < 1000 for message in messages)
    return counts


def read_all(prefix: Path) -> None:
    token_statistics(prefix)
    rows = open_rows(prefix)
    try:
        rows.read_rows(0, rows.n_rows)
    finally:
        rows.close()


def check_commands(pythia, prefix: Path) -> None:
    """Each ends well, or says in one line which file is damaged."""
    order = ("order", prefix, "--steps", "3", "--batch", "2", "--context", "8")
    for line in (("stats", prefix), ("view", prefix, "--step", "2", "--batch", "2", "--ids"), order):
        code, out, err = pythia("data", *line)
        assert code in (0, 65)
        assert code == 0 or (out == "" and err.startswith(f"Error: {prefix}") and err.count("\n") == 1), err


def test_some_mutants(pythia, tmp_path: Path):
    counts = mutants(pythia, tmp_path, 300, 1)
    assert all(refused > 9 for _, refused in counts.values())
    assert sum(worked for worked, _ in counts.values()) > 30


@pytest.mark.campaign
def test_a_hundred_thousand_mutants(pythia, tmp_path: Path):
    counts = mutants(pythia, tmp_path, 100_000, 2)
    assert all(refused > 3000 for _, refused in counts.values())
