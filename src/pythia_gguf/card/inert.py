"""Foreign text in a Markdown document: shown as it is, unable to become markup, links or the end of a table.

The rules of escaping are those of CommonMark 0.31 and GitHub's table extension.
"""

from __future__ import annotations

import re

from pythia_gguf.errors import one_line

# Markup anywhere in a line. An underscore inside a word is not: names of quants stay readable.
_SPECIAL = re.compile(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")
_MOST_CHARS = 8000


def inert(text: str) -> str:
    """Text for a sentence, a heading or a table cell."""
    shown = one_line(text.strip()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return _SPECIAL.sub(lambda match: "\\" + match[0], shown)


def code(text: str) -> str:
    """Text as a code span, outside tables."""
    shown = one_line(text, _MOST_CHARS)
    ticks = "`" * (_longest_run(shown) + 1)
    pad = " " if shown.startswith("`") or shown.endswith("`") else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}"


def fenced(text: str, language: str) -> str:
    """Lines as a code block, whatever fences they hold."""
    fence = "`" * max(3, _longest_run(text) + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def command_block(*commands: str) -> str:
    """Command lines as a code block, one line each."""
    return fenced("\n".join(one_line(command, _MOST_CHARS) for command in commands), "sh")


def _longest_run(text: str) -> int:
    return max((len(run) for run in re.findall("`+", text)), default=0)
