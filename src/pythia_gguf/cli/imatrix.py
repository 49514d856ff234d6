"""`pythia imatrix`: an importance matrix of a model and a text."""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.model_options import LoadOptions, run_options
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.gguf.imatrix import ImportanceMatrix

SCHEMA_VERSION = 1


@click.command("imatrix", cls=Command)
@click.argument("model", required=False)
@click.option(
    "--text", "texts", multiple=True, type=click.Path(path_type=Path), help="What the model reads; repeatable."
)
@click.option("--context", type=int, default=512, show_default=True, help="Tokens of a window.")
@click.option(
    "--chunks", "n_windows", type=int, metavar="N", help="At most so many windows.  [default: all whole ones]"
)
@click.option(
    "--in-file", "earlier", multiple=True, type=click.Path(path_type=Path), help="Earlier matrices, added; repeatable."
)
@click.option(
    "-o", "--out", required=True, type=click.Path(path_type=Path), help="File to write; a killed run goes on."
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@run_options
def command(
    model: str | None,
    texts: tuple[Path, ...],
    context: int,
    n_windows: int | None,
    earlier: tuple[Path, ...],
    out: Path,
    force: bool,
    loading: LoadOptions,
    output_format: str,
) -> None:
    """Measure how large the activations are that each column of a model's matrices is multiplied with.

    `pythia quantize --imatrix` and llama-quantize take the file; numbers are those of llama-imatrix. Best is the
    unquantized model, and a text like those that it will be used for.

    \b
    pythia imatrix pythia-70m.F16.gguf --text calibration.txt -o imatrix.gguf
    pythia imatrix pythia-70m.F16.gguf --text more.txt --in-file imatrix.gguf -o both.gguf
    pythia imatrix --in-file a.gguf --in-file b.gguf -o both.gguf
    """
    from pythia_gguf.evals.result_file import alone_with, refuse_to_lose
    from pythia_gguf.evals.state import state_path
    from pythia_gguf.files import write_all, write_beside
    from pythia_gguf.gguf.imatrix import imatrix_bytes, merged, read_imatrix

    if (model is None) != (not texts):
        raise UsageError("MODEL and --text go together: one reads the other")
    if model is None:
        refuse_given("context n_windows threads gelu activations cache", "without MODEL: matrices are only added")
    if model is None and not earlier:
        raise UsageError("nothing to do: give MODEL and --text, or matrices to add up with --in-file")
    with alone_with(out):
        refuse_to_lose(out, force, lambda path: "")
        matrices = [read_imatrix(path) for path in earlier]
        if model is not None:
            matrices.append(_collect(model, texts, context, n_windows, out, loading))
        matrix = merged(matrices)
        if len({run.model for run in matrix.runs}) > 1:
            files = ", ".join(dict.fromkeys(one_line(run.file, 100) for run in matrix.runs))
            click.echo(f"{out}: adds up matrices of several models: {files}", err=True)
        with write_beside(out) as file:
            write_all(file, imatrix_bytes(matrix))
        state_path(out).unlink(missing_ok=True)
    told: dict[str, Any] = {
        "file": str(out),
        "entries": len(matrix.entries),
        "windows": matrix.n_chunks,
        "context": matrix.chunk_tokens,
    }
    if output_format == "json":
        told |= {"texts": list(matrix.datasets), "runs": [asdict(run) for run in matrix.runs]}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | told))
    else:
        click.echo(f"{out}: {len(matrix.entries)} matrices, {matrix.n_chunks} windows of {matrix.chunk_tokens} tokens")


def _collect(
    model: str, texts: tuple[Path, ...], context: int, n_windows: int | None, out: Path, loading: LoadOptions
) -> ImportanceMatrix:
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.evals.importance import TextToRead, collect, run_of
    from pythia_gguf.evals.state import state_path, text_ids
    from pythia_gguf.files import read_whole
    from pythia_gguf.text_file import decode_text

    contents = [(path, data, decode_text(data, path)) for path, data in ((p, read_whole(p)) for p in texts)]
    loaded = loading.load(model)
    with make_progress() as progress:
        progress.stage("tokenizing", sum(len(content) for *_, content in contents), "characters")
        to_read = []
        for path, data, content in contents:
            ids, sha256 = text_ids(loaded.tokenizer, content, context), hashlib.sha256(data).hexdigest()
            to_read.append(TextToRead(file=path.name, sha256=sha256, ids=ids))
            progress.advance(path.name, len(content))
        return collect(
            loaded,
            to_read,
            of=run_of(loaded),
            context=context,
            n_windows=n_windows,
            state=state_path(out),
            progress=progress,
            tell=lambda line: click.echo(line, err=True),
        )
