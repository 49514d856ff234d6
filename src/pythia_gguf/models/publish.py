"""A folder onto the Hub: checked before, sent by huggingface_hub, and done only when the Hub lists the same hashes.

Knows neither how files are made nor how they are sent.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pythia_gguf.errors import Argument, ModelFileError, NetworkError, StorageError, UsageError, one_line
from pythia_gguf.files import RegularFile, feed
from pythia_gguf.hub.client import Hub, HubFile, errors_as_one_line, git_digest
from pythia_gguf.hub.front_matter import front_matter
from pythia_gguf.hub.model_name import MAIN
from pythia_gguf.hub.page import is_page, name_on_page
from pythia_gguf.json_file import read_text
from pythia_gguf.press.manifest import MANIFEST, SUMS, read_manifest
from pythia_gguf.press.names import legal_name, name_of
from pythia_gguf.press.source import open_source
from pythia_gguf.press.staging import CARD
from pythia_gguf.press.verify import verify
from pythia_gguf.progress import Progress, Silence

# What the Hub files a quantized model by, and who made it.
CARD_KEYS = ("base_model", "base_model_relation", "license", "language", "tags", "quantized_by")
_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_STEP = re.compile(r"step(\d+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """A file and where it goes.

    state  "new", "changed", or "there": the Hub lists the same hash
    """

    branch: str
    path: Path
    n_bytes: int
    state: str


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    branches: bool = False,
    hub: Hub | None = None,
    progress: Progress | None = None,
    show: Callable[[tuple[Sent, ...]], None] = lambda files: None,
) -> tuple[Sent, ...]:
    """Send a folder that `quantize` made; running again goes on where it ended.

    branches  the folder holds stepN folders, each a checkpoint or made by `quantize`: each becomes a branch, and main
              is what the last one is
    show      hears what will be sent, before anything is
    Raises    UsageError, ModelFileError and StorageError for what is not fit to be sent, NetworkError
    """
    folder, hub, progress = Path(folder), hub or Hub(), progress or Silence()
    if is_page(repo_id):
        repo_id = name_on_page(repo_id, hub.endpoint)
    if not _REPO.fullmatch(repo_id):
        raise UsageError(f"{one_line(repo_id, 100)!r}: expected USER/NAME")
    if not folder.is_dir():
        raise StorageError(f"{one_line(str(folder))}: no such folder")
    if private and hub.is_public(repo_id):
        raise UsageError(Argument("private"), f" is for a new repository, and {repo_id} is there and public")
    parts = _steps(folder) if branches else {MAIN: folder}
    files = {branch: _checked(part, progress) for branch, part in parts.items()}
    progress.stage("hashing", sum(p.stat().st_size for paths in files.values() for p in paths), "bytes")
    hashes = {path: _hash(path, progress) for paths in files.values() for path in paths}
    plan = tuple(_plan(repo_id, files, parts, hashes, hub))
    show(plan)
    if dry_run:
        return plan
    with errors_as_one_line(repo_id):
        hub.api.create_repo(repo_id, private=private or None, exist_ok=True)
        for branch in files:
            if branch != MAIN:
                hub.api.create_branch(repo_id, branch=branch, exist_ok=True)
    for branch, part in parts.items():
        names = [path.relative_to(part).as_posix() for path in files[branch]]
        if any(s.branch == branch and s.state != "there" for s in plan):
            with errors_as_one_line(repo_id, branch):
                hub.api.upload_folder(
                    repo_id=repo_id,
                    folder_path=part,
                    revision=branch,
                    allow_patterns=names,
                    commit_message=f"pythia-gguf: {len(names)} files",
                )
    _compare(repo_id, files, parts, hashes, hub)
    return plan


def _steps(folder: Path) -> dict[str, Path]:
    """stepN -> its folder, by number, then main -> the last one."""
    found = {int(m[1]): p for p in folder.iterdir() if p.is_dir() and (m := _STEP.fullmatch(p.name))}
    if not found:
        raise UsageError(
            f"{one_line(str(folder))}: no folder stepN here. The folder itself is sent without ", Argument("branches")
        )
    steps = {f"step{n}": found[n] for n in sorted(found)}
    return steps | {MAIN: found[max(found)]}


def _checked(folder: Path, progress: Progress) -> tuple[Path, ...]:
    """The files to send of a folder that is in order."""
    manifest = read_manifest(folder)
    if manifest is None:
        source = open_source(folder, legal_name(name_of(folder)))
        if source.kind == "gguf":
            raise UsageError(f"{one_line(str(folder))}: no folder of a model")
        return source.files
    progress.stage("verifying", sum(p.stat().st_size for p in folder.glob("*.gguf")), "bytes")
    for verdict in verify(folder, progress.advance):
        if verdict.fault or verdict.checked != "every byte":
            fault = verdict.fault or f"{verdict.file}: is not in the manifest: it was not made by pythia quantize"
            raise UsageError(f"nothing was sent. {fault}")
    card = folder / CARD
    keys = front_matter(read_text(card), card) if card.is_file() else {}
    if missing := [key for key in CARD_KEYS if not keys.get(key)]:
        raise ModelFileError(
            f"the front matter lacks {', '.join(missing)}. Add what is true",
            path=card,
        )
    names = [MANIFEST, SUMS, CARD, *(entry["file"] for entry in manifest["files"])]
    return (*(folder / name for name in names), *sorted(folder.glob("*.png")))


def _hash(path: Path, progress: Progress) -> tuple[str, str]:
    """SHA-256 and git's name of the content."""
    with RegularFile(path) as file:
        sha256, blob = hashlib.sha256(), git_digest(file.size)
        feed(file, 0, file.size, [sha256, blob], partial(progress.advance, path.name))
    return sha256.hexdigest(), blob.hexdigest()


def _is_same(listed: HubFile | None, hashes: tuple[str, str]) -> bool:
    return listed is not None and (listed.sha256 == hashes[0] if listed.sha256 else listed.blob_id == hashes[1])


def _plan(
    repo_id: str,
    files: dict[str, tuple[Path, ...]],
    parts: dict[str, Path],
    hashes: dict[Path, tuple[str, str]],
    hub: Hub,
) -> Iterator[Sent]:
    for branch, paths in files.items():
        try:
            listed = hub.revision(repo_id, branch).files
        except (NetworkError, UsageError):  # not there yet, or out of reach: then sending says so
            listed = {}
        for path in paths:
            there = listed.get(path.relative_to(parts[branch]).as_posix())
            state = "there" if _is_same(there, hashes[path]) else "changed" if there else "new"
            yield Sent(branch=branch, path=path, n_bytes=path.stat().st_size, state=state)


def _compare(
    repo_id: str,
    files: dict[str, tuple[Path, ...]],
    parts: dict[str, Path],
    hashes: dict[Path, tuple[str, str]],
    hub: Hub,
) -> None:
    """Raises NetworkError unless the Hub lists what was sent."""
    for branch, paths in files.items():
        listed = hub.revision(repo_id, branch).files
        for path in paths:
            name = path.relative_to(parts[branch]).as_posix()
            if not _is_same(listed.get(name), hashes[path]):
                raise NetworkError(f"{repo_id}@{branch}: {name} is not there as it was sent. Run again")
