"""Pictures: what quantization costs, published scores by size, and one model through its training.

matplotlib comes with the extra `eval` and is imported here only, when a picture is drawn.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.evals.published import TASKS, PublishedScore, final_scores, step_scores
from pythia_gguf.evals.report import change, labels, place, reference_of
from pythia_gguf.files import read_whole, storage_error, write_all, write_beside
from pythia_gguf.hub.suite import MODELS

_TITLES = {
    "lambada_openai": "LAMBADA (OpenAI)",
    "piqa": "PIQA",
    "winogrande": "WinoGrande",
    "arc_challenge": "ARC, Challenge Set",
    "sciq": "SciQ",
}
# Label, suite, whether deduplicated (None: the suite has no such kind), color, marker.
_SERIES = (
    ("Pythia v1", "v1", False, "C0", "o-"),
    ("Pythia v1 deduped", "v1", True, "C2", "s-"),
    ("Pythia v0", "v0", False, "C0", "o:"),
    ("Pythia v0 deduped", "v0", True, "C2", "s:"),
    ("OPT", "opt", None, "C1", "^--"),
    ("BLOOM", "bloom", None, "C3", "v--"),
)
_MOST = 1e12  # a larger value could only be drawn alone
# The keyword of a PNG's text that names the reports it was drawn from.
_DRAWN_FROM = "pythia-gguf reports"
_NOTE = (
    "Zero-shot, published by EleutherAI (EleutherAI/pythia a19eecb); bars: one standard error. No scores of GPT-Neo."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasuredScore:
    """A score of another run, drawn beside those that were published.

    label       tells the run from others, and says how many items the score is about where not all
    parameters  of its model
    """

    label: str
    task: str
    parameters: float
    accuracy: float


def plot_published(folder: Path, measured: Sequence[MeasuredScore] = ()) -> list[Path]:
    """Five pictures, one for each task: accuracy by size of the models."""
    return [
        save_picture(
            folder / f"{task}.png", partial(_by_size, task=task, measured=[m for m in measured if m.task == task])
        )
        for task in TASKS
    ]


def plot_steps(folder: Path) -> list[Path]:
    """One picture: the five tasks through the training of pythia-410m-deduped."""
    return [save_picture(folder / "training.png", _through_training)]


def plot_reports(reports: Mapping[str, Mapping[str, Any]], sha256: Sequence[str], folder: Path) -> list[Path]:
    """Two pictures of all reports of `pythia measure`: divergence, and perplexity, against bits per weight.

    reports  by a name that tells each from the others
    sha256   of their files: kept in the pictures
    """
    return [
        save_picture(folder / f"{name}.png", partial(_against_bits, reports=reports, key=key), sha256)
        for name, key in (("divergence", "kl_mean"), ("perplexity", "ppl"))
    ]


def is_drawn_from(picture: Path, sha256: str) -> bool:
    """Whether a picture was drawn of one report, which has this hash; raises StorageError, ModelFileError."""
    return _text_chunk([sha256]) in read_whole(picture)


def n_parameters(model: str) -> float:
    """Parameters of a model by its name: exact for the suite, else as the name says, "1b7" for 1.7 billion."""
    name = model.removesuffix("-bf16")
    if name in MODELS:
        return float(MODELS[name].size.parameters)
    size = name.partition("-")[2]
    unit = 1e9 if "b" in size else 1e6
    return float(size.replace("b", ".").replace("m", "").rstrip(".")) * unit


def _text_chunk(sha256: Sequence[str]) -> bytes:
    """The end of a PNG's chunk of text, as matplotlib writes it: keyword, zero, text."""
    return f"{_DRAWN_FROM}\0{' '.join(sha256)}.".encode()


