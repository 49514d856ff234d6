"""Tensors that do not lie in one piece, and float64, are read with the values that torch.load gives them."""

from __future__ import annotations

import random
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pythia_gguf.checkpoint import LazyTensor, open_checkpoint
from pythia_gguf.checkpoint.gathered import as_plain
from pythia_gguf.checkpoint.tensor import ITEM_BYTES
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import FileElsewhere, ReadableFile, RegularFile

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def views(dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Every way to look at a storage of which transformers makes a matrix or vector."""
    table = torch.randn(48, 40, generator=torch.Generator().manual_seed(3), dtype=torch.float64).to(dtype)
    long = torch.arange(300_000).to(dtype) if dtype.itemsize > 2 else torch.arange(300_000).remainder(99).to(dtype)
    return {
        "transposed": table.T,
        "rows": table[5:20, :7],
        "columns": table[:, 3:4],
        "every_second": table[::2, ::2],
        "every_third_transposed": table.T[1::3, ::3],
        "expanded_rows": table[3].expand(30, 40),
        "expanded_columns": table[:, 2:3].expand(48, 30),
        "one_value": table[0, 0].expand(60),
        "column": table[:, 7],
        "far": long[:: 1 + 600 // dtype.itemsize][:400],
        "near": long[::3],
        "square": table.reshape(-1)[:1600].reshape(40, 40).T,
        "overlapping": table.reshape(-1).as_strided((30, 20), (3, 1)),
        "plain": table,
    }


def read(tensors: dict[str, LazyTensor], files: dict[Path, FileElsewhere], name: str, rng: random.Random) -> bytes:
    """All bytes of a tensor, in pieces of whole values and any length."""
    lazy = tensors[name]
    opened: ReadableFile = files[lazy.path].open() if lazy.path in files else RegularFile(lazy.path)
    with opened as file:
        item, at, out = ITEM_BYTES[lazy.dtype], 0, b""
        while at < lazy.n_bytes:
            n = min(item * rng.randrange(1, max(2, lazy.n_bytes // item)), lazy.n_bytes - at)
            out += file.read(lazy.offset + at, n)
            at += n
    return out


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("is_safe", [False, True], ids=["bin", "safetensors"])
def test_values_are_those_of_torch(dtype: torch.dtype, is_safe: bool, tmp_path: Path) -> None:
    saved = views(dtype)
    if is_safe:
        save_file({name: view.contiguous().clone() for name, view in saved.items()}, tmp_path / "model.safetensors")
    else:
        torch.save(saved, tmp_path / "pytorch_model.bin")
        saved = torch.load(tmp_path / "pytorch_model.bin", weights_only=True)
        assert not saved["transposed"].is_contiguous()
    tensors, files = as_plain(open_checkpoint(tmp_path).tensors, {})
    assert len(files) == (len(saved) if dtype == torch.float64 else 0 if is_safe else len(saved) - 1)
    rng = random.Random(1)
    for name, view in saved.items():
        values = view.float() if dtype == torch.float64 else view
        expected = values.contiguous().clone().flatten().view(torch.uint8).numpy().tobytes()
        assert tensors[name].shape == tuple(view.shape) and tensors[name].n_bytes == len(expected)
        assert read(tensors, files, name, rng) == expected, name


def test_files_are_closed_with_the_last_that_reads_them(tmp_path: Path) -> None:
    torch.save({"a": torch.rand(4, 6).T, "b": torch.rand(4, 6).T}, tmp_path / "pytorch_model.bin")
    tensors, files = as_plain(open_checkpoint(tmp_path).tensors, {})
    first, second = (files[tensors[name].path].open() for name in "ab")
    first.close()
    first.close()
    assert len(second.read(0, 96)) == 96
    second.close()
    with pytest.raises(ValueError, match="closed"):
        second.read(0, 4)
    with files[tensors["a"].path].open() as again, pytest.raises(ModelFileError, match="cut short"):
        again.read(92, 8)


def test_a_piece_takes_memory_for_itself(tmp_path: Path) -> None:
    torch.save({"a": torch.rand(2000, 2000).T}, tmp_path / "pytorch_model.bin")
    tensors, files = as_plain(open_checkpoint(tmp_path).tensors, {})
    with files[tensors["a"].path].open() as file:
        tracemalloc.start()
        try:
            file.read(0, 32 * 8000)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    # The piece, what is gathered, and its copy: 3 times 256 KB; the matrix has 16 MB.
    assert peak < 1 << 20
