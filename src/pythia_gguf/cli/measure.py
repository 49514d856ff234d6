"""`pythia measure`: a report on many files, as a table and as JSON. Knows nothing of how it is computed."""

from __future__ import annotations

import hashlib
import math
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.errors import StorageError, UsageError
from pythia_gguf.json_file import json_text
from pythia_gguf.machine import available_memory_bytes

if TYPE_CHECKING:
    from pythia_gguf.engine.windows import Windows
    from pythia_gguf.evals.measure import Candidate

SCHEMA_VERSION = 1


@click.command("measure", cls=Command)
@click.argument("files", metavar="DIR|FILE...", nargs=-1, required=True)
@click.option("--reference", metavar="MODEL", help="What the files are compared with.  [default: the F16 file in DIR]")
@click.option("--text", required=True, type=click.Path(path_type=Path), help="Text that the models have not seen.")
@click.option("--context", type=int, default=512, show_default=True, help="Tokens of a window; its second half counts.")
@click.option(
    "--chunks", "n_windows", type=int, metavar="N", help="At most so many windows.  [default: the whole text]"
)
@click.option(
    "--gelu", type=click.Choice(["auto", "erf", "tanh"]), default="auto", show_default=True,
    help="Form of the activation; llama.cpp runs tanh.",
)  # fmt: skip
@click.option(
    "--activations", type=click.Choice(["int8", "float32", "both"]), default="int8", show_default=True,
    help="int8 is how files are run; float32 shows the error of the weights alone.",
)  # fmt: skip
@click.option("--threads", type=int, help="Threads; no result depends on it.  [default: one per CPU]")
@click.option("-o", "--out", type=click.Path(path_type=Path), help="Write the report as JSON; a killed run goes on.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(
    files: tuple[str, ...],
    reference: str | None,
    text: Path,
    context: int,
    n_windows: int | None,
    gelu: str,
    activations: str,
    threads: int | None,
    out: Path | None,
    output_format: str,
) -> None:
    """Measure what each quantization costs: perplexity and Kullback-Leibler divergence from the unquantized model.

    One pass over the text for reference and files together; no logits are written. Windows and scored halves are those
    of llama-perplexity.

    \b
    pythia measure pythia-70m-GGUF --text wiki.test.raw -o report.json
    pythia measure a.Q4_K_M.gguf b.Q4_0.gguf --reference pythia-70m:F16 --text notes.txt --activations both
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.engine.model import gelu_beside
    from pythia_gguf.evals.measure import measure
    from pythia_gguf.evals.state import state_path
    from pythia_gguf.files import read_whole, write_text
    from pythia_gguf.models.find import find_gguf

    def tell(line: str) -> None:
        click.echo(line, err=True)

    paths = _paths(files)
    with make_progress() as progress:
        base = _reference(files, reference) or find_gguf(str(reference), threads=threads, progress=progress, tell=tell)
        gelu = gelu_beside(base) if gelu == "auto" else gelu
        distinct = _distinct(paths)
        kinds = ["int8", "float32"] if activations == "both" else [activations]
        candidates = [
            _candidate(path, kind, gelu, threads, context)
            for path in distinct
            for kind in (["float32"] if _is_plain(path) else kinds)
        ]
        content = read_whole(text)
        against = _candidate(base, "float32" if _is_plain(base) else kinds[0], gelu, threads, context)
        ids = _tokenizer(base).encode(content.decode("utf-8", "replace"))
        report = measure(
            against,
            candidates,
            ids,
            context=context,
            n_windows=n_windows,
            memory_bytes=_half_of_memory() - against.n_bytes,
            state=None if out is None else state_path(out),
            progress=progress,
            threads=threads,
        )
    report["files"] = _with_aliases(report["files"], distinct)
    report["text"] |= {"file": text.name, "sha256": hashlib.sha256(content).hexdigest(), "tokens": len(ids)}
    tool = {"schema_version": SCHEMA_VERSION, "tool": "pythia-gguf", "tool_version": metadata.version("pythia-gguf")}
    report = tool | {"gelu": gelu} | report
    if out is not None:
        write_text(out, json_text(report, indent=1) + "\n")
        state_path(out).unlink(missing_ok=True)
    if output_format == "json":
        click.echo(json_text(report))
    else:
        _print(report)


def _paths(files: tuple[str, ...]) -> list[Path]:
    """Files, and those of folders."""
    paths: list[Path] = []
    for name in files:
        path = Path(name)
        if path.is_dir():
            inside = sorted(path.glob("*.gguf"))
            if not inside:
                raise UsageError(f"{name}: no .gguf file in this folder")
            paths += inside
        elif path.exists():
            paths.append(path)
        else:
            raise StorageError(f"{name}: no such file or folder")
    return paths


def _reference(files: tuple[str, ...], reference: str | None) -> Path | None:
    """The unquantized file beside the others; None where one was named that is no file."""
    if reference is not None:
        return Path(reference) if Path(reference).is_file() else None
    from pythia_gguf.press.source import UNQUANTIZED

    folders = [Path(f) if Path(f).is_dir() else Path(f).parent for f in files]
    found = [p for folder in folders for kind in UNQUANTIZED for p in sorted(folder.glob(f"*.{kind}.gguf"))]
    if not found:
        raise UsageError("no unquantized file beside these: name one with --reference, or quantize with --keep-f16")
    return found[0]


def _distinct(paths: list[Path]) -> dict[Path, list[Path]]:
    """Files, each with those that are links to it."""
    groups: dict[tuple[int, int], list[Path]] = {}
    for path in paths:
        status = path.stat()
        groups.setdefault((status.st_dev, status.st_ino), []).append(path)
    # The longest name is the quant's own: Q4_K is another name of Q4_K_M.
    ordered = [sorted(group, key=lambda p: (-len(p.name), p.name)) for group in groups.values()]
    return {group[0]: group[1:] for group in ordered}


def _quant(path: Path) -> str:
    return path.stem.rpartition(".")[2]


def _is_plain(path: Path) -> bool:
    from pythia_gguf.press.source import UNQUANTIZED

    return _quant(path).upper() in UNQUANTIZED


def _candidate(path: Path, activations: str, gelu: str, threads: int | None, context: int) -> Candidate:
    from pythia_gguf.engine.model import load
    from pythia_gguf.engine.windows import Windows
    from pythia_gguf.evals.measure import Candidate
    from pythia_gguf.gguf.reader import open_gguf

    gguf = open_gguf(path)
    n_bytes = sum(t.n_bytes for t in gguf.tensors.values())
    n_weights = sum(math.prod(t.shape) for t in gguf.tensors.values())
    status = path.stat()
    facts = {
        "file": path.name,
        "quant": _quant(path),
        "activations": activations,
        "gelu": gelu,
        "bytes": status.st_size,
        "bits_per_weight": n_bytes * 8 / n_weights,
    }
    return Candidate(
        name=f"{path.resolve()} {status.st_size} {status.st_mtime_ns} {activations} {gelu}",
        label=f"{_quant(path)} {activations}",
        open=lambda: Windows(load(path, threads=threads, gelu=gelu, activations=activations), context),
        n_bytes=round(status.st_size * 1.1),
        facts=facts,
        decode_speed=_decode_speed,
    )


def _decode_speed(windows: Windows) -> float:
    from pythia_gguf.engine.speed import measure_speed

    return measure_speed(windows.model, n_prompt=1, n_tokens=16, repeats=1).decode_tokens_per_s


def _tokenizer(path: Path) -> Any:
    from pythia_gguf.gguf.reader import open_gguf
    from pythia_gguf.tokenizer import TextTokenizer

    return TextTokenizer(open_gguf(path).metadata, path)


def _half_of_memory() -> int:
    """Of what is available now."""
    return (available_memory_bytes() or 8 << 30) // 2


def _with_aliases(files: list[dict[str, Any]], distinct: dict[Path, list[Path]]) -> list[dict[str, Any]]:
    """Each file, then the other names of it with the same numbers."""
    others = {path.name: links for path, links in distinct.items()}
    result = []
    for entry in files:
        result.append(entry)
        for link in others.get(entry["file"], []):
            result.append(entry | {"file": link.name, "quant": _quant(link), "alias_of": entry["quant"]})
    return result


def _print(report: dict[str, Any]) -> None:
    from pythia_gguf.cli.tables import print_table

    base, text = report["reference"], report["text"]
    click.echo(
        f"{text['file']}: {text['windows']} windows of {text['context']} tokens, {text['scored_tokens']:,} scored;"
        f" {report['gelu']} GELU"
    )
    click.echo(f"reference {base['file']}: perplexity {base['ppl']:.4f} +- {base['ppl_error']:.4f}\n")
    rows = [
        (
            f["quant"],
            f["activations"],
            f"{f['bytes']:,}",
            f"{f['bits_per_weight']:.2f}",
            f"{f['ppl']:.4f}",
            f"{100 * (f['ppl'] / base['ppl'] - 1):+.2f} %",
            f"{f['kl_mean']:.5f}",
            f"{f['kl_p999']:.3f}",
            f"{100 * f['same_top1']:.2f} %",
            *(f"{f[key]:.0f}" if key in f else "" for key in ("prefill_tokens_per_s", "decode_tokens_per_s")),
        )
        for f in sorted(report["files"], key=lambda f: f["bytes"])
    ]
    head = ("quant", "activations", "bytes", "bits/w", "perplexity", "change", "KL", "KL 99.9%", "same top")
    print_table((*head, "read t/s", "write t/s"), rows, right=tuple(range(2, 11)))
