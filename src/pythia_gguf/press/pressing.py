"""The pass: it reads every slab of rows once, encodes it once per format, and hands the bytes to all takers.

`encode_into` is the pass itself, whatever becomes of the bytes; `press` writes them to files. Some threads read and
encode slabs, others take them in order. So files are written from front to back, a byte is in memory only for a moment,
and no result depends on the number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pythia_gguf.cpus import workers_of
from pythia_gguf.files import write_beside
from pythia_gguf.press.output import FileWriter, OutputFile
from pythia_gguf.press.slabs import Slab, encode_in_order, slabs_of
from pythia_gguf.press.source import Source
from pythia_gguf.press.weights import WeightReader

# So many threads hash and write: one may wait for the disk while the other hashes.
_WRITERS = 2

Taker = Callable[[Slab, Mapping[str, memoryview]], None]
"""Takes a slab and its bytes by format, which are valid until it returns; slabs of a tensor come front to back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFiles:
    """The result of `press`.

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


def encode_into(
    takers: Sequence[Taker],
    source: Source,
    wanted: Mapping[str, Iterable[str]],
    *,
    threads: int,
    advance: Callable[[str, int], None],
) -> None:
    """Read tensors once and hand every slab to all takers, which run beside each other.

    wanted   tensor name -> formats, in the order in which tensors are read
    threads  number of threads that read and encode, at least 1; with one, the caller's own thread does everything
    advance  called with (tensor name, weights) as weights are finished
    Raises   ModelFileError for weights that cannot be encoded, StorageError, and everything that a taker raises
    """
    # 1. The plan of the pass: slabs in the order of the files. It is lazy, and reads nothing.
    by_name = {tensor.name: tensor for tensor in source.tensors}
    importances = {name: source.imatrix.of(tensor) for name, tensor in by_name.items()} if source.imatrix else {}
    slabs = (
        slab
        for name, formats in wanted.items()
        for slab in slabs_of(by_name[name], tuple(formats), importances.get(name))
    )
    with WeightReader(source) as reader, workers_of(min(threads, _WRITERS), "write") as pool:
        # 2. Other threads read and encode ahead; slabs come out in order, whichever is ready first.
        for slab, encoded in encode_in_order(reader, slabs, threads):
            # 3. Takers run beside each other, but all finish a slab before the next: its buffers are used again.
            for task in [pool.submit(take, slab, encoded) for take in takers]:
                task.result()
            advance(slab.tensor.name, slab.n_weights)


def press(
    source: Source,
    outputs: Sequence[OutputFile],
    *,
    order: Sequence[str],
    threads: int,
    advance: Callable[[str, int], None],
) -> WrittenFiles:
    """Write all files; each appears under its final name only when all of it is on disk.

    order            tensor names as they follow each other in the files
    threads, advance as for `encode_into`
    Raises           ModelFileError for weights that cannot be encoded, StorageError when the disk refuses
    """
    wanted = {name: [output.formats[name] for output in outputs] for name in order}
    digests = _TensorDigests()
    with ExitStack() as stack:
        writers = [FileWriter(o, stack.enter_context(write_beside(o.path))) for o in outputs]
        takers: list[Taker] = [digests.update, *(partial(_append, writer) for writer in writers)]
        encode_into(takers, source, wanted, threads=threads, advance=advance)
        for writer in writers:
            writer.finish()
        files = {w.output.path: (w.n_bytes, w.sha256) for w in writers}
    return WrittenFiles(files=files, tensors=digests.done)


def _append(writer: FileWriter, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
    writer.append(encoded[writer.output.formats[slab.tensor.name]])
    if slab.is_last:
        writer.pad()
