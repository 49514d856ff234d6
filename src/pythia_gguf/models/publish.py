"""Publishes a folder on the Hub.

The folder is checked here and by the Hub before anything is created there. Each branch takes one commit, and a branch
is done only when its readers get exactly the files of the folder.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from pythia_gguf.errors import (
    Argument,
    ModelFileError,
    NetworkError,
    PythiaGGUFError,
    StorageError,
    UsageError,
    one_line,
)
from pythia_gguf.files import RegularFile, feed
from pythia_gguf.hub.card_keys import faults_of, is_repo_id
from pythia_gguf.hub.client import Hub, HubFile, NoRepositoryError, Revision, errors_as_one_line, git_digest
from pythia_gguf.hub.front_matter import front_matter
from pythia_gguf.hub.model_name import MAIN, ModelName
from pythia_gguf.hub.page import is_page, name_on_page
from pythia_gguf.hub.pull import holds_checkpoint, texts_of, weights_of
from pythia_gguf.hub.readers import READERS
from pythia_gguf.hub.run_folder import steps_in
from pythia_gguf.json_file import read_text
from pythia_gguf.press.file_names import legal_name, name_of
from pythia_gguf.press.find_source import find_folder, steps_of_run
from pythia_gguf.press.gguf_repository import gguf_named
from pythia_gguf.press.manifest import CARD, MANIFEST, SUMS, read_manifest
from pythia_gguf.press.source import open_source
from pythia_gguf.press.verify import verify
from pythia_gguf.progress import Progress, Silence

# Keys by which the Hub files a quantized model under its original, and tells who made it; each with an example line.
CARD_KEYS = {
    "base_model": "OWNER/NAME",
    "base_model_relation": "quantized",
    "license": "apache-2.0",
    "language": "en",
    "tags": "[gguf]",
    "quantized_by": "WHO",
}
WHOLE_BRANCH = "(the whole branch)"
# Files of tokenizers that transformers may read and we do not.
_COMPANIONS = ("merges.txt", "tokenizer.model", "vocab.json")
_STEP = re.compile(r"step(\d+)")
# The Hub's own file, which every repository has.
_GIT_FILE = ".gitattributes"


@dataclass(frozen=True, slots=True, kw_only=True)
class BranchFile:
    """A file of a branch, and its fate.

    name   path in the repository; WHOLE_BRANCH for a step that the folder does not have
    state  "new", "changed", "there" (the Hub lists the same hash), "deleted" (a reader would take it for a part of the
           model) or "stays" (on the branch, and not in the folder)
    """

    branch: str
    name: str
    n_bytes: int
    state: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Branch:
    """The content that a branch will have.

    folder  the branch gets files of this folder
    kind    a key of READERS
    files   path in the repository -> file here
    quants  the quants in a folder of GGUF files
    """

    folder: Path
    kind: str
    files: Mapping[str, Path]
    quants: tuple[str, ...] = ()


def publish(
    folder: str | Path,
    repo_id: str,
    *,
    private: bool = False,
    dry_run: bool = False,
    branches: bool = False,
    hub: Hub | None = None,
    progress: Progress | None = None,
    show: Callable[[tuple[BranchFile, ...]], None] = lambda files: None,
) -> tuple[BranchFile, ...]:
    """Send a folder that `quantize` made, or a checkpoint; running again goes on where it ended.

    The commit also deletes files of the branch that a reader would take for parts of the same model, so that the branch
    holds what its folder holds.

    branches  the folder holds stepN folders, each a checkpoint or made by `quantize`: each becomes a branch, and main
              gets the last one
    show      hears the fate of each file before anything is sent
    Raises    UsageError, ModelFileError and StorageError for a folder that is not fit to be sent, NetworkError
    """
    # 1. Refuse wrong names and folders before the long work begins.
    folder, hub, progress = Path(folder), hub or Hub(), progress or Silence()
    if is_page(repo_id):
        repo_id = name_on_page(repo_id, hub.endpoint)
    if "/" not in repo_id or not is_repo_id(repo_id):
        raise UsageError(f"{one_line(repo_id, 100)!r}: expected USER/NAME")
    if not branches:
        if steps_of_run(folder):
            all_of_them = (", or all of them with ", Argument("branches", True))
            raise UsageError(f"{one_line(str(folder))}: holds the steps of a run. Send one of them", all_of_them)
        folder = find_folder(folder)
    if not folder.is_dir():
        raise StorageError(f"{one_line(str(folder))}: no such folder")
    if private and hub.is_public(repo_id):
        raise UsageError(Argument("private"), f" is for a new repository, and {repo_id} is there and public")
    # 2. Check every folder, here and with the Hub, before anything is created there. Main has the last step's folder.
    folders = _branch_folders(folder) if branches else {MAIN: folder}
    of_folder = {part: _checked(part, progress) for part in dict.fromkeys(folders.values())}
    parts = {branch: of_folder[part] for branch, part in folders.items()}
    _check_with_hub(of_folder.values(), hub)
    # 3. Compare hashes with the Hub's: only new and changed files are sent, so a run that broke off goes on.
    paths = {path for part in of_folder.values() for path in part.files.values()}
    progress.stage("hashing", sum(path.stat().st_size for path in paths), "bytes")
    hashes = {path: _hash(path, progress) for path in sorted(paths)}
    there = _branches(repo_id, hub)
    plan = tuple(sent for branch, part in parts.items() for sent in _plan(repo_id, branch, part, hashes, there, hub))
    if branches:
        others = [branch for branch in there if branch not in parts and _STEP.fullmatch(branch)]
        plan += tuple(BranchFile(branch=branch, name=WHOLE_BRANCH, n_bytes=0, state="stays") for branch in others)
    show(plan)
    # 4. Send, then read every branch back as its readers will.
    if not dry_run:
        _send(repo_id, parts, plan, there, private, hub)
        for branch, part in parts.items():
            _compare(repo_id, branch, part, hashes, hub)
    return plan


def _branch_folders(folder: Path) -> dict[str, Path]:
    """stepN -> its folder, by number, then main -> the last one."""
    steps = steps_in(folder)
    if not steps:
        raise UsageError(
            f"{one_line(str(folder))}: no folder stepN here. The folder itself is sent without ", Argument("branches")
        )
    return {f"step{n}": path for n, path in steps.items()} | {MAIN: steps[max(steps)]}


def _checked(folder: Path, progress: Progress) -> _Branch:
    """Check a folder; returns the files to send."""
    manifest = read_manifest(folder)
    if manifest is None:
        return _checked_checkpoint(folder)
    progress.stage("verifying", sum(p.stat().st_size for p in folder.glob("*.gguf")), "bytes")
    for verdict in verify(folder, progress.advance):
        if verdict.fault or verdict.checked != "every byte":
            fault = verdict.fault or f"{verdict.file}: is not in the manifest: it was not made by pythia quantize"
            raise UsageError(f"nothing was sent. {fault}")
    card = folder / CARD
    keys = _card_keys(card) if card.is_file() else {}
    if missing := [key for key in CARD_KEYS if not keys.get(key) and keys.get(key) is not False]:
        lines = ", ".join(f'"{key}: {CARD_KEYS[key]}"' for key in missing)
        raise ModelFileError(
            f"the front matter lacks {', '.join(missing)}. Add what is true, between its first lines ---, as {lines}",
            path=card,
        )
    names = [MANIFEST, SUMS, CARD, *(entry["file"] for entry in manifest["files"])]
    paths = (*(folder / name for name in names), *sorted(folder.glob("*.png")))
    quants = tuple(entry["quant"] for entry in manifest["files"] if "quant" in entry)
    return _Branch(folder=folder, kind="gguf", files={path.name: path for path in paths}, quants=quants)


def _checked_checkpoint(folder: Path) -> _Branch:
    """The same for a checkpoint: the files that `quantize` reads, and others that readers look for."""
    source = open_source(folder, legal_name(name_of(folder)))
    if source.kind == "gguf":
        raise UsageError(f"{one_line(str(folder))}: no folder of a model")
    beside = [*texts_of(path.name for path in folder.iterdir()), *_COMPANIONS]
    paths = dict.fromkeys([*source.files, *(folder / name for name in beside if (folder / name).is_file())])
    files = {path.relative_to(folder).as_posix(): path for path in paths}
    if CARD in files:
        _card_keys(files[CARD])
    return _Branch(folder=folder, kind="checkpoint", files=files)


def _card_keys(card: Path) -> dict[str, object]:
    """The front matter of a card; raises ModelFileError for values that the Hub refuses."""
    keys = front_matter(read_text(card), card)
    if faults := faults_of(keys):
        raise ModelFileError(f"{'; '.join(faults)}. Correct or remove it", path=card, field="front matter")
    return keys


def _check_with_hub(parts: Iterable[_Branch], hub: Hub) -> None:
    """Raises ModelFileError for a card that the Hub would refuse, NetworkError where it cannot be asked."""
    cards = {read_text(part.files[CARD]): part.files[CARD] for part in parts if CARD in part.files}
    for text, path in cards.items():
        if refused := hub.refused_in_card(text):
            raise ModelFileError(f"the Hub refuses it: {'; '.join(refused)}", path=path, field="front matter")


def _hash(path: Path, progress: Progress) -> tuple[str, str]:
    """SHA-256 and git's name of the content."""
    with RegularFile(path) as file:
        sha256, blob = hashlib.sha256(), git_digest(file.size)
        feed(file, 0, file.size, [sha256, blob], partial(progress.advance, path.name))
    return sha256.hexdigest(), blob.hexdigest()


