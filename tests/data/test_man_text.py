"""Manual pages say what a reader sees: each macro and escape by a line of man(7) and what groff prints for it."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_gguf.data.man_text import text_of_man

TITLE = '.TH open 2 2023-02-05 "Linux man-pages"\n'


@pytest.mark.parametrize(
    ("source", "text"),
    [
        (".SH NAME\nopen \\- open a file\n", "NAME\nopen - open a file"),
        (".SH\nSEE ALSO\n.BR read (2),\n.BR write (2)\n", "SEE ALSO\nread(2), write(2)"),
        (".PP\none\ntwo\n.PP\nthree\n", "one two\n\nthree"),
        (
            '.nf\n.BI "int open(const char *" path ", int " flags );\n  a\n.fi\nb\n',
            "int open(const char *path, int flags);\n  a\nb",
        ),
        (".TP\n.B O_APPEND\nAt the end.\n.TP\n.B O_CREAT\nMade.\n", "O_APPEND\nAt the end.\n\nO_CREAT\nMade."),
        (".IP \\(bu 2\nfirst\n.IP \\(bu\nsecond\n", "\u2022 first\n\n\u2022 second"),
        (".IP --verbose 4\nSays more.\n", "--verbose\nSays more."),
        ("\\fBbold\\fP, \\f(CWcode\\fR, \\f[I]it\\f[], \\s-1small\\s0\n", "bold, code, it, small"),
        ("a\\ b\\&c \\e \\(aq \\[u00E9]\\[uD800] \\['e] \\*(Aqq\\*(Aq \\(em\n", "a bc \\ ' \xe9 \xe9 'q' \u2014"),
        ('text .\\" a comment\n.\\" gone\n\'\\" gone\nmore\n', "text . more"),
        (".TS\ntab(:);\nl l.\nA:B\n_\nC:T{\nlong\ncell\nT}\n.TE\n", "A\tB\nC\tlong cell"),
        (".TS\nl l\nl l.\nA\tB\n.TE\nafter\n", "A\tB\nafter"),
        (".if n .ad l\n.ie t \\{\ngone\n.\\}\n.de XX\ngone\n..\n.unknown gone\nstays\n", "stays"),
        (".UR https://kernel.org\nthe kernel\n.UE .\n", "<https://kernel.org> the kernel."),
        (".SY ls\n.OP \\-a file\n.YS\n", "ls [-a file]"),
        ("a \\\nb\n", "a b"),
        (".B\nbold\n", "bold"),
        ('.B "a ""b"" c" d\n', 'a "b" c d'),
    ],
    ids=range(18),
)
def test_a_page_as_a_reader_sees_it(source: str, text: str):
    assert text_of_man(".de Preamble\n.TX gone\n..\n" + TITLE + source) == text


@pytest.mark.parametrize("source", ["", ".so man2/open.2\n", ".Dd May 1\n.Dt OPEN 2\ntext\n", "no manual at all"])
def test_what_is_no_page_of_man_has_no_text(source: str):
    assert text_of_man(source) == ""


LINES = [
    ".TS",
    ".TE",
    "l.",
    "T{",
    "T}",
    ".nf",
    ".de x",
    "..",
    ".if \\{",
    ".\\}",
    ".B",
    ".BR a",
    "\\",
    "\\f",
    "\\(",
    "\\*[",
    "a",
    "",
    "'",
    ".IP",
    ".UE x",
]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(LINES)))
def test_any_lines_are_a_page(lines: list[str]):
    assert isinstance(text_of_man(TITLE + "\n".join(lines)), str)
