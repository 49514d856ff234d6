"""Headings are where a CommonMark parser finds them, and none is left above the level asked for."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pythia_gguf.card.headings import demoted, find_headings

# Lines that mean different things in different places. Left out: lists that go on after a blank line, and HTML that
# begins a paragraph, which take a whole parser.
LINES = st.sampled_from(
    [
        "", "", "text", "# one", "## two ##", "   ### three", "####### seven", "#none", "#", "===", "---", "-----",
        "***", "- - -", "```", "```python", "````", "~~~", "``` `no` ```", "    # code", "    text", "> quote",
        "> # quoted", "| a | b |", "|---|---|", "\\# escaped", "two words", "=", "--",
    ]
)  # fmt: skip
PARSER = MarkdownIt("commonmark").enable("table")
# The same documents on every run.
SAME = settings(max_examples=600, deadline=None, derandomize=True, database=None)


def oracle(text: str) -> list[tuple[int, int, int]]:
    """(first line, line behind the last, level) of the headings that stand on their own."""
    tokens = [t for t in PARSER.parse(text) if t.type == "heading_open" and t.level == 0]
    return [(t.map[0], t.map[1], int(t.tag[1])) for t in tokens if t.map]


@SAME
@given(st.lists(LINES, max_size=12).map("\n".join))
def test_headings_are_those_of_a_commonmark_parser(text: str) -> None:
    found, _ = find_headings(text.split("\n"))
    assert [(h.first, h.stop, h.level) for h in found if not h.prefix] == oracle(text)


@SAME
@given(st.lists(LINES, max_size=12).map("\n".join), st.integers(1, 6))
def test_no_heading_is_left_above_the_top_level(text: str, top_level: int) -> None:
    before = [int(t.tag[1]) for t in PARSER.parse(text) if t.type == "heading_open"]
    after = [int(t.tag[1]) for t in PARSER.parse(demoted(text, top_level)) if t.type == "heading_open"]
    shift = max(0, top_level - min(before, default=6))
    assert after == [min(6, level + shift) for level in before]


def test_text_without_headings_is_untouched() -> None:
    text = "a\n\n```\n# b\n```\n\n    # c\n\n| d | e |\n|---|---|\n\n***\n"
    assert demoted(text, 3) == text