def _is_same(listed: HubFile | None, hashes: tuple[str, str]) -> bool:
    return listed is not None and (listed.sha256 == hashes[0] if listed.sha256 else listed.blob_id == hashes[1])


def _branches(repo_id: str, hub: Hub) -> dict[str, str]:
    """The commits to which branches lead now; none where there is no repository yet."""
    try:
        return hub.branches(repo_id)
    except NoRepositoryError:  # or we may not see it: then sending fails and says so
        return {}


def _plan(
    repo_id: str,
    branch: str,
    part: _Branch,
    hashes: dict[Path, tuple[str, str]],
    there: Mapping[str, str],
    hub: Hub,
) -> Iterator[BranchFile]:
    """The fate of each file; a new branch begins as a copy of main, and no file of that copy is to stay."""
    commit = there.get(branch, there.get(MAIN))
    listed = hub.commit(repo_id, commit).files if commit else {}
    is_new = branch != MAIN and commit == there.get(MAIN)
    for name, path in part.files.items():
        state = "new" if name not in listed else "there" if _is_same(listed[name], hashes[path]) else "changed"
        yield BranchFile(branch=branch, name=name, n_bytes=path.stat().st_size, state=state)
    for name in sorted(listed.keys() - part.files.keys() - {_GIT_FILE}):
        state = "deleted" if is_new or READERS[part.kind](name) else "stays"
        yield BranchFile(branch=branch, name=name, n_bytes=listed[name].n_bytes, state=state)


