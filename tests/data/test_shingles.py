"""Shingles are what a pattern and a loop say they are; hashes differ where words do."""

from __future__ import annotations

import random

import numpy as np
import pytest

from data.near import WORD, shingles
from pythia_gguf.data import shingles as made

HASHES = ["a0c6b0e7df948c1c", "23f74dd905cd60bb", "d1f63c793d1f7447", "0000000000000000"]
ALPHABET = "ab c_7\n\t.,-é漢字 \N{GRINNING FACE}ж\u2019\x7f\0\u00a0\u07ff\u0800"


def texts(n: int) -> list[str]:
    rng = random.Random(1)
    return ["".join(rng.choices(ALPHABET, k=rng.choice([0, 1, 3, 8, 60]))) for _ in range(n)]


def test_equal_words_have_equal_hashes_and_others_do_not():
    some = texts(2000)
    found = made.shingles_of(some)
    expected = [shingles(text) for text in some]
    assert np.diff(found.starts).tolist() == [len(each) for each in expected]
    pairs = set(zip([s for each in expected for s in each], found.hashes.tolist(), strict=True))
    assert len(pairs) == len({s for s, _ in pairs}) == len({h for _, h in pairs}) > 10_000
    pairs = set(zip([tuple(WORD.findall(text)) for text in some], found.words.tolist(), strict=True))
    assert len(pairs) == len({w for w, _ in pairs}) == len({h for _, h in pairs}) > 1000
    for each, own in zip(found.sets(), expected, strict=True):
        assert len(each) == len(set(own))
        assert np.all(np.diff(each.astype(object)) > 0)


@pytest.mark.parametrize("block", [16, 50])
def test_a_text_has_the_same_hashes_in_any_company(monkeypatch: pytest.MonkeyPatch, block: int):
    """Also where it is longer than what is hashed at once, and where a block ends inside a character."""
    some = texts(300)
    monkeypatch.setattr(made, "_BLOCK_BYTES", block)
    together = made.shingles_of(some)
    for i, text in enumerate(some):
        alone = made.shingles_of([text])
        assert np.array_equal(together.hashes[together.starts[i] : together.starts[i + 1]], alone.hashes)
        assert together.words[i] == alone.words[0]


def test_a_long_text_cut_at_white_space_has_the_hashes_of_a_text_in_one_go(monkeypatch: pytest.MonkeyPatch):
    text = " ".join(f"word{i} ." for i in range(500))
    whole = made.shingles_of([text])
    monkeypatch.setattr(made, "_BLOCK_BYTES", 64)
    cut = made.shingles_of([text, ""])
    assert np.array_equal(cut.hashes[:-1], whole.hashes)


def test_hashes_are_the_same_on_every_machine():
    """Signatures may be made on several."""
    found = made.shingles_of(["a b c d e f", "漢字", ""])
    assert [f"{h:016x}" for h in found.hashes.tolist()] == HASHES
