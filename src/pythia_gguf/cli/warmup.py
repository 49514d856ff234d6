"""`pythia warmup`: compiles all that any run needs, before it is needed."""

from __future__ import annotations

import time

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.errors import StorageError
from pythia_gguf.json_file import json_text
from pythia_gguf.progress import Progress


@click.command("warmup", cls=Command)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(output_format: str) -> None:
    """Compile the kernels of all formats now, so that no later run has to: for images, clusters, demonstrations.

    Needed once per version and kind of CPU. Compiled kernels are kept where the platform keeps caches, or in the
    folder that PYTHIA_GGUF_CACHE names; afterwards it may be read-only.

    \b
    pythia warmup
    PYTHIA_GGUF_CACHE=/opt/pythia-cache pythia warmup
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.kernels.cache import stored_code

    started = time.perf_counter()
    before = stored_code()
    with make_progress() as progress:
        compile_all_kernels(progress)
    seconds = time.perf_counter() - started
    kept = stored_code()
    if not kept:
        raise StorageError("no compiled kernel could be kept: set PYTHIA_GGUF_CACHE to a folder that can be written")
    n_compiled = len(kept.keys() - before.keys())
    folders = sorted({str(path.parent) for path in kept})
    n_bytes = sum(kept.values())
    if output_format == "json":
        result = {"compiled": n_compiled, "seconds": round(seconds, 3), "folders": folders, "bytes": n_bytes}
        click.echo(json_text({"schema_version": 1} | result))
        return
    done = f"{n_compiled} kernels compiled" if n_compiled else "all kernels were compiled already, loaded"
    click.echo(f"{done} in {seconds:.1f} s")
    click.echo(f"kept in {' and '.join(folders)}, {n_bytes:,} bytes")


def compile_all_kernels(progress: Progress, threads: int | None = None) -> None:
    """Compile all but the encoders for importance matrices; `threads` as for `compile_all`."""
    import numpy as np

    from pythia_gguf.engine.model import engine_jobs
    from pythia_gguf.formats import FORMATS
    from pythia_gguf.kernels.compiling import compile_all
    from pythia_gguf.kernels.divergence import compare_job
    from pythia_gguf.kernels.encode import ENCODABLE, encoder_jobs
    from pythia_gguf.kernels.widen import widen

    unquantized = [name for name, block in FORMATS.items() if block.block_weights == 1]
    compile_all([*encoder_jobs(ENCODABLE), *engine_jobs(), compare_job()], progress, threads)
    for name in unquantized:
        widen(name, np.zeros(FORMATS[name].block_bytes, np.uint8), np.empty(1, np.float32))
