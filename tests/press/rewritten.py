"""GGUF files that are changed in one way and written again: other keys, bits, formats, orders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from press import tiny
from press.toy_gguf import as_stored
from pythia_gguf.gguf.container import Metadata, alignment_of
from pythia_gguf.gguf.reader import decode_tensor, open_gguf
from pythia_gguf.gguf.tensor_source import MemoryGGUF
from pythia_gguf.gguf.writer import header_bytes, layout

UP = "blk.0.ffn_up.weight"
Change = Callable[[Path], None]


def written(path: Path, metadata: Metadata, values: dict[str, tuple[str, bytes]]) -> None:
    """A file of other keys and tensors: name -> format and bytes."""
    shapes = {name: info.shape for name, info in open_gguf(path).tensors.items()}
    infos = layout(((name, of, shapes[name]) for name, (of, _) in values.items()), alignment_of(metadata))
    data = {info.name: np.frombuffer(values[info.name][1], np.uint8).reshape(info.n_rows, -1) for info in infos}
    gguf = MemoryGGUF(
        name="",
        beside={},
        metadata=metadata,
        tensors={info.name: info for info in infos},
        header=header_bytes(metadata, infos),
        data=data,
    )
    path.unlink()  # it may be linked
    path.write_bytes(b"".join(gguf.pieces()))


def values_of(path: Path) -> dict[str, tuple[str, bytes]]:
    gguf = open_gguf(path)
    return {name: (info.format, gguf.rows(name).tobytes()) for name, info in gguf.tensors.items()}


def flip(offset_in_tensor: int, name: str = UP) -> Change:
    def change(path: Path) -> None:
        gguf, data = open_gguf(path), bytearray(path.read_bytes())
        data[gguf.data_offset + gguf.tensors[name].offset + offset_in_tensor] ^= 1
        path.write_bytes(data)

    return change


def with_keys(change: Callable[[Metadata], Metadata]) -> Change:
    return lambda path: written(path, change(open_gguf(path).metadata), values_of(path))


def in_format(format_name: str, *names: str) -> Change:
    """These tensors in another format without blocks; of no name all matrices."""

    def change(path: Path) -> None:
        gguf, values = open_gguf(path), values_of(path)
        for name in names or [n for n, info in gguf.tensors.items() if len(info.shape) == 2]:
            values[name] = (format_name, as_stored(decode_tensor(gguf, name), format_name))
        written(path, gguf.metadata, values)

    return change


def put(content: Callable[[], bytes]) -> Change:
    return lambda path: path.write_bytes(content())


def reordered(path: Path) -> None:
    written(path, open_gguf(path).metadata, dict(reversed(values_of(path).items())))


def version_2(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[4] = 2
    path.write_bytes(data)


def other_model(width: int = 32) -> Change:
    """The tiny model after more training, or of another width."""

    def change(path: Path) -> None:
        path.write_bytes(tiny.gguf_bytes(width=width))
        gguf = open_gguf(path)
        values = {n: (i.format, as_stored(decode_tensor(gguf, n) + 0.125, i.format)) for n, i in gguf.tensors.items()}
        written(path, gguf.metadata, values)

    return change
