"""Encodes a checkpoint in memory: the GGUFs that `quantize` would write, without a folder.

Menu, header and pass are the same as in `quantize`, so the bytes are the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from pythia_gguf.arguments import checked
from pythia_gguf.cpus import threads_of
from pythia_gguf.errors import Argument, one_line
from pythia_gguf.gguf.tensor_source import MemoryGGUF
from pythia_gguf.kernels.compiling import compile_all
from pythia_gguf.kernels.encode import ENCODABLE, encoder_jobs
from pythia_gguf.machine import require_memory
from pythia_gguf.plan.quants import find_mix
from pythia_gguf.press.find_source import find_source, open_location
from pythia_gguf.press.menu import MenuItem, make_menu, quants_asked
from pythia_gguf.press.pipeline import Taker
from pythia_gguf.press.pressing import encode_into
from pythia_gguf.press.slabs import Slab
from pythia_gguf.press.source import Source
from pythia_gguf.progress import Progress, Silence


@checked
def encode_model(
    source: str | os.PathLike[str],
    quants: str | Iterable[str],
    *,
    mix: str = "2026",
    threads: int | None = None,
    name: str | None = None,
    keep_f16: bool = False,
    imatrix: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> dict[str, MemoryGGUF]:
    """Quantize a checkpoint in memory; returns quant -> the GGUF that `quantize` would write, to load or to write.

    One read of the source gives all of them. A tensor that several quants hold in the same format is in memory once, so
    together they take at most the sizes of their files.

    source    as for `quantize`; weights of the Hub are read as they are needed, without a copy on disk
    quants    names of the menu, as a list or separated by commas, or "all"; none for the unquantized model alone
    mix, threads, name, imatrix  as for `quantize`
    keep_f16  also give the unquantized model, under the name of its format: F16, BF16 or F32
    progress  hears what is going on
    Raises    UsageError, also if the result does not fit into memory; ModelFileError, StorageError, NetworkError
    """
    chosen = quants_asked(quants, with_plain=keep_f16)
    find_mix(mix)
    n_threads = threads_of(threads)
    progress = progress or Silence()
    opened = open_to_encode(source, name=name, imatrix=imatrix, progress=progress)
    items = make_menu(opened, chosen, mix, with_plain=keep_f16)
    return encode_items(opened, items, threads=n_threads, progress=progress)


def open_to_encode(
    source: str | os.PathLike[str], *, name: str | None, imatrix: str | os.PathLike[str] | None, progress: Progress
) -> Source:
    """The source that a user names, its weights unread; arguments as for `encode_model`."""
    return open_location(find_source(source, keep=False, progress=progress), name, imatrix)


def encode_items(
    source: Source, items: Sequence[MenuItem], *, threads: int, progress: Progress
) -> dict[str, MemoryGGUF]:
    """The items of a menu of one source, whatever plans they have, by quant; raises as `encode_model`."""
    wanted: dict[str, dict[str, int]] = {tensor.name: {} for tensor in source.tensors}
    for item in items:
        for entry in item.entries:
            wanted[entry.tensor][entry.format] = entry.n_bytes
    n_bytes = sum(n for formats in wanted.values() for n in formats.values())
    fewer = (". Fewer ", Argument("quants"), " need less")
    require_memory(n_bytes, f"{one_line(source.name)} encoded in memory", hints=[fewer])
    # Tensors that several items share are in memory once.
    encoded = {(name, f): np.empty(n, np.uint8) for name, formats in wanted.items() for f, n in formats.items()}

    def keep(slab: Slab, slabs: Mapping[str, memoryview]) -> None:
        for format_name, data in slabs.items():
            at = slab.offset(format_name)
            encoded[slab.tensor.name, format_name][at : at + len(data)] = np.frombuffer(data, np.uint8)

    encode_tensors([keep], source, wanted, threads=threads, progress=progress)
    for values in encoded.values():
        values.flags.writeable = False
    return {item.quant: _gguf(source, item, encoded) for item in items}


def encode_tensors(
    takers: Sequence[Taker],
    source: Source,
    wanted: Mapping[str, Iterable[str]],
    *,
    threads: int,
    progress: Progress,
) -> None:
    """Compile encoders, then call `encode_into`; tensors without a format are not read."""
    formats = {format_name for names in wanted.values() for format_name in names}
    jobs = encoder_jobs([name for name in ENCODABLE if name in formats], is_weighted=source.imatrix is not None)
    compile_all(jobs, progress, threads)
    read = [tensor for tensor in source.tensors if wanted.get(tensor.name)]
    progress.stage("encoding", sum(tensor.n_rows * tensor.n_columns for tensor in read), "weights")
    to_encode = {tensor.name: wanted[tensor.name] for tensor in read}
    encode_into(takers, source, to_encode, threads=threads, advance=progress.advance)


def _gguf(source: Source, item: MenuItem, encoded: Mapping[tuple[str, str], np.ndarray]) -> MemoryGGUF:
    infos = item.infos
    return MemoryGGUF(
        name=item.file,
        beside=source.beside,
        metadata=item.metadata,
        tensors={info.name: info for info in infos},
        header=item.header,
        data={info.name: encoded[info.name, info.format].reshape(info.n_rows, -1) for info in infos},
    )
