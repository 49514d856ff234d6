"""Tasks of lm-evaluation-harness by name, a run of them, and its results as the harness and as EleutherAI write them.

A run takes anything that is the harness's `LM`. lm_eval comes with the extra `eval` and is imported only when tasks are
asked for.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pythia_gguf.arguments import texts
from pythia_gguf.errors import Argument, NetworkError, PythiaGGUFError, StorageError, UsageError, nearest, one_line
from pythia_gguf.evals.scores import items_of, values
from pythia_gguf.json_file import json_text, without_nan
from pythia_gguf.machine import variable_set

if TYPE_CHECKING:
    from lm_eval.api.group import Group
    from lm_eval.api.model import LM
    from lm_eval.api.task import Task
    from lm_eval.tasks import TaskManager

# Resamples for the error of a perplexity, which has no formula: it comes out right to about 2 %. The harness's own
# 100,000 take minutes in one process.
_BOOTSTRAPS = 1000
# Metrics that EleutherAI's files call by another name.
_PYTHIA_NAMES = {"perplexity": "ppl", "likelihood_diff": "likelihood_difference"}
# Keys of results that have an entry for each task.
_OF_TASKS = (
    "results",
    "groups",
    "group_subtasks",
    "configs",
    "versions",
    "n-shot",
    "higher_is_better",
    "n-samples",
)


def check_run(n_shots: int | None, limit: int | None) -> None:
    """Raise UsageError where `run_tasks` would."""
    if n_shots is not None and n_shots < 0:
        raise UsageError(Argument("n_shots"), f" must be at least 0, got {n_shots}")
    if limit is not None and limit < 1:
        raise UsageError(Argument("limit"), f" must be at least 1, got {limit}")


def load_tasks(names: Sequence[str], include: str | os.PathLike[str] | None = None) -> list[Task | Group]:
    """Tasks with their data; raises UsageError for unknown tasks and for those that cannot run here, and NetworkError,
    StorageError.

    names    of tasks, groups and tags, or patterns of them: "piqa", "crows_pairs_english*"
    include  folder of more tasks in YAML; there, a name of the harness's means the one in the folder
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as e:
        raise UsageError(f'tasks need lm_eval: pip install "pythia-gguf[eval]" ({e})') from e
    if include is not None and not Path(include).is_dir():
        raise StorageError(f"{one_line(os.fspath(include))}: no such folder")
    names = [name for name in texts("names", names) if name]
    if not names:
        raise UsageError(Argument("tasks"), " names no task")
    manager = _beside(TaskManager, names, include) or TaskManager(include_path=_text(include))
    found = dict.fromkeys(task for name in names for task in _matches(name, manager))
    with _one_line_errors(names):
        loaded = manager.load(list(found))
    for name, task in loaded["tasks"].items():
        if getattr(task, "UNSAFE_CODE", False):
            raise UsageError(f"task {name} runs code that the model wrote, which is not done here")
        if getattr(task, "MULTIMODAL", False):
            raise UsageError(f"task {name} needs a model that sees pictures")
    groups = loaded.get("groups", {})
    inside = {child for children in loaded.get("group_map", {}).values() for child in children}
    return [thing for name, thing in [*groups.items(), *loaded["tasks"].items()] if name not in inside]


def check_tasks(model: LM, tasks: Sequence[Task | Group], n_shots: int | None) -> None:
    """Raise UsageError, which names the task, for a task that cannot run: before the first request of any.

    n_shots  as in `run_tasks`
    """
    _check_examples(tasks, n_shots or 0)
    check: Callable[[dict[str, Any]], None] = getattr(model, "check_generation", lambda options: None)
    for task in _each(tasks):
        if task.OUTPUT_TYPE == "generate_until":
            with _of_task(task.task_name):
                check(task.config.generation_kwargs or {})


def names_of(tasks: Sequence[Task | Group]) -> list[str]:
    """Groups and tasks that results will have, the first group first."""
    from lm_eval.api.group import Group

    groups = [group for thing in tasks if isinstance(thing, Group) for group in (thing, *thing.get_all_groups())]
    return list(dict.fromkeys([*(group.name for group in groups), *(task.task_name for task in _each(tasks))]))