def save_picture(path: Path, draw: Callable[[Any], None], sha256: Sequence[str] = ()) -> Path:
    """Write what `draw` draws on axes as a PNG, in a folder that is made if it is missing; returns the path.

    sha256  of reports that it is drawn of: kept in it
    Raises  UsageError without matplotlib, StorageError
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as e:
        raise UsageError(f'plots need matplotlib: pip install "pythia-gguf[eval]" ({e})') from e
    figure = Figure(figsize=(8, 5), layout="constrained")
    draw(figure.add_subplot())
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, metadata={_DRAWN_FROM: f"{' '.join(sha256)}."} if sha256 else {})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(path.parent, e) from e
    with write_beside(path) as out:
        write_all(out, picture.getbuffer())
    return path


def _by_size(axes: Any, task: str, measured: Sequence[MeasuredScore]) -> None:
    for label, suite, deduped, color, style in _SERIES:
        points = sorted(
            (n_parameters(p.model), p.value, p.stderr)
            for p in final_scores()
            if (p.suite, p.task, p.metric, p.shots) == (suite, task, "acc", 0)
            and (deduped is None or ("deduped" in p.model) == deduped)
        )
        if points:
            x, y, error = zip(*points, strict=True)
            axes.errorbar(x, y, error, fmt=style, color=color, label=label, markersize=4, linewidth=1, capsize=2)
    for m, marker in zip(measured, itertools.cycle("*XPDHd"), strict=False):
        axes.plot(m.parameters, m.accuracy, marker, color="black", markersize=10, fillstyle="none", label=m.label)
    axes.set(xscale="log", xlabel="parameters", ylabel="accuracy", title=_TITLES[task])
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    axes.annotate(_NOTE, (0, -0.16), xycoords="axes fraction", fontsize=6)


def _through_training(axes: Any) -> None:
    for i, task in enumerate(TASKS):
        for suite, style in (("v1", "-"), ("v0", ":")):
            points = _steps(step_scores(), suite, task)
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, style, color=f"C{i}", label=f"{_TITLES[task]}, {suite}", marker=".", linewidth=1)
    axes.set(xscale="symlog", xlabel="training step", ylabel="accuracy", title="pythia-410m-deduped")
    axes.grid(alpha=0.3)
    axes.figure.legend(fontsize=7, loc="outside right upper")
    axes.annotate(_NOTE, (0, -0.16), xycoords="axes fraction", fontsize=6)


def _steps(scores: Sequence[PublishedScore], suite: str, task: str) -> list[tuple[int, float]]:
    return sorted((p.step or 0, p.value) for p in scores if (p.suite, p.task, p.metric) == (suite, task, "acc"))


def _against_bits(axes: Any, reports: Mapping[str, Mapping[str, Any]], key: str) -> None:
    named: dict[tuple[str, str], Sequence[float]] = {}
    series = [(name, report, kind) for name, report in reports.items() for kind in ("int8", "float32")]
    for i, (name, report, activations) in enumerate(series):
        rows = [f for f in report["files"] if f["activations"] == activations and "alias_of" not in f]
        rows = [f for f in rows if f["file"] != reference_of(report, f)["file"]]
        points = [
            (label, f["bits_per_weight"], *value)
            for f, label in zip(rows, labels(rows), strict=True)
            if (value := _value(f, report, key)) is not None
        ]
        if not points:
            continue
        quants, x, y, error = zip(*points, strict=True)
        label = f"{activations} activations" + (f", {one_line(name, 60)}" if len(reports) > 1 else "")
        axes.errorbar(x, y, error, fmt="o", color=f"C{i % 10}", label=label, markersize=4, capsize=2)
        named = {(name, q): (a, b) for q, a, b in zip(quants, x, y, strict=True)} | named
    if key == "ppl":
        axes.axhline(0, color="gray", linewidth=0.8)
        axes.set(ylabel="perplexity, change in %")
    else:
        axes.set(yscale="log" if any(y > 0 for _, y in named.values()) else "linear")
        axes.set(ylabel="mean KL divergence, nats")
    axes.set(xlabel="bits per weight")
    # File names are no mathematics.
    axes.set_title(_title(list(reports.values())), parse_math=False)
    axes.grid(alpha=0.3)
    if named:
        for text in axes.legend(fontsize=8).get_texts():
            text.set_parse_math(False)
    axes.margins(x=0.1)  # for the last name
    _name_points(axes, named)


def _title(reports: Sequence[Mapping[str, Any]]) -> str:
    bases = dict.fromkeys(one_line(place(reference_of(r, row)), 60) for r in reports for row in r["files"])
    gelus = dict.fromkeys(one_line(report["gelu"], 20) for report in reports)
    against = next(iter(bases)) if len(bases) == 1 else "each its own unquantized file"
    n_tokens = dict.fromkeys(f"{report['text']['scored_tokens']:,}" for report in reports)
    return f"Against {against}, on {' and '.join(n_tokens)} tokens; {' and '.join(gelus)} GELU"


def _value(row: Mapping[str, Any], report: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    """Height and error of a point; None where the figure does not exist or is beyond what can be drawn."""
    if key == "ppl":
        more, error = change(row, reference_of(report, row)), row["ln_ratio_error"]
        point = None if more is None or error is None else (100 * more, 100 * (more + 1) * error)
    else:
        point = None if row["kl_mean"] is None else (row["kl_mean"], row["kl_error"] or 0.0)
    drawable = point is not None and abs(point[0]) < _MOST and 0 <= point[1] < _MOST
    return point if drawable and abs(row["bits_per_weight"]) < _MOST else None


def _name_points(axes: Any, named: Mapping[tuple[str, str], Sequence[float]]) -> None:
    """Each quant beside its point, in the first place where it covers no other name and no point."""
    from matplotlib.transforms import Bbox

    if not named:
        return
    axes.figure.draw_without_rendering()  # only then it is known where points are
    taken = [Bbox.from_bounds(x - 4, y - 4, 8, 8) for x, y in axes.transData.transform(list(named.values()))]
    for (_, quant), point in named.items():
        text = axes.annotate(
            one_line(quant, 40), point, (6, 0), textcoords="offset points", va="center", fontsize=7, parse_math=False
        )
        for up, side in itertools.product((0, 8, -8, 16, -16, 24, -24), (6, -6)):
            text.xyann = (side, up)
            text.set_ha("left" if side > 0 else "right")
            box = text.get_window_extent()
            if not any(box.overlaps(other) for other in taken):
                break
        taken.append(box)
