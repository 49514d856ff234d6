"""What a user wants to serve, as models with a name each: of files, folders of them, runs, names of the Hub."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.hub.run_folder import steps_in
from pythia_gguf.intake.gguf_model import open_gguf_model
from pythia_gguf.plan.recognize import quant_of
from pythia_gguf.press.file_names import legal_name
from pythia_gguf.press.gguf_folder import files_in
from pythia_gguf.press.source import open_source


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model that may be asked for.

    name       in requests
    place      what `models.find.find_gguf` takes
    quant      None where only loading it will tell
    step       of training, where the place tells it
    n_context  positions; None where only loading it will tell
    """

    name: str
    place: str
    quant: str | None = None
    step: int | None = None
    n_context: int | None = None


def sources_of(models: Iterable[str]) -> dict[str, ModelSource]:
    """Each model by its name, in the order in which they were given.

    Raises UsageError where two would have one name, or a folder holds no model; ModelFileError for a damaged file
    """
    found: dict[str, ModelSource] = {}
    for given in models:
        for source in _in_place(given):
            if source.name in found:
                raise UsageError(
                    Argument("models"),
                    f": {one_line(found[source.name].place)} and {one_line(source.place)} would both be called"
                    f" {one_line(source.name)}. Rename one, or leave it out",
                )
            found[source.name] = source
    return found


def _in_place(given: str) -> Iterator[ModelSource]:
    path = Path(given)
    if path.is_file():
        gguf, config = open_gguf_model(path)
        quant = quant_of(gguf.metadata, gguf.formats)
        yield ModelSource(name=path.stem, place=str(path), quant=quant, n_context=config.n_context)
    elif path.is_dir() and (steps := steps_in(path)):
        run = path.resolve().name
        for step, folder in steps.items():
            for source in _in_folder(folder):
                name = f"{run}@step{step}:{source.quant}" if source.quant else f"{run}@step{step}"
                yield replace(source, name=name, step=step)
    elif path.is_dir():
        yield from _in_folder(path)
    else:
        # A name of the Hub, or FOLDER:QUANT: it is looked up when it is asked for.
        yield ModelSource(name=given, place=given)


def _in_folder(folder: Path) -> Iterator[ModelSource]:
    """Every GGUF of a model in a folder; where there is none, the checkpoint that it holds."""
    files, faults = files_in(folder)
    for file in files:
        yield ModelSource(name=file.path.stem, place=str(file.path), quant=file.quant)
    if files:
        return
    if faults and not (folder / "config.json").is_file():
        raise faults[0]
    name = folder.resolve().name
    open_source(folder, legal_name(name))  # says what the folder is if it is no checkpoint
    yield ModelSource(name=name, place=str(folder))
