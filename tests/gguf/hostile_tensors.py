"""Malformed tensor infos and data: every case breaks one rule, and says where and which.

Rows are named after the checklist that the reader was written to: T tensors, O offsets, D data.
"""

from __future__ import annotations

from collections.abc import Iterator

from gguf.case import MAX64, Case, case_at, patched_case, with_tensor
from gguf.craft import Tensor, draft, keys, tensors, u32, u64, valid


def tensor_cases() -> Iterator[Case]:
    """All cases of this file."""
    for part in (_names, _axes, _formats, _blocks, _offsets, _data):
        yield from part()


def _names() -> Iterator[Case]:
    file = valid()
    for n in (MAX64, 2**63, 2**30, len(file.data)):
        left = len(file.data) - file.marks["tensor 0"] - 8
        rule = f"tensor name length {n} exceeds the {left} bytes left"
        yield patched_case(f"T01 name of {n}", "tensor 0", u64(n), "tensor 1 of 3", rule)
    for name, rule in {
        b"n" * 64: "tensor name length 64 exceeds the limit of 63",
        b"n" * 255: "tensor name length 255 exceeds the limit of 63",
        b"": "empty tensor name",
        b"norm": "duplicate tensor norm",
        b"a\xff": "is not UTF-8",
        b"\xed\xa0\x80": "is not UTF-8",
        b"a\0b": "has control characters",
        b"a\nb": "has control characters",
        b"a\x1b[2J": "has control characters",
        b"a\xe2\x80\xae": "has control characters",
    }.items():
        made = with_tensor(Tensor(name=name, dims=(32, 3), format_id=2, n_bytes=54))
        yield case_at(f"T02 name {name[:9]!r} {len(name)}", made, "tensor 1", "tensor 2 of 3", rule)


def _axes() -> Iterator[Case]:
    for n in (0, 5, 6, 2**31, 2**32 - 1):
        rule = f"expected 1 to 4 axes, got {n}"
        yield patched_case(f"T08 {n} axes", "tensor 1 axes", u32(n), "tensor blocks", rule)
    for n in (0, MAX64, 2**63, 2**40 + 1):
        for i, dims in enumerate(((n, 3), (32, n))):
            file = with_tensor(Tensor(name=b"blocks", dims=dims, format_id=2, n_bytes=54))
            rule = f"axis of {n}: expected 1 to 1099511627776"
            yield case_at(f"T11 axis {i} of {n}", file, "tensor 1 axes", "tensor blocks", rule)
    # Products that wrap: to 4 in 64 bits, to 0 in 64 bits, to just below 2^64 so that padding wraps.
    for format_id, bits, dims in (
        (0, 32, (4194305, 4194305, 211106198978564)),
        (0, 32, (2**32, 2**32)),
        (0, 32, (4, 2**30 - 1, 2**30 + 1)),
        (0, 32, (2**40, 2**40, 2**40, 2**40)),
        (1, 16, (2**31, 2**32)),
        (8, 8.5, (2**32, 2**32)),
    ):
        if any(n > 2**40 for n in dims):
            rule = "expected 1 to 1099511627776"
        else:
            weights = 1
            for n in dims:
                weights *= n
            n_bytes = weights * int(2 * bits) // 16
            rule = f"needs {n_bytes} bytes"
        file = with_tensor(Tensor(name=b"blocks", dims=dims, format_id=format_id, n_bytes=54))
        yield case_at(f"T13 {format_id} {dims}", file, "tensor 1 axes", "tensor blocks", rule)


def _formats() -> Iterator[Case]:
    others = {
        9: "Q8_1", 15: "Q8_K", 16: "IQ2_XXS", 17: "IQ2_XS", 18: "IQ3_XXS", 19: "IQ1_S", 21: "IQ3_S", 22: "IQ2_S",
        24: "I8", 25: "I16", 26: "I32", 27: "I64", 28: "F64", 29: "IQ1_M", 34: "TQ1_0", 35: "TQ2_0", 39: "MXFP4",
        40: "NVFP4", 41: "Q1_0", 42: "Q2_0",
    }  # fmt: skip
    for number, name in others.items():
        rule = f"format {name} is not supported: expected one of F32, F16"
        yield patched_case(f"T16 {name}", "tensor 1 format", u32(number), "tensor blocks", rule)
    for number in (4, 5, 31, 32, 33, 36, 37, 38, 43, 255, 2**31 - 1, 2**31, 2**32 - 1):
        rule = f"unknown or removed format {number}"
        yield patched_case(f"T17 format {number}", "tensor 1 format", u32(number), "tensor blocks", rule)


