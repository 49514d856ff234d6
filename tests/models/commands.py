"""Every command, and how it is given a model by its name or as a folder: the one list of the tests that go over all."""

from __future__ import annotations

from pathlib import Path

from evals.local_tasks import write_tasks

NANO = Path(__file__).parents[2] / "examples" / "nano"

# {model} stands for a name or a folder, {work} for a folder that holds what `prepare` writes.
MODEL_COMMANDS: dict[str, tuple[str, ...]] = {
    "generate": ("{model}:Q8_0", "def", "--max-tokens", "2"),
    "score": ("{model}:Q8_0", "--prompt", "import", "--continuation", " os"),
    "serve": ("{model}:Q8_0", "--port", "0", "--check"),
    "bench": ("{model}:Q8_0", "--prompt", "4", "--tokens", "2", "--repeats", "1"),
    "measure": ("{model}:Q8_0", "--reference", "{model}:F16", "--text", "{work}/text", "--context", "32"),
    "imatrix": ("{model}:Q8_0", "--text", "{work}/text", "--context", "32", "-o", "{work}/imatrix.gguf"),
    "eval": ("{model}:Q8_0", "--tasks", "sciq", "--include-path", "{work}/tasks"),
    "export": ("{model}:Q8_0", "--to", "{work}/exported"),
}
SOURCE_COMMANDS: dict[str, tuple[str, ...]] = {
    "quantize": ("{model}", "--out", "{work}/made", "--quants", "Q8_0", "--quiet"),
    "quants": ("{model}", "--quants", "Q8_0"),
}
NAME_COMMANDS: dict[str, tuple[str, ...]] = {"pull": ("{model}",)}
# What looks at a GGUF by its name or place, and makes none.
PATH_COMMANDS: dict[str, tuple[str, ...]] = {"inspect": ("{model}:Q8_0",), "verify": ("{model}:Q8_0",)}
# What takes a folder of this machine alone, be it a step of a run, and what there is in a dry run.
FOLDER_COMMANDS: dict[str, tuple[str, ...]] = {
    "card": ("{model}", "--report", "{work}/report.json"),
    "publish": ("{model}", "--repo", "me/x", "--dry-run"),
}
# What takes no model that could be on this machine by its name, and why.
OTHERS = {
    "models": "a list in the package",
    "check-revisions": "compares what the Hub holds now",
    "plot": "takes reports",
    "train": "takes a recipe",
    "replay": "takes a run",
    "data tokenize": "takes texts",
    "data dedup": "takes texts",
    "data order": "takes tokens",
    "data view": "takes tokens",
    "data pull": "takes the name of a data set",
    "data index": "takes tokens",
    "data find": "takes tokens",
    "data trace": "takes tokens",
    "data effect": "takes a whole run",
    "data corpus": "takes no model",
    "data stats": "takes texts or tokens",
    "cache": "takes no model",
    "warmup": "takes no model",
    "doctor": "takes no model",
}


def prepare(work: Path) -> None:
    """What commands read beside the model."""
    work.mkdir()
    (work / "text").write_text((NANO / "heldout.txt").read_text("utf-8")[:2000], "utf-8")
    write_tasks(work / "tasks")


def words(command: str, args: tuple[str, ...], model: str, work: Path) -> list[str]:
    """A command line."""
    return [*command.split(), *(arg.format(model=model, work=work) for arg in args)]
