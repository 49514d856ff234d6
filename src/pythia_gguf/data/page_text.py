"""HTML to text: what a page says, without its navigation, scripts and headers.

Words stay apart where elements do: a cell of a table, an item or a heading never runs on into the next. Text in <pre>
keeps its lines and spaces, all other text has single spaces.
"""

from __future__ import annotations

import re
from html.parser import HTMLParser

_SPACE, _LINE, _BLANK_LINE = 1, 2, 3


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Nothing of these is part of what the page says; "note" is of the Bible's OSIS, which is read here too.
_LEFT_OUT = _words(
    "aside button datalist footer form head iframe nav noscript note object script select style svg template"
)
_ROLES = _words("banner contentinfo navigation search")
# Classes and ids of navigation, as Sphinx, DocBook, Publican, AsciiDoc, Apache's and SQLite's pages have them.
_NAVIGATION = _words(
    """bottomlang breadcrumbs docnav fancy_toc headerlink linenos menu mobile-nav mobilemenu nav navfooter navheader
    nosearch related rst-footer-buttons searchmenu sphinxsidebar toc toplang wy-nav-side
    #banner #footer #page-header #path #quickview #toc #topbar"""
)
# What the page says is all in one of these, where it has one.
_MAIN = _words("article main")
_VOID = _words("area base br col embed hr img input link meta source track wbr")
# How far text before and after a tag is kept apart.
_APART = dict.fromkeys(_words("td th"), _SPACE)
_APART |= dict.fromkeys(_words("br caption center dd div dt figcaption l legend li option summary tr"), _LINE)
_APART |= dict.fromkeys(
    _words(
        """address article blockquote chapter details dl fieldset figure h1 h2 h3 h4 h5 h6 header hr lg main ol p pre
        section table title ul"""
    ),
    _BLANK_LINE,
)
_BETWEEN = {0: "", _SPACE: " ", _LINE: "\n", _BLANK_LINE: "\n\n"}


def text_of_page(page: str) -> str:
    """What a page says; any text is a page, however broken."""
    parser = _PageParser()
    parser.feed(page)
    parser.close()
    return parser.text()


class _PageParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._parts: list[str] = []
        self._gap = 0
        # Element whose end we wait for, and how many of its name are open inside: other elements may have no end.
        self._left_out: tuple[str, int] | None = None
        self._main: tuple[str, int] | None = None
        self._is_over = False
        self._n_pre = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if self._left_out is not None:
            self._left_out = _deeper(self._left_out, tag, 1)
            return
        values = {name: value or "" for name, value in attrs}
        names = {*values.get("class", "").split(), f"#{values.get('id', '')}"}
        if tag not in _VOID and (tag in _LEFT_OUT or values.get("role") in _ROLES or names & _NAVIGATION):
            self._left_out = (tag, 1)
            self._apart(max(_SPACE if tag == "note" else 0, _APART.get(tag, 0)))
            return
        if self._main is not None:
            self._main = _deeper(self._main, tag, 1)
        elif not self._is_over and (tag in _MAIN or values.get("role") == "main"):
            self._main, self._parts = (tag, 1), []
        self._apart(_APART.get(tag, 0))
        self._n_pre += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        # <p/> has no end of its own. What is left out would wait for one.
        self._apart(_APART.get(tag, 0))

    def handle_endtag(self, tag: str) -> None:
        if self._left_out is not None:
            self._left_out = _deeper(self._left_out, tag, -1)
            return
        self._apart(_APART.get(tag, 0))
        self._n_pre -= tag == "pre" and self._n_pre > 0
        if self._main is not None:
            self._main = _deeper(self._main, tag, -1)
            self._is_over = self._main is None

    def handle_data(self, data: str) -> None:
        if self._left_out is not None or self._is_over:
            return
        if self._n_pre:
            self._add(data.expandtabs() if data.strip() else data)
            return
        words = data.split()
        if not words:
            self._apart(_SPACE)
            return
        if data[0].isspace():
            self._apart(_SPACE)
        self._add(" ".join(words))
        if data[-1].isspace():
            self._apart(_SPACE)

    def text(self) -> str:
        lines = "".join(self._parts).replace("\r\n", "\n").split("\n")
        return re.sub(r"\n{3,}", "\n\n", "\n".join(line.rstrip() for line in lines)).strip("\n")

    def _apart(self, gap: int) -> None:
        self._gap = max(self._gap, gap)

    def _add(self, text: str) -> None:
        if self._parts:
            self._parts.append(_BETWEEN[self._gap])
        self._parts.append(text)
        self._gap = 0


def _deeper(element: tuple[str, int], tag: str, step: int) -> tuple[str, int] | None:
    """An open element after one more start or end of a tag; None when that was its own end."""
    name, n_open = element
    n_open += step * (tag == name)
    return (name, n_open) if n_open else None
