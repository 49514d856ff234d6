"""llama.cpp itself, through the library of llama-cpp-python: what every byte is compared with.

It takes nothing from this project but the names of formats.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._ctypes_extensions import load_shared_library

_GGML = load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")
_GGML.ggml_quantize_chunk.restype = ctypes.c_size_t
_GGML.ggml_quantize_chunk.argtypes = [
    ctypes.c_int,
    ctypes.c_void_p,
    ctypes.c_void_p,
    *[ctypes.c_int64] * 3,
    ctypes.c_void_p,
]
_GGML.ggml_type_name.restype = ctypes.c_char_p
_GGML.ggml_type_size.restype = ctypes.c_size_t
_GGML.ggml_blck_size.restype = ctypes.c_int64

_log: list[str] = []


@llama_cpp.llama_log_callback
def _listen(level: int, text: bytes, user_data: object) -> None:
    _log.append(text.decode("utf-8", "replace"))


def type_facts(ggml_id: int) -> tuple[str, int, int]:
    """Name, weights and bytes of a block of a ggml_type."""
    name = _GGML.ggml_type_name(ggml_id).decode()
    return name, _GGML.ggml_blck_size(ggml_id), _GGML.ggml_type_size(ggml_id)


def encode(
    ggml_id: int,
    weights: np.ndarray,
    row: int,
    block_bytes: int,
    block_weights: int,
    library: ctypes.CDLL = _GGML,
    importance: np.ndarray | None = None,
) -> np.ndarray:
    """llama.cpp's bytes for float32 weights in rows of `row`; importance f32 [row]."""
    weights = np.ascontiguousarray(weights, np.float32)
    out = np.zeros(weights.size // block_weights * block_bytes, np.uint8)
    place = None if importance is None else importance.ctypes.data
    n_rows = weights.size // row
    done = library.ggml_quantize_chunk(ggml_id, weights.ctypes.data, out.ctypes.data, 0, n_rows, row, place)
    assert done == out.size
    return out


def decode(name: str, data: np.ndarray, n_weights: int) -> np.ndarray:
    """llama.cpp's float32 weights of encoded bytes; `name` as in dequantize_row_<name>."""
    data = np.ascontiguousarray(data)
    out = np.zeros(n_weights, np.float32)
    function = getattr(_GGML, f"dequantize_row_{name}")
    function.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64]
    function.restype = None
    function(data.ctypes.data, out.ctypes.data, n_weights)
    return out


def quantize(
    source: Path,
    out: Path,
    file_type: int,
    *,
    dry_run: bool = False,
    threads: int = 2,
    importances: Mapping[str, np.ndarray] | None = None,
    keys: Mapping[str, str | int] | None = None,
) -> list[str]:
    """Run llama_model_quantize; returns what it logged. Fails when it does.

    importances  f32 [n_columns] by tensor, as llama-quantize takes them from an importance matrix
    keys         that it adds to the file then
    """
    params = llama_cpp.llama_model_quantize_default_params()
    kept = []
    if importances is not None:
        rows = (llama_cpp.llama_model_imatrix_data * (len(importances) + 1))()
        for row, (name, values) in zip(rows, importances.items(), strict=False):
            kept.append(np.ascontiguousarray(values, np.float32))
            row.name, row.size = name.encode(), kept[-1].size
            row.data = kept[-1].ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = rows
    if keys is not None:
        overrides = (llama_cpp.llama_model_kv_override * (len(keys) + 1))()
        for override, (key, value) in zip(overrides, keys.items(), strict=False):
            override.key = key.encode()
            if isinstance(value, str):
                override.tag, override.value.val_str = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_STR, value.encode()
            else:
                override.tag, override.value.val_i64 = llama_cpp.LLAMA_KV_OVERRIDE_TYPE_INT, value
        params.kv_overrides = overrides
    params.ftype, params.nthread, params.dry_run = file_type, threads, dry_run
    llama_cpp.llama_log_set(_listen, ctypes.c_void_p(0))
    _log.clear()
    answer = llama_cpp.llama_model_quantize(str(source).encode(), str(out).encode(), ctypes.byref(params))
    assert answer == 0, "".join(_log)
    return "".join(_log).splitlines()


def planned_formats(source: Path, file_type: int, names: Iterable[str]) -> dict[str, str]:
    """Tensor -> format that llama-quantize's dry run announces; tensors it leaves alone are not in it."""
    log = quantize(source, source.with_suffix(".none"), file_type, dry_run=True)
    planned = {}
    for line in log:
        tensor = re.search(r"\[ *\d+/ *\d+\] +(\S+) ", line)
        becomes = re.search(r"-> .* MiB \((\w+)\)", line)
        if tensor and becomes:
            planned[tensor.group(1)] = becomes.group(1).upper()
    assert planned.keys() <= set(names)
    return planned
