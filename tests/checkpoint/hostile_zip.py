"""Zips that must be refused, each with one lie.

It is written without the reader under test, so that a mistake of that reader cannot hide.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

from checkpoint.case import Case
from checkpoint.craft_pickle import state_dict, tensor
from checkpoint.craft_safetensors import LFS_POINTER
from checkpoint.craft_zip import Item, build_zip

PICKLE = state_dict(a=tensor())
STORAGE = struct.pack("<6f", *range(6))


def items() -> list[Item]:
    """What torch.save writes for one float32 tensor [2, 3]."""
    return [
        Item(name="m/data.pkl", data=PICKLE),
        Item(name="m/byteorder", data=b"little"),
        Item(name="m/data/0", data=STORAGE),
        Item(name="m/version", data=b"3\n"),
        Item(name="m/.data/serialization_id", data=b"0" * 40),
    ]


def good_zip() -> bytes:
    """A zip without a lie."""
    return build_zip(items())


def changed(change: Callable[[list[Item]], object], **lies: object) -> bytes:
    """The good zip with its items changed in place by `change`, and lies for `build_zip`."""
    found = items()
    change(found)
    return build_zip(found, **lies)  # type: ignore[arg-type]


def with_storage(**fields: object) -> bytes:
    """The good zip whose storage record has other fields."""

    def change(found: list[Item]) -> None:
        for key, value in fields.items():
            setattr(found[2], key, value)

    return changed(change)


def with_more(*more: Item) -> bytes:
    """The good zip with more records at its end."""
    return build_zip([*items(), *more])


def with_pickle(data: bytes) -> bytes:
    """The good zip with another pickle and a true checksum."""
    return changed(lambda found: setattr(found[0], "data", data))


def deflated(data: bytes) -> bytes:
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeezer.compress(data) + squeezer.flush(zlib.Z_FULL_FLUSH)


def _tar() -> bytes:
    return b"sys_info".ljust(257, b"\0") + b"ustar\x0000".ljust(255, b"\0")


def bomb(n_bytes: int) -> bytes:
    """A deflated storage of `n_bytes` zeros, a multiple of 1 MiB: a flushed block may be repeated as it is."""
    return with_storage(
        data=deflated(bytes(1 << 20)) * (n_bytes >> 20) + b"\x03\x00",
        entry={"method": 8, "size": n_bytes},
        local={"method": 8},
    )


def _same_header_twice() -> bytes:
    return with_more(Item(name="m/data/1", data=STORAGE, entry={"offset": 0}))


_GOOD = good_zip()

NOT_ZIPS = [
    Case("empty file", b"", "not a zip file of torch.save"),
    Case("three bytes", b"PK\x03", "not a zip file of torch.save"),
    Case("text", b"<!DOCTYPE html>" * 20, "not a zip file of torch.save: starts with b'<!DO'"),
    Case("legacy torch.save", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + bytes(99), "before torch 1.6"),
    Case("tar", _tar(), "tar file"),
    Case("a Git LFS pointer", LFS_POINTER, "Git LFS pointer"),
    Case("gzip", b"\x1f\x8b\x08" + bytes(99), "not a zip file of torch.save"),
    Case("end record only", _GOOD[-22:], "not a zip file of torch.save"),
    Case("four bytes", b"PK\x03\x04", "cut short"),
]

ENDS = [
    Case("first half", _GOOD[: len(_GOOD) // 2], "no end record"),
    Case("one byte short", _GOOD[:-1], "no end record"),
    Case("one byte more", _GOOD + b"\0", "no end record"),
    Case("script after the end", _GOOD + b"#!/bin/sh\n" * 9, "no end record"),
    Case("script before the start", build_zip(items(), before=b"#!/bin/sh\n"), "not a zip file"),
    Case("comment", build_zip(items(), end={"n_comment": 5}, after=b"hello"), "no end record"),
    Case("comment length without comment", build_zip(items(), end={"n_comment": 5}), "with a comment"),
    Case("bytes before the first record", build_zip(items(), before=b"PK\x03\x04"), "before the first record"),
    Case("second disk", build_zip(items(), end={"disk": 1}), "more than one disk"),
    Case("directory on another disk", build_zip(items(), end={"first_disk": 1}), "more than one disk"),
    Case("records here and in all differ", build_zip(items(), end={"n_here": 4}), "more than one disk"),
    Case(
        "end records disagree on count",
        build_zip(items(), end={"n_here": 4, "n_records": 4}),
        "the two end records disagree: 4 and 5",
    ),
    Case("end records disagree on start", build_zip(items(), end={"start": 0}), "the two end records disagree: 0"),
    Case("end records disagree on size", build_zip(items(), end={"n_bytes": 9}), "the two end records disagree: 9"),
    Case("locator points elsewhere", build_zip(items(), locator={"end_64_at": 0}), "zip64 locator"),
    Case("locator beyond the file", build_zip(items(), locator={"end_64_at": 2**63}), "zip64 locator"),
    Case("locator of two disks", build_zip(items(), locator={"n_disks": 2}), "zip64 locator"),
    Case("no zip64 end at the locator", build_zip(items(), end_64={"sign": b"PK\x01\x01"}), "zip64 end record"),
    Case("zip64 end of another size", build_zip(items(), end_64={"size": 2**60}), "zip64 end record"),
    Case("zip64 counts differ", build_zip(items(), end_64={"n_here": 1}), "zip64 end record"),
    Case("no locator where one is needed", build_zip(items(), end={"start": 2**32 - 1}, has_zip64=False), "directory"),
    Case("directory start shifted", build_zip(items(), end={"start": 1}, has_zip64=False), "directory ends at"),
    Case(
        "directory of 2**60 bytes",
        build_zip(items(), end={"n_bytes": 2**32 - 1}, end_64={"n_bytes": 2**60}),
        "directory ends at byte 11529",
    ),
    Case(
        "2**60 records",
        build_zip(items(), end={"n_here": 65535, "n_records": 65535}, end_64={"n_here": 2**60, "n_records": 2**60}),
        "is too large",
    ),
    Case("no records", build_zip([], before=b"PK\x03\x04"), "holds no records"),
    Case(
        "one record too few",
        build_zip(items(), end={"n_here": 4, "n_records": 4}, has_zip64=False),
        "holds more than its 4 records",
    ),
    Case(
        "one record too many",
        build_zip(items(), end={"n_here": 6, "n_records": 6}, has_zip64=False),
        "directory ends before its 6 records",
    ),
]

ENTRIES = [
    Case("entry signature", with_storage(entry={"sign": b"PK\x01\x03"}), "directory entry is damaged"),
    Case("entry name too long", with_storage(entry={"n_name": 65535}), "directory entry is damaged"),
    Case("entry extra too long", with_storage(entry={"n_extra": 65535}), "directory entry is damaged"),
    Case("entry comment", with_storage(entry={"n_comment": 1}), "with a comment"),
    Case("entry on another disk", with_storage(entry={"disk": 1}), "or disk"),
    Case("entry without its zip64 size", with_storage(entry={"size": 2**32 - 1}), "without its zip64 sizes"),
    Case(
        "zip64 field cut short",
        with_storage(entry={"offset": 2**32 - 1}, extra=b"\x01\x00\x04\x00abcd"),
        "without its zip64 sizes",
    ),
    Case(
        "zip64 offset beyond the file",
        with_storage(entry={"offset": 2**32 - 1}, extra=struct.pack("<HHQ", 1, 8, 2**62)),
        "byte",
    ),
    Case("marked as a folder", with_storage(entry={"external": 0x10}), "record m/data/0 is marked as a folder"),
    Case("zip bomb", bomb(1 << 20), "is compressed"),
    Case("unknown method", with_storage(entry={"method": 99}), "record m/data/0 is compressed"),
    Case("two sizes", with_storage(entry={"packed": 23}), "is compressed"),
    Case("encrypted", with_storage(entry={"flags": 0x809}, local={"flags": 0x809}), "encrypted"),
    Case("strong encryption", with_storage(entry={"flags": 0x848}, local={"flags": 0x848}), "unknown flags 0x0848"),
    Case("masked header", with_storage(entry={"flags": 0x2808}, local={"flags": 0x2808}), "unknown flags"),
    Case("local name differs", with_storage(local_name=b"m/data/1"), "local header and directory disagree"),
    Case("local method differs", with_storage(local={"method": 8}), "local header and directory disagree"),
    Case("local flags differ", with_storage(local={"flags": 0x800}), "local header and directory disagree"),
    Case("local size differs", with_storage(local={"size": 25}), "local header and directory disagree"),
    Case("local checksum differs", with_storage(local={"crc": 1}), "local header and directory disagree"),
    Case("no local signature", with_storage(local={"sign": b"PK\x03\x03"}), "no local header"),
    Case("local header elsewhere", with_storage(entry={"offset": 65}), "overlaps the next one"),
    Case("local header beyond the file", with_storage(entry={"offset": 2**31}), "overlaps the next one or leaves"),
    Case("two entries, one record", _same_header_twice(), "overlaps"),
    Case("record longer than it is", with_storage(entry={"packed": 48, "size": 48}), "overlaps"),
    Case("record shorter than it is", with_storage(entry={"packed": 20, "size": 20}), "leaves a hole of 20"),
    Case("hole between records", with_storage(gap=bytes(3)), "leaves a hole of 19"),
    Case("hole in place of a descriptor", with_storage(has_descriptor=False, gap=bytes(16)), "leaves a hole of 16"),
    Case("descriptor of another checksum", with_storage(descriptor=b"PK\x07\x08" + bytes(12)), "descriptor and"),
    Case(
        "descriptor of another size",
        with_storage(descriptor=struct.pack("<4sIII", b"PK\x07\x08", zlib.crc32(STORAGE), 24, 25)),
        "descriptor and directory disagree",
    ),
    Case("descriptor left out", with_storage(descriptor=b""), "leaves a hole of 0"),
]

NAMES = [
    Case("name climbs", with_storage(name="m/../data/0"), "nothing that climbs out"),
    Case("name is absolute", with_storage(name="/m/data/0"), "expected folder/name"),
    Case("name with backslash", with_storage(name="m\\data\\0"), "expected folder/name"),
    Case("name without folder", with_storage(name="data"), "expected folder/name"),
    Case("name with NUL", with_storage(name="m/data/0\0"), "expected folder/name"),
    Case("name with newline", with_storage(name="m/data\n/0"), "expected folder/name"),
    Case("name is a folder", with_storage(name="m/data/"), "expected folder/name"),
    Case("name is empty", with_storage(name=""), "expected folder/name"),
    Case("name is not UTF-8", with_storage(name=b"m/\xff"), "is not UTF-8"),
    Case("name of 60000 letters", with_storage(name="m/" + "a" * 60_000), "expected folder/name"),
    Case("record twice", with_more(Item(name="m/data/0", data=STORAGE)), "'m/data/0' appears twice"),
    Case("record twice in another case", with_more(Item(name="m/DATA/0")), "'m/DATA/0' appears twice"),
    Case("two folders", with_more(Item(name="n/data/1")), "holds 2 folders, expected one"),
    Case("second data.pkl", with_more(Item(name="m/x/data.pkl")), "record 'x/data.pkl' is none"),
    Case("TorchScript", with_more(Item(name="m/constants.pkl")), "If this is TorchScript"),
    Case("program text", with_more(Item(name="m/code/__torch__.py")), "record 'code/__torch__.py' is none"),
    Case("storage key with a letter", with_more(Item(name="m/data/x")), "record 'data/x' is none"),
    Case("storage key of seven digits", with_more(Item(name="m/data/1234567")), "is none that torch.save writes"),
    Case("no data.pkl", changed(lambda found: found.pop(0)), "holds no data.pkl"),
]

CONTENTS = [
    Case("big-endian", changed(lambda found: setattr(found[1], "data", b"big")), "not little-endian"),
    Case("long byte order", changed(lambda found: setattr(found[1], "data", bytes(99))), "expected at most 16 bytes"),
    Case("checksum of the pickle", changed(lambda f: setattr(f[0], "entry", {"crc": 7})), "disagree"),
    Case(
        "checksum of the pickle, everywhere",
        changed(
            lambda found: [
                setattr(found[0], "entry", {"crc": 7}),
                setattr(found[0], "descriptor", struct.pack("<4sIII", b"PK\x07\x08", 7, len(PICKLE), len(PICKLE))),
            ]
        ),
        "record m/data.pkl: expected CRC-32 00000007",
    ),
    Case("storage missing", changed(lambda found: found.pop(2)), "tensor a: storage 0 is missing"),
    Case("storage of no tensor", with_more(Item(name="m/data/1", data=b"x")), "data/1 belongs to no tensor"),
    Case("storage too short", with_storage(data=STORAGE[:-1]), "storage 0: expected 24 bytes, got 23"),
    Case("storage too long", with_storage(data=STORAGE + b"x"), "storage 0: expected 24 bytes, got 25"),
    Case("storage empty", with_storage(data=b""), "storage 0: expected 24 bytes, got 0"),
]

CASES = [*NOT_ZIPS, *ENDS, *ENTRIES, *NAMES, *CONTENTS]
