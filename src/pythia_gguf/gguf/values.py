"""Metadata values to and from bytes: the Python type of a value carries its GGUF type."""

from __future__ import annotations

import struct

import numpy as np

from pythia_gguf.gguf.container import (
    ARRAY_TYPE,
    N_ARRAY_MAX,
    N_STRINGS_MAX,
    NUMBER_TYPES,
    STRING_BYTES_MAX,
    STRING_TYPE,
    Value,
    number_type,
)
from pythia_gguf.gguf.cursor import Cursor


def read_value(cursor: Cursor) -> Value:
    """The value at the cursor, which begins with its type.

    Arrays of numbers are read-only. Raises ModelFileError for unknown types, nested arrays, lengths beyond
    the file or the limits, text that is not UTF-8 and booleans other than 0 and 1.
    """
    start = cursor.position
    type_id = cursor.u32()
    if type_id == ARRAY_TYPE:
        return _read_array(cursor)
    if type_id == STRING_TYPE:
        return cursor.strings(1)[0]
    dtype = _dtype(cursor, type_id, start)
    value = _read_numbers(cursor, dtype, 1)[0]
    return bool(value) if dtype.kind == "b" else value


def value_bytes(value: Value) -> bytes:
    """A value as its type and its bytes; raises ValueError for a value that GGUF or our reader cannot hold."""
    if isinstance(value, str):
        return _u32(STRING_TYPE) + string_bytes(value)
    if isinstance(value, list):
        if not all(isinstance(text, str) for text in value):
            raise ValueError("a list must hold strings; use a NumPy array for numbers")
        if len(value) > N_STRINGS_MAX:
            raise ValueError(f"{len(value)} strings exceed the limit of {N_STRINGS_MAX}")
        return _u32(ARRAY_TYPE) + _u32(STRING_TYPE) + _u64(len(value)) + b"".join(map(string_bytes, value))
    if not isinstance(value, bool | np.generic | np.ndarray):
        raise ValueError(f"{value!r} has no GGUF type: use bool, str or a NumPy number such as np.uint32")
    numbers = np.asarray(value)
    type_id = number_type(numbers.dtype)
    if type_id is None or (isinstance(value, np.ndarray) and value.ndim != 1):
        raise ValueError(f"GGUF has no {numbers.ndim}-axis array of {numbers.dtype}")
    payload = numbers.astype(NUMBER_TYPES[type_id][1]).tobytes()
    if not isinstance(value, np.ndarray):
        return _u32(type_id) + payload
    if numbers.size > N_ARRAY_MAX:
        raise ValueError(f"{numbers.size} elements exceed the limit of {N_ARRAY_MAX}")
    return _u32(ARRAY_TYPE) + _u32(type_id) + _u64(numbers.size) + payload


def string_bytes(text: str) -> bytes:
    """Length and UTF-8 of a string; raises ValueError for lone surrogates and beyond the reader's limit."""
    raw = text.encode("utf-8")
    if len(raw) > STRING_BYTES_MAX:
        raise ValueError(f"string of {len(raw)} bytes exceeds the limit of {STRING_BYTES_MAX}")
    return _u64(len(raw)) + raw


def _read_array(cursor: Cursor) -> list[str] | np.ndarray:
    start = cursor.position
    type_id = cursor.u32()
    if type_id == ARRAY_TYPE:
        raise cursor.fault("nested arrays are not supported", start)
    if type_id == STRING_TYPE:
        n = cursor.count("strings", most=cursor.n_strings_left, least_bytes=8)
        cursor.n_strings_left -= n
        return cursor.strings(n)
    dtype = _dtype(cursor, type_id, start)
    n = cursor.count("array elements", most=N_ARRAY_MAX, least_bytes=dtype.itemsize)
    return _read_numbers(cursor, dtype, n)


def _dtype(cursor: Cursor, type_id: int, offset: int) -> np.dtype:
    if type_id not in NUMBER_TYPES:
        raise cursor.fault(f"unknown value type {type_id}: expected 0 to 12", offset)
    return NUMBER_TYPES[type_id][1]


def _read_numbers(cursor: Cursor, dtype: np.dtype, n: int) -> np.ndarray:
    start = cursor.position
    raw = cursor.take(n * dtype.itemsize)
    if dtype.kind == "b":
        wrong = np.flatnonzero(np.frombuffer(raw, np.uint8) > 1)
        if len(wrong):
            raise cursor.fault(f"bool must be 0 or 1, got {raw[wrong[0]]}", start + int(wrong[0]))
    return np.frombuffer(raw, dtype)


def _u32(n: int) -> bytes:
    return struct.pack("<I", n)


def _u64(n: int) -> bytes:
    return struct.pack("<Q", n)
