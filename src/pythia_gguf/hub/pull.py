"""Fetches the files of a model's revision into huggingface_hub's own cache, and compares each one with its hash.

It chooses the files by their names.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pythia_gguf.errors import ModelFileError, NetworkError, StorageError
from pythia_gguf.files import FileElsewhere, RegularFile, feed, write_text
from pythia_gguf.hub.client import Hub, HubFile, Revision, UnreachableError, errors_as_one_line, git_digest
from pythia_gguf.hub.model_name import MAIN, ModelName
from pythia_gguf.hub.remote_file import RemoteFile
from pythia_gguf.progress import Progress, Silence

_TEXTS = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens)\.json"
    r"|README\.md|LICEN[CS]E(\.\w+)?|NOTICE"
    r"|chat_template\.(jinja|json)|additional_chat_templates/[\w-]+\.jinja"
)
_COMMIT = re.compile("[0-9a-f]{40}")
_WAITS_S = (0.5, 2, 8)  # before it is tried again where a server is busy or a connection breaks
# Best first: one file, or an index and its shards.
_WEIGHTS = (
    ("safetensors", "model.safetensors", re.compile(r"model-\d{5}-of-(\d{5})\.safetensors")),
    ("torch", "pytorch_model.bin", re.compile(r"pytorch_model-\d{5}-of-(\d{5})\.bin")),
)


class NoWeightsError(NetworkError):
    """A repository holds no weights that we read; `revision` lists its files."""

    def __init__(self, revision: Revision) -> None:
        super().__init__(f"{revision.repo_id}: no weights here, neither model.safetensors nor pytorch_model.bin")
        self.revision = revision


def texts_of(files: Iterable[str]) -> list[str]:
    """The text files of a revision that describe the model."""
    return sorted(filter(_TEXTS.fullmatch, files))


def weights_of(revision: Revision) -> tuple[str, list[str]]:
    """Kind and files of the weights that we read, safetensors rather than torch; an index is the last file.

    Raises NetworkError where there are none.
    """
    for kind, single, shard in _WEIGHTS:
        if single in revision.files:
            return kind, [single]
        index = f"{single}.index.json"
        if index in revision.files:
            return kind, [*sorted(filter(shard.fullmatch, revision.files)), index]
    raise NoWeightsError(revision)


def holds_checkpoint(revision: Revision) -> bool:
    """Whether there are weights that `weights_of` gives."""
    return any(path in revision.files for _, single, _ in _WEIGHTS for path in (single, f"{single}.index.json"))


def pull(name: ModelName, hub: Hub | None = None, progress: Progress | None = None) -> Path:
    """Fetch a model; returns its folder, where huggingface_hub and transformers find it too.

    Files that are there already are not fetched again; without a network, they are used. New files are compared with
    the hashes that the Hub lists; a file that differs is deleted. All are of one commit, even if the branch moves.

    Raises  NetworkError, UsageError for a revision that does not exist, StorageError, ModelFileError for a wrong hash
    """
    return find(name, hub, keep=True, progress=progress).folder


def kept_snapshot(name: ModelName) -> Path | None:
    """The folder in which an earlier run put files of a revision; a branch leads where it led then."""
    folder = _repository_folder(name)
    commit = name.revision
    with contextlib.suppress(OSError):  # a commit needs no note of where it leads
        commit = (folder / "refs" / name.revision).read_text("utf-8", errors="replace").strip()
    snapshot = folder / "snapshots" / commit
    return snapshot if _COMMIT.fullmatch(commit) and snapshot.is_dir() else None


def _repository_folder(name: ModelName) -> Path:
    """The folder in which huggingface_hub keeps a repository."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    return Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name.repo_id, repo_type="model")


def _kept(name: ModelName, unreachable: UnreachableError) -> Path:
    """The folder of a model that is completely on this machine; raises UnreachableError where it is not."""
    folder = kept_snapshot(name)
    if folder is None:
        raise unreachable
    if not _has_weights({p.name for p in folder.iterdir() if p.exists()}):
        raise UnreachableError(
            f"{name}: its weights are not in the cache, only its texts are, and the Hub cannot be reached."
            f" With a network, `pythia pull {name}` fetches them"
        ) from unreachable
    return folder


def _has_weights(names: set[str]) -> bool:
    """Whether all weights that we would read are among some files, every shard of them."""
    for _, single, shard in _WEIGHTS:
        if single in names:
            return True
        if f"{single}.index.json" in names:
            shards = [match for match in map(shard.fullmatch, names) if match]
            return bool(shards) and len(shards) == int(shards[0][1])
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSource:
    """A model of the Hub that can be read.

    folder     holds the files that are on this machine
    revision   the branch or commit that was asked for; None for "main"
    elsewhere  the other files, by name
    """

    folder: Path
    revision: str | None
    elsewhere: Mapping[str, FileElsewhere]


