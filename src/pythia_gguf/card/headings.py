"""Headings of a Markdown text: where they are, and how to push them down.

markdown-it-py finds the blocks (CommonMark 0.31, and tables). The text itself is never rendered, so everything but the
headings stays as it was written. HTML headings count too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from markdown_it import MarkdownIt
from markdown_it.token import Token

_HTML = re.compile(r"(?<!`)<(/?)h([1-6])(?=[\s>])", re.IGNORECASE)
_HTML_LINE = re.compile(r"\s*<h([1-6])(?:\s[^>]*)?>(.*)</h\1>\s*", re.IGNORECASE)
_CODE = frozenset({"fence", "code_block"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """One heading.

    first, stop  its lines, as a range
    level        1 to 6
    is_inside    whether it stands in a quote or a list
    title        its text, markup included, in one line
    """

    first: int
    stop: int
    level: int
    is_inside: bool
    title: str


def find_headings(lines: list[str]) -> tuple[list[Heading], list[bool]]:
    """Headings in order, HTML ones included where they fill a line; and for each line whether it is code."""
    tokens = _blocks(lines)
    is_code = _code_lines(tokens, len(lines))
    found = [
        Heading(first=first, stop=stop, level=int(start.tag[1]), is_inside=start.level > 0, title=_title(inline))
        for (first, stop), start, inline in _headings(tokens)
    ]
    for i, line in enumerate(lines):
        if not is_code[i] and (html := _HTML_LINE.fullmatch(line)):
            title = re.sub("<[^<>]*>", "", html[2]).strip()
            found.append(Heading(first=i, stop=i + 1, level=int(html[1]), is_inside=False, title=title))
    return sorted(found, key=lambda heading: heading.first), is_code


def demoted(text: str, top_level: int) -> str:
    """The text with all headings moved down alike, so that none is above `top_level`; level 6 holds the rest.

    text  with \\n as its only line end, and without NUL
    """
    lines = text.split("\n")
    tokens = _blocks(lines)
    is_code = _code_lines(tokens, len(lines))
    headings = _headings(tokens)
    levels = [int(start.tag[1]) for _, start, _ in headings]
    levels += [
        int(tag[2]) for line, code in zip(lines, is_code, strict=True) if not code for tag in _HTML.finditer(line)
    ]
    shift = max(0, top_level - min(levels, default=top_level))

    def lowered(tag: re.Match[str]) -> str:
        return f"<{tag[1]}h{min(6, int(tag[2]) + shift)}"

    out = [line if code else _HTML.sub(lowered, line) for line, code in zip(lines, is_code, strict=True)]
    for (first, stop), start, inline in reversed(headings):
        marks = "#" * min(6, int(start.tag[1]) + shift)
        if start.markup.startswith("#"):
            # Nothing that opens a quote or a list holds a #, so the first one begins the heading.
            before, _, rest = out[first].partition(start.markup)
            out[first] = before + marks + rest
        else:
            # The text before the title opens the quote or the list item that the heading stands in.
            before = lines[first][: lines[first].rindex(inline.content.split("\n")[0])]
            title = _HTML.sub(lowered, _title(inline))
            # A # at the end of a title would be taken for the end of the heading.
            out[first:stop] = [f"{before}{marks} {title}" + f" {marks}" * title.endswith("#")]
    return "\n".join(out)


def _blocks(lines: list[str]) -> list[Token]:
    """The block structure; what stands in a line is not parsed."""
    parser = MarkdownIt("commonmark").enable("table").disable("inline")
    return parser.parse("\n".join(lines))


def _code_lines(tokens: list[Token], n_lines: int) -> list[bool]:
    is_code = [False] * n_lines
    for token in tokens:
        if token.type in _CODE and token.map:
            first, stop = token.map
            is_code[first:stop] = [True] * (stop - first)
    return is_code


def _headings(tokens: list[Token]) -> list[tuple[tuple[int, int], Token, Token]]:
    """Lines, beginning and content of each heading of Markdown, in order."""
    return [
        ((token.map[0], token.map[1]), token, tokens[i + 1])
        for i, token in enumerate(tokens)
        if token.type == "heading_open" and token.map
    ]


def _title(inline: Token) -> str:
    return " ".join(part.strip() for part in inline.content.split("\n"))
