"""Turns SOURCE or MODEL, as a user gives it, into a path: of a file, a folder, a step of a run, or a model of the Hub.

A file or folder on this machine wins over a name of the Hub.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from pathlib import Path

from pythia_gguf.errors import Argument, ModelFileError, StorageError, UsageError, one_line
from pythia_gguf.hub.client import Hub, UnreachableError
from pythia_gguf.hub.model_name import MAIN, ModelName, names_a_file, parse_model_name
from pythia_gguf.hub.page import is_page
from pythia_gguf.hub.pull import NamedSource, NoWeightsError, fetch, find, kept_snapshot
from pythia_gguf.hub.run_folder import RunStep, find_step, steps_in, steps_text
from pythia_gguf.intake.mistaken import ADAPTER, holds_weights, refuse_other_folder
from pythia_gguf.press.file_names import check_name, is_legal, legal_name, name_of
from pythia_gguf.press.gguf_folder import file_in, no_such_quant
from pythia_gguf.press.gguf_repository import kept_gguf, repository_gguf
from pythia_gguf.press.manifest import MANIFEST, SUMS
from pythia_gguf.press.source import UNQUANTIZED, Source, open_source, with_imatrix
from pythia_gguf.progress import Progress, Silence

# Beside weights and GGUF files.
_OF_A_MODEL = ("config.json", MANIFEST, SUMS)
_QUANT = re.compile(r"(?P<folder>.+):(?P<quant>\w+)")
_STEP = re.compile(r"(?P<run>.+)@(?P<step>[^@:/\\]+)(?::(?P<quant>[^@:/\\]+))?[/\\]?")


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalModel:
    """The place that a text names on this machine.

    path   a file or folder, which need not exist
    quant  the quant wanted in a folder, as given, or None
    step   the step, where the path was given as a step of a run
    """

    path: Path
    quant: str | None = None
    step: RunStep | None = None

    def existing_file(self) -> Path:
        """The path, or in a folder the file of the wanted quant; raises UsageError where there is none."""
        if self.quant is None:
            return self.path
        file = file_in(self.path, self.quant)
        if file is None:
            raise no_such_quant(self.path, self.quant)
        return file


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceLocation:
    """Where a source is.

    path   its folder or file
    place  the place on the Hub of those files of a checkpoint that are not on this machine
    model  the name by which it was given; None for a path
    """

    path: Path
    place: NamedSource | None = None
    model: ModelName | RunStep | None = None

    @property
    def name(self) -> str:
        """NAME of the files that are made from it."""
        if self.model is None or self.path.suffix.lower() == ".gguf":
            return name_of(self.path)
        return self.model.base_name

    @property
    def is_of_hub(self) -> bool:
        """Whether it was given by a name of the Hub."""
        return isinstance(self.model, ModelName)

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes for the reader."""
        notes = [self.model.notice] if isinstance(self.model, ModelName) and self.model.notice else []
        if not is_legal(self.name):
            notes.append(f"no file can be called {one_line(self.name, 100)!r} everywhere: {legal_name(self.name)} can")
        if self.place and self.place.elsewhere:
            notes.append("weights were read from the Hub as they were needed; their hashes are those it lists")
        return tuple(notes)


def find_source(source: str | os.PathLike[str], *, keep: bool, progress: Progress) -> SourceLocation:
    """Find a path, or else a name of the Hub, whose text files are fetched, and with `keep` its weights too.

    Raises UsageError, StorageError, NetworkError, ModelFileError
    """
    model = resolve(source)
    if model.quant is not None and model.quant.upper() not in UNQUANTIZED:
        shown = model if isinstance(model, ModelName) else one_line(os.fspath(source), 100)
        raise UsageError(f"{shown}: a source has no quant", (". Say ", Argument("quants", model.quant)))
    if isinstance(model, ModelName):
        return fetch_source(model, Hub(), keep=keep, progress=progress)
    return SourceLocation(path=model.existing_file(), model=model.step)


def open_location(found: SourceLocation, name: str | None, imatrix: str | os.PathLike[str] | None) -> Source:
    """Open the source at a location; its weights stay unread.

    name     NAME of the files made from it; None: its own name, or the part of it that can begin a file name
    imatrix  file of an importance matrix, or None
    Raises   as `open_source` and `with_imatrix`; UsageError for a name that no file can have
    """
    own_name = legal_name(found.name) if name is None else check_name(name)
    opened = open_source(found.path, own_name, found.place)
    return opened if imatrix is None else with_imatrix(opened, Path(imatrix))


def find_path(place: str | os.PathLike[str], progress: Progress | None) -> Path:
    """The path of a file or folder on this machine; for a name, of the GGUF that it means or a checkpoint's text files.

    Raises as `find_source`.
    """
    model = resolve(place)
    if isinstance(model, LocalModel):
        return model.existing_file()
    return fetch_source(model, Hub(), keep=False, progress=progress or Silence()).path


def find_folder(folder: str | os.PathLike[str]) -> Path:
    """A folder of this machine, which may be given as RUN@STEP; raises UsageError for a step that does not exist."""
    named = resolve(Path(folder))
    assert isinstance(named, LocalModel)
    return named.existing_file()


