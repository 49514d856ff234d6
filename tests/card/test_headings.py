"""Headings are where CommonMark has them, and none is left above the level asked for."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pythia_gguf.card.headings import demoted, find_headings
from pythia_gguf.card.original import MAX_BODY_CHARS

# Worked out by hand from the rules of CommonMark 0.31, sections 4.2 to 5.3. Text -> (first line, line behind the last,
# level, whether in a quote or a list, title) of each heading.
CASES = {
    "# one\n## two ##\n   ### three": [(0, 1, 1, False, "one"), (1, 2, 2, False, "two"), (2, 3, 3, False, "three")],
    "####### seven\n#none\n\\# escaped\n#": [(3, 4, 1, False, "")],
    "#\ttab\n# a #b\n# c \\#": [(0, 1, 1, False, "tab"), (1, 2, 1, False, "a #b"), (2, 3, 1, False, "c \\#")],
    "one\n===\ntwo\nlines\n---": [(0, 2, 1, False, "one"), (2, 5, 2, False, "two lines")],
    "***\n---\n- - -\n===": [],
    "text\n    # goes on\n\n    # code\n\n\t# code": [],
    "```\n# a\n~~~\n# b\n```\n# c": [(5, 6, 1, False, "c")],
    "````\n```\n# a\n````\n# b": [(4, 5, 1, False, "b")],
    "``` `no` ```\n# a": [(1, 2, 1, False, "a")],
    "~~~ never closed\n# a": [],
    "> # quoted\ntext\n# own": [(0, 1, 1, True, "quoted"), (2, 3, 1, False, "own")],
    "> text\n> ===\n> text\n===": [(0, 2, 1, True, "text")],
    "> ```\n> # code\n# own": [(2, 3, 1, False, "own")],
    "- # listed\n- text\n\n  # below\n\n# own": [
        (0, 1, 1, True, "listed"), (3, 4, 1, True, "below"), (5, 6, 1, False, "own"),
    ],
    "- text\n\n      # code\n\n1. text\n   ---": [(4, 6, 2, True, "text")],
    "- a\n---\nb\n---": [(2, 4, 2, False, "b")],
    "| a | b |\n|---|---|\n| # c | d |\n# own": [(3, 4, 1, False, "own")],
    "[a]: /b\n===\n\n[a]: /b\nc\n===": [(4, 6, 1, False, "c")],
    "<div>\n# in HTML\n</div>\n# too\n\n# own": [(5, 6, 1, False, "own")],
    "<!-- a\n\n# b\n-->\n# own": [(4, 5, 1, False, "own")],
    "<h2 align='left'>one <b>bold</b></h2>\n\n# own": [(0, 1, 2, False, "one bold"), (2, 3, 1, False, "own")],
    "```\n<h2>code</h2>\n```": [],
}  # fmt: skip

# The same with no heading above level 3: text before, text after.
DEMOTED = [
    ("# one\n\n### two ##", "### one\n\n##### two ##"),
    ("#### four\n\n### three", "#### four\n\n### three"),
    ("##### five\n# one\n###### six", "###### five\n### one\n###### six"),
    ("one\n===\n\ntwo\nlines\n---\ntext", "### one\n\n#### two lines\ntext"),
    ("issue #\n===\n\nC #\n---", "### issue # ###\n\n#### C # ####"),
    ("> one\n> ===\n> text", "> ### one\n> text"),
    ("- one\n  more\n  ---\n  text\n\n  # two", "- #### one more\n  text\n\n  ### two"),
    ("> 1. # a # b", "> 1. ### a # b"),
    ("<h1>a</h1>\n\n## b\n\n`<h1>` `<h2>`", "<h3>a</h3>\n\n#### b\n\n`<h1>` `<h2>`"),
    ("    # code\n\n<h4>", "    # code\n\n<h4>"),
]
# Lines that mean different things in different places.
LINES = st.sampled_from(
    [
        "", "", "text", "# one", "## two ##", "   ### three", "####### seven", "#none", "#", "===", "---", "-----",
        "***", "- - -", "```", "```python", "````", "~~~", "``` `no` ```", "    # code", "    text", "> quote",
        "> # quoted", "> ===", "| a | b |", "|---|---|", "\\# escaped", "two words", "=", "--", "- item", "- # listed",
        "  ---", "  # in an item", "1. > text", "   > ---", "[a]: /b", "<div>", "<!--", "-->", "a #", "\ttab",
        "-\t# tab",
    ]
)  # fmt: skip
PARSER = MarkdownIt("commonmark").enable("table")
# The same documents on every run.
SAME = settings(max_examples=600, deadline=None, derandomize=True, database=None)


def outline(text: str) -> list[tuple[int, int, str]]:
    """(depth, level, text with its white space made one space) of each heading, as a renderer sees them."""
    tokens = PARSER.parse(text)
    return [
        (t.level, int(t.tag[1]), " ".join(tokens[i + 1].content.split()))
        for i, t in enumerate(tokens)
        if t.type == "heading_open"
    ]


@pytest.mark.parametrize("text", CASES)
def test_headings_are_those_of_commonmark(text: str) -> None:
    found, _ = find_headings(text.split("\n"))
    assert [(h.first, h.stop, h.level, h.is_inside, h.title) for h in found] == CASES[text]


def test_lines_of_code_are_known() -> None:
    text = "a\n```\n# b\n```\nc\n\n    d\n\n> ~~~\n> e\n\n- f\n\n      g"
    _, is_code = find_headings(text.split("\n"))
    assert [i for i, code in enumerate(is_code) if code] == [1, 2, 3, 6, 8, 9, 13]


@pytest.mark.parametrize(("before", "after"), DEMOTED)
def test_headings_are_pushed_down_where_they_stand(before: str, after: str) -> None:
    assert demoted(before, 3) == after


@SAME
@given(st.lists(LINES, max_size=12).map("\n".join), st.integers(1, 6))
def test_no_heading_is_left_above_the_top_level_and_nothing_else_changes(text: str, top_level: int) -> None:
    before = outline(text)
    shift = max(0, top_level - min((level for _, level, _ in before), default=6))
    assert outline(demoted(text, top_level)) == [(depth, min(6, level + shift), t) for depth, level, t in before]


def test_text_without_headings_is_untouched() -> None:
    text = "a\n\n```\n# b\n```\n\n    # c\n\n| d | e |\n|---|---|\n\n***\n"
    assert demoted(text, 3) == text


def test_lines_that_go_on_deep_quotes_cost_little_each() -> None:
    """The worst that was found: every line is asked for by every quote that is open."""
    started = time.process_time()
    demoted(("> " * 20 + "a\n" + "a\n" * MAX_BODY_CHARS)[:MAX_BODY_CHARS], 3)
    # Two seconds on one core; without the library's limit of nesting it would be a minute and more.
    assert time.process_time() - started < 10
