"""Headings of a Markdown text: where they are, how to push them down, and what stands under them.

Knows no card and no meaning of a title. Reads line by line with the block rules of CommonMark 0.31 that decide what
is a heading: code fences, indented code, and paragraphs that a line of = or - underlines. HTML headings count too.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

_CONTAINER = r"(?: {0,3}(?:>|[-+*](?=[ \t])|\d{1,9}[.)](?=[ \t])))"
_ATX = re.compile(rf"({_CONTAINER}* {{0,3}})(#{{1,6}})(?=[ \t]|$)(.*)")
_FENCE = re.compile(r"([ >]*)(`{3,}(?=[^`]*$)|~{3,})(.*)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)[ \t]*")
_RULER = re.compile(r" {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}")
# Lines that start something other than a paragraph: quotes, lists, HTML.
_OTHER_BLOCK = re.compile(rf"{_CONTAINER}| {{0,3}}<")
_HTML = re.compile(r"(?<!`)<(/?)h([1-6])(?=[\s>])", re.IGNORECASE)
_HTML_LINE = re.compile(r"\s*<h([1-6])(?:\s[^>]*)?>(.*)</h\1>\s*", re.IGNORECASE)
_INDENTED_CODE = re.compile(r"(?: {4}| {0,3}\t)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Heading:
    """One heading.

    first, stop  its lines, as a range
    level        1 to 6
    prefix       what precedes it in its line: "" unless it stands in a quote, a list or HTML
    title        its text, markup included
    """

    first: int
    stop: int
    level: int
    prefix: str
    title: str


def find_headings(lines: list[str]) -> tuple[list[Heading], list[bool]]:
    """Headings in order, and for each line whether it is code."""
    found = []
    is_code = []
    fence: re.Match[str] | None = None
    paragraph: int | None = None  # first line of the paragraph that is open
    in_other = False  # inside a quote, list, table or HTML, until a blank line
    for i, line in enumerate(lines):
        match = _FENCE.match(line)
        if fence and ">" in fence[1] and not line.lstrip().startswith(">"):
            fence = None  # the quote that it stood in is over
        if fence:
            is_code.append(True)
            if match and match[2].startswith(fence[2]) and not match[3].strip():
                fence = None
            continue
        indented = paragraph is None and not in_other and _INDENTED_CODE.match(line) is not None
        is_code.append(match is not None or indented)
        fence = match
        heading = None if indented else _heading(lines, i, paragraph)
        if heading:
            found.append(heading)
        if heading or match or indented or not line.strip() or _RULER.fullmatch(line):
            paragraph, in_other = None, False
        elif in_other or _OTHER_BLOCK.match(line) or _starts_table(lines, i):
            paragraph, in_other = None, True
        elif paragraph is None:
            paragraph = i
    return found, is_code


def _starts_table(lines: list[str], i: int) -> bool:
    """Whether line `i` is the rule below a table's header."""
    return i > 0 and "|" in lines[i - 1] and {"|", "-"} <= set(lines[i]) <= set("|:- \t")


def _heading(lines: list[str], i: int, paragraph: int | None) -> Heading | None:
    """The heading that ends in line `i`, if one does."""
    line = lines[i]
    if atx := _ATX.fullmatch(line):
        title = re.sub(r"(?:^|[ \t])#+[ \t]*$", "", atx[3]).strip()
        return Heading(first=i, stop=i + 1, level=len(atx[2]), prefix=atx[1].strip(), title=title)
    if paragraph is not None and (under := _UNDERLINE.fullmatch(line)):
        title = " ".join(part.strip() for part in lines[paragraph:i])
        return Heading(first=paragraph, stop=i + 1, level=1 if under[1][0] == "=" else 2, prefix="", title=title)
    if html := _HTML_LINE.fullmatch(line):
        return Heading(
            first=i, stop=i + 1, level=int(html[1]), prefix="<", title=re.sub("<[^<>]*>", "", html[2]).strip()
        )
    return None


def demoted(text: str, top_level: int) -> str:
    """The text with all headings moved down alike, so that none is above `top_level`; level 6 holds the rest."""
    lines = text.split("\n")
    headings, is_code = find_headings(lines)
    levels = [heading.level for heading in headings]
    levels += [
        int(tag[2]) for line, code in zip(lines, is_code, strict=True) if not code for tag in _HTML.finditer(line)
    ]
    shift = max(0, top_level - min(levels, default=top_level))

    def lowered(tag: re.Match[str]) -> str:
        return f"<{tag[1]}h{min(6, int(tag[2]) + shift)}"

    out = [line if code else _HTML.sub(lowered, line) for line, code in zip(lines, is_code, strict=True)]
    for heading in reversed(headings):
        marks = "#" * min(6, heading.level + shift)
        if atx := _ATX.fullmatch(lines[heading.first]):
            out[heading.first] = atx[1] + marks + atx[3]
        elif not heading.prefix:
            out[heading.first : heading.stop] = [f"{marks} {heading.title}"]
    return "\n".join(out)
