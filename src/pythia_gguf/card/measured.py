"""What was measured of the files, as a section of their card: costs, tasks, and one file to begin with.

Knows no model: numbers come from the reports of `pythia measure` and the results of `pythia eval`. The section stands
between two comments, so that it can be put in again; the rest of the card stays as it is, but for two sentences that
say that nothing was measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeGuard

from pythia_gguf.card.inert import inert

_START, _END = "<!-- pythia-gguf measured start -->", "<!-- pythia-gguf measured end -->"
_AFTER = "<!-- README_GGUF.md-provided-files end -->"
# What a card says until something was measured, and then.
NOT_CHOSEN = "No quality was measured for this folder, so this card recommends none of them"
NOT_MEASURED = "How much that changes what the model says was not measured for this folder."
NOT_ASSESSED = "Whether the files are biased was not assessed."
_SINCE = {
    NOT_CHOSEN: "What each of them costs is measured above",
    NOT_MEASURED: "How much that changes what the model says is measured above, under *What each file costs*.",
}
_ASSESSED = "What tasks on bias say of the files is above, under *Tasks*; it is about what these tasks ask, no more."
_HEADING = "## What each file costs"
_TITLE = re.compile(f"^{_HEADING}$", re.MULTILINE)
# What stands below the section: a heading as high as its own, or a comment of a card.
_NEXT = re.compile(r"(?<=\n\n)(?:##? |<!-- README_GGUF)")
_ON_BIAS = ("crows_pairs", "winogender", "toxigen")
# A file to begin with costs at most so much perplexity, at the upper end of two standard errors.
MOST_CHANGE = 0.01


def with_measured(card: str, section: str, *, is_bias_assessed: bool = False) -> str:
    """A card with the section in place of an older one, else after the table of files, else at the end.

    An older one is known by its comments, and where a hand has removed one of them by its title and the next. Line ends
    are those that most lines of the card have.
    """
    is_crlf = 2 * card.count("\r\n") > card.count("\n")
    card = card.replace("\r\n", "\n")
    for old, new in _SINCE.items():
        card = card.replace(old, new)
    if is_bias_assessed:
        card = card.replace(NOT_ASSESSED, _ASSESSED)
    place = None
    while (span := _span(card)) is not None:
        place = span[0] if place is None else place
        card = card[: span[0]] + card[span[1] :]
    block = f"{_START}\n\n{section}\n\n{_END}"
    if place is not None:
        result = card[:place] + block + card[place:]
    elif _AFTER in card:
        before, after, rest = card.partition(_AFTER)
        result = f"{before}{after}\n\n{block}{rest}"
    else:
        result = f"{card.rstrip()}\n\n{block}\n"
    return result.replace("\n", "\r\n") if is_crlf else result


def section_of(card: str) -> str | None:
    """The section that a card has, with Unix line ends; None without."""
    card = card.replace("\r\n", "\n")
    span = _span(card)
    section = "" if span is None else card[slice(*span)].removeprefix(_START).removesuffix(_END).strip()
    return section or None


def _span(card: str) -> tuple[int, int] | None:
    """Where the first section begins and ends, its comments included; None without."""
    start, title = card.find(_START), _TITLE.search(card)
    if start < 0 and title is None:
        end = card.find(_END)
        return None if end < 0 else (end, end + len(_END))
    if start < 0 or (title is not None and title.start() < start):
        assert title is not None
        start = title.start()
    end = card.find(_END, start)
    if end >= 0:
        return start, end + len(_END)
    title = _TITLE.search(card, start)
    following = _NEXT.search(card, title.end() if title else start + len(_START))
    return start, following.start() - 2 if following else len(card)


def keep_measured(old: str, new: str) -> str:
    """A new card with the section of an old one, if that has one."""
    section = section_of(old)
    return new if section is None else with_measured(new, section, is_bias_assessed=_ASSESSED in old)


def measured_section(
    report: Mapping[str, Any], results: Sequence[Mapping[str, Any]] = (), pictures: Sequence[str] = ()
) -> str:
    """The section.

    report    of schema 1
    results   of `pythia eval` on these files, in either layout
    pictures  files beside the card
    """
    base, text = report["reference"], report["text"]
    files = sorted(report["files"], key=lambda f: (f["bytes"], f["activations"], f["file"]))
    missing = [f for f in files if "missing" in f]
    parts = [
        _HEADING,
        _pick(report, files),
        _table(base, files),
        *(f"No figure: {inert(f['quant'])}, {inert(f['activations'])}: {inert(f['missing'])}." for f in missing),
        f"Against {inert(base['file'])} (perplexity {_with_error(base['ppl'], base['ppl_error'], '.3f')}), on"
        f" {text['scored_tokens']:,} tokens of {inert(text['file'])} in {text['windows']:,} windows of"
        f" {text['context']:,}, of which the second half counts; {inert(report['gelu'])} GELU; KL divergence in nats;"
        f" tokens a second on the machine that measured; pythia-gguf {inert(report['tool_version'])}.",
        *(f"![{name.removesuffix('.png')} against bits per weight]({name})" for name in pictures),
        *_tasks(results),
    ]
    return "\n\n".join(part for part in parts if part)


def is_on_bias(results: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a task on bias is among the results."""
    return any(task.startswith(_ON_BIAS) for result in results for task in result["results"])


