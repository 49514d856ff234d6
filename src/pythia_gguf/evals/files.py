"""`measure_files`: how much quality each of many files costs, against the unquantized file of its own model."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache, partial
from importlib import metadata
from itertools import repeat
from pathlib import Path
from typing import Any

from pythia_gguf.arch.activation import gelu_beside
from pythia_gguf.arguments import one_of
from pythia_gguf.cpus import threads_of, workers_of
from pythia_gguf.engine.model import as_used, load, model_jobs
from pythia_gguf.engine.windows import Windows
from pythia_gguf.errors import ModelFileError, UsageError, one_line
from pythia_gguf.evals.measure import Candidate, measure, scored_windows
from pythia_gguf.evals.model_files import (
    ModelFile,
    alias_of,
    find_files,
    folders_that_tell_apart,
    pair_with_references,
)
from pythia_gguf.evals.report import SCHEMA_VERSION, lost_report
from pythia_gguf.evals.result_file import alone_with, refuse_to_lose, write_and_show
from pythia_gguf.evals.state import state_path, text_ids
from pythia_gguf.files import read_whole, sha256_of, write_text
from pythia_gguf.gguf.fingerprint import are_of_one_model
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.json_file import json_text
from pythia_gguf.kernels.compiling import Job, compile_all
from pythia_gguf.kernels.divergence import compare_job
from pythia_gguf.machine import available_memory_bytes
from pythia_gguf.models.find import found_gguf, found_path
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.side_task import SideTask
from pythia_gguf.text_file import decode_text
from pythia_gguf.tokenizer import TextTokenizer, pre_tokenizer_note

ACTIVATIONS = ("int8", "float32", "both")


def measure_files(
    files: Sequence[str | os.PathLike[str]],
    *,
    text: str | os.PathLike[str],
    reference: str | os.PathLike[str] | None = None,
    context: int = 512,
    n_windows: int | None = None,
    gelu: str = "auto",
    activations: str = "int8",
    threads: int | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    progress: Progress | None = None,
    tell: Callable[[str], None] = lambda line: None,
    show: Callable[[dict[str, Any]], None] = lambda report: None,
) -> dict[str, Any]:
    """Perplexity of files, and their divergence from the unquantized model.

    files        GGUFs, folders of them, and models of the Hub by name
    text         file of a text that the models have not seen
    reference    what all are compared with, as `models.find.find_gguf` takes it; None: each file with the unquantized
                 one of its model, in its own folder or else among the files
    context      tokens of a window; its second half counts
    n_windows    at most so many; None: the whole text
    gelu         "erf", "tanh", or "auto": for each file what the manifest or config.json beside it says, else erf
    activations  "int8", "float32" or "both"; unquantized files take float32 in any case
    out          the report is written here as JSON, and a killed run goes on; None: nowhere
    force        replace a report that says what this one will not
    progress, tell  hear how far it is, and what is worth a line
    show         hears the report when it is complete, also where it cannot be written
    Returns      the report; a figure that does not exist is None, and `missing` says why
    Raises       UsageError, also for files that are of another model than their reference, ModelFileError,
                 StorageError, NetworkError, LockedError when another run is writing the report
    """
    one_of("activations", activations, ACTIVATIONS)
    heard, destination = progress or Silence(), None if out is None else Path(out)
    with alone_with(destination), contextlib.ExitStack() as stack:
        options: dict[str, Any] = {"threads": threads, "progress": heard, "tell": tell}
        found, base = find_files([stack.enter_context(found_path(file, **options)) for file in files]), None
        if reference is not None:
            base = stack.enter_context(found_gguf(reference, **options))
        pairs = pair_with_references(found, base)
        content = read_whole(text)
        heard.stage("tokenizing", len(content), "bytes")
        ids = _ids(pairs, decode_text(content, text), context, tell)
        heard.advance("", len(content))
        windows = scored_windows(ids, context, n_windows)
        # What the report will say is known now: it must not replace one that says more, and hours of work come next.
        jobs = _Jobs(found, gelu, activations, threads, context)
        facts = {"file": Path(text).name, "sha256": hashlib.sha256(content).hexdigest(), "tokens": len(ids)}
        planned = {
            "reference": jobs.facts(pairs[0][0]),
            "text": facts | {"context": context, "windows": len(windows)},
            "files": jobs.rows([jobs.facts(f, kind) for _, group in pairs for f in group for kind in jobs.kinds(f)]),
        }
        refuse_to_lose(destination, force, lambda path: lost_report(path, planned))
        # Hashes tie the numbers to bytes, and find the finished windows of a run that was killed.
        jobs.hash([file for against, group in pairs for file in (against, *group)], heard)
        parts = [(jobs.reference(against), jobs.candidates(against, group, tell)) for against, group in pairs]
        compile_all([*jobs.kernels, compare_job()], heard, threads)
        measured = [
            measure(
                against,
                group,
                ids,
                context=context,
                n_windows=n_windows,
                memory_bytes=_memory_bytes(against),
                state=_state(destination, i),
                progress=heard,
                threads=threads,
                tell=tell,
            )
            for i, (against, group) in enumerate(parts)
        ]
        report = _report(jobs, measured, facts)
        _finish(report, destination, len(parts), show)
        return report


class _Jobs:
    """Files as candidates, all with the same options.

    kernels  that they need
    """

    def __init__(
        self, files: Sequence[ModelFile], gelu: str, activations: str, threads: int | None, context: int
    ) -> None:
        self._threads, self._context = threads, context
        self._gelu_of = cache(gelu_beside) if gelu == "auto" else lambda path: gelu
        self.kernels: list[Job] = []
        self._kinds = ["int8", "float32"] if activations == "both" else [activations]
        self._folders = folders_that_tell_apart(path for file in files for path in (file.path, *file.links))
        # Rows of a report are told apart by name and folder.
        self._files = {tuple(self._names(file.path).items()): file for file in files}
        self._sha256: dict[Path, tuple[str, object]] = {}

    def kinds(self, file: ModelFile) -> list[str]:
        """Of activations, with which a file is measured."""
        return ["float32"] if file.is_plain else self._kinds

    def facts(self, file: ModelFile, activations: str | None = None) -> dict[str, Any]:
        """What a row says before anything is measured; without activations: as a reference."""
        kind, kv = as_used(open_gguf(file.path), activations or self.kinds(file)[0])
        return self._names(file.path) | {
            "quant": file.quant,
            "activations": kind,
            "gelu": self._gelu_of(file.path),
            "kv": kv,
            "bytes": file.path.stat().st_size,
            "bits_per_weight": file.bits_per_weight,
        }

    def hash(self, files: Iterable[ModelFile], progress: Progress) -> None:
        """Read every file once: what a row says of its bytes, and what kept numbers belong to."""
        paths = list(dict.fromkeys(file.path for file in files))
        threads = threads_of(self._threads)

        def hash_one(path: Path, heard: Progress) -> tuple[str, object]:
            before = _state_of(path)
            return sha256_of(path, partial(heard.advance, path.name)), before

        def hash_all(heard: Progress) -> list[tuple[str, object]]:
            heard.stage("hashing", sum(path.stat().st_size for path in paths), "bytes")
            with workers_of(threads, "hash") as pool:
                return list(pool.map(hash_one, paths, repeat(heard)))

        with SideTask(hash_all, threads=threads) as hashing:
            self._sha256.update(zip(paths, hashing.wait(progress), strict=True))

    def reference(self, file: ModelFile) -> Candidate:
        """What others are compared with."""
        return self._candidate(file, self.facts(file))

    def candidates(
        self, reference: ModelFile, files: Sequence[ModelFile], tell: Callable[[str], None]
    ) -> list[Candidate]:
        """One for each kind of activations; `tell` hears what is not the reference's."""
        return [c for file in files for c in self._of_file(file, reference, tell)]

    def _of_file(self, file: ModelFile, reference: ModelFile, tell: Callable[[str], None]) -> list[Candidate]:
        rows = [self.facts(file, kind) for kind in self.kinds(file)]
        ours, theirs = rows[0]["gelu"], self.facts(reference)["gelu"]
        notes = [] if ours == theirs else [f"it runs with {ours} GELU, its reference with {theirs}"]
        if not are_of_one_model(file.vectors, reference.vectors):
            notes.append("its norms and biases are not the reference's, as of another model")
        if notes:
            tell(f"{one_line(file.path.name)}: {'; '.join(notes)}")
        return [self._candidate(file, row | ({"note": "; ".join(notes)} if notes else {})) for row in rows]

    def rows(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Each row, then the other names of its file with the same numbers."""
        result = []
        for row in rows:
            result.append(dict(row))
            file = self._files[tuple((key, row[key]) for key in ("file", "folder") if key in row)]
            same = {key: value for key, value in row.items() if key != "folder"}
            for link in file.links:
                named = self._names(link) | {"quant": alias_of(file, link), "alias_of": file.quant}
                result.append(same | named)
        return result

    def _names(self, path: Path) -> dict[str, str]:
        return {"file": path.name} | ({"folder": self._folders[path]} if path in self._folders else {})

    def _candidate(self, file: ModelFile, facts: dict[str, Any]) -> Candidate:
        path, threads, context, n_bytes = file.path, self._threads, self._context, facts["bytes"]
        run = {"gelu": facts["gelu"], "activations": facts["activations"], "cache": facts["kv"]}
        self.kernels += model_jobs(open_gguf(path), run["activations"])
        n_logits = context // 2 * file.shapes.get("output.weight", (0,))[0]
        sha256, hashed = self._sha256[path]

        def opened() -> Windows:
            model = load(path, threads=threads, **run)
            if _state_of(path) != hashed:
                raise ModelFileError("was replaced since it was hashed. Measure again", path=path)
            return Windows(model, context)

        return Candidate(
            name=f"{sha256} {run}",
            label=f"{file.quant} {run['activations']}",
            open=opened,
            n_bytes=round(n_bytes * 1.1) + 4 * n_logits,
            facts=facts | {"sha256": sha256},
            decode_speed=_decode_speed,
        )


def _state_of(path: Path) -> object:
    """What changes when a file is written anew."""
    status = path.stat()
    return status.st_ino, status.st_size, status.st_mtime_ns


def _ids(
    pairs: Sequence[tuple[ModelFile, list[ModelFile]]], text: str, context: int, tell: Callable[[str], None]
) -> list[int]:
    """The text as tokens; raises UsageError where references have several vocabularies."""
    first = pairs[0][0]
    for other, _ in pairs:
        if other.tokens != first.tokens:
            raise UsageError(
                f"{one_line(str(first.path))} and {one_line(str(other.path))} have other tokens: measure the files of"
                " each by themselves"
            )
    metadata = open_gguf(first.path).metadata
    if (note := pre_tokenizer_note(metadata)) is not None:
        tell(note)
    return text_ids(TextTokenizer(metadata, first.path), text, context)


def _decode_speed(windows: Windows) -> float:
    from pythia_gguf.engine.speed import measure_speed

    return measure_speed(windows.model, n_prompt=1, n_tokens=16, repeats=1).decode_tokens_per_s


def _memory_bytes(reference: Candidate) -> int:
    """What candidates may take together: half of what is available beside the reference."""
    available = available_memory_bytes()
    return ((available or 8 << 30) - reference.n_bytes) // 2


def _state(out: Path | None, i: int) -> Path | None:
    """Where the numbers of the i-th reference's files are kept until the report is written."""
    return None if out is None else state_path(out if i == 0 else out.with_name(f"{out.name}.{i}"))


def _report(jobs: _Jobs, measured: Sequence[dict[str, Any]], text: Mapping[str, Any]) -> dict[str, Any]:
    first = measured[0]
    rows = [
        row if part is first else row | {"against": part["reference"]} for part in measured for row in part["files"]
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "tool": "pythia-gguf",
        "tool_version": metadata.version("pythia-gguf"),
        "gelu": " and ".join(
            dict.fromkeys(row["gelu"] for part in measured for row in (part["reference"], *part["files"]))
        ),
        "reference": first["reference"],
        "text": first["text"] | text,
        "files": jobs.rows(rows),
    }


def _finish(report: dict[str, Any], out: Path | None, n_parts: int, show: Callable[[dict[str, Any]], None]) -> None:
    if out is None:
        show(report)
        return
    line = json_text(report, indent=1) + "\n"
    write_and_show(lambda: write_text(out, line), lambda: show(report))
    for i in range(n_parts):
        state = _state(out, i)
        assert state is not None
        state.unlink(missing_ok=True)
