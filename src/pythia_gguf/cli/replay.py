"""`pythia replay`: a step of a run again, compared by its digest."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.training import device_options, require_torch
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.train.options import TrainOptions

SCHEMA_VERSION = 1


@click.command("replay", cls=Command)
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--step", type=int, required=True, help="The update that makes checkpoint N of checkpoint N - 1.")
@click.option("--data", metavar="PREFIX", help="Where its data are now.  [default: where they were]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
@device_options
def command(run: Path, step: int, data: str | None, options: TrainOptions, output_format: str) -> None:
    """Do a step of a training again, from the nearest checkpoint before it, and compare the weights to the bit.

    Exit code 0: the step in the log, and the checkpoint, are that step; 1: they are not.

    \b
    pythia replay runs/mine --step 1000
    """
    from pythia_gguf.cli.progress import make_progress

    require_torch()
    from pythia_gguf.train.replaying import replay

    with make_progress() as progress:
        done = replay(
            run, step, data=data, options=options, tell=lambda line: click.echo(line, err=True), progress=progress
        )
    if output_format == "json":
        told: dict[str, Any] = {"schema_version": SCHEMA_VERSION, "step": done.step, "before": done.before}
        told["is_same"] = done.is_same
        told |= {"found": dataclasses.asdict(done.found), "checkpoint_digest": done.checkpoint}
        click.echo(json_text(told | {"logged": None if done.logged is None else dataclasses.asdict(done.logged)}))
    else:
        click.echo(f"done again from step {done.before}: {done.found.digest}, loss {done.found.loss:.6f}")
        if done.logged is not None:
            click.echo(f"log.csv:                 {done.logged.digest}, loss {done.logged.loss:.6f}")
        if done.checkpoint is not None:
            click.echo(f"step{step}/training.json: {done.checkpoint}")
        click.echo(f"step {step} is {'the same' if done.is_same else 'ANOTHER'}")
    if not done.is_same:
        click.get_current_context().exit(1)
