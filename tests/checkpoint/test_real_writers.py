"""What safetensors, torch and huggingface_hub write is read back to the byte, in llama.cpp's order."""

from __future__ import annotations

import hashlib
import struct
import subprocess
import sys
import zipfile
import zlib
from collections import Counter, OrderedDict
from functools import reduce
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch
from huggingface_hub import save_torch_state_dict
from safetensors import safe_open
from safetensors.numpy import save_file

from checkpoint import craft_safetensors, hostile_pickle, hostile_zip
from checkpoint.craft_pickle import (
    ORDERED_DICT,
    REBUILD_PARAMETER,
    TRUE,
    call,
    dict_of,
    state_dict,
    storage,
    tensor,
    text,
    whole,
)
from checkpoint.craft_zip import build_zip
from pythia_gguf.checkpoint import Checkpoint, LazyTensor, iter_file_checked, open_checkpoint
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile

NAME_OF_DTYPE = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


def random_tensors() -> OrderedDict[str, torch.Tensor]:
    """One tensor of every type, and the shapes that are easily got wrong; layer 10 before 2, as strings sort."""
    generator = torch.Generator().manual_seed(7)
    found: OrderedDict[str, torch.Tensor] = OrderedDict()
    for i, dtype in enumerate(NAME_OF_DTYPE):
        values = torch.randint(0, 2 if dtype == torch.bool else 100, (3, 5 + i), generator=generator)
        found[f"gpt_neox.layers.{i + 2}.{str(dtype)[6:]}.weight"] = values.to(dtype)
    found["scalar"] = torch.tensor(-1e9, dtype=torch.float16)
    found["empty"] = torch.zeros(0, 4)
    found["five.axes"] = torch.rand(1, 2, 1, 3, 1, generator=generator)
    found["embed_out.weight"] = torch.randn(64, 32, generator=generator, dtype=torch.float16)
    return found


def bytes_of(lazy: LazyTensor) -> bytes:
    with RegularFile(lazy.path) as file:
        return bytes(file.read(lazy.offset, lazy.n_bytes))


def check_same(opened: Checkpoint, expected: dict[str, torch.Tensor]) -> None:
    """Names, types, shapes and every byte; and every file passes its checksums."""
    assert set(opened.tensors) == set(expected)
    for name, values in expected.items():
        lazy = opened.tensors[name]
        assert (lazy.name, lazy.dtype, lazy.shape) == (name, NAME_OF_DTYPE[values.dtype], tuple(values.shape))
        # numpy has no bfloat16: compare the bytes, not the numbers.
        assert bytes_of(lazy) == values.detach().contiguous().flatten().view(torch.uint8).numpy().tobytes()
    for path in opened.files:
        digest = hashlib.sha256()
        for chunk in iter_file_checked(path):
            digest.update(chunk)
        assert digest.digest() == hashlib.sha256(path.read_bytes()).digest()


def test_safetensors_of_torch_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    tensors = random_tensors()
    safetensors.torch.save_file(tensors, path, metadata={"format": "pt", "note": 'a "quoted" \u00e9\n'})
    opened = open_checkpoint(tmp_path)
    assert (opened.folder, opened.kind, opened.files) == (tmp_path, "safetensors", (path,))
    check_same(opened, tensors)
    check_same(opened, safetensors.torch.load_file(path))
    with safe_open(path, "np") as file:
        assert list(opened.tensors) == list(file.keys()) == sorted(tensors)


def test_safetensors_of_numpy_reads_back(tmp_path: Path) -> None:
    arrays = {"b": np.arange(6, dtype=np.float16).reshape(2, 3), "a": np.array(3, dtype=np.int64)}
    save_file(arrays, tmp_path / "model.safetensors")
    check_same(open_checkpoint(tmp_path), {name: torch.from_numpy(a.copy()) for name, a in arrays.items()})


