"""`pythia train`: a model from its recipe and data, to a run of checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.training import EyeOptions, LiveLine, require_torch, training_options
from pythia_gguf.errors import Argument, UsageError

if TYPE_CHECKING:
    from pythia_gguf.train.options import TrainOptions
    from pythia_gguf.train.recipe import Recipe


@click.command("train", cls=Command)
@click.argument("recipe", metavar="RECIPE.yaml|NAME")
@click.option("--data", metavar="PREFIX|pile|pile-deduped", help="What it is trained on.")
@click.option("-o", "--out", metavar="RUN", type=click.Path(path_type=Path), help="Folder of the run.")
@click.option(
    "--resume",
    type=click.Choice(["auto", "never"]),
    default="auto",
    show_default=True,
    help="auto: go on from the newest sound checkpoint.",
)
@training_options
@click.option("--print-recipe", is_flag=True, help="Print the recipe as YAML, and train nothing.")
def command(
    recipe: str,
    data: str | None,
    out: Path | None,
    resume: str,
    options: TrainOptions,
    eyes: EyeOptions,
    print_recipe: bool,
) -> None:
    """Train a model as Pythia was trained, on rows in the order that GPT-NeoX reads them.

    NAME is a model of the suite, whose recipe is built in; a file can say anything else. RUN gets a folder stepN for
    each checkpoint, which every other command takes as RUN@stepN. A run that was ended goes on with the same bits.

    \b
    pythia train pythia-14m --print-recipe > mine.yaml
    pythia train mine.yaml --data corpus -o runs/mine
    pythia replay runs/mine --step 1000
    pythia generate runs/mine@step1000:Q8_0 "The "
    """
    from pythia_gguf.train.recipe import find_recipe

    if print_recipe:
        others = [name for name in click.get_current_context().params if name not in ("recipe", "print_recipe")]
        refuse_given(" ".join(others), "where the recipe is printed")
    found = find_recipe(recipe)
    if print_recipe:
        click.echo(found.as_yaml(), nl=False)
        return
    if data is None:
        raise UsageError(Argument("data"), " must say what it is trained on")
    if out is None:
        raise UsageError(Argument("out"), " must say where the run is kept")
    require_torch()
    click.echo(_train(found, data, out, resume, options, eyes))


def _train(recipe: Recipe, data: str, out: Path, resume: str, options: TrainOptions, eyes: EyeOptions) -> Path:
    """Train, and draw the loss; returns the folder of the last checkpoint."""
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.train.boards import plot_loss
    from pythia_gguf.train.training import train

    opened = eyes.open(out)
    try:
        with make_progress() as progress:
            watcher = LiveLine(progress, recipe, opened)
            last = train(recipe, out, data=data, resume=resume, options=options, watcher=watcher, progress=progress)
    finally:
        if opened.board is not None:
            opened.board.close()
    try:
        plot_loss(out, out / "loss.png")
    except UsageError as e:  # without matplotlib there is no picture
        click.echo(str(e), err=True)
    return last
