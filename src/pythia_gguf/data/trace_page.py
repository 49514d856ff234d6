"""A trace as a page of HTML that stands alone: no script, nothing from elsewhere, light or dark as readers have it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from pythia_gguf.data.finding import checkpoints_around
from pythia_gguf.data.tracing import Span

_STYLE = """
:root { color-scheme: light dark; }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; font: 1rem/1.6 system-ui, sans-serif; }
h1 { font-size: 1.4rem; }
a { color: light-dark(#8a4b00, #ffb45c); }
a:focus-visible, a:hover { outline: 2px solid; }
:target { outline: 3px solid light-dark(#8a4b00, #ffb45c); }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid gray; border-radius: .4rem; padding: 1rem; }
.text a { color: inherit; text-decoration: underline 2px light-dark(#8a4b00, #ffb45c); text-underline-offset: .2em; }
.short { background: light-dark(#fdf0bd, #3d3512); }
.middle { background: light-dark(#ffdc94, #59400e); }
.long { background: light-dark(#ffbf7d, #7a430a); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid gray; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.quote { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16rem; }
"""
_COLUMNS = ("Span", "Tokens", "Places", "First step", "Row", "Checkpoints", "Source", "Text")


def trace_page(
    text: str,
    offsets: Sequence[tuple[int, int]],
    spans: Sequence[Span],
    *,
    prefix: str,
    batch: int,
) -> str:
    """The page.

    offsets  of each token: its characters in the text
    spans    of `trace`
    prefix   that was searched
    batch    rows of a step
    """
    owners = _owners(len(offsets), spans)
    runs = [(owner, [*run]) for owner, run in groupby(range(len(owners)), key=owners.__getitem__)]
    n_inside = sum(owner is not None for owner in owners)
    share = f"{n_inside} of its {len(owners)} tokens ({n_inside / len(owners):.0%})"
    anchors = {token: run[0] for _, run in runs for token in run}
    rows = "\n".join(_row(i, anchors[span.start], text, offsets, span, batch) for i, span in enumerate(spans))
    header = "".join(f'<th scope="col">{name}</th>' for name in _COLUMNS)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<title>Trace of a text in {escape(prefix)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1>Where this text stands in {escape(prefix)}</h1>
<p>{len(spans)} spans of it stand there, with {share}. Marked text leads to the span in the table.</p>
<p class="text" lang="">{_marked(text, offsets, runs, spans)}</p>
<div class="scroll">
<table>
<caption>The longest first. No span lies inside another one; the first step is that of the first row of training
that shows it.</caption>
<thead><tr>{header}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
</main>
</body>
</html>
"""


def _owners(n_tokens: int, spans: Sequence[Span]) -> list[int | None]:
    """For each token the longest span that it is in."""
    owners: list[int | None] = [None] * n_tokens
    for i in reversed(range(len(spans))):
        owners[spans[i].start : spans[i].end] = [i] * (spans[i].end - spans[i].start)
    return owners


def _marked(
    text: str, offsets: Sequence[tuple[int, int]], runs: Sequence[tuple[int | None, list[int]]], spans: Sequence[Span]
) -> str:
    """The text, with a link for each run of tokens that have the same longest span."""
    parts, at = [], 0
    for owner, run in runs:
        if owner is None:
            continue
        start, end = max(at, offsets[run[0]][0]), offsets[run[-1]][1]
        n = spans[owner].end - spans[owner].start
        size = "short" if n < 16 else "middle" if n < 32 else "long"
        label = f"span {owner + 1}, {n} tokens"
        parts.append(escape(text[at:start]))
        parts.append(f'<a id="token-{run[0]}" class="{size}" href="#span-{owner + 1}" title="{label}">')
        parts.append(f"{escape(text[start:end])}</a>")
        at = max(at, end)
    return "".join(parts) + escape(text[at:])


def _row(i: int, anchor: int, text: str, offsets: Sequence[tuple[int, int]], span: Span, batch: int) -> str:
    there = span.occurrences
    step, row, around = "-", "-", "-"
    if there.sights:
        sight = there.sights[0]
        before, after = checkpoints_around(sight.step, batch)
        step, row, around = f"{sight.step:,}", f"{sight.row:,}", f"{before or '-'} to {after or '-'}"
    hit = there.sights[0].hit if there.sights else there.hits[0]
    quote = text[offsets[span.start][0] : offsets[span.end - 1][1]].strip()
    numbers = (f"{span.end - span.start}", f"{there.n_hits:,}", step, row)
    cells = "".join(f'<td class="n">{each}</td>' for each in numbers) + f"<td>{around}</td>"
    cells += f'<td>{escape(hit.source or "-")}</td><td class="quote" lang="">{escape(quote)}</td>'
    return f'<tr id="span-{i + 1}"><th scope="row"><a href="#token-{anchor}">{i + 1}</a></th>{cells}</tr>'