def run_tasks(
    model: LM,
    tasks: Sequence[Task | Group],
    *,
    n_shots: int | None = None,
    limit: int | None = None,
    hear: Callable[[dict[str, Any]], None] = lambda results: None,
) -> dict[str, Any]:
    """Run tasks; returns what `lm_eval --output_path` writes, as a dict.

    n_shots  examples in each prompt; None for what the task says, else none
    limit    items of each task; None for all
    hear     hears the results so far after each task or group: what is done is not lost when a later one fails
    Raises   UsageError as `check_run` and `check_tasks` do; an error of a task names it
    """
    from lm_eval.loggers import EvaluationTracker

    check_run(n_shots, limit)
    check_tasks(model, tasks, n_shots)
    tracker, results = EvaluationTracker(), dict[str, Any]()
    for thing in tasks:
        with _of_task(names_of([thing])[0]):
            found = _run(model, thing, n_shots, limit, tracker)
        results = _both(results, found) if results else found
        hear(_with_facts(results, n_shots, tracker))
    return _with_facts(results, n_shots, tracker)


def _run(model: LM, thing: Task | Group, n_shots: int | None, limit: int | None, tracker: Any) -> dict[str, Any]:
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    # The harness would fork to resample, and a process with threads must not be forked. It prints, too.
    in_one_process = variable_set("DISABLE_MULTIPROC", "1")
    with in_one_process, _quick_and_quiet(), contextlib.redirect_stdout(sys.stderr):
        results: dict[str, Any] = simple_evaluate(
            model=model,
            tasks=[thing],
            task_manager=TaskManager(include_defaults=False),  # else it would list the harness's tasks again
            num_fewshot=n_shots,
            limit=limit,
            bootstrap_iters=_BOOTSTRAPS,
            log_samples=False,
            evaluation_tracker=tracker,
        )
    return results


