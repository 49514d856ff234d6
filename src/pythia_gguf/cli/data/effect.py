"""`pythia data effect`: how likely a model finds a text before and after its training showed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.data_options import batch_option, seed_option, tokenizer_option
from pythia_gguf.cli.model_options import LoadOptions, run_options
from pythia_gguf.cli.tables import print_table
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.data.finding import Sight
    from pythia_gguf.evals.effect import Effect, Effects
    from pythia_gguf.models.checkpoints import Checkpoint
    from pythia_gguf.progress import Progress

SCHEMA_VERSION = 1


@click.command("effect", cls=Command)
@click.argument("prefix")
@click.argument("text")
@click.option("--model", required=True, metavar="NAME[:QUANT]", help="A run, or a model of the Hub, without a step.")
@batch_option
@seed_option
@click.option("--max-sights", "limit", type=int, default=10, show_default=True, help="Sights to look at, the first.")
@click.option("--prompt", default="", metavar="TEXT", help="What stands before the text.  [default: nothing]")
@tokenizer_option
@click.option("-o", "--out", type=click.Path(path_type=Path), metavar="PNG", help="Draw it, too.")
@run_options
def command(
    prefix: str,
    text: str,
    model: str,
    batch: int,
    seed: int | None,
    limit: int,
    prompt: str,
    tokenizer: str | None,
    out: Path | None,
    loading: LoadOptions,
    output_format: str,
) -> None:
    """Score TEXT at the last checkpoint before, and the first one after, each row of training that shows it.

    PREFIX has an index (pythia data index), and its rows have steps. The model is a folder of stepN folders, or a name
    of the Hub; each checkpoint that is needed is fetched and made as `pythia generate NAME@STEP:QUANT` does it, and
    kept. Log-likelihoods are those of `pythia score`, in nats.

    \b
    pythia data effect corpus "the quick brown fox" --model runs/mine:Q8_0
    pythia data effect first-steps "It is a truth" --model pythia-70m-deduped -o effect.png
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.evals.effect import measure_effects, plot_effects
    from pythia_gguf.files import check_file_place
    from pythia_gguf.models.checkpoints import find_checkpoints

    if out is not None:
        check_file_place(out)
    find_checkpoints(model, batch)
    with make_progress() as progress:
        sights, n_whole = _sights(prefix, text, batch, seed, limit, tokenizer, progress)
        effects = measure_effects(
            [sight.row for sight in sights],
            text,
            model=model,
            load=loading.load,
            batch=batch,
            prompt=prompt,
            progress=progress,
        )
    if out is not None:
        plot_effects(effects, f"{model}: {text[:60]!r}", out)
    by_row = {effect.row: effect for effect in effects.sights}
    if output_format == "json":
        shown = [_as_json(sight, by_row[sight.row], effects) for sight in sights]
        told = {"schema_version": SCHEMA_VERSION, "text": text, "prompt": prompt, "model": model, "batch": batch}
        told |= {"n_sights": n_whole, "sights": shown, "checkpoints": _scores(effects)}
        how = {"activations": loading.activations, "gelu": loading.gelu, "kv": loading.cache}
        click.echo(json_text(told | how))
        return
    if not sights:
        click.echo("No row of training shows all of it.")
        return
    rows = [_as_row(sight, by_row[sight.row], effects) for sight in sights]
    print_table(("step", "row", "source", "before", "nats", "after", "nats", "change"), rows, right=(0, 1, 4, 6, 7))
    if n_whole is None or n_whole > len(sights):
        click.echo(f"The first {len(sights)} sights of {'more' if n_whole is None else f'{n_whole:,}'}.")


def _sights(
    prefix: str, text: str, batch: int, seed: int | None, limit: int, tokenizer: str | None, progress: Progress
) -> tuple[list[Sight], int | None]:
    """The first rows that show all of a text, and how many there are; None where not all places were looked at."""
    from pythia_gguf.data.finding import Finder
    from pythia_gguf.data.text import find_tokenizer, spellings
    from pythia_gguf.errors import UsageError

    looked_for = spellings(find_tokenizer(prefix, tokenizer, progress=progress), text)
    with Finder(prefix, batch=batch, seed=seed, progress=progress) as finder:
        if not finder.n_epochs:
            raise UsageError(f"{prefix} has no order, so no steps are known. Make one: pythia data order")
        found = [finder.occurrences(ids, 2 * limit) for _, ids in looked_for]
    numbers = [each.n_whole for each in found]
    sights = sorted((s for each in found for s in each.sights if s.is_whole), key=lambda s: (s.row, s.start))
    return sights[:limit], None if None in numbers else sum(n for n in numbers if n is not None)


def _as_json(sight: Sight, effect: Effect, effects: Effects) -> dict[str, Any]:
    from pythia_gguf.cli.sights import hit_json

    told = {"step": sight.step, "row": sight.row, "start": sight.start} | hit_json(sight.hit)
    for name, checkpoint in (("before", effect.before), ("after", effect.after)):
        told[name] = None if checkpoint is None else checkpoint.name
        told[f"logprob_{name}"] = None if checkpoint is None else effects.scores[checkpoint].logprob
    return told | {"change": effects.change(effect)}


def _scores(effects: Effects) -> list[dict[str, Any]]:
    return [
        {
            "checkpoint": checkpoint.name,
            "rows_seen": checkpoint.n_rows,
            "logprob": score.logprob,
            "n_tokens": score.n_tokens,
            "is_greedy": score.is_greedy,
        }
        for checkpoint, score in effects.scores.items()
    ]


def _as_row(sight: Sight, effect: Effect, effects: Effects) -> list[str]:
    def of(checkpoint: Checkpoint | None) -> tuple[str, str]:
        return ("-", "-") if checkpoint is None else (checkpoint.branch, f"{effects.scores[checkpoint].logprob:.4f}")

    change = effects.change(effect)
    told = "-" if change is None else f"{change:+.4f}"
    place = [f"{sight.step:,}", f"{sight.row:,}", sight.hit.source or "-"]
    return [*place, *of(effect.before), *of(effect.after), told]
