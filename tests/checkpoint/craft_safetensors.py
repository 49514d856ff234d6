"""safetensors files built byte by byte, and those of them that must be refused.

It is written without the reader under test, so that a mistake of that reader cannot hide.
"""

from __future__ import annotations

import json
import struct

from checkpoint.case import Case

LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


def file_of(header: str | bytes | dict, data: bytes = b"", *, length: int | None = None) -> bytes:
    """Length, header, data; `length` replaces the true length of the header."""
    if isinstance(header, dict):
        header = json.dumps(header)
    raw = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(raw) if length is None else length) + raw + data


def one(entry: str) -> bytes:
    """A file with one tensor `a` of eight bytes whose entry is `entry`."""
    return file_of(f'{{"a":{entry}}}', bytes(8))


def shaped(shape: str) -> bytes:
    """A file whose tensor `a` has this shape, written as JSON."""
    return one(f'{{"dtype":"F32","shape":{shape},"data_offsets":[0,8]}}')


def placed(offsets: str) -> bytes:
    """A file whose tensor `a`, two float32, has these offsets, written as JSON."""
    return one(f'{{"dtype":"F32","shape":[2],"data_offsets":{offsets}}}')


def typed(dtype: str) -> bytes:
    """A file whose tensor `a` has this dtype, written as JSON."""
    return one(f'{{"dtype":{dtype},"shape":[2],"data_offsets":[0,8]}}')


def named(name: str) -> bytes:
    """A file with one tensor of this name, written as the inside of a JSON string."""
    return file_of(f'{{"{name}":{GOOD_ENTRY}}}', bytes(8))


def spans(*ranges: tuple[int, int], n_bytes: int) -> bytes:
    """A file of uint8 tensors a, b, c... at these ranges of its data."""
    names = "abcdefgh"
    header = {
        names[i]: {"dtype": "U8", "shape": [end - begin], "data_offsets": [begin, end]}
        for i, (begin, end) in enumerate(ranges)
    }
    return file_of(header, bytes(n_bytes))


GOOD_ENTRY = '{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
GOOD = named("a")
_MANY = ",".join(f'"t{i}":{{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}' for i in range(65_537))

