"""`pythia models`: the suite as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.hub.suite import Step, SuiteModel


@click.command("models", cls=Command)
@click.argument("name", required=False)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str | None, output_format: str) -> None:
    """Show the Pythia suite; for a NAME its steps, for NAME@STEP what it had seen.

    v0 is of autumn 2022, v1 of April 2023, retrained with one batch size. JSON is a list of objects.

    \b
    pythia models
    pythia models pythia-410m-deduped
    pythia models pythia-410m@step100000 --output-format json
    """
    from pythia_gguf.cli.tables import print_table
    from pythia_gguf.errors import UsageError
    from pythia_gguf.hub.model_name import MAIN, parse_model_name
    from pythia_gguf.hub.suite import LAST_STEP, MODELS

    models, step = list(MODELS.values()), None
    if name is not None:
        parsed = parse_model_name(name)
        if parsed.model is None:
            raise UsageError(f"{parsed.repo_id} is not in the Pythia suite")
        if parsed.quant is not None:
            raise UsageError(f"{name}: models and steps have no quant: leave :{parsed.quant} out")
        if parsed.notice:
            click.echo(parsed.notice, err=True)
        models = [parsed.model]
        if parsed.revision != MAIN:
            if not parsed.revision.removeprefix("step").isdigit():
                raise UsageError(f"{parsed.revision!r} is no step")
            step = parsed.model.step(int(parsed.revision.removeprefix("step")))
    if output_format == "json":
        click.echo(json_text([_as_json(m, step) for m in models]))
        return
    if name is None:
        print_table(
            ("model", "parameters", "without embeddings", "layers", "width", "heads", "peak lr", "was called", "like"),
            [_row(m) for m in models],
            right=(1, 2, 3, 4, 5, 6),
        )
        return
    rows = _facts(models[0]) if step is None else _step_facts(step)
    print_table(("fact", "value"), rows)
    if step is None:
        click.echo(f"pythia models {models[0].name}@step{LAST_STEP // 2 // 1000 * 1000}  says more of a step")


def _row(m: SuiteModel) -> tuple[str, ...]:
    s = m.size
    numbers = (f"{s.parameters:,}", f"{s.non_embedding_parameters:,}", str(s.n_layers), str(s.hidden), str(s.n_heads))
    return (m.name, *numbers, f"{s.peak_lr:g}", m.old_name or "", ", ".join(s.equivalents))


def _facts(m: SuiteModel) -> list[tuple[str, str]]:
    s = m.size
    rows = [
        ("repository", m.repo_id),
        ("version", f"v{m.version}"),
        ("was called", m.old_name or "-"),
        ("parameters", f"{s.parameters:,}"),
        ("without embeddings", f"{s.non_embedding_parameters:,}"),
        ("layers, width, heads", f"{s.n_layers}, {s.hidden}, {s.n_heads}"),
        ("vocabulary", f"{s.n_vocab:,} rows, padded"),
        ("data", "the Pile, deduplicated" if m.is_deduped else "the Pile"),
        ("peak learning rate", f"{s.peak_lr:g}" + (f" (the model card says {s.card_lr:g})" if s.card_lr else "")),
        ("tokens in a batch", "4,194,304" if m.is_4m else "2,097,152"),
        ("equivalents", ", ".join(s.equivalents) or "-"),
        ("branches", f"{len(m.steps)}: {_steps(m)}"),
    ]
    if m.is_4m:
        rows.append(("note", "trained with batches of 4 M tokens: branch stepN is iteration N / 2"))
    return rows


def _steps(m: SuiteModel) -> str:
    even = "step1000, step2000 to step143000"
    return even if m.version == 0 else f"step0, step1, step2, step4 to step512, {even}"


def _step_facts(step: Step) -> list[tuple[str, str]]:
    return [
        ("model", step.model.name),
        ("branch", f"step{step.n}"),
        ("iteration", f"{step.iteration:,}"),
        ("tokens seen", f"{step.tokens_seen:,}"),
        ("sequences seen", f"{step.sequences:,} of 2,048 tokens"),
        ("learning rate", f"{step.learning_rate:.6e}"),
    ]


def _as_json(m: SuiteModel, step: Step | None) -> dict[str, Any]:
    s = m.size
    result: dict[str, Any] = {
        "name": m.name,
        "repo_id": m.repo_id,
        "version": m.version,
        "deduped": m.is_deduped,
        "old_name": m.old_name,
        "parameters": s.parameters,
        "non_embedding_parameters": s.non_embedding_parameters,
        "layers": s.n_layers,
        "hidden": s.hidden,
        "heads": s.n_heads,
        "vocabulary": s.n_vocab,
        "peak_learning_rate": s.peak_lr,
        "card_learning_rate": s.card_lr or s.peak_lr,
        "equivalents": list(s.equivalents),
        "revisions": [f"step{n}" for n in m.steps],
    }
    if step is not None:
        result |= {
            "step": step.n,
            "iteration": step.iteration,
            "tokens_seen": step.tokens_seen,
            "sequences_seen": step.sequences,
            "learning_rate": step.learning_rate,
        }
    return result
