"""Random damage to good files: an answer of one line, or what the real libraries read too; never anything else.

Each reader sees 20,000 mutants from a fixed seed. One that is accepted (damage to padding, names or values cannot be
noticed from the header alone) must lie within the file and be what safetensors and torch see in the same bytes.
"""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterable
from pathlib import Path

import safetensors
import torch

from checkpoint import craft_safetensors, hostile_zip
from checkpoint.craft_pickle import ORDERED_DICT, dict_of, storage, tensor, text, whole
from pythia_gguf.checkpoint.safetensors import parse_header
from pythia_gguf.checkpoint.tensor import LazyTensor, size_of
from pythia_gguf.checkpoint.torch_zip import read_torch_zip
from pythia_gguf.checkpoint.unpickler import read_state_dict
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile

N_MUTANTS = 20_000
EDGES = (b"\0", b"\xff", b"\xff\xff\xff\xff", b"\0\0\0\x80", b"\xff" * 8, b'"', b"{", b"}", b"9" * 19, b"-1", b"(")


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three small damages: a bit, a byte, an edge value, a piece removed, repeated or moved."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randrange(len(out))
        n = rng.choice((1, 1, 2, 4, 8, 30))
        kind = rng.randrange(6)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at] = rng.randrange(256)
        elif kind == 2:
            edge = rng.choice(EDGES)
            out[at : at + len(edge)] = edge
        elif kind == 3 and len(out) > n + 1:
            del out[at : at + n]
        elif kind == 4:
            out[at:at] = out[at : at + n]
        else:
            source = rng.randrange(len(out))
            out[at : at + n] = out[source : source + n]
    return bytes(out)


def survivors(data: bytes, seed: int, read: Callable[[bytes], object]) -> int:
    """How many mutants are accepted; anything but ModelFileError fails the test."""
    rng = random.Random(seed)
    refusals: list[str] = []
    for _ in range(N_MUTANTS):
        mutant = mutate(data, rng)
        try:
            read(mutant)
        except ModelFileError as e:
            refusals.append(str(e))
    assert all(message.isprintable() for message in refusals)
    return N_MUTANTS - len(refusals)


def check_sound(tensors: Iterable[LazyTensor], file_size: int) -> None:
    for t in tensors:
        assert t.n_bytes == size_of(t.dtype, t.shape)
        assert 0 <= t.offset <= t.offset + t.n_bytes <= file_size


def test_mutants_of_a_safetensors_header_are_refused_or_sound() -> None:
    entries = {
        "__metadata__": {"format": "pt"},
        "a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]},
        "b": {"dtype": "BF16", "shape": [4], "data_offsets": [24, 32]},
        "c": {"dtype": "U8", "shape": [0], "data_offsets": [32, 32]},
    }
    header = craft_safetensors.file_of(entries)[8:]

    def read(mutant: bytes) -> None:
        size = 8 + len(mutant) + 32
        found = parse_header(mutant, file_size=size, path=Path("x.safetensors"))
        check_sound(found.values(), size)
        theirs = dict(safetensors.deserialize(craft_safetensors.file_of(mutant, bytes(32))))
        assert set(theirs) == set(found)
        for name, t in found.items():
            assert (theirs[name]["dtype"], tuple(theirs[name]["shape"])) == (t.dtype, t.shape)

    # Renamed tensors, other white space, types of the same size: some are bound to pass, most must not.
    assert 0 < survivors(header, 1, read) < N_MUTANTS // 3


def test_mutants_of_a_pickle_are_refused_or_described() -> None:
    versions = dict_of((text(""), dict_of((text("version"), b"K\x01"))), empty=ORDERED_DICT)
    metadata = dict_of((text("_metadata"), versions))
    tensors = dict_of((text("a"), tensor()), (text("b"), tensor(storage("1", 6))), empty=ORDERED_DICT)

    def read(mutant: bytes) -> None:
        for found in read_state_dict(mutant, path=Path("x.bin")).tensors.values():
            assert min(found.offset, found.storage.n_items, *found.shape, *found.stride, 0) == 0
            assert len(found.shape) == len(found.stride)

    assert 0 < survivors(whole(tensors + metadata + b"b"), 2, read) < N_MUTANTS // 2


def test_mutants_of_a_zip_are_refused_or_sound(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with open(path, "wb", buffering=0) as out:

        def read(mutant: bytes) -> None:
            # Overwritten in place: emptying the file first costs five times as much as reading it.
            out.seek(0)
            out.write(mutant)
            out.truncate()
            with RegularFile(path) as file:
                found = read_torch_zip(file).tensors
            check_sound(found.values(), len(mutant))
            try:
                theirs = torch.load(path, weights_only=True)
            except (RuntimeError, ValueError, pickle.UnpicklingError):
                return
            assert list(theirs) == list(found)
            for name, values in theirs.items():
                start, end = found[name].offset, found[name].offset + found[name].n_bytes
                assert values.flatten().view(torch.uint8).numpy().tobytes() == mutant[start:end]

        assert 0 < survivors(hostile_zip.good_zip(), 3, read) < N_MUTANTS // 2