def resolve(model: str | os.PathLike[str], revision: str | None = None) -> LocalModel | ModelName:
    """Find out what a user's text names.

    model     PATH, FOLDER:QUANT, RUN@STEP or RUN@STEP:QUANT, where RUN is a folder that holds stepN folders; or, where
              there is no such file, NAME[@STEP][:QUANT] of the Hub
    revision  a step, branch or commit that was given beside it
    Raises    StorageError for a text that is neither a file here nor a name, UsageError for a step that does not exist,
              ModelFileError for a run without a step
    """
    text = os.fspath(model)
    # 1. If a file or folder has exactly this name, it is meant, whatever characters the name has.
    if os.path.lexists(text):
        return _at_path(text, None, revision)
    # 2. Otherwise a part of the text may name a folder: first all but a quant, then all but a step.
    folder, step = _QUANT.fullmatch(text), _STEP.fullmatch(text)
    if folder and os.path.isdir(folder["folder"]):
        return _at_path(folder["folder"], folder["quant"], revision)
    run = step["run"] if step and os.path.isdir(step["run"]) else None
    if step and run and (found := find_step(Path(run), step["step"])):
        if revision is not None and find_step(Path(run), revision) != found:
            only_one("revision", found.branch, revision)
        return LocalModel(path=found.folder, quant=step["quant"], step=found)
    # 3. A path object, or a text that ends like a file's name, is no name of the Hub.
    ends_as_file = text.lower().endswith(".gguf") and not names_a_file(text) and not is_page(text)
    if ends_as_file or isinstance(model, os.PathLike):
        return _at_path(text, None, revision)
    # 4. A folder without steps may be a copy of one revision: then the name means another revision, of the Hub.
    try:
        return _of_hub(text, revision)
    except UsageError as e:
        if is_page(text):
            raise
        why = f"no folder stepN in {one_line(run, 100)}" if run else "no such file or folder"
        raise StorageError(f"{one_line(text, 100)}: {why}, and as a name: {e}") from None


def steps_of_run(path: Path) -> dict[int, Path]:
    """The steps in a folder that holds no model of its own; none for any other path."""
    if not os.path.isdir(path) or not (steps := steps_in(path)):
        return {}
    is_model = any(name in _OF_A_MODEL or name.lower().endswith(".gguf") for name in os.listdir(path))
    return {} if is_model or holds_weights(path) else steps


def only_one(what: str, first: str | None, second: str | None) -> str | None:
    """The one that was given, here or there; raises UsageError where both were given and differ."""
    if first is not None and second is not None and first.lower() != second.lower():
        raise UsageError(f"two of them: {what} {first} and {second}")
    return first if first is not None else second


def _at_path(text: str, quant: str | None, revision: str | None) -> LocalModel:
    path = Path(text)
    if revision is None:
        if steps := steps_of_run(path):
            last = one_line(f"{path}@step{max(steps)}", 100)
            raise ModelFileError(
                f"holds the steps of a run. Give one of them, as {last}. {steps_text(steps)}", path=path
            )
        return LocalModel(path=path, quant=quant)
    step = find_step(path, revision) if path.is_dir() else None
    if step is None:
        raise UsageError(Argument("revision"), f": {one_line(text)}: this is a path, not a model of the Hub")
    return LocalModel(path=step.folder, quant=quant, step=step)


def _of_hub(text: str, revision: str | None) -> ModelName:
    """A name of the Hub, with a revision that was given beside it."""
    name = parse_model_name(text)
    if revision is None:
        return name
    given = None if name.revision == MAIN else name.revision
    whole = parse_model_name(f"{name.repo_id}@{only_one('revision', given, revision)}")
    return replace(whole, quant=name.quant, file=name.file)


def fetch_source(model: ModelName, hub: Hub, *, keep: bool, progress: Progress) -> SourceLocation:
    """Fetch a checkpoint of the Hub, with `keep` its weights too, or the GGUF file that a name means there.

    Raises UsageError, StorageError, NetworkError, ModelFileError
    """
    is_of_gguf = model.quant is not None or model.file is not None
    try:
        if not is_of_gguf:
            place = find(model, hub, keep=keep, progress=progress)
            return SourceLocation(path=place.folder, place=place, model=model)
        is_suite = model.model is not None and model.file is None
        revision = None if is_suite else hub.revision(model.repo_id, model.revision)
        path = None if revision is None else repository_gguf(model, revision, hub, progress)
        if path is None:
            raise UsageError(f"{model}: a checkpoint has no quant. pythia generate {model} makes one")
    except NoWeightsError as e:
        path = repository_gguf(model, e.revision, hub, progress)
        if path is None:
            refuse_other_repository(model, e, hub)
            raise
    except UnreachableError:
        snapshot = kept_snapshot(model)
        path = kept_gguf(model, snapshot) if snapshot is not None else None
        if path is None:
            raise
    return SourceLocation(path=path, model=model)


def refuse_other_repository(model: ModelName, error: NoWeightsError, hub: Hub) -> None:
    """Raise ModelFileError for a repository without weights that is known: an adapter, a data set and the like."""
    files = error.revision.files
    # Only the files of adapters are looked into.
    folder = fetch(model, error.revision, [ADAPTER], hub) if ADAPTER in files else Path(os.devnull)
    refuse_other_folder(folder, {path.split("/")[0] for path in files}, str(model))
