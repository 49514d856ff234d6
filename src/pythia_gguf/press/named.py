"""SOURCE, as a user gives it: a folder, a file, or the name of a model of the Hub. Knows no tensor."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import Argument, StorageError, UsageError, one_line
from pythia_gguf.hub.client import Hub, UnreachableError
from pythia_gguf.hub.model_name import MAIN, ModelName, names_a_file, parse_model_name
from pythia_gguf.hub.page import is_page
from pythia_gguf.hub.pull import NamedSource, NoWeightsError, fetch, find, kept_snapshot
from pythia_gguf.intake.mistaken import ADAPTER, refuse_other_folder
from pythia_gguf.press.gguf_repository import kept_gguf, repository_gguf
from pythia_gguf.press.names import is_legal, legal_name, name_of
from pythia_gguf.press.source import UNQUANTIZED
from pythia_gguf.progress import Progress, Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Where a source is.

    path   of its folder or file
    place  of a checkpoint of the Hub: what is not on this machine
    model  the name that it was given by; None for a path
    """

    path: Path
    place: NamedSource | None = None
    model: ModelName | None = None

    @property
    def name(self) -> str:
        """NAME of what is made from it."""
        if self.model is None or self.path.suffix.lower() == ".gguf":
            return name_of(self.path)
        name = self.model.repo_id.split("/")[-1]
        return name if self.model.revision == MAIN else f"{name}-{self.model.revision.replace('/', '-')}"

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know."""
        notes = [self.model.notice] if self.model and self.model.notice else []
        if not is_legal(self.name):
            notes.append(f"no file can be called {one_line(self.name, 100)!r} everywhere: {legal_name(self.name)} can")
        if self.place and self.place.elsewhere:
            notes.append("weights were read from the Hub as they were needed; their hashes are those it lists")
        return tuple(notes)


def find_source(source: str | os.PathLike[str], *, keep: bool, progress: Progress) -> Found:
    """A path where there is one, else a name; of a name, the texts are fetched, with `keep` the weights too.

    Raises UsageError, StorageError, NetworkError
    """
    model = name_in(source)
    if model is None:
        return Found(path=Path(source))
    if model.quant is not None and model.quant.upper() not in UNQUANTIZED:
        raise UsageError(f"{model}: a source has no quant", (". Say ", Argument("quants", model.quant)))
    return fetched(model, Hub(), keep=keep, progress=progress)


def fetched(model: ModelName, hub: Hub, *, keep: bool, progress: Progress) -> Found:
    """A checkpoint of the Hub, with `keep` its weights too; or, of a repository of GGUF files, the one that is meant.

    Raises UsageError, StorageError, NetworkError, ModelFileError
    """
    is_of_gguf = model.quant is not None or model.file is not None
    try:
        if not is_of_gguf:
            place = find(model, hub, keep=keep, progress=progress)
            return Found(path=place.folder, place=place, model=model)
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
    return Found(path=path, model=model)


def find_path(place: str, progress: Progress | None) -> Path:
    """A file or folder that is here, as it is; of a name the GGUF that is meant, or the texts of a checkpoint.

    Raises as `fetched`
    """
    model = name_in(place)
    return Path(place) if model is None else fetched(model, Hub(), keep=False, progress=progress or Silence()).path


def refuse_other_repository(model: ModelName, error: NoWeightsError, hub: Hub) -> None:
    """Raise ModelFileError for a repository without weights that is known: an adapter, a data set and the like."""
    files = error.revision.files
    # Of all but adapters nothing is looked into.
    folder = fetch(model, error.revision, [ADAPTER], hub) if ADAPTER in files else Path(os.devnull)
    refuse_other_folder(folder, {path.split("/")[0] for path in files}, str(model))


def name_in(source: str | os.PathLike[str]) -> ModelName | None:
    """The name of a model of the Hub; None for what is on this machine or can only be a path.

    Raises StorageError for what is neither: it is not here, and no name.
    """
    text = os.fspath(source)
    if os.path.lexists(text) or isinstance(source, os.PathLike):
        return None
    if is_page(text):
        return parse_model_name(text)
    if text.lower().endswith(".gguf") and not names_a_file(text):
        return None
    try:
        return parse_model_name(text)
    except UsageError as e:
        raise StorageError(f"{one_line(text, 100)}: no such file or folder, and as a name: {e}") from None
