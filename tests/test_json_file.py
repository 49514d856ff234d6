"""JSON files: what is not as it should be is one line; what is written can be read by anybody."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import MAX_DEPTH, check_shape, json_text, read_json_object

PACKAGE = Path(__file__).parents[1] / "src" / "pythia_gguf"

REFUSED = [
    ("", "not valid JSON"),
    ("[1]", "expected a JSON object, got list"),
    ('{"a": 1, "a": 2}', "key 'a' is there twice"),
    ('{"a": NaN}', "NaN is no number"),
    ('{"a": -Infinity}', "-Infinity is no number"),
    ('{"a": 1e999}', "1e999 is no number"),
    ('{"a": "\\ud800"}', "half of a surrogate pair"),
    ('{"a": ' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), "nested deeper"),
    ('{"a": ' * 100_000, "not usable JSON"),
    ('{"a": ' + "9" * 5000 + "}", "not usable JSON"),
]


@pytest.mark.parametrize(("text", "message"), REFUSED, ids=[m for _, m in REFUSED])
def test_refusals_are_one_line(tmp_path: Path, text: str, message: str):
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(ModelFileError, match=message) as e:
        read_json_object(path)
    assert str(e.value).startswith(f"{path}: ")
    assert "\n" not in str(e.value)


def test_large_files_and_other_encodings_are_refused(tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text("{}" + " " * 100)
    with pytest.raises(ModelFileError, match="expected at most 50 bytes, got 102"):
        read_json_object(path, most_bytes=50)
    path.write_bytes("{}".encode("utf-16"))
    with pytest.raises(ModelFileError, match="not UTF-8"):
        read_json_object(path)


SHAPE = {"n": int, "x": (float, None), "files": [{"file": str}], "of?": {"*": bool}}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"n": 1, "x": None, "files": []}, None),
        ({"n": 1, "x": 2, "files": [{"file": "a", "more": [1]}], "of": {"b": True}, "else": {}}, None),
        ({"n": True, "x": 1, "files": []}, "n: expected a whole number, got True"),
        ({"n": 1.5, "x": 1, "files": []}, "n: expected a whole number, got 1.5"),
        ({"n": 1, "x": "1", "files": []}, "x: expected a number, got '1'"),
        ({"n": 1, "x": 1}, "it lacks files"),
        ({"n": 1, "x": 1, "files": {"file": "a"}}, "files: expected a list"),
        ({"n": 1, "x": 1, "files": [{"file": "a"}, {"file": 1}]}, r"files\[1\].file: expected a text, got 1"),
        ({"n": 1, "x": 1, "files": [{}]}, r"files\[0\] lacks file"),
        ({"n": 1, "x": 1, "files": [], "of": {"b": 1}}, "of.b: expected true or false, got 1"),
    ],
)
def test_shapes(value: dict, message: str | None):
    if message is None:
        check_shape(value, SHAPE)
    else:
        with pytest.raises(ValueError, match=message):
            check_shape(value, SHAPE)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_no_json_of_ours_holds_a_number_that_is_none(number: float):
    with pytest.raises(ValueError, match="not JSON compliant"):
        json_text({"a": [1.0, number]})
    assert json.loads(json_text({"a": None, "b": "\u00e9"})) == {"a": None, "b": "\u00e9"}


def test_there_is_one_reader_and_one_writer():
    """`json` itself is used in one file; two commands have still to follow, and lines of a corpus are anybody's."""
    users = {p.name for p in PACKAGE.rglob("*.py") if "json.loads(" in p.read_text() or "json.dumps(" in p.read_text()}
    assert users <= {"json_file.py", "card.py", "plot.py", "documents.py"}
