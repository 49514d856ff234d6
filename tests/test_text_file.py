"""Texts of users: decoded by their mark or as UTF-8; what is no text is refused by every command that reads one."""

from __future__ import annotations

import codecs
import io
from pathlib import Path
from types import SimpleNamespace

import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf.errors import ModelFileError
from pythia_gguf.text_file import decode_text

TEXT = "Gr\u00fc\u00dfe\r\n\u4e16\u754c \U0001f600 a\n"
MARKS = {
    "utf-8": codecs.BOM_UTF8,
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}
NO_TEXTS = {
    "latin-1": ("Gr\u00fc\u00dfe".encode("latin-1"), 2, "is not UTF-8"),
    "UTF-16 without a mark": ("abc".encode("utf-16-le"), 1, "is zero"),
    "UTF-16 cut in the middle": (codecs.BOM_UTF16_LE + "abc".encode("utf-16-le")[:-1], 6, "is not UTF-16-LE"),
    "half of a surrogate pair": (codecs.BOM_UTF16_BE + b"\0a\xd8\0\0b", 4, "is not UTF-16-BE"),
    "a model": (b"GGUF\x03\0\0\0", 5, "is zero"),
    "zero after letters": ("\u00fc\0".encode(), 2, "is zero"),
    "a picture": (b"\x89PNG\r\n\x1a\n", 0, "is not UTF-8"),
}


@pytest.mark.parametrize("encoding", MARKS)
def test_a_mark_says_the_encoding_and_is_no_part_of_the_text(encoding: str):
    assert decode_text(MARKS[encoding] + TEXT.encode(encoding), "x") == TEXT


def test_without_a_mark_it_is_utf8_and_nothing_is_changed():
    assert decode_text(TEXT.encode(), "x") == TEXT
    assert decode_text(b"", "x") == ""


@pytest.mark.parametrize("what", NO_TEXTS)
def test_what_is_no_text_is_refused_at_its_byte(what: str):
    data, offset, said = NO_TEXTS[what]
    with pytest.raises(ModelFileError, match=rf"^x\.txt: byte {offset}: this byte {said}.*`iconv -f ") as e:
        decode_text(data, "x.txt")
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("what", NO_TEXTS)
def test_every_command_that_reads_a_text_refuses_it(what: str, pythia, tmp_path: Path, monkeypatch):
    """measure, imatrix, and generate from stdin: one line, before a model is loaded."""
    path, model = tmp_path / "t.txt", nano_files()["F16"]
    path.write_bytes(NO_TEXTS[what][0])
    stdin = SimpleNamespace(buffer=io.BytesIO(NO_TEXTS[what][0]), isatty=lambda: False, encoding="utf-8")
    monkeypatch.setattr("sys.stdin", stdin)
    for arguments in (
        ("measure", model, "--text", path),
        ("imatrix", model, "--text", HELDOUT, "--text", path, "-o", tmp_path / "x.gguf"),
        ("generate", model, "-"),
    ):
        code, out, err = pythia(*arguments)
        assert (code, out) == (65, ""), err
        assert f"byte {NO_TEXTS[what][1]}: this byte {NO_TEXTS[what][2]}" in err
        assert err.count("\n") == 1


def test_utf16_gives_the_numbers_of_utf8(pythia, tmp_path: Path):
    import json

    text = HELDOUT.read_text("utf-8")[:3000]
    reports = []
    for name, data in (("utf8", text.encode()), ("utf16", codecs.BOM_UTF16_LE + text.encode("utf-16-le"))):
        (tmp_path / name).write_bytes(data)
        options = ("--text", tmp_path / name, "--context", "64", "--chunks", "2", "--output-format", "json")
        code, out, err = pythia("measure", nano_files()["Q8_0"], *options)
        assert code == 0, err
        reports.append(json.loads(out))
    assert [r["reference"]["ppl"] for r in reports] == [reports[0]["reference"]["ppl"]] * 2
    assert reports[0]["text"]["tokens"] == reports[1]["text"]["tokens"]
