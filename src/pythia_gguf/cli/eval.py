"""`pythia eval`: tasks of lm-evaluation-harness on a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.cli.model_options import LoadOptions, encoding_option, model_options
from pythia_gguf.errors import Argument

if TYPE_CHECKING:
    from pythia_gguf.evals.scores import Score


@click.command("eval", cls=Command)
@model_options
@click.option(
    "--tasks", required=True, metavar="NAME,...", help="Tasks, groups or tags of lm_eval; * matches anything."
)
@click.option(
    "--num-fewshot", "n_shots", type=int, metavar="N", help="Examples in each prompt.  [default: as the task says]"
)
@click.option("--limit", type=int, metavar="N", help="Only the first items of each task, for a quick look.")
@encoding_option
@click.option(
    "--include-path",
    "include",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="Folder of more tasks, as YAML files.",
)
@click.option("-o", "--out", metavar="results.json", type=click.Path(path_type=Path), help="Write the results.")
@click.option("--force", is_flag=True, help="Replace results that say more, or of something else.")
@click.option(
    "--layout",
    type=click.Choice(["harness", "pythia"]),
    default="harness",
    show_default=True,
    help="Of JSON: what lm_eval writes, or the files in EleutherAI/pythia, named 410m-deduped_step143000.json there.",
)
def command(
    model: str,
    tasks: str,
    n_shots: int | None,
    limit: int | None,
    encoding: str,
    include: Path | None,
    out: Path | None,
    layout: str,
    force: bool,
    loading: LoadOptions,
    output_format: str,
) -> None:
    """Run tasks of EleutherAI's lm-evaluation-harness; needs the extra "eval".

    Items, prompts and metrics are the harness's own, scores the engine's. The data of a task comes from the Hub.

    \b
    pythia eval pythia-70m.Q4_K_M.gguf --tasks lambada_openai,piqa,winogrande,arc_challenge,sciq -o results.json
    pythia eval pythia-410m-deduped@step3000:F16 --tasks sciq --encoding separate --layout pythia -o 410m_step3000.json
    pythia eval examples/nano --tasks "crows_pairs_english*" --limit 20
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.evals.report import lost_results
    from pythia_gguf.evals.result_file import alone_with, refuse_to_lose
    from pythia_gguf.evals.tasks import check_run, check_tasks, load_tasks, names_of, run_tasks

    check_run(n_shots, limit)
    if out is None:
        refuse_given("force", "without ", Argument("out"))
        if output_format == "text":
            refuse_given("layout", "without ", Argument("out"), " or ", Argument("output_format", "json"))
    with alone_with(out):
        loaded = load_tasks(tasks.replace(" ", "").split(","), include)
        from pythia_gguf.evals.harness import PythiaLM

        opened = loading.load(model)
        so_far: list[dict[str, Any]] = []
        with make_progress() as progress:
            lm = PythiaLM(opened, encoding=encoding, progress=progress)
            check_tasks(lm, loaded, n_shots)
            refuse_to_lose(out, force, lambda path: lost_results(path, lm.facts, names_of(loaded), n_shots, limit))
            try:
                run_tasks(lm, loaded, n_shots=n_shots, limit=limit, hear=so_far.append)
            except BaseException:
                # Show what is done so far, and write it where that loses nothing.
                _tell(so_far, None if out is None or out.exists() else out, layout, output_format)
                raise
        _tell(so_far, out, layout, output_format)


def _tell(so_far: list[dict[str, Any]], out: Path | None, layout: str, output_format: str) -> None:
    """Write the last results into the file and onto stdout; each of the results holds those before it."""
    from pythia_gguf.evals.result_file import write_and_show
    from pythia_gguf.evals.scores import scores_of
    from pythia_gguf.evals.tasks import as_json, pythia_layout
    from pythia_gguf.files import write_text

    if not so_far:
        return
    results = so_far[-1]
    text = as_json(pythia_layout(results) if layout == "pythia" else results)

    def write() -> None:
        if out is not None:
            write_text(out, text + "\n")

    def show() -> None:
        if output_format == "json":
            click.echo(text)
        else:
            _print(scores_of(results), results["config"]["pythia_gguf"])

    write_and_show(write, show)


def _print(scores: Sequence[Score], facts: Mapping[str, Any]) -> None:
    from pythia_gguf.cli.tables import print_table

    table = [
        (s.task, s.metric, f"{s.value:.4f}", "-" if s.stderr is None else f"{s.stderr:.4f}", str(s.items))
        for s in scores
    ]
    print_table(("task", "metric", "value", "stderr", "items"), table, right=(2, 3, 4))
    click.echo(
        f"{facts['file']}: {facts['activations']} activations, {facts['gelu']} GELU, {facts['encoding']} encoding"
    )
