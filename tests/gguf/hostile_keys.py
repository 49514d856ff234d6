"""Malformed headers and keys: every case breaks one rule, and says where and which.

Rows are named after the checklist that the reader was written to: H header, K keys, A alignment.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from gguf.case import MAX64, Case, case_at, patched_case, with_key
from gguf.craft import ARRAY, BOOL, NUMBER_CODES, STRING, U32, Key, array, draft, keys, string, tensors, u32, u64, valid


def key_cases() -> Iterator[Case]:
    """All cases of this file."""
    for part in (_header, _counts, _keys, _illegal_keys, _types, _lengths, _text, _booleans, _alignment):
        yield from part()


def _header() -> Iterator[Case]:
    data = bytes(valid().data)
    for i, n in enumerate((0, 3, 6, 20, 23), start=1):
        rule = f"truncated header: need 24 bytes, have {n}"
        yield Case(name=f"H0{i} {n} bytes", data=data[:n], offset=0, field="header", rule=rule)
    for magic, hint in {
        b"GGML": "before GGUF",
        b"FUGG": "not a GGUF file",
        b"lmgg": "before GGUF",
        b"fmgg": "before GGUF",
        b"tjgg": "before GGUF",
        b"vers": "git lfs pull",
        b"PK\3\4": "zip archive",
        b"<!DO": "not a GGUF file",
        b"\0\0\0\0": "not a GGUF file",
        b"\x1b[31": "not a GGUF file",
        b"gguf": "not a GGUF file",
    }.items():
        yield patched_case(f"H05 magic {magic!r}", "magic", magic, "header", hint)
    for version in (0, 1, 4, 5, 0x00010003, 2**32 - 1):
        rule = f"unsupported version {version}"
        yield patched_case(f"H06 version {version}", "version", u32(version), "header", rule)
    for version in (1, 2, 3):
        raw = struct.pack(">I", version)
        yield patched_case(f"H09 big-endian {version}", "version", raw, "header", "big-endian file")


def _counts() -> Iterator[Case]:
    for n in (MAX64, 2**63, 2**62, 2**32, 65537):
        rule = f"{n} tensors exceed the limit of 65536"
        yield patched_case(f"H10 {n} tensors", "n_tensors", u64(n), "header", rule)
        rule = f"{n} keys exceed the limit of 65536"
        yield patched_case(f"H13 {n} keys", "n_keys", u64(n), "header", rule)
    for n in (65536, 1000):
        # The least tensor: name of 1 byte with its length, count of axes, one axis, format, offset.
        rule = f"{n} tensors need {n * 33} bytes"
        yield patched_case(f"H11 {n} tensors", "n_tensors", u64(n), "header", rule)
        # The least key: name of 1 byte with its length, type, value of 1 byte.
        rule = f"{n} keys need {n * 14} bytes"
        yield patched_case(f"H14 {n} keys", "n_keys", u64(n), "header", rule)
    file = valid()
    past = file.marks["padding"]
    yield Case(
        name="H12 one tensor more", data=file.patched("n_tensors", u64(4)), offset=past,
        field="tensor 4 of 4", rule="empty tensor name",
    )  # fmt: skip
    yield Case(
        name="H12 one tensor less", data=file.patched("n_tensors", u64(2)), offset=file.marks["tensor 2"],
        field="padding before the data", rule="expected zeros, got byte 4",
    )  # fmt: skip
    # The first tensor is read as a key: its 1 axis becomes type 1 (i8), one byte of its 8 columns the value; then
    # a name begins with the other seven, all zero, and the zero of format F32.
    yield Case(
        name="H15 one key more", data=file.patched("n_keys", u64(8)),
        offset=file.marks["tensor 0 dims"] + 1, field="tensor 1 of 3", rule="empty tensor name",
    )  # fmt: skip
    # The last key is read as a tensor: type 9, an array, becomes 9 axes.
    yield Case(
        name="H16 one key less", data=file.patched("n_keys", u64(6)), offset=file.marks["key 6 type"],
        field="tensor tiny.numbers", rule="expected 1 to 4 axes, got 9",
    )  # fmt: skip


def _keys() -> Iterator[Case]:
    file = valid()
    for n in (MAX64, 2**63, 2**30, 10**6):
        left = len(file.data) - file.marks["key 0"] - 8
        rule = f"key length {n} exceeds the {left} bytes left"
        yield patched_case(f"K01 key of {n}", "key 0", u64(n), "key 1 of 7", rule)
    yield case_at(
        "K05 empty key",
        with_key(Key(name=b"", type_id=U32, payload=u32(1))),
        "key 7",
        "key 8 of 8",
        "empty key",
    )
    for name, key in {
        "same": keys()[2],
        "other type": Key(name=b"gptneox.block_count", type_id=STRING, payload=string(b"1")),
    }.items():
        rule = "duplicate key gptneox.block_count"
        yield case_at(f"K06 {name}", with_key(key), "key 7", "key 8 of 8", rule)
    for n in (65536, 100_000):
        key = Key(name=b"k" * n, type_id=U32, payload=u32(1))
        rule = f"key length {n} exceeds the limit of 65535"
        yield case_at(f"K22 key of {n}", with_key(key), "key 7", "key 8 of 8", rule)


def _illegal_keys() -> Iterator[Case]:
    names = (
        b"a\xff", b"a\0b", b"General.name", b"a.B", b"a b", b" a", b"a ", b".a", b"a.", b"a..b", b".", b"a\nb",
        b"a\x1b[2J", b"a/b", b"../a", b"a:b", b"a=b", b"caf\xc3\xa9", b"a\xe2\x80\xae", b"\xed\xa0\x80", b"a\x7f",
    )  # fmt: skip
    for name in names:
        key = Key(name=name, type_id=U32, payload=u32(1))
        yield case_at(f"K20 key {name!r}", with_key(key), "key 7", "key 8 of 8", "not a legal key")


def _types() -> Iterator[Case]:
    for type_id in (13, 14, 77, 255, 2**31, 2**32 - 1):
        rule = f"unknown value type {type_id}"
        yield patched_case(f"K07 type {type_id}", "key 2 type", u32(type_id), "gptneox.block_count", rule)
        yield patched_case(f"K09 element type {type_id}", "key 6 value", u32(type_id), "tiny.numbers", rule)
    empty = Key(name=b"a", type_id=ARRAY, payload=array(77, 0, b""))
    yield case_at("K23 empty array of 77", with_key(empty), "key 7 value", "byte", "unknown value type 77")
    for n in (1, 2, 5000):
        key = Key(name=b"a", type_id=ARRAY, payload=array(ARRAY, 1, b"") * n + array(U32, 1, u32(1)))
        rule = "nested arrays are not supported"
        yield case_at(f"K14 array {n} deep", with_key(key), "key 7 value", "a:", rule)


def _lengths() -> Iterator[Case]:
    for type_id, code in NUMBER_CODES.items():
        size = struct.calcsize(code)
        for n in (MAX64, 2**63, 2**61, 2**32, 2**24 + 1):
            key = Key(name=b"a", type_id=ARRAY, payload=array(type_id, n, bytes(16)))
            rule = f"{n} array elements exceed the limit of 16777216"
            yield case_at(f"K10 {n} of type {type_id}", with_key(key), "key 7 value", "a:", rule, shift=4)
        key = Key(name=b"a", type_id=ARRAY, payload=array(type_id, 2**24, bytes(16)))
        rule = f"16777216 array elements need {size << 24} bytes or more"
        yield case_at(f"K11 2^24 of type {type_id}", with_key(key), "key 7 value", "a:", rule, shift=4)
        # One element more than the rest of the file can hold.
        short = draft([Key(name=b"a", type_id=ARRAY, payload=array(type_id, 4, bytes(4 * size - 1)))], [])
        del short.data[short.marks["padding"] :]
        rule = f"4 array elements need {4 * size} bytes or more, {4 * size - 1} left"
        yield case_at(f"K12 past the end, type {type_id}", short, "key 0 value", "a:", rule, shift=4)
    # Two of the 2^22 strings that a file may hold are in tiny.words.
    for n in (MAX64, 2**61, 2**30, 2**22 - 1):
        key = Key(name=b"a", type_id=ARRAY, payload=array(STRING, n, string(b"x")))
        rule = f"{n} strings exceed the limit of 4194302"
        yield case_at(f"K13 {n} strings", with_key(key), "key 7 value", "a:", rule, shift=4)
    key = Key(name=b"a", type_id=ARRAY, payload=array(STRING, 2**22 - 2, string(b"x")))
    rule = "4194302 strings need 33554416 bytes or more"
    yield case_at("K13 as many strings as allowed", with_key(key), "key 7 value", "a:", rule, shift=4)


def _text() -> Iterator[Case]:
    file = valid()
    for n in (MAX64, 2**63, 2**40, len(file.data)):
        left = len(file.data) - file.marks["key 1 value"] - 8
        rule = f"string length {n} exceeds the {left} bytes left"
        yield patched_case(f"K16 string of {n}", "key 1 value", u64(n), "general.name", rule)
        left = len(file.data) - file.marks["key 5 value"] - 20
        rule = f"string length {n} exceeds the {left} bytes left"
        words = file.patched("key 5 value", array(STRING, 2, u64(n)))
        where = file.marks["key 5 value"] + 12
        yield Case(name=f"K16 element of {n}", data=words, offset=where, field="tiny.words", rule=rule)
    last = draft([Key(name=b"a", type_id=STRING, payload=u64(5) + b"four")], [], data=False)
    rule = "string length 5 exceeds the 4 bytes left"
    yield case_at("K17 one byte past the end", last, "key 0 value", "a:", rule)
    cut = draft([Key(name=b"a", type_id=STRING, payload=b"1234567")], [], data=False)
    yield case_at("K17 length cut", cut, "key 0 value", "a:", "truncated: need 8 bytes, 7 left")
    # Not UTF-8 from the third byte on: a lone byte, a cut sequence, overlong, a surrogate, beyond U+10FFFF.
    for bad in (b"\xff\xfe\x80", b"\x80", b"\xc3", b"\xc0\x80", b"\xed\xa0\x80", b"\xf4\x90\x80\x80"):
        scalar = Key(name=b"a", type_id=STRING, payload=string(b"ok" + bad))
        element = Key(name=b"a", type_id=ARRAY, payload=array(STRING, 1, string(b"ok" + bad)))
        yield case_at(f"K18 {bad!r}", with_key(scalar), "key 7 value", "a:", "string is not UTF-8", shift=10)
        yield case_at(f"K18 element {bad!r}", with_key(element), "key 7 value", "a:", "string is not UTF-8", shift=22)


def _booleans() -> Iterator[Case]:
    for byte in (2, 128, 255):
        rule = f"bool must be 0 or 1, got {byte}"
        yield patched_case(f"K21 bool {byte}", "key 3 value", bytes([byte]), "gptneox.flag", rule)
        payload = array(BOOL, 3, bytes([1, 0, byte]))
        yield patched_case(f"K21 element {byte}", "key 4 value", payload, "tiny.bools", rule, shift=14)


def _alignment() -> Iterator[Case]:
    def case(name: str, type_id: int, payload: bytes, rule: str) -> Case:
        key = Key(name=b"general.alignment", type_id=type_id, payload=payload)
        return case_at(name, with_key(key), "key 7 type", "general.alignment", rule)

    for n in (0, 1, 2, 4, 13, 24, 31, 33, 2**17, 2**31, 2**32 - 1):
        rule = f"alignment {n} must be a power of two, a multiple of 8, at most 65536"
        yield case(f"A01 alignment {n}", U32, u32(n), rule)
    for type_id, code in NUMBER_CODES.items():
        if type_id != U32:
            yield case(f"A03 type {type_id}", type_id, struct.pack(code, 1), "expected type u32, got")
    yield case("A04 string", STRING, string(b"32"), "expected type u32, got string")
    yield case("A04 array", ARRAY, array(U32, 1, u32(32)), "expected type u32, got array of u32")
    for n in (64, 4096, 65536):
        key = Key(name=b"general.alignment", type_id=U32, payload=u32(n))
        file = draft([*keys(), key], tensors(), alignment=32)
        rule = f"expected offset divisible by {n}, got 32"
        yield case_at(f"A06 {n} but offsets of 32", file, "tensor 1 offset", "tensor blocks", rule)