def _send(
    repo_id: str,
    parts: Mapping[str, _Branch],
    plan: tuple[BranchFile, ...],
    there: Mapping[str, str],
    private: bool,
    hub: Hub,
) -> None:
    """Send one commit to each branch that differs from its plan; main comes last, because new branches begin as main.

    there  the commits for which the plan was made; nothing is sent on top of others
    """
    with errors_as_one_line(repo_id):
        hub.api.create_repo(repo_id, private=private or None, exist_ok=True)
        for branch in parts:
            if branch != MAIN and branch not in there:
                hub.api.create_branch(repo_id, branch=branch, revision=there.get(MAIN), exist_ok=True)
    now = hub.branches(repo_id)
    for branch, part in parts.items():
        add = {s.name: part.files[s.name] for s in plan if s.branch == branch and s.state in ("new", "changed")}
        delete = [s.name for s in plan if s.branch == branch and s.state == "deleted"]
        if add or delete:
            message = f"pythia-gguf: {len(add)} files" + (f", {len(delete)} deleted" if delete else "")
            parent = there.get(branch) or now.get(branch)
            hub.commit_files(repo_id, branch, add=add, delete=delete, parent=parent, message=message)


def _compare(repo_id: str, branch: str, part: _Branch, hashes: dict[Path, tuple[str, str]], hub: Hub) -> None:
    """Raises NetworkError unless a reader of the branch gets what was sent, and nothing else."""
    name = ModelName(repo_id=repo_id, revision=branch)
    revision = hub.revision(repo_id, branch)
    for file, path in part.files.items():
        if not _is_same(revision.files.get(file), hashes[path]):
            raise NetworkError(f"{name}: {file} is not there as it was sent. Run again")
    try:
        read = _read(name, part, revision)
    except PythiaGGUFError as e:
        raise NetworkError(f"{name}: what was sent is there, and cannot be read: {e}") from e
    if others := sorted(read - part.files.keys()):
        raise NetworkError(f"{name}: readers would take {one_line(others[0], 100)}, which was not sent. Run again")


def _read(name: ModelName, part: _Branch, revision: Revision) -> set[str]:
    """Files that readers take from a branch: transformers weights and files beside them, llama.cpp one per quant."""
    read = {file for file in revision.files if READERS[part.kind](file)}
    if holds_checkpoint(revision) and part.kind == "checkpoint":
        read |= set(weights_of(revision)[1])
    for quant in part.quants:
        read.add(gguf_named(replace(name, quant=quant), revision) or f"no file for {quant}")
    return read
