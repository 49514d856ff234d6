"""`pythia train`: a model from its recipe and data, to a run of checkpoints."""

from __future__ import annotations

from pathlib import Path

import click

from pythia_gguf.cli.command import Command, refuse_given


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
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--micro-batch", "micro", type=int, help="Rows at once.  [default: 16,384 tokens]")
@click.option(
    "--dtype",
    type=click.Choice(["float16", "bfloat16", "float32"]),
    default="float16",
    show_default=True,
    help="Weights in checkpoints.",
)
@click.option("--keep-states", type=int, default=2, show_default=True, help="Checkpoints to go on from; 0: all.")
@click.option(
    "--save-every",
    "save_every_s",
    type=float,
    default=600.0,
    show_default=True,
    help="Seconds after which the state is saved between checkpoints; 0: never.",
)
@click.option("--recompute", is_flag=True, help="Compute activations again for gradients: less memory, more time.")
@click.option("--threads", type=int, help="Threads of torch; another number may change last bits.")
@click.option("--sample", "prompt", default="", metavar="PROMPT", help="Each checkpoint writes a sentence after it.")
@click.option("--no-sample", is_flag=True, help="Checkpoints write no sentence.")
@click.option(
    "--watch-quants", metavar="QUANTS", help="Measure at each checkpoint what these quants cost: Q4_K_M,Q2_K."
)
@click.option(
    "--watch-text", type=click.Path(path_type=Path), help="A text that the training does not see, for --watch-quants."
)
@click.option("--no-tensorboard", is_flag=True, help="Write no files for TensorBoard.")
@click.option("--print-recipe", is_flag=True, help="Print the recipe as YAML, and train nothing.")
def command(
    recipe: str,
    data: str | None,
    out: Path | None,
    resume: str,
    device: str,
    micro: int | None,
    dtype: str,
    keep_states: int,
    save_every_s: float,
    recompute: bool,
    threads: int | None,
    prompt: str,
    no_sample: bool,
    watch_quants: str | None,
    watch_text: Path | None,
    no_tensorboard: bool,
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
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.cli.training import Eyes, LiveLine, require_torch
    from pythia_gguf.errors import Argument, UsageError
    from pythia_gguf.train.recipe import find_recipe

    found = find_recipe(recipe)
    if print_recipe:
        click.echo(found.as_yaml(), nl=False)
        return
    if data is None or out is None:
        raise UsageError(Argument("data" if data is None else "out"), " says what it is trained on" if data is None else
                         " says where the run is kept")  # fmt: skip
    require_torch()
    from pythia_gguf.train.boards import Board, has_tensorboard, plot_loss
    from pythia_gguf.train.training import TrainOptions, train

    if no_sample:
        refuse_given("prompt", "where checkpoints write no sentence")
    eyes = Eyes(
        board=Board(out) if has_tensorboard() and not no_tensorboard else None,
        prompt=None if no_sample else prompt,
        quants=_quants(watch_quants, watch_text),
        text=watch_text,
    )

    options = TrainOptions(
        micro=micro,
        device=device,
        dtype=dtype,
        keep_states=keep_states,
        save_every_s=save_every_s,
        recompute=recompute,
        threads=threads,
    )
    try:
        with make_progress() as progress:
            watcher = LiveLine(progress, found, eyes)
            last = train(found, out, data=data, resume=resume, options=options, watcher=watcher, progress=progress)
    finally:
        if eyes.board is not None:
            eyes.board.close()
    try:
        plot_loss(out, out / "loss.png")
    except UsageError as e:  # without matplotlib there is no picture
        click.echo(str(e), err=True)
    click.echo(last)


def _quants(names: str | None, text: Path | None) -> tuple[str, ...]:
    """The quants to watch."""
    from pythia_gguf.errors import Argument, UsageError
    from pythia_gguf.files import RegularFile
    from pythia_gguf.train.watching import watched_quants

    if names is None:
        refuse_given("watch_text", "without --watch-quants")
        return ()
    if text is None:
        raise UsageError(Argument("watch_text"), " must say on which text quants are measured")
    with RegularFile(text):
        return tuple(watched_quants(names))
