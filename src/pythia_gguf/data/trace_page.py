"""A trace as a page of HTML that stands alone: no script, nothing from elsewhere, light or dark as readers have it."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from itertools import groupby

from pythia_gguf.data.finding import checkpoints_around
from pythia_gguf.data.tracing import Span

_STYLE = """
:root { color-scheme: light dark; --ink: #1b1b1f; --paper: #fdfdfb; --line: #c9c9c4; --quiet: #5a5a60;
  --short: #fdf0bd; --middle: #ffdc94; --long: #ffbf7d; --edge: #8a4b00; }
@media (prefers-color-scheme: dark) { :root { --ink: #ececf0; --paper: #17171a; --line: #45454c; --quiet: #a9a9b2;
  --short: #3d3512; --middle: #59400e; --long: #7a430a; --edge: #ffb45c; } }
body { margin: 0 auto; max-width: 70rem; padding: 1.5rem; background: var(--paper); color: var(--ink);
  font: 1rem/1.6 system-ui, sans-serif; }
h1 { font-size: 1.4rem; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; border: 1px solid var(--line); border-radius: .4rem;
  padding: 1rem; }
.text a { color: inherit; text-decoration: underline 2px var(--edge); text-underline-offset: .2em;
  border-radius: .2rem; scroll-margin-top: 3rem; }
.short { background: var(--short); } .middle { background: var(--middle); } .long { background: var(--long); }
a:focus-visible, a:hover { outline: 2px solid var(--edge); }
:target { outline: 3px solid var(--edge); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; }
caption { text-align: left; color: var(--quiet); padding: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .35rem .7rem .35rem 0; border-bottom: 1px solid var(--line); }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
td.quote { white-space: pre-wrap; overflow-wrap: anywhere; min-width: 16rem; }
a { color: var(--edge); }
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
    n_inside = sum(owner is not None for owner in owners)
    share = f"{n_inside} of its {len(owners)} tokens ({n_inside / len(owners):.0%})"
    rows = "\n".join(_row(i, text, offsets, span, batch) for i, span in enumerate(spans))
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
<p class="text" lang="">{_marked(text, offsets, owners, spans)}</p>
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


def _marked(text: str, offsets: Sequence[tuple[int, int]], owners: Sequence[int | None], spans: Sequence[Span]) -> str:
    """The text, with a link for each run of tokens that have the same span."""
    parts, at = [], 0
    for owner, run in groupby(range(len(owners)), key=owners.__getitem__):
        first, *_, last = [*run] * 2
        if owner is None:
            continue
        start, end = max(at, offsets[first][0]), offsets[last][1]
        n = spans[owner].end - spans[owner].start
        size = "short" if n < 16 else "middle" if n < 32 else "long"
        label = f"span {owner + 1}, {n} tokens"
        parts.append(escape(text[at:start]))
        parts.append(f'<a id="token-{first}" class="{size}" href="#span-{owner + 1}" title="{label}">')
        parts.append(f"{escape(text[start:end])}</a>")
        at = max(at, end)
    return "".join(parts) + escape(text[at:])


def _row(i: int, text: str, offsets: Sequence[tuple[int, int]], span: Span, batch: int) -> str:
    there = span.occurrences
    step, row, around = "-", "-", "-"
    if there.sights:
        sight = there.sights[0]
        before, after = checkpoints_around(sight.step, batch)
        step, row, around = f"{sight.step:,}", f"{sight.row:,}", f"{before or '-'} to {after or '-'}"
    hit = there.sights[0].hit if there.sights else there.hits[0]
    quote = text[offsets[span.start][0] : offsets[span.end - 1][1]]
    numbers = (f"{span.end - span.start}", f"{there.n_hits:,}", step, row)
    cells = "".join(f'<td class="n">{each}</td>' for each in numbers) + f"<td>{around}</td>"
    cells += f'<td>{escape(hit.source or "-")}</td><td class="quote" lang="">{escape(quote)}</td>'
    return f'<tr id="span-{i + 1}"><th scope="row">{i + 1}</th>{cells}</tr>'
