"""`pythia data find`: texts in either spelling, with source and step; rows that were pulled; what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from data import neox
from pythia_gguf.data import finding
from pythia_gguf.data.finding import Finder, checkpoints_around
from pythia_gguf.data.index import make_index
from pythia_gguf.data.order import make_order
from pythia_gguf.data.rows import open_rows
from pythia_gguf.data.text import find_tokenizer, spellings
from pythia_gguf.data.token_file import write_idx
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.json_file import json_text

TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
DOCUMENTS = [
    ("Pile-CC", "the model is small; the model is quick"),
    ("Github", "def the_model():\n    return 'the model'"),
    (None, "\nthe model\nthe model"),
]


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from pythia_gguf.data.tokenizing import tokenize

    folder = tmp_path_factory.mktemp("find")
    made = [{"text": t} | ({} if s is None else {"meta": {"pile_set_name": s}}) for s, t in DOCUMENTS]
    (folder / "a.jsonl").write_text("".join(json_text(each).replace("\n", " ") + "\n" for each in made))
    tokenize([folder / "a.jsonl"], folder / "x", tokenizer=TOKENIZER, processes=1)
    make_index(folder / "x")
    return folder / "x"


def test_a_text_is_found_at_the_beginning_and_inside_of_lines(pythia, prefix: Path):
    """Five times as text; nano's tokenizer has a token for " the", as that of the suite has."""
    library = find_tokenizer(prefix)
    found = spellings(library, "the model")
    assert [text for text, _ in found] == ["the model", " the model"]
    assert found[1][1] == library.encode(" the model").ids and found[0][1] != found[1][1]
    code, out, err = pythia("data", "find", prefix, "the model", "--output-format", "json")
    assert code == 0, err
    told = json.loads(out)
    assert told["n_hits"] == sum(text.count("the model") for _, text in DOCUMENTS) == 5
    assert [s["n_hits"] for s in told["spellings"]] == [4, 1]
    assert [hit["source"] for hit in told["hits"]] == ["Pile-CC", "Pile-CC", "Github", "", ""]
    assert [hit["document"] for hit in told["hits"]] == [0, 0, 1, 2, 2]
    assert (told["n_epochs"], told["n_whole"], told["sights"], told["batch"]) == (0, None, [], None)
    exact = pythia("data", "find", prefix, " the model", "--output-format", "json")[1]
    assert [s["n_hits"] for s in json.loads(exact)["spellings"]] == [1]


def test_a_space_that_is_a_token_by_itself_is_no_second_place():
    class Characters:
        """A tokenizer with a token for each character."""

        def encode(self, text: str, *, add_special_tokens: bool) -> Characters:
            self.ids = list(map(ord, text))
            return self

    assert spellings(Characters(), "ab") == [("ab", [97, 98])]  # type: ignore[arg-type]


