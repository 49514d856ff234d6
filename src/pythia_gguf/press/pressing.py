"""The pass: every slab of rows is read once, encoded once per format wanted, and appended to every file that wants it.

Knows no quants and no model: it gets, for each file, a header and a format per tensor. Worker threads read and encode
slabs, others hash and write them in order. So files are written from front to back, a byte is in memory for a moment
only, and no result depends on the number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.cpus import workers_of
from pythia_gguf.files import write_beside
from pythia_gguf.press.output import FileWriter, OutputFile
from pythia_gguf.press.slabs import Slab, encode_in_order, slabs_of
from pythia_gguf.press.source import Source
from pythia_gguf.press.weights import WeightReader

# Threads that hash and write: one may wait for the disk while the other hashes.
_WRITERS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressed:
    """What was written.

    files    final name -> (bytes, SHA-256)
    tensors  (tensor name, format) -> SHA-256 of its encoded bytes, without padding
    """

    files: Mapping[Path, tuple[int, str]]
    tensors: Mapping[tuple[str, str], str]


class _TensorDigests:
    """Hashes of every tensor in every format, slab by slab."""

    def __init__(self) -> None:
        self.done: dict[tuple[str, str], str] = {}
        self._open: dict[str, hashlib._Hash] = {}

    def update(self, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        for name, data in encoded.items():
            self._open.setdefault(name, hashlib.sha256()).update(data)
        if slab.is_last:
            self.done |= {(slab.tensor.name, name): digest.hexdigest() for name, digest in self._open.items()}
            self._open = {}


def press(
    source: Source,
    outputs: Sequence[OutputFile],
    *,
    order: Sequence[str],
    threads: int,
    advance: Callable[[str, int], None],
) -> Pressed:
    """Write all files; each appears under its final name only when all of it is on disk.

    order    tensor names as they follow each other in the files
    threads  threads that read and encode, at least 1; with one, the caller's own does all
    advance  called with (tensor name, weights) as weights are finished
    Raises   ModelFileError for weights that cannot be encoded, StorageError when the disk refuses
    """
    by_name = {tensor.name: tensor for tensor in source.tensors}
    importances = {name: source.imatrix.of(tensor) for name, tensor in by_name.items()} if source.imatrix else {}
    slabs = (
        slab
        for name in order
        for slab in slabs_of(by_name[name], [output.formats[name] for output in outputs], importances.get(name))
    )
    digests = _TensorDigests()
    with WeightReader(source) as reader, ExitStack() as stack:
        pool = stack.enter_context(workers_of(min(threads, _WRITERS), "write"))
        writers = [FileWriter(o, stack.enter_context(write_beside(o.path))) for o in outputs]
        for slab, encoded in encode_in_order(reader, slabs, threads):
            tasks = [pool.submit(digests.update, slab, encoded)]
            tasks += [pool.submit(_append, writer, slab, encoded) for writer in writers]
            for task in tasks:
                task.result()
            advance(slab.tensor.name, slab.n_weights)
        for writer in writers:
            writer.finish()
        files = {w.output.path: (w.n_bytes, w.sha256) for w in writers}
    return Pressed(files=files, tensors=digests.done)


def _append(writer: FileWriter, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
    writer.append(encoded[writer.output.formats[slab.tensor.name]])
    if slab.is_last:
        writer.pad()
