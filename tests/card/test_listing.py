"""The list of files in a card, renewed: as if the card had been written for these files, and only that."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection
from typing import Any

import pytest

from card.facts import ALIASES, BODY, FILES, NAME, card, tables
from pythia_gguf.card.listing import ORIGINAL, CardFile, relisted
from pythia_gguf.card.measured import measured_section, with_measured, without_files

QUANTS = [f.quant for f in FILES]


def some(quants: Collection[str]) -> tuple[CardFile, ...]:
    """Files as a run lists them: an alias without its original is a file of its own."""
    return tuple(
        dataclasses.replace(f, alias_of=ALIASES.get(f.quant) if ALIASES.get(f.quant) in quants else None)
        for f in FILES
        if f.quant in quants
    )


@pytest.mark.parametrize("seed", range(40))
def test_a_renewed_list_is_that_of_a_new_card(seed: int) -> None:
    rng = random.Random(seed)
    before, after = ({*rng.sample(QUANTS, rng.randint(1, 12)), "Q4_K_M"} for _ in range(2))
    if seed % 2:  # the example goes with its file
        after = set(QUANTS[2:5])
        before.discard(QUANTS[2])
    old, new = card(some(before)), card(some(after))
    assert relisted(old, NAME, some(after)) == new
    assert relisted(old.replace("\n", "\r\n"), NAME, some(after)) == new.replace("\n", "\r\n")
    assert relisted(new, NAME, some(after)) == new


def test_the_original_card_below_is_not_looked_at() -> None:
    theirs = card(some(["Q8_0"])).replace("---\n", "")
    old = card(some(["Q4_0"]), readme=BODY + theirs)
    new = relisted(old, NAME, some(["Q4_0", "Q5_0"]))
    assert new is not None and new.partition(ORIGINAL)[2] == old.partition(ORIGINAL)[2] != ""
    assert [row[1] for row in tables(new)[0][1:]] == ["Q4_0", "Q5_0"]
    ours = old.partition(ORIGINAL)[0].replace("| Name | Quant method |", "| Mine | too |")
    assert relisted(ours + ORIGINAL + old.partition(ORIGINAL)[2], NAME, some(["Q5_0"])) is None


def test_rows_stay_where_a_hand_has_put_them() -> None:
    """In another order, with a column more, and beside a row of somebody else."""
    lines = card(some(["Q4_0", "Q5_0", "Q8_0"])).split("\n")
    at = lines.index(next(line for line in lines if "| Q4_0 |" in line))
    lines[at : at + 3] = [
        f"{lines[at + 2]} best |",
        lines[at],
        "| mmproj.gguf | F16 | 1 | 2 | 3 | mine |",
        lines[at + 1],
    ]
    text = relisted("\n".join(lines), NAME, some(["Q4_0", "Q6_K", "Q8_0"]))
    assert text is not None
    rows = tables(text)[0][1:]
    assert [row[1] for row in rows] == ["Q8_0", "Q4_0", "Q6_K", "F16"]
    assert f"{lines[at]}\n" in text


@pytest.mark.parametrize("name", ["x_", "a b", "x.y", "x+y"])
def test_names_of_other_letters(name: str) -> None:
    files = [dataclasses.replace(f, name=f"{name}.{f.quant}.gguf") for f in some(["Q4_0", "Q8_0"])]
    facts = {"name": name}
    old, new = card(files, **facts), card(files[1:], **facts)
    assert relisted(old, name, files[1:]) == new


def test_a_file_of_other_bytes_gets_another_row() -> None:
    files = some(["Q4_0", "Q8_0"])
    changed = [dataclasses.replace(files[0], sha256="0" * 64, n_bytes=5), files[1]]
    assert relisted(card(files), NAME, changed) == card(changed)


def report() -> dict[str, Any]:
    row = {"file": f"{NAME}.Q4_0.gguf", "quant": "Q4_0", "activations": "int8", "bytes": 1, "bits_per_weight": 4.5}
    row |= dict.fromkeys(("ppl", "ppl_error", "ln_ratio", "ln_ratio_error", "kl_mean", "kl_p999", "same_top1"), 0.001)
    base = {"file": "x.F16.gguf", "ppl": 2.0, "ppl_error": 0.1}
    text = {"file": "t", "windows": 4, "context": 512, "scored_tokens": 1020}
    return {"files": [row], "reference": base, "text": text, "gelu": "erf", "tool_version": "0"}


MARKS = ("<!-- pythia-gguf measured start -->", "<!-- pythia-gguf measured end -->")
CARDS = {"ours": card(), "with CRLF": card().replace("\n", "\r\n"), "theirs": "# Mine\n\n## What each file costs me\n"}


@pytest.mark.parametrize("bare", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("is_bias_assessed", [False, True])
def test_what_was_measured_of_files_that_are_gone_goes(bare: str, is_bias_assessed: bool) -> None:
    told = with_measured(bare, measured_section(report()), is_bias_assessed=is_bias_assessed)
    assert told != bare
    assert without_files(told, ["Q8_0", f"{NAME}.Q8_0.gguf"]) == told
    for gone in (["Q4_0"], ["x", "Q4_0"]):
        assert without_files(told, gone) == bare


@pytest.mark.parametrize("bare", CARDS.values(), ids=CARDS)
@pytest.mark.parametrize("lost", [MARKS[:1], MARKS[1:], MARKS], ids=["start", "end", "both"])
def test_a_section_that_has_lost_its_marks_takes_nothing_else_with_it(bare: str, lost: tuple[str, ...]) -> None:
    told = with_measured(bare, measured_section(report()))
    line_end = "\r\n" if "\r" in bare else "\n"
    harmed = told
    for mark in lost:
        harmed = harmed.replace(f"{mark}{line_end}{line_end}", "").replace(f"{line_end}{line_end}{mark}", "")
    assert with_measured(harmed, measured_section(report())) == told
    assert without_files(harmed, ["Q4_0"]) == bare
