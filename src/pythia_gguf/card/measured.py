"""What was measured of the files, as a section of their card: costs, tasks, and one file to begin with.

The numbers come from the reports of `pythia measure` and the results of `pythia eval`. The section stands between two
comments, so that it can be put in again; the rest of the card stays as it is, but for two sentences that say that
nothing was measured.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pythia_gguf.card.inert import inert
from pythia_gguf.card.line_ends import in_unix_lines
from pythia_gguf.card.listing import SIZES

_START, _END = "<!-- pythia-gguf measured start -->", "<!-- pythia-gguf measured end -->"
_AFTER = "<!-- README_GGUF.md-provided-files end -->"
# What a card says until something was measured, and then.
NOT_CHOSEN = "No quality was measured for this folder, so this card recommends none of them"
NOT_MEASURED = "How much that changes what the model says was not measured for this folder."
NOT_ASSESSED = "Whether the files are biased was not assessed."
_SINCE = {
    NOT_CHOSEN: "What was measured of them is above",
    NOT_MEASURED: "How much that changes what the model says is measured above, under *What each file costs*.",
}
_ASSESSED = "What tasks on bias say of the files is above, under *Tasks*; it is about what these tasks ask, no more."
_HEADING = "## What each file costs"
_TITLE = re.compile(f"^{_HEADING}$", re.MULTILINE)
# What stands below the section: a heading as high as its own, a comment of a card, or what is said of its table.
_NEXT = re.compile(rf"(?<=\n\n)(?:##? |<!-- README_GGUF|{re.escape(SIZES)})")
_TABLE_HEAD = re.compile(r"^\|.*\n\|[-:| ]+$", re.MULTILINE)
# Lines that tell of one file: rows of a table, and the advice.
_OF_ONE = re.compile(r"^(?:\| *(.+?) *\||\*\*(.+?)\*\* is )", re.MULTILINE)
# Of a row that has more to say than figures.
_TOLD = {"missing": "No figure", "note": "Note"}
_ON_BIAS = ("crows_pairs", "winogender", "toxigen")
# A file to begin with costs at most so much perplexity, at the upper end of two standard errors, which are no more
# than that themselves. Of fewer tokens an error is not known well enough: it comes from how far they differ.
MOST_CHANGE = 0.01
LEAST_TOKENS = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow:
    """A value of a task, and how it came about.

    run     kinds of activations, keys and values
    shots   examples in the prompt; None: not known
    items   how many were asked, of how many; "": not known
    stderr  standard error; None: there is none
    """

    file: str
    run: str
    gelu: str
    encoding: str
    shots: int | None
    items: str
    task: str
    metric: str
    value: float
    stderr: float | None


def with_measured(card: str, section: str, *, is_bias_assessed: bool = False) -> str:
    """A card with the section in place of an older one, else after the table of files, else at the end.

    An older one is known by its comments, and where a hand has removed one of them by its title and the next. Line ends
    are those that most lines of the card have.
    """
    return in_unix_lines(card, lambda text: _with_measured(text, section, is_bias_assessed))


def _with_measured(card: str, section: str, is_bias_assessed: bool) -> str:
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
        return card[:place] + block + card[place:]
    if _AFTER in card:
        before, after, rest = card.partition(_AFTER)
        return f"{before}{after}\n\n{block}{rest}"
    return f"{card.rstrip()}\n\n{block}\n"


def without_files(card: str, gone: Iterable[str]) -> str:
    """A card without its section where that tells of files that are gone.

    gone  their names and quants
    """
    shown = {inert(name) for name in gone}

    def edit(text: str) -> str:
        span = _span(text)
        if span is None or _subjects(text[slice(*span)]).isdisjoint(shown):
            return text
        text = text[: span[0]].rstrip("\n") + text[span[1] :]
        for old, new in (*_SINCE.items(), (NOT_ASSESSED, _ASSESSED)):
            text = text.replace(new, old)
        return text

    return in_unix_lines(card, edit)


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
    return start, following.start() - 2 if following else len(card.rstrip("\n"))


def keep_measured(old: str, new: str) -> str:
    """A new card with the section of an old one, if that has one, and all that it speaks of is still there."""
    section = section_of(old)
    if section is None:
        return new
    table = new.partition("\n| Name | Quant method |")[2].partition("\n\n")[0]
    listed = {cell.strip("| ") for row in table.splitlines()[2:] for cell in row.split(" | ")[:2]}
    return with_measured(new, section, is_bias_assessed=_ASSESSED in old) if _subjects(section) <= listed else new


def _subjects(section: str) -> set[str]:
    """The quants and files that a section tells of, in the rows of its tables and in its advice."""
    return {match[match.lastindex or 0] for match in _OF_ONE.finditer(_TABLE_HEAD.sub("", section))}


def measured_section(report: Mapping[str, Any], tasks: Sequence[TaskRow] = (), pictures: Sequence[str] = ()) -> str:
    """The section.

    report    of schema 1
    tasks     of `pythia eval` on these files
    pictures  files beside the card
    """
    base, text = report["reference"], report["text"]
    ppl = _with_error(base["ppl"], base["ppl_error"], ".3f")
    files = sorted(report["files"], key=lambda f: (f["bytes"], f["activations"], f["file"]))
    told = [(f, f"{title}: ", f[key]) for key, title in _TOLD.items() for f in files if key in f]
    parts = [
        _HEADING,
        _advice(text["scored_tokens"], files),
        _table(base, files),
        *(f"{title}{inert(f['quant'])}, {inert(f['activations'])}: {inert(said)}." for f, title, said in told),
        f"Against {_named(base, f'perplexity {ppl}')}, on"
        f" {text['scored_tokens']:,} tokens of {_named(text)} in {text['windows']:,} windows of"
        f" {text['context']:,}, of which the second half counts; {inert(report['gelu'])} GELU; KL divergence in nats;"
        f" tokens a second on the machine that measured; pythia-gguf {inert(report['tool_version'])}.",
        *(f"![{name.removesuffix('.png')} against bits per weight]({name})" for name in pictures),
        *_tasks(tasks),
    ]
    return "\n\n".join(part for part in parts if part)


def is_on_bias(tasks: Sequence[TaskRow]) -> bool:
    """Whether a task on bias is among them."""
    return any(row.task.startswith(_ON_BIAS) for row in tasks)


def _named(file: Mapping[str, Any], *more: str) -> str:
    """A file with the beginning of its hash, by which it is known again, and what else there is to say."""
    said = [*more, *([f"sha256 {inert(file['sha256'][:12])}"] if file.get("sha256") else [])]
    return inert(file["file"]) + (f" ({', '.join(said)})" if said else "")


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


def _advice(n_tokens: int, files: Sequence[Mapping[str, Any]]) -> str:
    """One file to begin with, and why, or why none; nothing where no quantized file was measured as it is run."""
    figures = ("ln_ratio", "ln_ratio_error", "kl_mean")
    run = [f for f in files if f["activations"] == "int8" and not {"alias_of", "note"} & f.keys()]
    run = [f for f in run if all(f[key] is not None for key in figures)]
    if not run:
        return ""
    sure = [f for f in run if 2 * f["ln_ratio_error"] <= MOST_CHANGE]
    most = f"{100 * MOST_CHANGE:g} %"
    if len(run) == 1:
        return f"No file is recommended: there is nothing to compare {inert(run[0]['quant'])} with."
    if n_tokens < LEAST_TOKENS or not sure:
        return (
            f"No file is recommended: {n_tokens:,} scored tokens are too few to tell a change of {most} in perplexity."
        )
    good = [f for f in sure if f["ln_ratio"] + 2 * f["ln_ratio_error"] <= MOST_CHANGE]
    if good:
        best = good[0]
        why = f"the smallest whose perplexity is at most {most} above that of the unquantized model"
    else:
        best = min(run, key=lambda f: f["kl_mean"])
        why = f"none is surely within {most} of the unquantized model's perplexity, and this one is nearest to it"
    return (
        f"**{inert(best['quant'])}** is a good default: of the {len(run)} files measured, {why} (two standard errors"
        " included)."
    )


def _tasks(rows: Sequence[TaskRow]) -> Iterator[str]:
    """Title, table and what the numbers are of; nothing without tasks."""
    if not rows:
        return
    yield "### Tasks"
    lines = [
        "| File | Run with | GELU | Encoding | Shots | Items | Task | Metric | Value |",
        "|---|---|---|---|---|---|---|---|--:|",
    ]
    for row in rows:
        shots = "" if row.shots is None else str(row.shots)
        cells = (row.file, row.run, row.gelu, row.encoding, shots, row.items, row.task, row.metric)
        shown = f"{row.value:.4f}" + ("" if row.stderr is None else f" \u00b1 {row.stderr:.4f}")
        lines.append(f"| {' | '.join(map(inert, cells))} | {shown} |")
    yield "\n".join(dict.fromkeys(lines))  # the same run in two files is one
    yield "By lm-evaluation-harness on this project's engine, with standard errors. Items: of a task, those asked."
