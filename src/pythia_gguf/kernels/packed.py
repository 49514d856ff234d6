"""Weights rearranged for matrix products: 16 rows side by side, every bit of the file kept.

A group of 16 rows is a run of blocks (32 columns, or 256 for K formats); in a block the parts below follow each other.
A vector holds four bytes of each of the 16 rows, so it is what one load gives to 16 lanes.

    d, m       16 float16 each
    scales     16 bytes for each run of 32 or 16 columns, unpacked from 6 bits where the file has 6
    codes      of 32 columns after 32 columns: vectors of their highest bits, then of the bits below

Bits of a code lie in vectors of single bits, of pairs, of nibbles or of bytes. With n such elements in a byte, vector k
holds as its element i what belongs to columns 4 (k + 8 / n * i) and the three after. So whatever the format, a product
reads memory from front to back and shifts by constants.

The size is that of the file, but 2.8 % more for Q4_K, 2.3 % for Q5_K, 3.6 % for Q3_K, 1.5 % for IQ4_XS, whose scales
get bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pythia_gguf.formats import FORMATS
from pythia_gguf.formats import iq4_xs as iq4_xs_format
from pythia_gguf.formats import q3_k as q3_k_format
from pythia_gguf.formats import q4_k as q4_k_format
from pythia_gguf.kernels.memory import aligned

ROWS = 16
_PLAIN_COLUMNS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedMatrix:
    """A matrix of weights.

    n_rows, n_columns  of the matrix
    data               u8 [n_groups, blocks, block_bytes], 64-byte aligned; rows past n_rows are zeros
    """

    format: str
    n_rows: int
    n_columns: int
    data: np.ndarray

    @property
    def n_groups(self) -> int:
        """Groups of 16 rows."""
        return self.data.shape[0]


def block_columns(format_name: str) -> int:
    """Columns of a packed block."""
    return max(_PLAIN_COLUMNS, FORMATS[format_name].block_weights)


def packed_bytes(format_name: str, n_rows: int, n_columns: int) -> int:
    """Size of `PackedMatrix.data`; raises ValueError when a row is not whole blocks."""
    return int(np.prod(_shape(format_name, n_rows, n_columns)))


def new_packed(format_name: str, n_rows: int, n_columns: int, memory: np.ndarray | None = None) -> PackedMatrix:
    """Room for a matrix; raises ValueError when a row is not whole blocks.

    Rows of F16, BF16 and F32 may have any length: they are filled up with zeros.

    memory  u8 [packed_bytes], zeros, 64-byte aligned, to be used; default new
    """
    shape = _shape(format_name, n_rows, n_columns)
    data = aligned(shape, np.uint8) if memory is None else memory.reshape(shape)
    return PackedMatrix(format=format_name, n_rows=n_rows, n_columns=n_columns, data=data)


def _shape(format_name: str, n_rows: int, n_columns: int) -> tuple[int, int, int]:
    FORMATS[format_name].row_bytes(n_columns)
    n_bytes = sum(n for _, n in _parts(_zero_blocks(format_name)))
    return -(-n_rows // ROWS), -(-n_columns // block_columns(format_name)), n_bytes


def pack_rows(packed: PackedMatrix, first_row: int, rows: np.ndarray) -> None:
    """Put encoded rows into their place.

    first_row  a multiple of 16
    rows       u8 [n, row_bytes] as in the file; n a multiple of 16 unless they are the last ones
    Raises     ValueError for any other size
    """
    n = rows.shape[0]
    row_bytes = FORMATS[packed.format].row_bytes(packed.n_columns)
    ends = first_row + n == packed.n_rows
    if rows.ndim != 2 or rows.shape[1] != row_bytes or rows.dtype != np.uint8:
        raise ValueError(f"expected uint8 rows of {row_bytes} bytes, got {rows.dtype} {rows.shape}")
    if first_row % ROWS or (n % ROWS and not ends) or not 0 < n <= packed.n_rows - first_row:
        raise ValueError(f"rows {first_row} to {first_row + n} of {packed.n_rows}")
    columns = packed.data.shape[1] * block_columns(packed.format)
    wide = FORMATS[packed.format].row_bytes(columns)
    whole = np.zeros((-(-n // ROWS) * ROWS, wide), np.uint8) if n % ROWS or wide != row_bytes else rows
    if whole is not rows:
        whole[:n, :row_bytes] = rows
    # [groups, 16, blocks] of the format's own blocks
    blocks = np.ascontiguousarray(whole).view(_block_dtype(packed.format)).reshape(-1, ROWS, packed.data.shape[1])
    first_group = first_row // ROWS
    target = packed.data[first_group : first_group + blocks.shape[0]]
    at = 0
    for part, n_bytes in _parts(PACKERS[packed.format](blocks)):
        room = target[:, :, at : at + n_bytes]
        room.view(part.dtype).reshape(part.shape)[...] = part
        at += n_bytes


def _zero_blocks(format_name: str) -> list[np.ndarray]:
    return PACKERS[format_name](np.zeros((1, ROWS, 1), _block_dtype(format_name)))


def _block_dtype(format_name: str) -> np.dtype:
    if format_name in ("F16", "BF16", "F32"):
        return np.dtype([("w", FORMATS[format_name].block["w"], _PLAIN_COLUMNS)])
    return FORMATS[format_name].block


def _parts(arrays: list[np.ndarray]) -> list[tuple[np.ndarray, int]]:
    """Each part [groups, blocks, ...] and its bytes in one block."""
    return [(a, int(np.prod(a.shape[2:])) * a.dtype.itemsize) for a in arrays]


def _turned(values: np.ndarray) -> np.ndarray:
    """[groups, 16, blocks, n] -> [groups, blocks, n, 16]: rows become lanes."""
    return values.transpose(0, 2, 3, 1)


def _vectors(codes: np.ndarray) -> np.ndarray:
    """Bytes [groups, 16, blocks, n] as words of four, rows as lanes."""
    return _turned(np.ascontiguousarray(codes).view(np.uint32))


def _lanes(values: np.ndarray) -> np.ndarray:
    """One value a row: [groups, 16, blocks] -> [groups, blocks, 16]."""
    return values.transpose(0, 2, 1)


def _plane(qh: np.ndarray) -> np.ndarray:
    """Fifth bits of 32 columns, u32 [groups, 16, blocks], as bytes whose bit j belongs to column 4 j + b."""
    bits = (qh[..., None] >> np.arange(32, dtype=np.uint32)).astype(np.uint8) & 1
    by_column = bits.reshape(*qh.shape, 8, 4)
    planes = (by_column << np.arange(8, dtype=np.uint8)[:, None]).sum(axis=-2, dtype=np.uint8)
    return _vectors(planes)


def _by_run(codes: np.ndarray, bits: int) -> np.ndarray:
    """Runs of 32 columns that share bytes, each in vectors of its own.

    codes    bytes [groups, 16, blocks, 32 n] of the file: element i of byte c of each 32 is of column c of run i
    bits     of an element; 8 / bits of them, the runs, share a byte
    Returns  u32 [groups, blocks, n, 8 / bits runs, bits vectors, 16]
    """
    vectors = _vectors(codes)
    n = 8 // bits
    v = np.ascontiguousarray(vectors).reshape(*vectors.shape[:2], -1, n, bits, ROWS)
    # Element i of vector j and element j of vector i change places, by halves, quarters and so on.
    distance = n // 2
    while distance:
        shift = np.uint32(distance * bits)
        keep = np.uint32(sum(((1 << bits) - 1) << bits * i for i in range(n) if not i & distance) * 0x01010101)
        halves = v.reshape(*v.shape[:3], n // (2 * distance), 2, distance, bits, ROWS)
        a, b = halves[..., 0, :, :, :], halves[..., 1, :, :, :]
        moved = ((a >> shift) ^ b) & keep
        b ^= moved
        a ^= moved << shift
        distance //= 2
    return v


def _runs(*parts: np.ndarray) -> np.ndarray:
    """Parts of the same runs, u32 [groups, blocks, ..., vectors, 16], one behind the other for each run."""
    return np.concatenate([p.reshape(*p.shape[:2], 8, -1, ROWS) for p in parts], axis=-2)


def _unpacked(blocks: np.ndarray, unpack: Callable, *fields: str) -> list[np.ndarray]:
    """Scales as formats/ unpacks them, one array for each that `unpack` returns: bytes with rows as lanes."""
    shape = blocks.shape
    result = unpack(
        *(np.ascontiguousarray(blocks[f]).reshape(shape[0] * ROWS * shape[2], *blocks[f].shape[3:]) for f in fields)
    )
    arrays = result if isinstance(result, tuple) else (result,)
    return [_turned(a.astype(np.int8).reshape(*shape, -1)) for a in arrays]


def _nibbles(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _vectors(b["qs"])]


def _nibbles_min(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _lanes(b["m"]), _vectors(b["qs"])]


def _q5_0(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _plane(b["qh"]), _vectors(b["qs"])]


def _q5_1(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _lanes(b["m"]), _plane(b["qh"]), _vectors(b["qs"])]


def _q8_0(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _vectors(b["qs"].view(np.uint8) ^ 0x80)]


def _q2_k(b: np.ndarray) -> list[np.ndarray]:
    return [_lanes(b["d"]), _lanes(b["dmin"]), _turned(b["scales"]), _by_run(b["qs"], 2)]


def _q3_k(b: np.ndarray) -> list[np.ndarray]:
    scales = _unpacked(b, q3_k_format.unpack_scales, "scales")
    return [_lanes(b["d"]), *scales, _runs(_by_run(b["hmask"], 1), _by_run(b["qs"], 2))]


def _q4_k(b: np.ndarray) -> list[np.ndarray]:
    scales = _unpacked(b, q4_k_format.unpack_scales, "scales")
    return [_lanes(b["d"]), _lanes(b["dmin"]), *scales, _by_run(b["qs"], 4)]


def _q5_k(b: np.ndarray) -> list[np.ndarray]:
    scales = _unpacked(b, q4_k_format.unpack_scales, "scales")
    return [_lanes(b["d"]), _lanes(b["dmin"]), *scales, _runs(_by_run(b["qh"], 1), _by_run(b["qs"], 4))]


def _q6_k(b: np.ndarray) -> list[np.ndarray]:
    nibbles = _by_run(b["ql"], 4)
    # Low nibbles of 64 bytes are of runs 0 and 1, high ones of 2 and 3.
    nibbles = nibbles.reshape(*nibbles.shape[:2], 2, 2, 2, 4, ROWS).swapaxes(3, 4)
    return [_lanes(b["d"]), _turned(b["scales"]), _runs(_by_run(b["qh"], 2), nibbles)]


def _iq4_xs(b: np.ndarray) -> list[np.ndarray]:
    scales = _unpacked(b, iq4_xs_format.unpack_scales, "scales_l", "scales_h")
    return [_lanes(b["d"]), *scales, _vectors(b["qs"])]


def _plain(b: np.ndarray) -> list[np.ndarray]:
    return [_turned(b["w"])]


PACKERS: dict[str, Callable[[np.ndarray], list[np.ndarray]]] = {
    "F32": _plain,
    "F16": _plain,
    "BF16": _plain,
    "Q4_0": _nibbles,
    "Q4_1": _nibbles_min,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q2_K": _q2_k,
    "Q3_K": _q3_k,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
    "IQ4_NL": _nibbles,
    "IQ4_XS": _iq4_xs,
}