CASES = [
    Case("empty file", b"", "cut short"),
    Case("seven bytes", bytes(7), "cut short"),
    Case("length without header", struct.pack("<Q", 10), "cut short"),
    Case("length one too long", file_of("{}", length=3), "cut short"),
    Case("length 2**60", file_of("{}", length=2**60), "header length: expected at most 4194304"),
    Case("length 2**63", file_of("{}", length=2**63), "header length: expected at most 4194304"),
    Case("length 2**64 - 1", file_of("{}", length=2**64 - 1), "header length: expected at most 4194304"),
    Case("length one above the limit", file_of("{}", length=(4 << 20) + 1), "got 4194305"),
    Case("length zero", file_of("", bytes(8)), "must begin with '{'"),
    Case("space before the brace", file_of(" " + "{}"), "must begin with '{'"),
    Case("newline before the brace", file_of("\n{}"), "must begin with '{'"),
    Case("array", file_of("[]"), "must begin with '{'"),
    Case("byte order mark", file_of("\ufeff{}"), "must begin with '{'"),
    Case("zero bytes", file_of(bytes(16)), "must begin with '{'"),
    Case("a zip", b"PK\x03\x04" + bytes(60), "Is it a safetensors file?"),
    Case("a Git LFS pointer", LFS_POINTER, "Git LFS pointer"),
    Case("brace only", file_of("{"), "not valid JSON: Expecting property name"),
    Case("no tensors", file_of("{}"), "holds no tensors"),
    Case("metadata only", file_of('{"__metadata__":{"format":"pt"}}'), "holds no tensors"),
    Case("text after the brace", file_of("{}x"), "not valid JSON: Extra data at line 1, column 3"),
    Case("two objects", file_of(f'{{"a":{GOOD_ENTRY}}}{{}}', bytes(8)), "not valid JSON: Extra data"),
    Case("NUL after the brace", file_of(f'{{"a":{GOOD_ENTRY}}}\0', bytes(8)), "not valid JSON: Extra data"),
    Case("trailing comma", file_of(f'{{"a":{GOOD_ENTRY},}}', bytes(8)), "not valid JSON"),
    Case("no colon", file_of(f'{{"a"{GOOD_ENTRY}}}', bytes(8)), "not valid JSON: Expecting ':'"),
    Case("no comma", file_of(f'{{"a":{GOOD_ENTRY} "b":{GOOD_ENTRY}}}', bytes(8)), "not valid JSON: Expecting ','"),
    Case("single quotes", file_of("{'a':1}"), "not valid JSON"),
    Case("comment", file_of("{/**/}"), "not valid JSON"),
    Case("name twice", file_of(f'{{"a":{GOOD_ENTRY},"a":{GOOD_ENTRY}}}', bytes(8)), "key 'a' is there twice"),
    Case("name twice, escaped", file_of(f'{{"a":{GOOD_ENTRY},"\\u0061":1}}', bytes(8)), "key 'a' is there twice"),
    Case("field twice", one('{"dtype":"F32","dtype":"F32"}'), "key 'dtype' is there twice"),
    Case("metadata twice", file_of('{"__metadata__":{},"__metadata__":{}}'), "key '__metadata__' is there twice"),
    Case("metadata key twice", file_of('{"__metadata__":{"k":"","k":""}}'), "key 'k' is there twice"),
    Case("metadata is text", file_of('{"__metadata__":"x"}'), "__metadata__: expected an object, got 'x'"),
    Case("metadata value is a number", file_of('{"__metadata__":{"k":1}}'), "__metadata__.k: expected a text, got 1"),
    Case("metadata value is null", file_of('{"__metadata__":{"k":null}}'), "__metadata__.k: expected a text, got None"),
    Case(
        "metadata value is an object", file_of('{"__metadata__":{"k":{}}}'), "__metadata__.k: expected a text, got {}"
    ),
    Case("entry is an array", one("[]"), "a: expected an object, got []"),
    Case("entry is null", one("null"), "a: expected an object, got None"),
    Case("entry is empty", one("{}"), "a lacks dtype, shape, data_offsets"),
    Case("no dtype", one('{"shape":[2],"data_offsets":[0,8]}'), "a lacks dtype"),
    Case("no shape", one('{"dtype":"F32","data_offsets":[0,8]}'), "a lacks shape"),
    Case("no data_offsets", one('{"dtype":"F32","shape":[2]}'), "a lacks data_offsets"),
    Case("unknown field", one(GOOD_ENTRY[:-1] + ',"strides":[1]}'), "tensor a: unknown key 'strides'"),
    Case("dtype is a number", typed("1"), "a.dtype: expected a text, got 1"),
    Case("dtype we do not read", typed('"F4"'), "dtype 'F4' is not supported"),
    Case("dtype in lower case", typed('"f32"'), "Did you mean F32"),
    Case("dtype is empty", typed('""'), "dtype '' is not supported"),
    Case("dtype is very long", typed('"' + "F" * 100_000 + '"'), "is not supported"),
    Case("shape with a negative", shaped("[-2]"), "tensor a: expected numbers from 0 to 9223372036854775807, got -2"),
    Case("shape with a plus", shaped("[+2]"), "not valid JSON"),
    Case("shape with a fraction", shaped("[2.0]"), "a.shape[0]: expected a whole number, got 2.0"),
    Case("shape with an exponent", shaped("[2e0]"), "a.shape[0]: expected a whole number, got 2.0"),
    Case("shape with a leading zero", shaped("[02]"), "not valid JSON"),
    Case(
        "shape of 20 digits",
        shaped("[10000000000000000000]"),
        "expected numbers from 0 to 9223372036854775807, got 10000000000000000000",
    ),
    Case("shape of 100000 digits", shaped("[" + "9" * 100_000 + "]"), "is a number of 100000 digits"),
    Case("shape with text", shaped('["2"]'), "a.shape[0]: expected a whole number, got '2'"),
    Case("shape with true", shaped("[true]"), "a.shape[0]: expected a whole number, got True"),
    Case("shape with NaN", shaped("[NaN]"), "NaN is no number"),
    Case("shape is a number", shaped("2"), "a.shape: expected a list, got 2"),
    Case("shape is null", shaped("null"), "a.shape: expected a list, got None"),
    Case("shape is nested", shaped("[[2]]"), "a.shape[0]: expected a whole number, got [2]"),
    Case("shape nested 100000 deep", shaped("[" * 100_000), "maximum recursion depth"),
    Case("shape of nine axes", shaped("[1,1,1,1,1,1,1,1,2]"), "tensor a: expected at most 8 axes, got 9"),
    Case("product beyond 64 bits", shaped("[4294967296,4294967296]"), "expected 73786976294838206464 bytes"),
    Case("product that wraps to 8", shaped("[4611686018427387906]"), "expected 18446744073709551624 bytes"),
    Case("one offset", placed("[0]"), "two data_offsets"),
    Case("three offsets", placed("[0,8,8]"), "two data_offsets, got 3"),
    Case("negative offset", placed("[-8,0]"), "got -8"),
    Case("offsets reversed", placed("[8,0]"), "data_offsets give -8"),
    Case("too few bytes", placed("[0,4]"), "expected 8 bytes for F32 [2], data_offsets give 4"),
    Case("too many bytes", placed("[0,12]"), "data_offsets give 12"),
    Case("far beyond the file", placed("[1000000000000000000,1000000000000000008]"), "leaves a hole"),
    Case("data one byte short", GOOD[:-1], "cut short: expected"),
    Case("data missing", GOOD[:-8], "cut short: expected"),
    Case("byte after the data", GOOD + b"\0", "1 bytes after the last tensor belong to nothing"),
    Case("zip after the data", GOOD + b"PK\x05\x06" + bytes(18), "22 bytes after the last tensor"),
    Case("hole at the start", spans((4, 8), n_bytes=8), "leaves a hole before it"),
    Case("hole in the middle", spans((0, 2), (4, 8), n_bytes=8), "tensor b: leaves a hole"),
    Case("overlap", spans((0, 4), (2, 6), n_bytes=6), "tensor b: overlaps"),
    Case("the same bytes twice", spans((0, 4), (0, 4), n_bytes=4), "overlaps"),
    Case("one inside the other", spans((0, 8), (2, 4), n_bytes=8), "tensor b: overlaps"),
    Case("empty tensor inside another", spans((0, 8), (4, 4), n_bytes=8), "tensor b: overlaps"),
    Case("empty tensor after the end", spans((0, 8), (9, 9), n_bytes=8), "tensor b: leaves a hole"),
    Case("name is empty", named(""), "tensor name ''"),
    Case("name climbs", named("../../etc/passwd"), "tensor name '../../etc/passwd'"),
    Case("name with NUL", named("a\\u0000b"), "tensor name"),
    Case("name with newline", named("a\\nb"), "tensor name"),
    Case("name with escape codes", named("\\u001b[31m"), "tensor name"),
    Case("name with a space", named("a b"), "tensor name 'a b'"),
    Case("name is not ASCII", named("\u00e9"), "tensor name"),
    Case("name is half a surrogate pair", named("\\ud800"), "half of a surrogate pair"),
    Case("name of 256 letters", named("a" * 256), "tensor name"),
    Case("name is not UTF-8", file_of(b'{"\xff\xfe":1}'), "byte 10: header: not UTF-8 text"),
    Case("name with a raw control character", file_of('{"a\tb":1}'), "control character"),
    Case("name without an end", file_of('{"aaaa'), "Unterminated string"),
    Case("name ends in a backslash", file_of('{"a\\'), "Unterminated string"),
    Case("unknown escape", named("\\x41"), "Invalid \\escape"),
    Case("cut escape", named("\\u00"), "Invalid \\uXXXX escape"),
    Case("entry nested 100000 deep", file_of('{"a":' * 100_000), "maximum recursion depth"),
    Case("65537 tensors", file_of("{" + _MANY + "}"), "more than 65536 tensors"),
]
