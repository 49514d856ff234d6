"""Manual pages to text: the macros of man(7) and tables of tbl(1), without fonts and headers.

Lines of a paragraph are joined. A page that is written in other macros, or only names another page, has no text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

_FONTS = frozenset(("B", "I", "R", "SB", "SM"))
_ALTERNATING = frozenset(("BI", "BR", "IB", "IR", "RB", "RI"))
_PARAGRAPHS = frozenset(("HP", "LP", "P", "PP", "SY", "sp"))
_BREAKS = frozenset(("RE", "RS", "TQ", "YS", "br"))
_VERBATIM = {"EX": True, "Vb": True, "nf": True, "EE": False, "Ve": False, "fi": False}
_MOST_BULLET = 4
_ARGUMENT = re.compile(r'"((?:[^"]|"")*)"?|([^ ]+)')
_ESCAPE = re.compile(
    r"\\(?:f(?:\[[^]]*\]|\(..|.)|s(?:\[[^]]*\]|[-+]?\d|\([-+]?..|[-+]\(..)|[mM]\[[^]]*\]|n[-+]?(?:\[[^]]*\]|\(..|.)"
    r"|[hvwlLboDX]'[^']*'|\*(?:\[(?P<string>[^]]*)\]|\((?P<two>..)|(?P<one>.))|\((?P<char>..)|\[(?P<name>[^]]*)\]"
    r"|(?P<plain>.)|$)",
    re.DOTALL,
)
_PLAIN = {"e": "\\", "\\": "\\", " ": " ", "~": " ", "0": " ", "t": "\t", "`": "`", "'": "'", "-": "-", ".": "."}
_STRINGS = {"Aq": "'", "C`": '"', "C'": '"', 'L"': '"', 'R"': '"', "lq": '"', "rq": '"', "--": "-", "R": "(R)"}
_CHARACTERS = {
    "aq": "'", "dq": '"', "rs": "\\", "ti": "~", "ha": "^", "ga": "`", "at": "@", "sh": "#", "pl": "+", "eq": "=",
    "oq": "\u2018", "cq": "\u2019", "lq": "\u201c", "rq": "\u201d", "em": "\u2014", "en": "\u2013", "hy": "-",
    "mi": "\u2212", "mu": "\xd7", "di": "\xf7", "+-": "\xb1", "<=": "\u2264", ">=": "\u2265", "!=": "\u2260",
    "->": "\u2192", "<-": "\u2190", "bu": "\u2022", "co": "\xa9", "rg": "\xae", "tm": "\u2122", "de": "\xb0",
    "12": "\xbd", "14": "\xbc", "34": "\xbe", "ss": "\xdf", "Po": "\xa3", "Eu": "\u20ac", "ul": "_", "br": "|",
    "ba": "|", "or": "|", "sl": "/", "lB": "[", "rB": "]", "lC": "{", "rC": "}", "la": "<", "ra": ">", "if": "\u221e",
    "*a": "\u03b1", "*b": "\u03b2", "*g": "\u03b3", "*m": "\u03bc", "*p": "\u03c0", "*W": "\u03a9", "fm": "\u2032",
    "ae": "\xe6", "AE": "\xc6", "/o": "\xf8", "/O": "\xd8", "oa": "\xe5", "oA": "\xc5", "tn": "\xfe", "sd": "\u2033",
}  # fmt: skip
_ACCENTS = {"'": "\u0301", "`": "\u0300", "^": "\u0302", ":": "\u0308", "~": "\u0303", ",": "\u0327", "v": "\u030c"}


def text_of_man(source: str) -> str:
    """What a manual page says; "" for one that has no title of man(7)."""
    page = _Page()
    lines = iter(source.replace("\\\n", "").split("\n"))
    for line in lines:
        if re.match(r"\.\s*TH\b", line):
            for following in lines:
                page.take(following, lines)
            break
    return page.text()


class _Page:
    """Blocks of text, and the lines of the one that is being filled."""

    def __init__(self) -> None:
        self._blocks: list[str] = []
        self._words: list[str] = []
        self._is_verbatim = False
        # The next line of text is one by itself: a heading, or the term of a definition.
        self._is_own_line = False

    def take(self, line: str, rest: Iterator[str]) -> None:
        """One line of the source; `rest` are those behind it, for what goes on to a line that ends it."""
        if not line.startswith((".", "'")):
            self._add(line)
            return
        name, _, tail = line[1:].lstrip().partition(" ")
        if name == "TS":
            self._table(rest)
        elif name in ("de", "ig", "am"):
            for following in rest:
                if following.rstrip() == "..":
                    break
        elif name in ("if", "ie", "el"):
            if "\\{" in line:
                _skip_group(line, rest)
        elif name in _VERBATIM:
            self._break()
            self._is_verbatim = _VERBATIM[name]
        else:
            self._macro(name, _arguments(tail))

    def _macro(self, name: str, arguments: list[str]) -> None:
        if name in _FONTS and arguments:
            self._add(" ".join(arguments))
        elif name in _ALTERNATING:
            self._add("".join(arguments))
        elif name in ("SH", "SS"):
            self._paragraph()
            self._is_own_line = True
            self._add(" ".join(arguments))
        elif name == "IP":
            self._paragraph()
            # A bullet or a number stands before its text, a longer term above it.
            self._is_own_line = bool(arguments) and len(_plain(arguments[0])) > _MOST_BULLET
            self._add(arguments[0] if arguments else "")
        elif name == "TP":
            self._paragraph()
            self._is_own_line = True
        elif name in _PARAGRAPHS:
            self._paragraph()
            if name == "SY":
                self._add(" ".join(arguments))
        elif name in _BREAKS:
            self._break()
            self._is_own_line = name == "TQ"
        elif name == "OP":
            self._add(f"[{' '.join(arguments)}]")
        elif name in ("UR", "MT") and arguments:
            self._add(f"<{arguments[0]}>")
        elif name in ("UE", "ME") and arguments and self._words:
            self._words[-1] += _plain(arguments[0])

    def text(self) -> str:
        """All of it."""
        self._break()
        return "\n".join(self._blocks).strip("\n")

    def _add(self, line: str) -> None:
        text = _plain(line).rstrip()
        if self._is_own_line:
            if text:
                self._is_own_line = False
                self._blocks.append(text)
        elif self._is_verbatim:
            self._blocks.append(text)
        elif not text:
            self._paragraph()
        else:
            if text[0].isspace():
                self._break()
            self._words.append(text)

    def _break(self) -> None:
        if self._words:
            self._blocks.append(" ".join(self._words))
            self._words = []

    def _paragraph(self) -> None:
        self._break()
        if self._blocks and self._blocks[-1]:
            self._blocks.append("")

    def _table(self, rest: Iterator[str]) -> None:
        """Rows of a table, cells apart by tabs; a cell between T{ and T} goes on over lines."""
        self._break()
        between, row = _table_format(rest), ""
        for line in rest:
            if line.startswith(".TE"):
                break
            if line.startswith(".T&"):
                _table_format(rest)
                continue
            text = _text_of_request(line) if line.startswith(".") else line
            row = f"{row} {text}" if row else text
            if row.count("T{") > row.count("T}"):
                continue
            cells = [_plain(cell.replace("T{", "").replace("T}", "")).strip() for cell in row.split(between)]
            row = ""
            # Lines between rows are drawn with these.
            if not re.fullmatch(r"[_=\s]*", "".join(cells)):
                self._blocks.append("\t".join(cells).rstrip())


def _table_format(rest: Iterator[str]) -> str:
    """Read the lines that say how a table looks; returns what stands between cells."""
    between = "\t"
    for line in rest:
        if option := re.search(r"tab\s*\((.)\)", line):
            between = option[1]
        if line.rstrip().endswith("."):
            break
    return between


def _text_of_request(line: str) -> str:
    """What a line that begins with a dot prints in a cell."""
    name, _, tail = line[1:].partition(" ")
    if name in _ALTERNATING:
        return "".join(_arguments(tail))
    return " ".join(_arguments(tail)) if name in _FONTS else ""


def _skip_group(line: str, rest: Iterator[str]) -> None:
    n_open = line.count("\\{") - line.count("\\}")
    while n_open > 0 and (following := next(rest, None)) is not None:
        n_open += following.count("\\{") - following.count("\\}")


def _arguments(tail: str) -> list[str]:
    tail = re.sub(r'\\".*', "", tail)
    return [(m[1].replace('""', '"') if m[1] is not None else m[2]) for m in _ARGUMENT.finditer(tail.strip())]


def _plain(line: str) -> str:
    """A line without escapes."""
    return _ESCAPE.sub(_escaped, re.sub(r'\\["#].*', "", line))


def _escaped(match: re.Match[str]) -> str:
    string = match["string"] or match["two"] or match["one"]
    if string is not None:
        return _STRINGS.get(string, "")
    name = match["char"] or match["name"]
    if name is None:
        return _PLAIN.get(match["plain"] or "", "")
    if name in _CHARACTERS:
        return _CHARACTERS[name]
    if re.fullmatch(r"u(?!D[89A-F]..$)[0-9A-F]{4,5}", name):  # halves of surrogate pairs are no text
        return chr(int(name[1:], 16))
    if len(name) == 2 and name[0] in _ACCENTS:
        return unicodedata.normalize("NFC", name[1] + _ACCENTS[name[0]])
    return ""
