"""The pass: it reads every slab of rows once, encodes it once per format, and hands the bytes to all takers.

`encode_into` is the pass itself, whatever becomes of the bytes; `press` hashes them and writes them to files. Every
hash and every file is a taker of its own, so they wait for the encoders and for nothing else. Files are written from
front to back, a byte is in memory only for a moment, and no result depends on the number of threads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.files import write_beside
from pythia_gguf.gguf.container import padded
from pythia_gguf.press.output import FileWriter, OutputFile
from pythia_gguf.press.pipeline import Pipeline, Taker, Watch
from pythia_gguf.press.slabs import Slab, slabs_of
from pythia_gguf.press.source import Source
from pythia_gguf.press.weights import WeightReader


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenFiles:
    """The result of `press`.

    files    final name -> (bytes, SHA-256)
    tensors  (tensor name, format) -> SHA-256 of its encoded bytes, without padding
    """

    files: Mapping[Path, tuple[int, str]]
    tensors: Mapping[tuple[str, str], str]


class TensorHashes:
    """Hashes of every tensor in one format; its `take` is a taker of the pass."""

    def __init__(self, format_name: str) -> None:
        self.format = format_name
        self.done: dict[tuple[str, str], str] = {}
        self._digest = hashlib.sha256()

    def take(self, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        """Hash a slab, if its tensor is wanted in the format."""
        if self.format not in encoded:
            return
        self._digest.update(encoded[self.format])
        if slab.is_last:
            self.done[slab.tensor.name, self.format] = self._digest.hexdigest()
            self._digest = hashlib.sha256()


class FileBytes:
    """Cuts the bytes of one file out of the pass, from header to padding; its `take` is a taker of the pass."""

    def __init__(self, output: OutputFile, append: Callable[[bytes | memoryview], None]) -> None:
        """Take what appends bytes to the file, or to its hash."""
        self.output, self.append = output, append
        self.n_bytes = 0
        self._add(output.header)

    def take(self, slab: Slab, encoded: Mapping[str, memoryview]) -> None:
        """Append a slab, and after the last one of a tensor zeros up to the alignment."""
        self._add(encoded[self.output.formats[slab.tensor.name]])
        if slab.is_last:
            self._add(bytes(padded(self.n_bytes, self.output.alignment) - self.n_bytes))

    def _add(self, data: bytes | memoryview) -> None:
        self.append(data)
        self.n_bytes += len(data)


def encode_into(
    takers: Sequence[Taker],
    source: Source,
    wanted: Mapping[str, Iterable[str]],
    *,
    threads: int,
    advance: Callable[[str, int], None],
    watch: Watch | None = None,
) -> None:
    """Read tensors once and hand every slab to all takers, which run beside each other.

    wanted   tensor name -> formats, in the order in which tensors are read
    threads  number of threads that read and encode, at least 1; with one, the caller's own thread does everything
    advance  called in the caller's thread with (tensor name, weights) as weights are finished
    watch    surrounds every task of the pass, for measurements
    Raises   ModelFileError for weights that cannot be encoded, StorageError, and everything that a taker raises
    """
    by_name = {tensor.name: tensor for tensor in source.tensors}
    importances = {name: source.imatrix.of(tensor) for name, tensor in by_name.items()} if source.imatrix else {}
    # The plan of the pass, slabs in the order of the files, is lazy and reads nothing.
    slabs = (
        slab
        for name, formats in wanted.items()
        for slab in slabs_of(by_name[name], tuple(formats), importances.get(name))
    )
    with WeightReader(source) as reader:
        Pipeline(reader, takers, threads=threads, watch=watch).run(slabs, advance)


def press(
    source: Source,
    outputs: Sequence[OutputFile],
    *,
    order: Sequence[str],
    threads: int,
    advance: Callable[[str, int], None],
    watch: Watch | None = None,
) -> WrittenFiles:
    """Write all files; each appears under its final name only when all of it is on disk.

    order            tensor names as they follow each other in the files
    threads, advance, watch  as for `encode_into`
    Raises           ModelFileError for weights that cannot be encoded, StorageError when the disk refuses
    """
    wanted = {name: [output.formats[name] for output in outputs] for name in order}
    formats = dict.fromkeys(format_name for names in wanted.values() for format_name in names)
    tensors = [TensorHashes(format_name) for format_name in formats]
    digests = [hashlib.sha256() for _ in outputs]
    hashes = [FileBytes(output, digest.update) for output, digest in zip(outputs, digests, strict=True)]
    with ExitStack() as stack:
        writers = [FileWriter(o.path, stack.enter_context(write_beside(o.path))) for o in outputs]
        files = [FileBytes(output, writer.append) for output, writer in zip(outputs, writers, strict=True)]
        # What has most to do stands first: the bytes of files, then their hashes.
        takers = [*(file.take for file in (*files, *hashes)), *(tensor.take for tensor in tensors)]
        encode_into(takers, source, wanted, threads=threads, advance=advance, watch=watch)
        for writer in writers:
            writer.finish()
    return WrittenFiles(
        files={h.output.path: (h.n_bytes, d.hexdigest()) for h, d in zip(hashes, digests, strict=True)},
        tensors={key: digest for taker in tensors for key, digest in taker.done.items()},
    )