def test_steps_are_told_with_sources_and_checkpoints(pythia, prefix: Path, tmp_path: Path):
    """Each row that is told shows the text where it is said to; one that is cut shows what it has of it."""
    for path in prefix.parent.glob("x.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    copy = tmp_path / "x"
    make_order(copy, steps=12, batch=3, context=7, seed=1)
    code, out, err = pythia("data", "find", copy, "the model", "--batch", "3", "--output-format", "json")
    assert code == 0, err
    told = json.loads(out)
    ids = {spelling["text"]: spelling["ids"] for spelling in told["spellings"]}
    rows = open_rows(copy)
    shown = rows.read_rows(0, rows.n_rows).tolist()
    rows.close()
    assert len(told["sights"]) == told["n_whole"] + told["n_cut"] and told["n_cut"] > 0
    for sight in told["sights"]:
        part = shown[sight["row"]][sight["start"] : sight["start"] + sight["n_tokens"]]
        assert any(part == each[at : at + len(part)] for each in ids.values() for at in range(len(each)))
        assert sight["is_whole"] == (part in ids.values())
        assert sight["step"] == sight["row"] // 3 + 1
        assert (sight["before"], sight["after"]) == checkpoints_around(sight["step"], 3)
    assert [s["row"] for s in told["sights"]] == sorted(s["row"] for s in told["sights"])
    code, out, _ = pythia("data", "find", copy, "the model", "--batch", "3", "--max-hits", "2")
    lines = out.splitlines()
    assert lines[:2] == ["4 places of 'the model', 3 tokens", "1 place of ' the model', 3 tokens"] and len(lines) == 6
    assert lines[3].split() == ["step", "row", "at", "tokens", "document", "source", "checkpoints"]


def test_rows_that_were_pulled_are_found_where_training_saw_them(pythia, tmp_path: Path):
    """Rows 6 to 11, so steps 3 to 6 of 2 rows; a match across two of them is none, whatever follows in the file."""
    rows = np.array(
        [[1, 2, 3, 4, 5], [6, 7, 1, 2, 3], [3, 1, 2, 9, 9], [1, 2, 3, 4, 1], [2, 3, 0, 0, 0], [1] * 5], "<u2"
    )
    prefix = tmp_path / "x"
    prefix.with_suffix(".bin").write_bytes(rows.tobytes())
    write_idx(prefix.with_suffix(".idx"), np.full(6, 5, np.int32), in_order=True)
    told = {"repo_id": "r", "commit": "c", "first_step": 4, "batch": 2, "row_tokens": 5, "sha256_of_steps": ["0"] * 3}
    prefix.with_name("x.rows.json").write_text(json_text(told))
    make_index(prefix)
    with Finder(prefix, batch=2) as finder:
        assert finder.count([1, 2, 3]) == 3
        sights = finder.sights([1, 2, 3])
        assert [(s.row, s.step, s.start, s.is_whole, s.hit.document) for s in sights] == [
            (6, 4, 0, True, None),
            (7, 4, 2, True, None),
            (9, 5, 0, True, None),
        ]
        assert finder.count([1, 2, 3, 3]) == 0
    code, out, err = pythia("data", "find", prefix, "4 1", "--ids", "--batch", "2")
    assert code == 0, err
    assert out.splitlines()[-1].split() == ["5", "9", "3", "2", "-", "-", "step4", "..", "step8"]
    code, _, err = pythia("data", "find", prefix, "4", "--ids", "--seed", "3")
    assert (code, err) == (2, "Error: --seed changes nothing: rows that were pulled have one order\n")
    prefix.with_name("x.rows.json").write_text(json_text(told | {"row_tokens": 3, "sha256_of_steps": ["0"] * 5}))
    with pytest.raises(ModelFileError, match="not all rows beside it have 3 tokens"):
        Finder(prefix)


def test_checkpoints_around_a_step_are_those_of_the_suite():
    """By the published list: 0, powers of two to 512, thousands to 143,000; of version 0 with 2,048 rows by its own."""
    published = [0, *(2**i for i in range(10)), *range(1000, 143001, 1000)]
    for step in (1, 2, 3, 4, 512, 513, 1000, 1001, 142999, 143000, 143001):
        before = max(n for n in published if n < step)
        after = min((n for n in published if n >= step), default=None)
        assert checkpoints_around(step) == (f"step{before}", None if after is None else f"step{after}")
    assert checkpoints_around(500, 2048) == (None, "step1000")
    assert checkpoints_around(501, 2048) == ("step1000", "step2000")


def test_of_what_is_there_too_often_some_places_are_told(prefix: Path, monkeypatch: pytest.MonkeyPatch):
    with Finder(prefix) as finder:
        monkeypatch.setattr(finding, "MOST_LOOKED_AT", 2)
        there = finder.occurrences([find_tokenizer(prefix).token_to_id("<|endoftext|>")])
        assert (there.n_hits, len(there.hits)) == (3, 2)


def test_what_cannot_be_looked_for(pythia, prefix: Path, tmp_path: Path):
    for line, says in (
        (("", "--ids"), "TEXT must be ids as in '510 3158', got ''"),
        (("1 x", "--ids"), "TEXT must be ids as in '510 3158', got '1 x'"),
        (("70000", "--ids"), "ids must be one or more numbers from 0 to 65535"),
        (("",), "TEXT holds no token"),
        (("x", "--max-hits", "-1"), "--max-hits must be at least 0, got -1"),
        (("x", "--batch", "3"), "--batch changes nothing where PREFIX has no order"),
        (("x", "--seed", "3"), f"{prefix} has no order of seed 3. Make one: pythia data order"),
    ):
        code, out, err = pythia("data", "find", prefix, *line)
        assert (code, out, err) == (2, "", f"Error: {says}\n")
    for path in prefix.parent.glob("x.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    order = make_order(tmp_path / "x", steps=2, batch=2, context=4)
    for part, says in (("doc_idx", "the order is of other documents"), ("shuffle_idx", "a row is there twice")):
        good = order.files[part].read_bytes()
        order.files[part].write_bytes(good[:128] + good[128:132] * ((len(good) - 128) // 4))
        with pytest.raises(ModelFileError, match=says):
            Finder(tmp_path / "x")
        order.files[part].write_bytes(good)
    make_order(tmp_path / "x", steps=2, batch=2, context=4, seed=5)
    with pytest.raises(UsageError, match="has several orders: .* Choose by seed, or remove others"):
        Finder(tmp_path / "x")
    Finder(tmp_path / "x", seed=5).close()


def test_documents_that_are_wide_apart_in_the_file(tmp_path: Path):
    """Empty ones between, so that a position belongs to the one that has it."""
    prefix = neox.write_corpus(tmp_path / "x", [[], [1], [], [], [2, 1], []])
    make_index(prefix)
    with Finder(prefix) as finder:
        assert [(h.position, h.document, h.offset) for h in finder.hits([1])] == [(0, 1, 0), (2, 4, 1)]
