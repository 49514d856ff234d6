"""A page says its words in their order and apart, whatever surrounds them; navigation says nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pythia_gguf.data.page_text import text_of_page

BLOCKS = ["p", "div", "li", "td", "th", "tr", "h2", "dt", "dd", "section", "pre", "blockquote", "table", "ul"]
INLINE = ["b", "i", "code", "span", "a"]
SILENT = [
    "<script>var gone = '<p>gone</p>';</script>",
    "<style>p { gone: 1 }</style>",
    "<nav><ul><li>gone<li>gone</ul></nav>",
    '<div class="a sphinxsidebar"><div>gone</div><p>gone</div>',
    '<div role="navigation">gone<div>gone</div>gone</div>',
    '<a class="headerlink" href="#x">\N{PILCROW SIGN}</a>',
    '<ul class="docnav top"><li>gone</li></ul>',
    "<!-- gone -->",
    "<svg><title>gone</title></svg>",
]
WORD = st.text("abcxyz<&\N{SNOWMAN}", min_size=1, max_size=4)


def escaped(word: str) -> str:
    return word.replace("&", "&amp;").replace("<", "&lt;")


# (HTML, the words that it says): a word is in pieces that inline elements hold; blocks hold words and blocks.
word_in_pieces = st.lists(st.tuples(WORD, st.sampled_from(["", *INLINE])), min_size=1, max_size=3).map(
    lambda pieces: (
        "".join(f"<{tag}>{escaped(word)}</{tag}>" if tag else escaped(word) for word, tag in pieces),
        ["".join(word for word, _ in pieces)],
    )
)
silent = st.sampled_from(SILENT).map(lambda html: (html, []))


def joined(between: str, parts: list[tuple[str, list[str]]]) -> tuple[str, list[str]]:
    return between.join(html for html, _ in parts), [word for _, words in parts for word in words]


def block_of(tag: str, inner: tuple[str, list[str]]) -> tuple[str, list[str]]:
    return f"<{tag}>{inner[0]}</{tag}>", inner[1]


text = st.lists(word_in_pieces, min_size=1, max_size=4).map(lambda words: joined(" ", words))
blocks = st.recursive(
    st.one_of(st.builds(block_of, st.sampled_from(BLOCKS), text), silent),
    lambda inner: st.builds(
        block_of, st.sampled_from(BLOCKS), st.lists(inner, max_size=4).map(lambda parts: joined("", parts))
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None)
@given(st.lists(blocks, max_size=4).map(lambda parts: joined("", parts)))
def test_words_are_whole_apart_and_in_their_order(page: tuple[str, list[str]]):
    html, words = page
    assert text_of_page(html).split() == words
    around = f"<html><head><title>gone</title></head><body>{html}</body></html>"
    assert text_of_page(around).split() == words
    in_main = f"<div>gone</div><div role='main'><div>{html}</div></div><p>gone</p>"
    assert text_of_page(in_main).split() == words


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from([*"<>/&;!-'\" ax", "<p", "</p>", "<pre>", "<nav>", "</nav>", "<![CDATA[", "&#x;"])))
def test_any_text_is_a_page(pieces: list[str]):
    assert isinstance(text_of_page("".join(pieces)), str)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ("<p>a\n  b</p>c", "a b\n\nc"),
        ("<pre>\na\n  b\n</pre>", "a\n  b"),
        ("<table><tr><td>a</td><td>b</td></tr><tr><td>c</td></tr></table>", "a b\nc"),
        ("<dl><dt>a</dt><dd>b</dd></dl>", "a\nb"),
        ("a<br>b<br/>c", "a\nb\nc"),
        ("<p>a<p>b", "a\n\nb"),
        ("&eacute;&#233;&amp;", "\xe9\xe9&"),
        ("<b>a</b>b <i>c</i>", "ab c"),
        ("<div id='toc'>x<div>y</div>z</div>a", "a"),
        ("", ""),
    ],
)
def test_lines_are_those_of_the_page(html: str, text: str):
    assert text_of_page(html) == text