def _blocks() -> Iterator[Case]:
    # Format numbers and the weights of their blocks, by ggml.h and ggml-common.h.
    of_32 = {2: "Q4_0", 3: "Q4_1", 6: "Q5_0", 7: "Q5_1", 8: "Q8_0", 20: "IQ4_NL"}
    of_256 = {10: "Q2_K", 11: "Q3_K", 12: "Q4_K", 13: "Q5_K", 14: "Q6_K", 23: "IQ4_XS"}
    for names, block, rows in ((of_32, 32, (1, 31, 33)), (of_256, 256, (32, 255))):
        for number, name in names.items():
            for row in rows:
                file = with_tensor(Tensor(name=b"blocks", dims=(row, 3), format_id=number, n_bytes=54))
                rule = f"row of {row} weights is not a multiple of the {block} of a {name} block"
                yield case_at(f"T19 {name} row {row}", file, "tensor 1 axes", "tensor blocks", rule)


def _offsets() -> Iterator[Case]:
    # In the valid file norm is at 0, blocks at 32, last at 96; each of the two behind takes 64 or 32 bytes.
    for n, rule in {
        MAX64: f"expected offset divisible by 32, got {MAX64}",
        2**64 - 32: f"expected offset 32, after the tensor before, got {2**64 - 32}",
        2**63: "expected offset 32, after the tensor before",
        2**20: "expected offset 32, after the tensor before, got 1048576",
        33: "expected offset divisible by 32, got 33",
        48: "expected offset divisible by 32, got 48",
        0: "expected offset 32, after the tensor before, got 0",
        64: "expected offset 32, after the tensor before, got 64",
        96: "expected offset 32, after the tensor before, got 96",
    }.items():
        yield patched_case(f"O01 offset {n}", "tensor 1 offset", u64(n), "tensor blocks", rule)
    for n in (32, 96):
        rule = f"expected offset 0, after the tensor before, got {n}"
        yield patched_case(f"O07 first at {n}", "tensor 0 offset", u64(n), "tensor norm", rule)
    for i, offsets in {"O06 all zero": (0, 0, 0), "O07 swapped": (0, 64, 32)}.items():
        moved = [Tensor(name=t.name, dims=t.dims, format_id=t.format_id, n_bytes=t.n_bytes, offset=o)
                 for t, o in zip(tensors(), offsets, strict=True)]  # fmt: skip
        rule = f"expected offset 32, after the tensor before, got {offsets[1]}"
        yield case_at(i, draft(keys(), moved), "tensor 1 offset", "tensor blocks", rule)
    # A format or shape that needs more or fewer bytes than lie between the offsets.
    rule = "after the tensor before, got 96"
    for name, mark, raw in (
        ("T20 Q4_0 becomes Q8_0", "tensor 1 format", u32(8)),
        ("T21 more rows", "tensor 1 dims", u64(32) + u64(11)),
        ("T21 fewer rows", "tensor 1 dims", u64(32) + u64(1)),
    ):
        file = valid()
        data, where = file.patched(mark, raw), file.marks["tensor 2 offset"]
        yield Case(name=name, data=data, offset=where, field="tensor last", rule=rule)

    left = len(file.data) - file.marks["tensor 1 offset"]
    for mark, raw, n_bytes in (("format", u32(0), 3 * 128), ("dims", u64(32) + u64(30), 30 * 18)):
        made = Case(name=f"T21 {mark} needs more than there is", data=file.patched(f"tensor 1 {mark}", raw),
                    offset=file.marks["tensor 1 axes"], field="tensor blocks",
                    rule=f"needs {n_bytes} bytes, {left} left")  # fmt: skip
        yield made


def _data() -> Iterator[Case]:
    file = valid()
    whole, start = len(file.data), file.marks["data"]
    rule = "download it again"
    for name, n, field in (
        ("D01 one byte", whole - 1, "tensor last"),
        ("D01 padding of the last tensor", whole - 8, "tensor last"),
        ("D02 half of the data", start + 64, "tensor blocks"),
        ("D03 no data", start, "tensor norm"),
    ):
        yield Case(name=name, data=bytes(file.data[:n]), offset=n, field=field, rule=rule)
    for name, tail in {"1 byte": b"\0", "a block": bytes(32), "1 MB": b"x" * 2**20, "zip": b"PK\3\4"}.items():
        rule = f"{len(tail)} bytes follow the last tensor: expected {whole} bytes in all"
        yield Case(name=f"D04 {name}", data=file.data + tail, offset=whole, field="end of file", rule=rule)
    empty = draft(keys(), [], data=False)
    gap = -len(empty.data) % 32
    rule = f"{32 - gap} bytes follow the last tensor"
    yield Case(name="D04 no tensors", data=empty.data + bytes(32), offset=len(empty.data) + gap,
               field="end of file", rule=rule)  # fmt: skip
    yield patched_case(
        "D07 padding not zero", "padding", b"\1", "padding before the data", "expected zeros, got byte 1"
    )
    cut = draft(keys(), [Tensor(name=b"one", dims=(1,), format_id=0, n_bytes=4)], data=False)
    rule = f"truncated: need {-len(cut.data) % 32} bytes, 0 left"
    yield case_at("D08 ends before the padding", cut, "padding", "padding before the data", rule)
