"""Compares the branches of a repository by the hashes that the Hub lists, and downloads nothing.

It says which files are the same, never why. The weights of the last step and of "main" should be the same, and so
should the weights of steps 0 and 1: the warm-up begins with a learning rate of zero (EleutherAI/pythia #83).
"""

from __future__ import annotations

import re
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime

from pythia_gguf.hub.client import Hub, HubFile, Revision
from pythia_gguf.hub.model_name import MAIN, ModelName
from pythia_gguf.progress import Progress, Silence

_STEP = re.compile(r"step(\d+)")
_SHARD = re.compile(r"(model|pytorch_model)-(\d{5})-of-(\d{5})\.(safetensors|bin)")
_WEIGHTS = re.compile(r"(model|pytorch_model)(-\d{5}-of-\d{5})?\.(safetensors|bin)")
_NEEDED = ("config.json", "tokenizer.json")
_CONNECTIONS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """A branch that a finding names; commit and date are None where it does not exist."""

    name: str
    commit: str | None = None
    date: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A difference from how the suite should be published.

    kind      "missing branch", "missing file", "same sha256" (of all weights) or "same sha256 of a shard"
    branches  the branches concerned
    files     the files concerned
    """

    kind: str
    branches: tuple[Branch, ...]
    files: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionReport:
    """The number of branches compared, and the findings."""

    repo_id: str
    n_branches: int
    findings: tuple[Finding, ...]


def check_revisions(name: ModelName, hub: Hub | None = None, progress: Progress | None = None) -> RevisionReport:
    """Compare all branches of a repository; raises NetworkError."""
    hub, progress = hub or Hub(), progress or Silence()
    commits = hub.branches(name.repo_id)
    progress.stage("listing branches", len(commits), "branches")

    def listed(branch: str) -> Revision:
        revision = hub.commit(name.repo_id, commits[branch])
        progress.advance(branch, 1)
        return revision

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        revisions = dict(zip(commits, pool.map(listed, commits), strict=True))
    order = sorted(commits, key=_order)
    found = _missing_branches(name, commits)
    for branch in order:
        found += _missing_files(branch, revisions[branch])
    found += _same_weights(order, revisions)
    found += _same_shards(order, revisions)

    dates: dict[str, datetime] = {}

    def with_dates(finding: Finding) -> Finding:
        branches = []
        for b in finding.branches:
            if b.name in commits:
                commit = commits[b.name]
                if commit not in dates:
                    dates[commit] = hub.date(name.repo_id, commit)
                b = Branch(name=b.name, commit=commit, date=dates[commit])
            branches.append(b)
        return Finding(kind=finding.kind, branches=tuple(branches), files=finding.files)

    return RevisionReport(repo_id=name.repo_id, n_branches=len(commits), findings=tuple(map(with_dates, found)))


def _order(branch: str) -> tuple[int, str]:
    """The order of branches: steps by number, then "main" and others."""
    step = _STEP.fullmatch(branch)
    return (int(step[1]), "") if step else (10**9, branch)


def _finding(kind: str, branches: list[str], files: tuple[str, ...] = ()) -> Finding:
    return Finding(kind=kind, branches=tuple(Branch(name=b) for b in branches), files=files)


def _missing_branches(name: ModelName, commits: dict[str, str]) -> list[Finding]:
    steps = name.model.steps if name.model else ()
    missing = [branch for branch in (*(f"step{n}" for n in steps), MAIN) if branch not in commits]
    return [_finding("missing branch", missing)] if missing else []


def _weights(revision: Revision) -> dict[str, str]:
    """Hash of each file of weights."""
    return {path: _hash(file) for path, file in revision.files.items() if _WEIGHTS.fullmatch(path)}


def _hash(file: HubFile) -> str:
    return file.sha256 or file.blob_id


def _missing_files(branch: str, revision: Revision) -> list[Finding]:
    missing = [path for path in _NEEDED if path not in revision.files]
    weights = _weights(revision)
    if not weights:
        missing.append("model.safetensors or pytorch_model.bin")
    for path in weights:
        if shard := _SHARD.fullmatch(path):
            stem, _, total, suffix = shard.groups()
            names = [f"{stem}-{i:05}-of-{total}.{suffix}" for i in range(1, min(int(total), 1000) + 1)]
            missing += [n for n in (*names, f"{stem}.{suffix}.index.json") if n not in revision.files]
    return [_finding("missing file", [branch], tuple(dict.fromkeys(missing)))] if missing else []


def _expected(branches: list[str], order: list[str]) -> list[str]:
    """Of branches with the same weights, those that should differ: none, or at least two."""
    steps = [b for b in order if _STEP.fullmatch(b)]
    last = steps[-1] if steps else None
    kinds = {(MAIN if b in (MAIN, last) else "first" if b in ("step0", "step1") else b) for b in branches}
    return branches if len(kinds) > 1 else []


def _same_weights(order: list[str], revisions: dict[str, Revision]) -> list[Finding]:
    """Groups of branches that share all files of weights of a kind."""
    groups: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    for suffix in (".safetensors", ".bin"):
        for branch in order:
            files = tuple(sorted((p, h) for p, h in _weights(revisions[branch]).items() if p.endswith(suffix)))
            if files:
                groups[files].append(branch)
    found: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for files, branches in groups.items():
        if same := _expected(branches, order):
            found[tuple(same)] += [path for path, _ in files]
    return [_finding("same sha256", list(branches), tuple(files)) for branches, files in found.items()]


def _same_shards(order: list[str], revisions: dict[str, Revision]) -> list[Finding]:
    """Shards that another branch has too, while the rest of their weights differ."""
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for branch in order:
        for path, digest in _weights(revisions[branch]).items():
            if _SHARD.fullmatch(path):
                holders[path, digest].append(branch)
    found = []
    for (path, _), branches in sorted(holders.items()):
        rests = {tuple(sorted(_weights(revisions[b]).items())) for b in branches}
        if len(rests) > 1 and _expected(branches, order):
            found.append(_finding("same sha256 of a shard", branches, (path,)))
    return found
