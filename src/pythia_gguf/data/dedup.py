"""A corpus without its near-duplicates: of those that hang together, the first in the order of the corpus stays.

    OUT/NAME           the lines that stay, byte for byte, for each file of the corpus; a text that stays is copied
    OUT/removed.jsonl  each document that was removed: which one it duplicates, and how similar they are
    OUT/report.json    documents read, kept and removed, by file and by source; lines that were left out
    OUT/.signatures    what is known of each file until the rest is there (`signatures.py`)

Two steps: signatures of files, each by itself on any machine that sees the same folders, then all else, which makes the
signatures that are missing. No byte depends on processes, shards or machines.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pythia_gguf.arguments import checked, number, one_of
from pythia_gguf.data.dedup_steps import REMOVED, REPORT, SCHEMA_VERSION, Job
from pythia_gguf.data.documents import BROKEN, check_names, size_of
from pythia_gguf.data.processes import process_count
from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.files import check_folder_place
from pythia_gguf.json_file import read_json_object
from pythia_gguf.progress import Progress, Silence

_COUNTS = {"documents": int, "kept": int, "removed": int}
_SHAPE = _COUNTS | {
    "inputs": [dict],
    "threshold": float,
    "broken_lines": str,
    "files": [_COUNTS | {"file": str}],
    "sources": [_COUNTS | {"name": str}],
    "left_out": [{"file": str, "line": int, "why": str}],
}


@checked
def dedup(
    corpus: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    *,
    threshold: float = 0.87,
    shard: str | None = None,
    ray: str | None = None,
    broken: str = "stop",
    processes: int | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write the documents of some files without near-duplicates.

    out        a folder, which need not be there yet
    threshold  least Jaccard similarity of two duplicates, from 0.1 to 1: the share of five words in a row that two
               documents have in common
    shard      "2/4": only make the signatures of every fourth file, from the second on
    ray        the address of a Ray cluster that does the work, or "local" for one on this machine
    broken     what a line does that is no document: "stop" the run, or be left out ("skip")
    processes  default one per CPU; no byte depends on it
    force      replace other results there
    Returns    what report.json says; with `shard` how many files and documents have their signatures
    Raises     UsageError, StorageError, LockedError; ModelFileError for damaged files and, with "stop", a broken line
    """
    one_of("broken", broken, BROKEN)
    threshold = number(0.1, 1)("threshold", threshold)
    paths = [Path(path) for path in corpus]
    job = Job(paths=paths, out=Path(out), threshold=threshold, broken=broken)
    if ray is not None:
        for name, value in (("shard", shard), ("processes", processes)):
            if value is not None:
                raise UsageError(Argument(name), " says nothing on a Ray cluster, where each file is a task of one CPU")
    chosen = range(len(paths)) if shard is None else _files_of_shard(shard, len(paths))
    _check(job)
    facts = job.facts()
    if (told := _already(job, facts, force=force)) is not None:
        return told
    if ray is not None:
        from pythia_gguf.data.on_ray import run_on_ray

        return run_on_ray(job, ray, progress or Silence())
    with job.work(process_count(processes)) as workers:
        hears = progress or Silence()
        hears.stage("reading documents", sum(size_of(paths[i]) for i in chosen), "bytes")
        if shard is None:
            return job.merge(workers, hears)
        files = [job.sign(i, workers, hears) for i in chosen]
    return {"schema_version": SCHEMA_VERSION, "shard": shard, "files": len(files), "documents": sum(f.n for f in files)}


def _files_of_shard(shard: str, n_files: int) -> range:
    """The numbers of the files of "2/4"."""
    match = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", shard)
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise UsageError(Argument("shard"), f" must be from 1/N to N/N, got {shard!r}")
    return range(int(match[1]) - 1, n_files, int(match[2]))


def _check(job: Job) -> None:
    """Raise what is wrong with names before anything is read."""
    check_names(job.paths)
    names = [path.name for path in job.paths]
    for path in job.paths:
        if names.count(path.name) > 1 or path.name == REMOVED:
            where = f"{one_line(path.name)}: " + ("results are called so" if path.name == REMOVED else "twice")
            raise UsageError(
                Argument("corpus"), f" must hold files of different names, each for one of the results: {where}"
            )
        if path.parent.resolve() == job.out.resolve():
            raise UsageError(
                Argument("out"), f" must not be the folder of {one_line(str(path))}, which would be replaced"
            )
    check_folder_place(job.out)


def _already(job: Job, facts: dict[str, Any], *, force: bool) -> dict[str, Any] | None:
    """What an earlier run told of the same corpus; None where there is work. Raises UsageError for other results."""
    report = job.out / REPORT
    there = [path for path in (report, job.out / REMOVED, *(job.out / p.name for p in job.paths)) if path.exists()]
    if force:
        report.unlink(missing_ok=True)
        return None
    if report.is_file():
        told = read_json_object(report, _SHAPE, what="a report of pythia data dedup")
        if facts == {key: told.get(key) for key in facts}:
            return told
    elif not there or job.is_begun():
        return None
    way_out = (Argument("out"), ", or use ", Argument("force", True))
    raise UsageError(f"{one_line(str(there[0]))}: other results are there. Choose another ", *way_out)
