"""Cards that somebody has edited: what a hand has written stays, and the list of files is of what lies there."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from press.truth import check_true, contents, rows_of, told
from pythia_gguf import quantize
from pythia_gguf.errors import UsageError

QUANTS = "Q4_0,Q4_K_M,Q4_K,Q8_0"


EDITS: dict[str, Callable[[str], str]] = {
    "a line more": lambda card: card + "\nMine.\n",
    "a line in the middle": lambda card: card.replace("## How to run", "Mine.\n\n## How to run"),
    "a column more": lambda card: card.replace("bits_per_weight |", "bits_per_weight | Mine. |").replace(
        "sha256 |\n|---|---|---|---|---|", "sha256 | Mine. |\n|---|---|---|---|---|---|"
    ),
    "a row of another file": lambda card: card.replace(
        "<!-- README_GGUF.md-provided-files end", "Mine.\n\n<!-- README_GGUF.md-provided-files end"
    ),
    "a row less": lambda card: "".join(x for x in card.splitlines(True) if not x.startswith("| m.Q4_0")) + "Mine.\n",
    "no marks": lambda card: card.replace("<!-- README_GGUF.md-provided-files", "<!-- Mine."),
    "no end mark": lambda card: card.replace("<!-- README_GGUF.md-provided-files end -->", "Mine."),
    "padded columns": lambda card: (
        card.replace("| Name | Quant method |", "| Name     | Quant method |").replace("| Q8_0 |", "| Q8_0         |")
        + "Mine.\n"
    ),
    "links": lambda card: card.replace("| m.Q8_0.gguf |", "| [m.Q8_0.gguf](https://x/m.Q8_0.gguf) |") + "Mine.\n",
    "CRLF": lambda card: (card + "\nMine.\n").replace("\n", "\r\n"),
    "a mark of its encoding": lambda card: "\ufeff" + card + "\nMine.\n",
}


@pytest.mark.parametrize("edit", list(EDITS))
def test_an_edited_card_keeps_what_was_written_and_lists_what_is_there(made: Path, out: Path, edit: str):
    card = out / "README.md"
    text = EDITS[edit](card.read_text("utf-8"))
    card.write_bytes(text.encode())
    (out / "m.Q4_K_M.gguf").unlink()
    (out / "m.F16.gguf").unlink()
    result = quantize(made / "m", out, quants="Q8_0,Q5_0", threads=1)
    after = card.read_bytes().decode()
    assert "Mine." in after and any("edited" in note for note in result.notes)
    assert (after.count("\r\n") == after.count("\n")) == (edit == "CRLF")
    rows = rows_of(after.replace("[m.Q8_0.gguf](https://x/m.Q8_0.gguf)", "m.Q8_0.gguf"))
    assert rows is not None and list(rows) == [f"m.{q}.gguf" for q in ("Q4_0", "Q4_K", "Q5_0", "Q8_0")]
    if edit != "links":
        check_true(out)
    assert "Q4_K_M" not in after.replace("`Q4_K_M`", "")
    again = quantize(made / "m", out, quants="Q8_0", threads=1)
    assert (card.read_bytes().decode(), told(again)) == (after, [])


def test_line_ends_alone_are_no_edit(made: Path, out: Path):
    """Git and editors of Windows change them; the card is then written anew, with the same ones."""
    card = out / "README.md"
    card.write_bytes(card.read_bytes().replace(b"\n", b"\r\n"))
    before = contents(out)
    quantize(made / "m", out, quants="Q8_0", threads=1)
    assert contents(out) == before
    result = quantize(made / "m", out, quants="Q5_0", threads=1)
    assert not any("edited" in note for note in result.notes)
    check_true(out)
    text = card.read_bytes()
    assert text.count(b"\n") == text.count(b"\r\n")
    quantize(made / "m", out.parent / "new", quants=f"{QUANTS},Q5_0", keep_f16=True, threads=1)
    assert text.replace(b"\r\n", b"\n") == (out.parent / "new" / "README.md").read_bytes()


@pytest.mark.parametrize("text", ["# All mine\n\n| Name | Use |\n|---|---|\n| m.Q4_0.gguf | none |\n", "", "\r\n"])
def test_a_card_without_our_table_is_left_alone(made: Path, out: Path, text: str):
    (out / "README.md").write_bytes(text.encode())
    quantize(made / "m", out, quants="Q5_0", threads=1)
    assert (out / "README.md").read_bytes() == text.encode()
    assert "m.Q5_0.gguf" in check_true(out, said="m.Q4_0.gguf")


def test_a_card_that_is_no_text_is_refused_unless_forced(made: Path, out: Path):
    (out / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"README\.md: byte 0: not UTF-8 text.*force=True"):
        quantize(made / "m", out, quants="Q5_0", threads=1)
    quantize(made / "m", out, quants="Q5_0", force=True, threads=1)
    assert len(check_true(out)) == 6


def test_who_quantized_stays_and_can_be_said_later(made: Path, out: Path):
    for who, wanted in ((None, None), ("Ada", "Ada"), (None, "Ada"), ("Bob", "Bob")):
        quantize(made / "m", out, quants="Q4_0", quantized_by=who, threads=1)
        text = (out / "README.md").read_text("utf-8")
        assert (f"made by {wanted}." in text, "quantized_by:" in text) == (wanted is not None, wanted is not None)
    quantize(made / "m", out, quants="Q5_0", threads=1)
    assert "made by Bob." in (out / "README.md").read_text("utf-8")
    check_true(out)


# `pythia card`


@pytest.fixture
def measured(out: Path) -> Path:
    """The folder with a report on all of its files."""
    from cli.test_mutants import report

    (out / "report.json").write_text(json.dumps(report(out)), "utf-8")
    return out


def test_card_lists_what_is_there(made: Path, measured: Path, pythia):
    for gone in ("Q4_K_M", "F16", "Q8_0"):
        code, _, err = pythia("card", measured)
        assert (code, err) == (0, "")
        check_true(measured)
        (measured / f"m.{gone}.gguf").unlink()
        code, _, err = pythia("card", measured)
        assert (code, err) == (0, "")
        assert f"m.{gone}.gguf" not in check_true(measured)
    quantize(made / "m", measured, quants="Q4_K_M", threads=1)  # the card is one that nobody has edited
    assert "What each file costs" in (measured / "README.md").read_text("utf-8")
    check_true(measured)


def test_a_row_that_a_hand_has_removed_comes_back_also_where_an_older_manifest_lacks_its_bits(measured: Path, pythia):
    card, manifest = measured / "README.md", measured / "manifest.json"
    assert pythia("card", measured)[0] == 0
    text = card.read_text("utf-8")
    card.write_text("".join(row for row in text.splitlines(True) if not row.startswith("| m.Q4_0")), "utf-8")
    older = json.loads(manifest.read_text("utf-8"))
    for entry in older["files"]:
        del entry["bits_per_weight"]
    manifest.write_text(json.dumps(older), "utf-8")
    assert pythia("card", measured)[0] == 0
    assert card.read_text("utf-8") == text
    check_true(measured)


def test_quantize_takes_out_what_was_measured_of_files_that_are_gone(made: Path, measured: Path, pythia):
    for edit in (lambda text: text, lambda text: text + "\nMine.\n"):
        assert pythia("card", measured)[0] == 0
        card = measured / "README.md"
        card.write_text(edit(card.read_text("utf-8")), "utf-8")
        (measured / "m.Q8_0.gguf").unlink()
        quantize(made / "m", measured, quants="Q4_0", threads=1)
        text = card.read_text("utf-8")
        assert "What each file costs" not in text and "No quality was measured" in text
        assert ("Mine." in text) == ("Mine." in edit(""))
        check_true(measured)
        quantize(made / "m", measured, quants="Q8_0", threads=1)


def test_card_of_a_damaged_folder_is_one_line(measured: Path, pythia):
    q8 = (measured / "m.Q8_0.gguf").read_bytes()

    def put(data: bytes) -> None:
        (measured / "m.Q8_0.gguf").write_bytes(data)

    for harm, wanted, says in (
        (lambda: put(b"GGUF"), 65, "m.Q8_0.gguf: is not what manifest.json says"),
        (lambda: put(q8[:-1] + b"x"), 65, "m.Q8_0.gguf: is not what manifest.json says. Make it again"),
        (lambda: (measured / "README.md").unlink(), 74, "`pythia quantize` of the same model writes it again"),
        (lambda: [p.unlink() for p in measured.glob("*.gguf")], 74, "no file that manifest.json lists is here"),
        (lambda: (measured / "manifest.json").unlink(), 2, "no manifest.json"),
    ):
        before = contents(measured)
        harm()
        after = contents(measured)
        code, _, err = pythia("card", measured)
        assert (code, err.count("\n"), contents(measured)) == (wanted, 1, after), err
        assert says in err
        for name, data in before.items():
            (measured / name).write_bytes(data)


def test_results_of_a_file_that_is_gone_are_left_out(measured: Path, pythia):
    from cli.test_mutants import HARNESS

    (measured / "results-Q8_0.json").write_text(json.dumps(HARNESS), "utf-8")
    (measured / "m.Q8_0.gguf").unlink()
    code, _, err = pythia("card", measured)
    assert (code, "results-Q8_0.json: of m.Q8_0.gguf, which is not in this folder, so left out" in err) == (0, True)
    check_true(measured)
    code, _, err = pythia("card", measured, "--results", measured / "results-Q8_0.json")
    assert (code, "which is not in this folder" in err) == (2, True)
