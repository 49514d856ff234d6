"""Corpora with near-duplicates, and which documents are duplicates by the definition, pair by pair."""

from __future__ import annotations

import json
import random
import re
from itertools import combinations
from pathlib import Path

import zstandard

WORD = re.compile(r"[0-9A-Za-z_\u0080-\u07ff]+|[!-/:-@\[-^`{-~\u0800-\U0010ffff]")


def shingles(text: str) -> list[tuple[str, ...]]:
    """Five words in a row, or all of them where there are fewer."""
    words = WORD.findall(text)
    return [tuple(words[i : i + 5]) for i in range(max(1, len(words) - 4))]


def similarity(one: str, other: str) -> float:
    """Jaccard's: what both have, of what either has."""
    a, b = set(shingles(one)), set(shingles(other))
    return len(a & b) / len(a | b)


def changed(words: list[str], n: int, rng: random.Random) -> list[str]:
    """The same with other words at n places."""
    places = rng.sample(range(len(words)), n)
    return [f"other{rng.randrange(99)}" if i in places else word for i, word in enumerate(words)]


def corpus(n: int, seed: int = 1) -> list[str]:
    """Texts of up to 300 words, a third of them with one or two that are like them, in any order.

    Some are equal, some far above 0.87, some far below; some are short, empty, or of other scripts.
    """
    rng = random.Random(seed)
    vocabulary = [f"{word}{i}" for i in range(500) for word in ("word", "été", "имя")] + list("漢字東京大学 .,;(){}")
    found = ["", "漢字", "one two", "one  two\n", "one three"]
    for i in range(n):
        words = rng.choices(vocabulary, k=rng.choice([3, 40, 150, 300]))
        found.append(" ".join(words))
        for _ in range(rng.choice([0, 1, 2]) if i % 3 == 0 else 0):
            n_changed = rng.choice([0, 1, len(words) // 120, len(words) // 10])
            found.append(" ".join(changed(words, n_changed, rng)))
    rng.shuffle(found)
    return found


def lines_of(texts: list[str], source: str) -> list[bytes]:
    """Lines of JSON, each with keys that nobody reads."""
    made = [{"id": i, "text": text, "meta": {"pile_set_name": source, "n": 1.50}} for i, text in enumerate(texts)]
    return [json.dumps(entry, ensure_ascii=bool(i % 2)).encode() for i, entry in enumerate(made)]


def write(folder: Path, texts: list[str]) -> list[Path]:
    """Three files that hold the texts in their order: lines, compressed lines, and the last text by itself."""
    middle = len(texts) // 2
    folder.mkdir(exist_ok=True)
    (folder / "a.jsonl").write_bytes(b"\n".join(lines_of(texts[:middle], "Pile-CC")))
    packed = zstandard.ZstdCompressor().compress(b"".join(line + b"\n" for line in lines_of(texts[middle:-1], "ArXiv")))
    (folder / "b.jsonl.zst").write_bytes(packed)
    (folder / "c.txt").write_bytes(texts[-1].encode())
    return [folder / name for name in ("a.jsonl", "b.jsonl.zst", "c.txt")]


def similar_pairs(texts: list[str], threshold: float) -> set[tuple[int, int]]:
    """All pairs that are at least so similar."""
    sets = [set(shingles(text)) for text in texts]
    return {
        (i, j)
        for i, j in combinations(range(len(texts)), 2)
        if len(sets[i] & sets[j]) >= threshold * len(sets[i] | sets[j])
    }


def first_of_cluster(n: int, pairs: set[tuple[int, int]]) -> list[int]:
    """For each of n documents the first that it hangs together with."""
    firsts = list(range(n))
    for i, j in sorted(pairs):
        one, other = sorted((firsts[i], firsts[j]))
        firsts = [one if first == other else first for first in firsts]
    return firsts
