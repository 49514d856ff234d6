"""Random damage: the reader refuses it in its one way, or takes a file that llama.cpp reads the same way."""

from __future__ import annotations

import random
import struct
import time
from pathlib import Path

import numpy as np
import pytest

from gguf.craft import ARRAY, BOOL, STRING, valid
from gguf.llama_view import view
from pythia_gguf.errors import ModelFileError
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import NUMBER_TYPES, Value
from pythia_gguf.gguf.reader import GGUFFile, open_gguf

N_MUTANTS = 20_000
EDGES = [0, 1, 2, 8, 13, 31, 32, 63, 64, 255, 2**16, 2**24, 2**31, 2**32 - 1, 2**40, 2**61, 2**63, 2**64 - 1]


def mutant(data: bytes, rng: random.Random) -> bytes:
    """One to three small damages: a bit, a byte, a number with an interesting value, a cut, a hole, a repeat."""
    made = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(made))
        kind = rng.randrange(8)
        if kind < 2:
            made[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            made[at] = rng.randrange(256)
        elif kind < 5:
            code = rng.choice(("<B", "<I", "<Q"))
            raw = struct.pack(code, rng.choice(EDGES) % 256 ** struct.calcsize(code))
            made[at : at + len(raw)] = raw
        elif kind == 5:
            del made[at + 1 :]
        elif kind == 6:
            del made[at : at + rng.randrange(1, 32)]
        else:
            made[at:at] = made[at : at + rng.randrange(1, 64)]
        if not made:
            return b""
    return bytes(made)


def opened(path: Path, n_bytes: int) -> GGUFFile | None:
    """The header, or None when it is refused as it should be; any other error fails the test."""
    try:
        return open_gguf(path)
    except ModelFileError as e:
        refusal = e
    assert str(refusal).isprintable() and refusal.offset is not None and 0 <= refusal.offset <= n_bytes
    return None


@pytest.fixture(scope="module")
def survivors(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """Mutants that the reader takes, out of 20 thousand."""
    path = tmp_path_factory.mktemp("mutants") / "mutant.gguf"
    rng = random.Random(20_000)
    seed = bytes(valid().data)
    taken = []
    seconds = 0.0
    with open(path, "wb", buffering=0) as out:
        for _ in range(N_MUTANTS):
            data = mutant(seed, rng)
            out.seek(0)
            out.truncate(out.write(data))
            start = time.process_time()
            gguf = opened(path, len(data))
            seconds += time.process_time() - start
            if gguf is not None:
                taken.append(data)
                check_tensors_lie_inside(gguf, len(data))
    # 1 to 2 s where this was written, up to 0.1 ms each; a single mutant that hangs takes far longer.
    assert seconds < 4
    return taken


def check_tensors_lie_inside(gguf: GGUFFile, n_bytes: int) -> None:
    """Disjoint, in order, all bytes in the file."""
    end = gguf.data_offset
    for info in gguf.tensors.values():
        assert gguf.data_offset + info.offset >= end
        end = gguf.data_offset + info.offset + info.n_bytes
        assert end <= n_bytes


def test_damage_is_refused_in_one_way_and_soon(survivors: list[bytes]) -> None:
    # Damage to names, values and weights leaves a legal file: about one mutant in five.
    assert N_MUTANTS // 20 < len(survivors) < N_MUTANTS // 2


def test_llama_cpp_reads_every_survivor_the_same_way(survivors: list[bytes], tmp_path: Path) -> None:
    path = tmp_path / "survivor.gguf"
    for data in survivors[:2000]:
        path.write_bytes(data)
        ours, theirs = open_gguf(path), view(path)
        assert theirs is not None
        assert (theirs.version, theirs.alignment) == (ours.version, ours.alignment)
        assert theirs.keys == {key: as_c_sees(value) for key, value in ours.metadata.items()}
        assert theirs.tensors == [
            (t.name, FORMATS[t.format].ggml_id, (*reversed(t.shape), 1, 1, 1)[:4], t.offset, t.n_bytes)
            for t in ours.tensors.values()
        ]


def as_c_sees(value: Value) -> tuple[int, int, object]:
    """A value of ours in the terms of `llama_view`."""
    if isinstance(value, str):
        return STRING, -1, value.encode().split(b"\0")[0]
    if isinstance(value, list):
        return ARRAY, STRING, [text.encode().split(b"\0")[0] for text in value]
    if isinstance(value, bool):
        return BOOL, -1, bytes([value])
    type_id = next(i for i, (_, dtype) in NUMBER_TYPES.items() if dtype == value.dtype)
    return (ARRAY, type_id, value.tobytes()) if isinstance(value, np.ndarray) else (type_id, -1, value.tobytes())
