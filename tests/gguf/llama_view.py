"""A GGUF header as llama.cpp itself reads it, through the C functions of ggml/include/gguf.h."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path

import llama_cpp
import numpy as np
from llama_cpp._ctypes_extensions import load_shared_library

from gguf.craft import ARRAY, NUMBER_CODES, STRING
from gguf.toy import silence

_GGML = load_shared_library("ggml-base", Path(llama_cpp.__file__).parent / "lib")


class _Params(ctypes.Structure):
    """struct gguf_init_params"""

    _fields_ = [("no_alloc", ctypes.c_bool), ("ctx", ctypes.c_void_p)]


@dataclass(frozen=True, kw_only=True)
class View:
    """What llama.cpp found: keys as (type, element type, exact content), tensors as they lie in the file."""

    version: int
    alignment: int
    data_offset: int
    keys: dict[str, tuple[int, int, object]]
    tensors: list[tuple[str, int, tuple[int, ...], int, int]]


def view(path: Path) -> View | None:
    """llama.cpp's reading of a header, or None when it refuses the file."""
    silence()
    start = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _Params)
    context = start(str(path).encode(), _Params(no_alloc=True, ctx=None))
    if context is None:
        return None
    of_file = {
        name: _function(f"gguf_get_{name}", ctypes.c_uint64, ctypes.c_void_p)(context)
        for name in ("version", "alignment", "data_offset", "n_kv", "n_tensors")
    }
    seen = View(
        version=of_file["version"] & 0xFFFFFFFF,
        alignment=of_file["alignment"],
        data_offset=of_file["data_offset"],
        keys={_key(context, i): _value(context, i) for i in range(of_file["n_kv"])},
        tensors=[_tensor(context, i) for i in range(of_file["n_tensors"])],
    )
    _function("gguf_free", None, ctypes.c_void_p)(context)
    return seen


def rewrite_header(path: Path, out: Path) -> bytes:
    """The header of a file as llama.cpp's own writer puts it."""
    silence()
    start = _function("gguf_init_from_file", ctypes.c_void_p, ctypes.c_char_p, _Params)
    context = start(str(path).encode(), _Params(no_alloc=True, ctx=None))
    write = _function("gguf_write_to_file", ctypes.c_bool, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool)
    assert context is not None and write(context, str(out).encode(), True)
    _function("gguf_free", None, ctypes.c_void_p)(context)
    return out.read_bytes()


def _function(name: str, result: object, *arguments: object) -> ctypes._CFuncPtr:
    prototype = ctypes.CFUNCTYPE(result, *arguments)  # type: ignore[arg-type]
    return prototype((name, _GGML))


def _about(name: str, result: object, context: int, i: int) -> object:
    return _function(name, result, ctypes.c_void_p, ctypes.c_int64)(context, i)


def _key(context: int, i: int) -> str:
    return _about("gguf_get_key", ctypes.c_char_p, context, i).decode()


def _value(context: int, i: int) -> tuple[int, int, object]:
    """Strings end at their first NUL here, as C sees them."""
    type_id = _about("gguf_get_kv_type", ctypes.c_int32, context, i)
    if type_id == STRING:
        return type_id, -1, _about("gguf_get_val_str", ctypes.c_char_p, context, i)
    if type_id != ARRAY:
        n_bytes = np.dtype(NUMBER_CODES[type_id]).itemsize
        return type_id, -1, ctypes.string_at(_about("gguf_get_val_data", ctypes.c_void_p, context, i), n_bytes)
    element = _about("gguf_get_arr_type", ctypes.c_int32, context, i)
    n = _about("gguf_get_arr_n", ctypes.c_uint64, context, i)
    if element == STRING:
        get = _function("gguf_get_arr_str", ctypes.c_char_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_uint64)
        return type_id, element, [get(context, i, j) for j in range(n)]
    size = n * np.dtype(NUMBER_CODES[element]).itemsize
    data = _about("gguf_get_arr_data", ctypes.c_void_p, context, i) if size else None
    return type_id, element, ctypes.string_at(data, size) if size else b""


def _tensor(context: int, i: int) -> tuple[str, int, tuple[int, ...], int, int]:
    axes = _about("gguf_get_tensor_ne", ctypes.POINTER(ctypes.c_int64), context, i)
    return (
        _about("gguf_get_tensor_name", ctypes.c_char_p, context, i).decode(),
        _about("gguf_get_tensor_type", ctypes.c_int32, context, i),
        tuple(axes[:4]),
        _about("gguf_get_tensor_offset", ctypes.c_uint64, context, i),
        _about("gguf_get_tensor_size", ctypes.c_uint64, context, i),
    )
