"""Tables on stdout: drawn on a terminal, plain aligned columns for other programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """A table with a header; the first column is never cut, columns in `right` hold numbers and end flush."""
    if not sys.stdout.isatty() or not (sys.stdout.encoding or "").lower().startswith("utf"):
        print_columns([header, *rows], right=right)
        return
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for i, title in enumerate(header):
        table.add_column(title, justify="right" if i in right else "left", no_wrap=i == 0, overflow="fold")
    for row in rows:
        # Text: a name with [brackets] is no markup.
        table.add_row(*map(Text, row))
    widest = max(len(row[0]) for row in rows) if rows else 0
    table.columns[0].min_width = min(widest, Console().width)
    Console().print(table)


def print_columns(rows: Sequence[Sequence[str]], *, right: Sequence[int] = ()) -> None:
    """Rows in aligned columns, whatever characters stdout can show."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    encoding = sys.stdout.encoding or "utf-8"
    for row in rows:
        cells = [
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        line = "  ".join(cells).rstrip()
        click.echo(line.encode(encoding, "backslashreplace").decode(encoding))
