"""Keys and values of all sequences, in tiles of LANES positions with all their layers.

A sequence takes tiles as it grows; sequences that begin alike share them until one of them writes. Tiles that no
sequence uses any more go back to the operating system.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.engine.workspace import rounded_up
from pythia_gguf.errors import UsageError
from pythia_gguf.kernels.memory import Pages
from pythia_gguf.kernels.simd import LANES

# The system zeroes every page that it gives back to us, which costs a short text a few per cent of its time.
_KEPT_BYTES = 32 << 20
# Half precision is kept as bit patterns.
_DTYPES: dict[str, type[np.generic]] = {"f16": np.uint16, "f32": np.float32}


class Tiles:
    """A pool of tiles.

    kind    "f16" or "f32"
    width   numbers of a cached value: the dimensions of a head, rounded up to LANES
    n_free  tiles that no sequence uses
    """

    def __init__(self, config: ModelConfig, kind: str, n_tiles: int) -> None:
        """Reserve address space for all tiles; pages that are never written take no memory."""
        self.kind, self.width, self._config = kind, _width(config), config
        self._pages = Pages(n_tiles * tile_bytes(config, kind))
        # [tile, layer, number]: keys of all heads, then values of all heads; see kernels/attention.py
        self._array = self._pages.array.view(_DTYPES[kind]).reshape(n_tiles, config.n_layers, -1)
        self._n_users = [0] * n_tiles
        # The lowest numbers are taken first, so that the tiles in use lie close together.
        self._free = list(range(n_tiles))
        self._to_release: set[int] = set()

    @property
    def n_free(self) -> int:
        """Tiles that no sequence uses."""
        return len(self._free)

    def take(self) -> int:
        """Take a free tile, with any finite content, and return its number; raises UsageError when all are in use."""
        if not self._free:
            raise UsageError("no memory is left for the keys and values of more tokens: end a text, or take fewer")
        tile = heapq.heappop(self._free)
        self._to_release.discard(tile)
        self._n_users[tile] = 1
        return tile

    def share(self, tiles: Iterable[int]) -> None:
        """Add one user to each tile."""
        for tile in tiles:
            self._n_users[tile] += 1

    def n_users(self, tile: int) -> int:
        """How many sequences use a tile; if several do, none of them may write into it."""
        return self._n_users[tile]

    def copy_of(self, tile: int) -> int:
        """Take a tile with the content of a shared one, and give up the shared one; returns the new tile's number."""
        own = self.take()
        self._array[own] = self._array[tile]
        self._n_users[tile] -= 1
        return own

    def drop(self, tiles: Iterable[int]) -> None:
        """Take one user from each tile. Free tiles keep their memory until `release`: it is cheap to use again."""
        for tile in tiles:
            self._n_users[tile] -= 1
            if self._n_users[tile] == 0:
                heapq.heappush(self._free, tile)
                self._to_release.add(tile)

    def release(self) -> None:
        """Give the memory of free tiles back to the operating system, but for a little that will soon be used again."""
        n_bytes = self._array[:1].nbytes
        # The lowest numbers are taken next.
        dropped = sorted(self._to_release)[_KEPT_BYTES // n_bytes :]
        for first, last in _runs(dropped):
            self._pages.release(first * n_bytes, last * n_bytes)
        self._to_release.difference_update(dropped)

    def places(self, tiles: Sequence[int]) -> np.ndarray:
        """Offsets of tiles from the first tile of any layer, in numbers of the cache's type: i64 [n]."""
        return np.asarray(tiles, np.int64) * (self._array.strides[0] // self._array.itemsize)

    def layer_address(self, i_layer: int) -> int:
        """Address of a layer's part of the first tile."""
        return int(self._array[:, i_layer].ctypes.data)

    def n_from(self, i_layer: int) -> int:
        """Numbers from that address to the end of the pool."""
        return self._array.size - i_layer * self._array.shape[2]

    def first_not_finite(self, tiles: Sequence[int], n_tokens: int) -> tuple[int, int] | None:
        """Layer and position of the first key or value among a sequence's first n tokens that is infinity or NaN."""
        config = self._config
        n_keys = config.n_heads * config.head_dim * LANES
        for i in range(config.n_layers):
            numbers = self._array[list(tiles), i].view(np.float16 if self.kind == "f16" else np.float32)
            keys = numbers[:, :n_keys].reshape(len(tiles), -1, LANES)
            values = numbers[:, n_keys:].reshape(len(tiles), config.n_heads, LANES, self.width)
            is_finite = np.isfinite(keys).all(axis=1) & np.isfinite(values).all(axis=(1, 3))
            is_finite = is_finite.reshape(-1)[:n_tokens]
            if not is_finite.all():
                return i, int(is_finite.argmin())
        return None


def tile_bytes(config: ModelConfig, kind: str) -> int:
    """Memory of one tile."""
    numbers = config.n_layers * config.n_heads * LANES * (config.head_dim + _width(config))
    return numbers * np.dtype(_DTYPES[kind]).itemsize


def n_tiles_of(n_tokens: int) -> int:
    """Tiles that hold so many tokens."""
    return -(-n_tokens // LANES)


def _width(config: ModelConfig) -> int:
    return rounded_up(config.head_dim, LANES)


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Rising numbers as ranges (first, last + 1)."""
    runs: list[tuple[int, int]] = []
    for n in numbers:
        if runs and runs[-1][1] == n:
            runs[-1] = runs[-1][0], n + 1
        else:
            runs.append((n, n + 1))
    return runs