def _both(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Two runs as one: what is kept for each task is joined, the rest is the first one's."""
    joined = {key: first.get(key, {}) | second.get(key, {}) for key in _OF_TASKS if key in first or key in second}
    return {**first, **joined}


def _with_facts(results: Mapping[str, Any], n_shots: int | None, tracker: Any) -> dict[str, Any]:
    """Results with what the harness adds when it writes them, and the shots that were asked for."""
    general, config = tracker.general_config_tracker, dict(results["config"])
    general.log_end_time()
    if facts := config.get("pythia_gguf", {}):
        config["pythia_gguf"] = facts | {"num_fewshot": n_shots}
        names = {"gelu": "gelu", "activations": "activations", "cache": "kv", "encoding": "encoding"}
        general.model_name = general.model_name_sanitized = facts["file"]
        general.model_source = config["model"] = "pythia-gguf"
        config["model_args"] = ",".join(
            [f"model={facts['file']}", *(f"{option}={facts[n]}" for option, n in names.items())]
        )
    return {**results, "config": config, "task_hashes": {}, **asdict(general)}


def pythia_layout(results: Mapping[str, Any]) -> dict[str, Any]:
    """The same in the form of EleutherAI/pythia a19eecb, evals/pythia-v1: results, versions, config.

    A metric with a filter other than the harness's "none" keeps the filter in its name; those without a value are left
    out.
    """
    config, shots = results["config"], results["n-shot"]
    distinct = set(shots.values())
    # Groups are among them, which this layout does not know.
    n_samples = {task: {"original": items.whole, "effective": items.asked} for task, items in items_of(results).items()}
    return {
        "results": {
            task: {
                _pythia_name(name) + ("" if filtered in ("", "none") else f",{filtered}"): value
                for name, _, filtered, value in values(metrics)
            }
            for task, metrics in results["results"].items()
        },
        "versions": {
            task: int(version) if isinstance(version, int | float) else version
            for task, version in results["versions"].items()
        },
        "config": {
            "model": config["model"],
            "model_args": config["model_args"],
            "num_fewshot": distinct.pop() if len(distinct) == 1 else shots,
            "batch_size": config["batch_size"],
            "device": "cpu",
            "no_cache": True,
            "limit": config["limit"],
            "bootstrap_iters": config["bootstrap_iters"],
            "description_dict": {},
            "pythia_gguf": (config.get("pythia_gguf") or {}) | {"n-samples": n_samples},
        },
    }


def _pythia_name(metric: str) -> str:
    """The name of a metric, or of its error, in EleutherAI's files."""
    name = metric.removesuffix("_stderr")
    return _PYTHIA_NAMES.get(name, name) + metric[len(name) :]


def as_json(results: Mapping[str, Any]) -> str:
    """Text of results: null for NaN and Infinity; other values that JSON has no form for as the harness writes them."""
    from lm_eval.utils import handle_non_serializable

    return json_text(without_nan(results), indent=2, ascii_only=False, default=handle_non_serializable)


def _check_examples(tasks: Sequence[Task | Group], n_shots: int) -> None:
    if not n_shots:
        return
    for task in _each(tasks):
        n_examples = len(task.fewshot_docs() or ())
        if task.fewshot_cfg.split == task.config.test_split:
            n_examples -= 1  # the item itself is among them, and the harness draws one more than it needs
        if n_examples < n_shots and task.get_config("num_fewshot") != 0:
            raise UsageError(
                f"task {task.task_name}: ",
                Argument("n_shots", n_shots),
                f", more examples than there are: {n_examples}",
            )


def _each(tasks: Sequence[Task | Group]) -> Iterator[Task]:
    """Tasks, those in groups too."""
    from lm_eval.api.group import Group

    for thing in tasks:
        yield from thing.get_all_tasks() if isinstance(thing, Group) else [thing]


def _text(include: str | os.PathLike[str] | None) -> str | None:
    return None if include is None else os.fspath(include)


def _beside(
    kind: type[TaskManager], names: Sequence[str], include: str | os.PathLike[str] | None
) -> TaskManager | None:
    """The tasks of the folder alone, when no others are asked for: listing the harness's takes seconds."""
    if include is None:
        return None
    manager = kind(include_path=_text(include), include_defaults=False)
    return manager if set(names) <= set(manager.all_subtasks) else None


def _matches(name: str, manager: TaskManager) -> list[str]:
    found: list[str] = manager.match_tasks([name])
    if not found:
        raise UsageError(f"no task {one_line(name, 60)!r}{nearest(name, manager.all_tasks)}")
    return found


@contextlib.contextmanager
def _one_line_errors(names: Sequence[str]) -> Iterator[None]:
    """Turn what harness and `datasets` raise while tasks are loaded into one line."""
    from datasets.exceptions import DatasetsError

    which = one_line(", ".join(names), 100)
    try:
        yield
    except PythiaGGUFError:
        raise
    except ConnectionError as e:
        raise NetworkError(f"{which}: no data ({one_line(str(e), 150)}). Is there a network?") from e
    except (OSError, ImportError, ValueError, KeyError, DatasetsError) as e:
        raise UsageError(f"{which}: cannot be loaded: {type(e).__name__}: {one_line(str(e))}") from e


@contextlib.contextmanager
def _of_task(name: str) -> Iterator[None]:
    """An error of ours names the task that it comes from."""
    try:
        yield
    except PythiaGGUFError as e:
        if f"task {name}" in str(e):
            raise
        raise e.within(f"task {one_line(name, 60)}") from e


@contextlib.contextmanager
def _quick_and_quiet() -> Iterator[None]:
    """Replace what the harness asks after each task: git, for the commit of the current folder, which complains where
    there is none; and pip, for a list of packages, which takes a second.
    """
    from lm_eval import evaluator

    before = evaluator.get_git_commit_hash, evaluator.add_env_info
    evaluator.get_git_commit_hash, evaluator.add_env_info = _commit, _add_environment
    try:
        yield
    finally:
        evaluator.get_git_commit_hash, evaluator.add_env_info = before


def _add_environment(results: dict[str, Any]) -> None:
    from lm_eval.loggers.utils import get_commit_from_path

    results.update(_environment() | {"upper_git_hash": get_commit_from_path(Path(os.getcwd(), ".."))})


@cache
def _environment() -> dict[str, Any]:
    """What the harness says of this process and its machine."""
    from lm_eval.loggers.utils import add_env_info

    found = dict[str, Any]()
    add_env_info(found)
    return found


def _commit() -> str | None:
    with contextlib.suppress(OSError):
        done = subprocess.run(["git", "describe", "--always"], capture_output=True, text=True, check=False)
        return done.stdout.strip() or None
    return None
