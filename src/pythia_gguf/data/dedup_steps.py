"""The two steps of removing near-duplicates; each can be done in another process or on another machine."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.data.clusters import Duplicates
from pythia_gguf.data.documents import chosen_lines, is_lines, packed_as, size_of
from pythia_gguf.data.processes import Workers
from pythia_gguf.data.shingles import WORDS
from pythia_gguf.data.signatures import PERMUTATIONS, SignedFile, Signer, banding_for, sign_file
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.files import storage_error, write_all, write_beside, write_text
from pythia_gguf.json_file import json_text
from pythia_gguf.lock import lock
from pythia_gguf.progress import Progress

SCHEMA_VERSION = 1
REMOVED, REPORT = "removed.jsonl", "report.json"
_WORK = ".signatures"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a run is about; each step of it can be done elsewhere.

    paths      of the corpus, in its order
    out        the folder of the results
    threshold  least Jaccard similarity of two duplicates
    broken     what a line does that is no document: "stop" or "skip"
    """

    paths: list[Path]
    out: Path
    threshold: float
    broken: str

    def sign(self, i: int, workers: Workers, progress: Progress) -> SignedFile:
        """Make the signatures of a file, unless they are there."""
        with _making(self.out, self.out / _WORK) as folder:
            return sign_file(
                self.paths[i],
                folder / f"{i:05}",
                banding=banding_for(self.threshold),
                broken=self.broken,
                workers=workers,
                progress=progress,
            )

    def merge(self, workers: Workers, progress: Progress) -> dict[str, Any]:
        """Find the duplicates and write what stays; returns what the report says."""
        files = [self.sign(i, workers, progress) for i in range(len(self.paths))]
        if not any(file.n for file in files):
            raise UsageError(Argument("corpus"), " holds no document")
        banding = banding_for(self.threshold)
        with lock(self.out / ".dedup.lock"), Duplicates(files, banding.bands, self.threshold) as found:
            found.find(self.out / _WORK, workers, progress)
            settings = {
                "shingle_words": WORDS,
                "permutations": PERMUTATIONS,
                "bands": banding.bands,
                "rows": banding.rows,
                "recall_at_threshold": round(banding.recall(self.threshold), 4),
            }
            told = self.facts() | settings | self._write(files, found, progress)
            # The report comes last: until it is there, running again finishes this.
            write_text(self.out / REPORT, json_text(told))
            shutil.rmtree(self.out / _WORK, ignore_errors=True)
        return told

    def work(self, processes: int) -> Workers:
        """What does the steps, for use in a `with`; raises UsageError where a library is missing."""
        return Workers(processes, Signer(banding_for(self.threshold)))

    def is_begun(self) -> bool:
        """Whether an earlier run left signatures behind."""
        return (self.out / _WORK).is_dir()

    def facts(self) -> dict[str, Any]:
        """What the results depend on, for the report."""
        inputs = [{"file": path.name, "bytes": size_of(path)} for path in self.paths]
        return {
            "schema_version": SCHEMA_VERSION,
            "inputs": inputs,
            "threshold": self.threshold,
            "broken_lines": self.broken,
        }

    def _write(self, files: list[SignedFile], found: Duplicates, progress: Progress) -> dict[str, Any]:
        """Write the documents that stay and the list of the others; returns how many there are."""
        progress.stage("writing", len(found.roots), "documents")
        by_file: list[dict[str, Any]] = []
        by_source: dict[str, list[int]] = {}
        with write_beside(self.out / REMOVED) as removed:
            for i, file in enumerate(files):
                own = found.of_file(i)
                stays = found.roots[own] == np.arange(own.start, own.stop)
                lines, sources = file.column("lines"), file.column("sources")
                _write_file(self.out / file.path.name, file.path, lines[stays])
                for document in np.flatnonzero(~stays).tolist():
                    write_all(removed, _account(found, own.start + document).encode("utf-8"))
                for name, *counts in _counts(file.sources, sources, stays):
                    before = by_source.setdefault(name, [0, 0])
                    by_source[name] = [a + b for a, b in zip(before, counts, strict=True)]
                by_file.append({"file": file.path.name} | _numbers(file.n, int(stays.sum())))
                progress.advance(file.path.name, file.n)
        n, n_kept = len(found.roots), sum(each["kept"] for each in by_file)
        broken = [{"file": f.path.name, "line": line, "why": why} for f in files for line, why in f.broken]
        sources_told = [{"name": name} | _numbers(*counts) for name, counts in by_source.items()]
        return _numbers(n, n_kept) | {"files": by_file, "sources": sources_told, "left_out": broken}


@contextlib.contextmanager
def _making(*folders: Path) -> Iterator[Path]:
    """Folders, each in the one before, that are there in the block, and after it where they hold something."""
    try:
        for folder in folders:
            folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(folder, e) from e
    try:
        yield folders[-1]
    finally:
        for folder in reversed(folders):
            with contextlib.suppress(OSError):
                folder.rmdir()


def _write_file(place: Path, path: Path, lines: np.ndarray) -> None:
    """Write some lines of a file, or its text; of a text that goes, no file stays."""
    if not is_lines(path) and not len(lines):
        place.unlink(missing_ok=True)
        return
    end = b"\n" if is_lines(path) else b""
    with write_beside(place) as out, packed_as(path, out) as write:
        for some in chosen_lines(path, lines):
            write(b"".join(line + end for line in some))


def _account(found: Duplicates, document: int) -> str:
    """The line about a document that is removed."""
    (file, line), (kept, kept_line) = (found.file_and_line(d) for d in (document, int(found.roots[document])))
    told = {"file": file.path.name, "line": line, "duplicate_of": {"file": kept.path.name, "line": kept_line}}
    return json_text(told | {"similarity": round(found.similarity_to_root(document), 4)}) + "\n"


def _counts(names: list[str], sources: np.ndarray, stays: np.ndarray) -> Iterator[tuple[str, int, int]]:
    """(name, documents, documents that stay) of each source of a file."""
    every, kept = (np.bincount(each, minlength=len(names)).tolist() for each in (sources, sources[stays]))
    return zip(names, every, kept, strict=True)


def _numbers(n: int, n_kept: int) -> dict[str, int]:
    return {"documents": n, "kept": n_kept, "removed": n - n_kept}