def find(name: ModelName, hub: Hub | None = None, *, keep: bool, progress: Progress | None = None) -> NamedSource:
    """Find a model to read once: fetches its texts, and leaves its weights to be read from the Hub when needed.

    keep    fetch the weights too, into the cache; that always happens, unless they are safetensors in LFS and not there
            yet
    Raises  as `pull`
    """
    hub = hub or Hub()
    branch = None if name.revision == MAIN else name.revision
    # 1. Without an answer of the Hub, the cache must hold the whole model.
    try:
        revision = hub.revision(name.repo_id, name.revision)
    except UnreachableError as e:
        return NamedSource(folder=_kept(name, e), revision=branch, elsewhere={})
    # 2. The Hub lists a SHA-256 only for files in LFS, and only safetensors can be read piece by piece.
    kind, paths = weights_of(revision)
    files = [revision.files[path] for path in paths if path.endswith(".safetensors")]
    is_streamed = not keep and kind == "safetensors" and all(f.sha256 for f in files)
    if is_streamed and not all(map(_is_here(revision), paths)):
        indexes = [path for path in paths if path.endswith(".json")]
        folder = fetch(name, revision, [*texts_of(revision.files), *indexes], hub, progress)
        elsewhere = {f.path: _elsewhere(hub, revision, f, folder / f.path) for f in files}
        return NamedSource(folder=folder, revision=branch, elsewhere=elsewhere)
    # 3. Anything else is fetched as a whole.
    folder = fetch(name, revision, [*texts_of(revision.files), *paths], hub, progress)
    return NamedSource(folder=folder, revision=branch, elsewhere={})


def _elsewhere(hub: Hub, revision: Revision, file: HubFile, path: Path) -> FileElsewhere:
    assert file.sha256 is not None
    return FileElsewhere(open=lambda: RemoteFile(hub, revision, file, path), n_bytes=file.n_bytes, sha256=file.sha256)


def _is_here(revision: Revision) -> Callable[[str], bool]:
    """Whether the cache holds a file of a revision."""
    from huggingface_hub import try_to_load_from_cache

    return lambda path: isinstance(try_to_load_from_cache(revision.repo_id, path, revision=revision.commit), str)


def fetch(name: ModelName, revision: Revision, paths: list[str], hub: Hub, progress: Progress | None = None) -> Path:
    """Fetch some files of a revision and compare new ones with their hashes; returns the folder of the snapshot."""
    is_here = _is_here(revision)
    new = [revision.files[path] for path in paths if not is_here(path)]
    progress = progress or Silence()
    if new:
        progress.stage("fetching", sum(f.n_bytes for f in new), "bytes")
    folder = _snapshot(name, revision, hub, paths, progress)
    _check(folder, new, progress)
    note_branch(name, revision.commit)
    return folder


def note_branch(name: ModelName, commit: str) -> None:
    """Note in huggingface_hub's cache where a branch leads, as the library does, for times without a network.

    If the cache has no files of the commit, there is nothing to note.
    """
    folder = _repository_folder(name)
    path = folder / "refs" / name.revision
    with contextlib.suppress(OSError, StorageError):  # a cache that is read-only serves as it is
        is_noted = name.revision == commit or (path.is_file() and path.read_bytes() == commit.encode())
        if not is_noted and (folder / "snapshots" / commit).is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            write_text(path, commit)


def _snapshot(name: ModelName, revision: Revision, hub: Hub, paths: list[str], progress: Progress) -> Path:
    """Have huggingface_hub fetch missing files, from the commit that was listed, because a branch may move."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils import tqdm

    class ByteBar(tqdm):
        """The library's progress bar: it hears of bytes and shows nothing."""

        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts_bytes = options.get("unit") == "B"
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            if self._counts_bytes and n:
                progress.advance(name.repo_id, int(n))

    options: dict[str, Any] = {"endpoint": hub.endpoint, "library_name": "pythia-gguf", "tqdm_class": ByteBar}
    options["allow_patterns"] = list(map(glob.escape, paths))
    for wait_s in (*_WAITS_S, None):
        try:
            with errors_as_one_line(name.repo_id, name.revision):
                return Path(snapshot_download(name.repo_id, revision=revision.commit, **options))
        except UnreachableError:
            if wait_s is None:
                raise
            time.sleep(wait_s)
    raise AssertionError


def _check(folder: Path, files: list[HubFile], progress: Progress) -> None:
    progress.stage("checking what was fetched", sum(f.n_bytes for f in files), "bytes")
    for file in files:
        path = folder / file.path
        with RegularFile(path) as content:
            digest = hashlib.sha256()
            if file.sha256 is None:  # git's own hash of small files
                digest = git_digest(content.size)
            feed(content, 0, content.size, [digest], partial(progress.advance, file.path))
        if digest.hexdigest() != (file.sha256 or file.blob_id):
            real = path.resolve()
            path.unlink()
            real.unlink(missing_ok=True)
            raise ModelFileError("is not what the Hub lists: its hash differs. Deleted; run again", path=path)