def _table(base: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> str:
    speeds = [(k, t) for k, t in (("prefill", "Reads t/s"), ("decode", "Writes t/s")) if _has(files, k)]
    head = ["Quant", "Activations", "Size, MB", "Bits/weight", "Perplexity", "Change", "KL mean", "KL 99.9 %"]
    head += ["Same top token", *(title for _, title in speeds)]
    lines = [f"| {' | '.join(head)} |", f"|---|---|{'--:|' * (len(head) - 2)}"]
    for f in files:
        cells = [
            inert(f["quant"]),
            inert(f["activations"]),
            f"{f['bytes'] / 1e6:.1f}",
            f"{f['bits_per_weight']:.2f}",
            _with_error(f["ppl"], f["ppl_error"], ".3f"),
            _change(f["ppl"], base["ppl"]),
            _shown(f["kl_mean"], ".5f"),
            _shown(f["kl_p999"], ".3f"),
            "-" if f["same_top1"] is None else f"{100 * f['same_top1']:.1f} %",
            *(f"{f[key]:.0f}" if (key := f"{k}_tokens_per_s") in f else "" for k, _ in speeds),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _shown(figure: float | None, form: str) -> str:
    """A figure; what does not exist is a dash, and told below the table."""
    return "-" if figure is None else format(figure, form)


def _with_error(figure: float | None, error: float | None, form: str) -> str:
    return _shown(figure, form) + ("" if error is None else f" \u00b1 {error:{form}}")


def _change(ppl: float | None, base: float | None) -> str:
    if ppl is None or not base or not math.isfinite(ppl / base):
        return "-"
    return f"{100 * (ppl / base - 1):+.2f} %"


def _has(files: Sequence[Mapping[str, Any]], speed: str) -> bool:
    return any(f"{speed}_tokens_per_s" in f for f in files)


def _pick(report: Mapping[str, Any], files: Sequence[Mapping[str, Any]]) -> str:
    """One file to begin with, and why; nothing where no quantized file was measured as it is run."""
    figures = ("ln_ratio", "ln_ratio_error", "kl_mean")
    run = [f for f in files if f["activations"] == "int8" and "alias_of" not in f]
    run = [f for f in run if all(f[key] is not None for key in figures)]
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


def _tasks(results: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Title, table and what the numbers are of; nothing without results."""
    if not results:
        return
    yield "### Tasks"
    lines = [
        "| File | Activations | GELU | Encoding | Shots | Task | Metric | Value |",
        "|---|---|---|---|---|---|---|--:|",
    ]
    for result in results:
        facts = result["config"]["pythia_gguf"]
        shots = result.get("n-shot", result["config"].get("num_fewshot"))
        for task, metrics in result["results"].items():
            n_shots = shots.get(task, "") if isinstance(shots, Mapping) else shots
            for metric, value, error in _values(metrics):
                cells = [*(facts[key] for key in ("file", "activations", "gelu", "encoding")), n_shots, task, metric]
                shown = f"{value:.4f}" + ("" if error is None else f" \u00b1 {error:.4f}")
                lines.append(f"| {' | '.join(inert(str(cell)) for cell in cells)} | {shown} |")
    yield "\n".join(lines)
    limits = {limit for r in results if (limit := r["config"].get("limit")) is not None}
    some = f" Of each task only the first items were asked: {', '.join(map(str, sorted(limits)))}." if limits else ""
    yield f"By lm-evaluation-harness on this project's engine, with standard errors.{some}"


def _values(metrics: Mapping[str, Any]) -> Iterator[tuple[str, float, float | None]]:
    """(metric, value, standard error) of one task in either layout."""
    for name, value in metrics.items():
        metric, comma, filtered = name.partition(",")
        if metric.endswith("_stderr") or not _is_number(value):
            continue
        error = metrics.get(f"{metric}_stderr{comma}{filtered}")
        plain = metric if filtered in ("", "none") else name
        yield plain, value, float(error) if _is_number(error) else None


def _is_number(value: object) -> TypeGuard[int | float]:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