def test_torch_save_reads_back_in_the_order_of_the_state_dict(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    tensors = random_tensors()
    torch.save(tensors, path)
    opened = open_checkpoint(tmp_path)
    assert (opened.kind, opened.files) == ("torch", (path,))
    check_same(opened, tensors)
    loaded = torch.load(path, weights_only=True)
    check_same(opened, loaded)
    assert list(opened.tensors) == list(loaded) == list(tensors)


class Toy(torch.nn.Module):
    """A module with parameters, buffers and a child, so that its state dict carries _metadata."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = torch.nn.Linear(4, 3)
        self.norm = torch.nn.LayerNorm(3)
        self.register_buffer("bias", torch.tril(torch.ones(5, 5, dtype=torch.bool)).view(1, 1, 5, 5))
        self.register_buffer("masked_bias", torch.tensor(-1e9))


@pytest.mark.parametrize("keep_vars", [False, True], ids=["tensors", "parameters"])
def test_state_dict_of_a_module_reads_back(keep_vars: bool, tmp_path: Path) -> None:
    state = Toy().state_dict(keep_vars=keep_vars)
    assert hasattr(state, "_metadata")
    torch.save(state, tmp_path / "pytorch_model.bin")
    check_same(open_checkpoint(tmp_path), dict(state))


@pytest.mark.parametrize("make", [dict, OrderedDict])
def test_tied_weights_and_rows_of_one_storage_read_back(make: type, tmp_path: Path) -> None:
    table = torch.randn(8, 6, generator=torch.Generator().manual_seed(1))
    state = make({"tied": table, "embed": table, "rows": table[2:5], "row": table[3], "one": table[7, 5]})
    torch.save(state, tmp_path / "pytorch_model.bin")
    opened = open_checkpoint(tmp_path)
    check_same(opened, state)
    assert opened.tensors["tied"].offset == opened.tensors["embed"].offset == opened.tensors["rows"].offset - 48


def test_more_tensors_than_one_batch_of_the_pickle_read_back(tmp_path: Path) -> None:
    # The pickler writes 1000 pairs at a time, and its memo passes 256 entries, where BINPUT becomes LONG_BINPUT.
    state = {f"t{i}": torch.tensor([i, i]) for i in range(2100)}
    torch.save(state, tmp_path / "pytorch_model.bin")
    check_same(open_checkpoint(tmp_path), state)


def refusal(value: object, folder: Path, **options: object) -> str:
    torch.save(value, folder / "pytorch_model.bin", **options)  # type: ignore[arg-type]
    with pytest.raises(ModelFileError) as caught:
        open_checkpoint(folder)
    return str(caught.value)


def test_what_torch_saves_besides_plain_state_dicts_is_refused_by_name(tmp_path: Path) -> None:
    plain = {"a": torch.ones(2)}
    legacy = refusal(plain, tmp_path, _use_new_zipfile_serialization=False)
    assert "before torch 1.6" in legacy and "save it again" in legacy
    assert "protocol 2 to 5" in refusal(plain, tmp_path, pickle_protocol=1)
    assert "lie under 'model'" in refusal({"model": plain, "step": 3}, tmp_path)
    assert "torch.load(FILE)['model']" in refusal({"model": plain | {"b": plain["a"]}, "scale": plain["a"]}, tmp_path)
    assert "holds no tensors" in refusal({"a": [torch.ones(2)]}, tmp_path)
    assert "expected a state dict, got a list" in refusal([torch.ones(2)], tmp_path)
    assert "refused" in refusal(Toy(), tmp_path)
    assert "weights do not need" in refusal({"a": torch.complex(*[torch.ones(2)] * 2).conj().imag}, tmp_path)
    for saved in (Toy(), plain | {"config": SimpleNamespace(x=1)}):
        assert "torch.save(model.state_dict(), FILE)" in refusal(saved, tmp_path)


# What training code leaves beside the weights, and what is said of it.
BESIDE = {
    "step": (3, "a number"),
    "seed": (2**128, "a number"),
    "deep": (reduce(lambda inner, _: {"a": inner}, range(20), 1), "a dict"),
    "sparse": (torch.eye(2).to_sparse(), "an object"),
    "meta": (torch.empty(2, device="meta"), "an object"),
    "layout": (torch.strided, "an object"),
    "loss": (0.25, "a number"),
    "is_last": (True, "a number"),
    "none": (None, "None"),
    "name": ("run 1", "a string"),
    "shape": (torch.Size((2, 3)), "an object"),
    "dtype": (torch.bfloat16, "torch.bfloat16"),
    "device": (torch.device("cpu"), "an object"),
    "betas": ((0.9, 0.999), "a tuple"),
    "history": ([1.0, [2, {"a": 3}], torch.ones(3)], "a list"),
    "tags": ({"a", "b"}, "a set"),
    "raw": (b"abc", "bytes"),
    "counts": (Counter("aab"), "an object"),
    "optimizer": ({"state": {0: {"exp_avg": torch.ones(2), "step": 3}}, "param_groups": [{"params": [0]}]}, "a dict"),
}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_entries_beside_the_weights_are_left_out_by_their_kind(protocol: int, tmp_path: Path) -> None:
    tensors = dict(random_tensors())
    torch.save(
        tensors | {k: v for k, (v, _) in BESIDE.items()}, tmp_path / "pytorch_model.bin", pickle_protocol=protocol
    )
    opened = open_checkpoint(tmp_path)
    check_same(opened, tensors)
    # Protocol 2 writes sets and bytes as calls.
    kinds = {name: kind for name, (_, kind) in BESIDE.items()}
    if protocol == 2:
        kinds |= {"raw": "an object"}
    if protocol < 4:
        kinds |= {"tags": "an object"}
    assert opened.left_out == kinds
    if protocol == 2:  # what torch's own restricted reader takes, which transformers uses
        assert set(torch.load(tmp_path / "pytorch_model.bin", weights_only=True)) == {*tensors, *BESIDE}


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_and_type_reads_back(protocol: int, tmp_path: Path) -> None:
    tensors = random_tensors()
    torch.save(tensors, tmp_path / "pytorch_model.bin", pickle_protocol=protocol)
    check_same(open_checkpoint(tmp_path), tensors)


def test_types_without_a_storage_of_their_own_read_back(tmp_path: Path) -> None:
    kinds = {"U16": torch.uint16, "U32": torch.uint32, "U64": torch.uint64, "C64": torch.complex64}
    kinds |= {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
    tensors = {name: torch.arange(6).float().to(dtype).reshape(2, 3) for name, dtype in kinds.items()}
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    safetensors.torch.save_file(tensors, tmp_path / "other.safetensors")
    for name, lazy in open_checkpoint(tmp_path).tensors.items():
        assert (lazy.dtype, lazy.shape) == (name, (2, 3))
        assert bytes_of(lazy) == tensors[name].view(torch.uint8).numpy().tobytes()
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "other.safetensors").rename(tmp_path / "model.safetensors")
    assert {name: lazy.dtype for name, lazy in open_checkpoint(tmp_path).tensors.items()} == {n: n for n in kinds}


def test_tensors_with_attributes_read_back(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.arange(4.0))
    weight.is_sharded = False  # type: ignore[attr-defined]
    torch.save({"a": weight, "b": torch.nn.Parameter(torch.ones(2))}, tmp_path / "pytorch_model.bin")
    check_same(open_checkpoint(tmp_path), {"a": weight, "b": torch.ones(2)})
    noted = torch.arange(4.0)
    noted.note = {"a": 1}  # type: ignore[attr-defined]
    state = OrderedDict(a=noted, b=torch.nn.Buffer(torch.ones(2)))
    state.origin = "here"  # type: ignore[attr-defined]
    torch.save(state, tmp_path / "pytorch_model.bin")
    check_same(open_checkpoint(tmp_path), dict(state))


@pytest.mark.parametrize("is_safe", [True, False], ids=["safetensors", "bin"])
def test_shards_of_huggingface_hub_read_back(is_safe: bool, tmp_path: Path) -> None:
    tensors = random_tensors()
    save_torch_state_dict(tensors, tmp_path, max_shard_size=500, safe_serialization=is_safe)
    opened = open_checkpoint(tmp_path)
    suffix = ".safetensors" if is_safe else ".bin"
    shards = sorted(tmp_path.glob(f"*-of-*{suffix}"))
    index = tmp_path / ("model.safetensors.index.json" if is_safe else "pytorch_model.bin.index.json")
    assert len(shards) > 2
    assert opened.files == (*shards, index)
    check_same(opened, tensors)
    order: list[str] = []
    for shard in shards:
        if is_safe:
            with safe_open(shard, "np") as file:
                order += file.keys()
        else:
            order += torch.load(shard, weights_only=True)
    assert list(opened.tensors) == order


def test_crafted_files_without_a_lie_are_what_the_real_readers_accept(tmp_path: Path) -> None:
    # So each case of the hostile corpora differs from a good file in its lie alone.
    (tmp_path / "model.safetensors").write_bytes(craft_safetensors.GOOD)
    assert safetensors.torch.load_file(tmp_path / "model.safetensors")["a"].tolist() == [0.0, 0.0]
    assert open_checkpoint(tmp_path).tensors["a"].shape == (2,)
    (tmp_path / "model.safetensors").unlink()

    metadata = dict_of(
        (text("_metadata"), dict_of((text(""), dict_of((text("version"), b"K\x01"))), empty=ORDERED_DICT))
    )
    pickles = {
        "plain": hostile_zip.PICKLE,
        "ordered": whole(dict_of((text("a"), tensor()), empty=ORDERED_DICT) + metadata + b"b"),
        "parameter": state_dict(a=call(REBUILD_PARAMETER, tensor(), TRUE, ORDERED_DICT)),
        "long": state_dict(a=tensor(storage(n_items=6), offset=b"\x8a\x00")),
        "aliases": hostile_pickle.many_aliases(1, 6),
    }
    path = tmp_path / "pytorch_model.bin"
    for pickle in pickles.values():
        path.write_bytes(hostile_zip.with_pickle(pickle))
        (loaded,) = torch.load(path, weights_only=True).values()
        assert loaded.flatten().tolist() == [0, 1, 2, 3, 4, 5]
        (lazy,) = open_checkpoint(tmp_path).tensors.values()
        assert bytes_of(lazy) == hostile_zip.STORAGE
        assert zipfile.ZipFile(path).testzip() is None


def test_zip64_fields_of_files_beyond_4_gib_are_understood(tmp_path: Path) -> None:
    # What torch writes for a storage of 4.4 GB and for the records after it, with small numbers in the wide fields.
    full = 2**32 - 1
    data = hostile_zip.STORAGE
    found = hostile_zip.items()
    wide_descriptor = struct.pack("<4sIQQ", b"PK\x07\x08", zlib.crc32(data), 24, 24)
    offset = hostile_zip.good_zip().index(data) // 64 * 64
    found[2].extra = struct.pack("<HHQQ", 1, 16, 24, 24)
    found[2].entry = {"size": full, "packed": full}
    found[2].descriptor = wide_descriptor
    path = tmp_path / "pytorch_model.bin"
    path.write_bytes(build_zip(found, end={"start": full}))
    lazy = open_checkpoint(tmp_path).tensors["a"]
    assert (lazy.offset, bytes_of(lazy)) == (offset, data)
    assert zipfile.ZipFile(path).testzip() is None


def test_zip_without_descriptors_as_other_tools_write_it_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "pytorch_model.bin"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as out:
        for item in hostile_zip.items():
            out.writestr(str(item.name), item.data)
    assert bytes_of(open_checkpoint(tmp_path).tensors["a"]) == hostile_zip.STORAGE


def test_reading_never_imports_torch_or_pickle(tmp_path: Path) -> None:
    torch.save(random_tensors(), tmp_path / "pytorch_model.bin")
    code = (
        "import sys; from pythia_gguf.checkpoint import open_checkpoint; "
        f"print(len(open_checkpoint({str(tmp_path)!r}).tensors)); "
        "print([m for m in ('torch', 'pickle', '_pickle', 'numpy', 'safetensors') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split("\n")[:2] == [str(len(random_tensors())), "[]"]
