"""What was measured of the files, as a section of their card: a table, and one file to begin with.

Knows no model: numbers come from the report of `pythia measure`. The section stands between two comments, so that it
can be put in again; the rest of the card stays as it is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pythia_gguf.card.inert import inert

_START, _END = "<!-- pythia-gguf measured start -->", "<!-- pythia-gguf measured end -->"
_AFTER = "<!-- README_GGUF.md-provided-files end -->"
# A file to begin with costs at most so much perplexity, at the upper end of two standard errors.
MOST_CHANGE = 0.01


def with_measured(card: str, section: str) -> str:
    """A card with the section in place of an older one, else after the table of files, else at the end."""
    block = f"{_START}\n\n{section}\n\n{_END}"
    before, start, rest = card.partition(_START)
    if start and _END in rest:
        return before + block + rest.partition(_END)[2]
    before, after, rest = card.partition(_AFTER)
    if after:
        return f"{before}{after}\n\n{block}{rest}"
    return f"{card.rstrip()}\n\n{block}\n"


def measured_section(report: Mapping[str, Any], pictures: Sequence[str] = ()) -> str:
    """The section, from a report of schema 1; `pictures` are files beside the card."""
    base, text = report["reference"], report["text"]
    files = sorted(report["files"], key=lambda f: (f["bytes"], f["activations"], f["file"]))
    head = "| Quant | Activations | Bits/weight | Perplexity | Change | KL mean | KL 99.9 % | Same top token |"
    lines = [head, "|---|---|--:|--:|--:|--:|--:|--:|"]
    for f in files:
        numbers = (
            f"{f['bits_per_weight']:.2f}",
            f"{f['ppl']:.3f} \u00b1 {f['ppl_error']:.3f}",
            f"{100 * (f['ppl'] / base['ppl'] - 1):+.2f} %",
            f"{f['kl_mean']:.5f}",
            f"{f['kl_p999']:.3f}",
            f"{100 * f['same_top1']:.1f} %",
        )
        lines.append(f"| {inert(f['quant'])} | {inert(f['activations'])} | {' | '.join(numbers)} |")
    parts = [
        "## What each file costs",
        _pick(report, files),
        "\n".join(lines),
        f"Against {inert(base['file'])} (perplexity {base['ppl']:.3f} \u00b1 {base['ppl_error']:.3f}), on"
        f" {text['scored_tokens']:,} tokens of {inert(text['file'])} in {text['windows']:,} windows of"
        f" {text['context']:,}, of which the second half counts; {inert(report['gelu'])} GELU; KL divergence in nats;"
        f" pythia-gguf {inert(report['tool_version'])}.",
        *(f"![{name.removesuffix('.png')} against bits per weight]({name})" for name in pictures),
    ]
    return "\n\n".join(part for part in parts if part)


def _pick(report: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> str:
    """One file to begin with, and why; nothing where no quantized file was measured as it is run."""
    run = [f for f in files if f["activations"] == "int8" and "alias_of" not in f]
    if not run:
        return ""
    good = [f for f in run if f["ln_ratio"] + 2 * f["ln_ratio_error"] <= MOST_CHANGE]
    if good:
        best = good[0]
        why = (
            f"the smallest file whose perplexity is at most {100 * MOST_CHANGE:g} % above that of the unquantized model"
        )
    else:
        best = min(run, key=lambda f: f["kl_mean"])
        why = "no file is surely within 1 % of the unquantized model's perplexity, and this one is nearest to it"
    return f"**{inert(best['quant'])}** is a good default: {why} (two standard errors included)."
