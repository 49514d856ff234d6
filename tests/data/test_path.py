"""From texts to the step that shows one: dedup, tokenize, order, index, find and view, one after the other."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path

import pytest
import zstandard

from data import neox

TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
CONTEXT, BATCH, STEPS, SEED = 40, 3, 30, 77
WORDS = [
    "def",
    "main",
    "import",
    "return",
    "class",
    "self",
    "for",
    "in",
    "of",
    "the",
    "a",
    "to",
    "is",
    "and",
    "with",
    "as",
    "not",
    "if",
    "else",
    "None",
    "True",
]


def texts(seed: int) -> list[tuple[str, str]]:
    """(text, source): some texts come twice, and some again with a word changed."""
    rng = random.Random(seed)
    made = [(" ".join(rng.choices(WORDS, k=rng.randrange(80, 200))), rng.choice(["Books", "Code"])) for _ in range(20)]
    for text, source in rng.sample(made, 6):
        words = text.split()
        if rng.random() < 0.5:
            words[rng.randrange(len(words))] = "changed"
        made.insert(rng.randrange(len(made)), (" ".join(words), source))
    return made


def is_near(a: str, b: str) -> bool:
    """By the definition: shingles of five words, Jaccard similarity."""
    one, other = ({tuple(t.split()[i : i + 5]) for i in range(len(t.split()) - 4)} for t in (a, b))
    return len(one & other) / len(one | other) >= 0.87


def first_of_each(made: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Documents that are no near-duplicates of one before; no chain is longer than two here."""
    kept: list[tuple[str, str]] = []
    for text, source in made:
        if not any(is_near(text, other) for other, _ in kept):
            kept.append((text, source))
    return kept


@pytest.mark.parametrize("seed", [1, 2])
def test_a_text_leads_to_the_steps_that_show_it(pythia, seed: int, tmp_path: Path):
    def run(*words: object) -> dict[str, object]:
        code, out, err = pythia("data", *words, "--output-format", "json")
        assert code == 0, err
        told: dict[str, object] = json.loads(out)
        return told

    made = texts(seed)
    lines = [json.dumps({"text": text, "meta": {"pile_set_name": source}}) + "\n" for text, source in made]
    (tmp_path / "a.jsonl").write_text("".join(lines[:15]))
    (tmp_path / "b.jsonl.zst").write_bytes(zstandard.compress("".join(lines[15:]).encode()))

    # 1. Near-duplicates go, and the first of each stays.
    run("dedup", tmp_path / "a.jsonl", tmp_path / "b.jsonl.zst", "-o", tmp_path / "clean")
    kept = first_of_each(made)
    assert 20 <= len(kept) < len(made)
    clean = [tmp_path / "clean" / name for name in ("a.jsonl", "b.jsonl.zst")]
    assert clean[0].read_text() + zstandard.ZstdDecompressor().decompressobj().decompress(
        clean[1].read_bytes()
    ).decode() == "".join(json.dumps({"text": text, "meta": {"pile_set_name": source}}) + "\n" for text, source in kept)

    # 2. Ids, and the order of training as GPT-NeoX's loops give it.
    prefix = tmp_path / "corpus"
    told = run("tokenize", *clean, "--tokenizer", TOKENIZER, "-o", prefix, "--processes", 1)
    assert told["n_documents"] == len(kept)
    run("order", prefix, "--steps", STEPS, "--batch", BATCH, "--context", CONTEXT, "--seed", SEED)
    run("index", prefix)
    stats = run("stats", prefix)
    assert stats["n_tokens"] == told["n_tokens"]

    from tokenizers import Tokenizer

    library = Tokenizer.from_file(str(TOKENIZER))
    ids = [[*library.encode(text).ids, library.token_to_id("<|endoftext|>")] for text, _ in kept]
    n_samples = -(-STEPS * BATCH * 1005 // 1000)
    rows = neox.rows(ids, CONTEXT, n_samples, SEED)

    # 3. A text is found where it stands in rows that were made by those loops, and `view` shows it there.
    rng = random.Random(seed)
    for _ in range(5):
        document = rng.randrange(len(kept))
        start = rng.randrange(1, len(ids[document]) - 12)
        wanted = ids[document][start : start + 10]
        found = run("find", prefix, " ".join(map(str, wanted)), "--ids", "--batch", BATCH, "--max-hits", 1000)
        sights = [(s["row"], s["start"]) for s in found["sights"] if s["is_whole"]]  # type: ignore[attr-defined]
        expected = [
            (r, at) for r, row in enumerate(rows) for at in range(len(row) - 9) if list(row[at : at + 10]) == wanted
        ]
        assert Counter(sights) == Counter(expected) and expected
        row, at = rng.choice(sights)
        step = row // BATCH + 1
        shown = run("view", prefix, "--step", step, "--row", row % BATCH, "--batch", BATCH)["rows"][0]  # type: ignore[index]
        assert shown["row"] == row and shown["ids"][at : at + 10] == wanted
        sights_of_row = [s for s in found["sights"] if s["row"] == row]  # type: ignore[attr-defined]
        assert {s["step"] for s in sights_of_row} == {step}
        assert {s["source"] for s in sights_of_row} <= {source for _, source in kept}
