"""Zips as torch.save writes them, built byte by byte, with any field replaced by a lie.

It is written without the reader under test, so that a mistake of that reader cannot hide.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

ALIGNMENT = 64
LOCAL = ("sign", "version", "flags", "method", "time", "date", "crc", "packed", "size", "n_name", "n_extra")
ENTRY = (
    *("sign", "made_by", "version", "flags", "method", "time", "date", "crc", "packed", "size"),
    *("n_name", "n_extra", "n_comment", "disk", "internal", "external", "offset"),
)
END = ("sign", "disk", "first_disk", "n_here", "n_records", "n_bytes", "start", "n_comment")
END_64 = ("sign", "size", "made_by", "version", "disk", "first_disk", "n_here", "n_records", "n_bytes", "start")
LOCATOR = ("sign", "disk", "end_64_at", "n_disks")


@dataclass(kw_only=True)
class Item:
    """One record. `local`, `entry`: fields to replace; `descriptor`: bytes to write instead of the true one."""

    name: str | bytes
    data: bytes = b""
    local: dict = field(default_factory=dict)
    entry: dict = field(default_factory=dict)
    local_name: bytes | None = None
    extra: bytes = b""
    descriptor: bytes | None = None
    has_descriptor: bool = True
    gap: bytes = b""

    @property
    def raw_name(self) -> bytes:
        return self.name if isinstance(self.name, bytes) else self.name.encode()


def build_zip(
    items: list[Item],
    *,
    end: dict | None = None,
    end_64: dict | None = None,
    locator: dict | None = None,
    before: bytes = b"",
    after: bytes = b"",
    has_zip64: bool = True,
) -> bytes:
    """The zip. The last three dicts replace fields of the end records."""
    out = bytearray(before)
    directory = bytearray()
    for item in items:
        at = len(out)
        out += _local(item, at) + item.data + _descriptor(item) + item.gap
        directory += _entry(item, at)
    start = len(out)
    out += directory
    n = len(items)
    sizes = {"disk": 0, "first_disk": 0, "n_here": n, "n_records": n, "n_bytes": len(directory), "start": start}
    if has_zip64:
        end_64_at = len(out)
        fields = {"sign": b"PK\x06\x06", "size": 44, "made_by": 798, "version": 45, **sizes}
        out += _pack("<4sQHHIIQQQQ", END_64, fields, end_64)
        fields = {"sign": b"PK\x06\x07", "disk": 0, "end_64_at": end_64_at, "n_disks": 1}
        out += _pack("<4sIQI", LOCATOR, fields, locator)
    out += _pack("<4sHHHHIIH", END, {"sign": b"PK\x05\x06", **sizes, "n_comment": 0}, end)
    return bytes(out + after)


def _pack(layout: str, names: tuple[str, ...], fields: dict, lies: dict | None) -> bytes:
    return struct.pack(layout, *(({**fields, **(lies or {})})[n] for n in names))


def _flags(item: Item) -> int:
    return 0x0808 if item.has_descriptor else 0x0800


def _local(item: Item, at: int) -> bytes:
    name = item.raw_name if item.local_name is None else item.local_name
    n_pad = -(at + 34 + len(name)) % ALIGNMENT
    padding = b"FB" + struct.pack("<H", n_pad) + b"Z" * n_pad
    true_sizes = (0, 0) if item.has_descriptor else (zlib.crc32(item.data), len(item.data))
    fields = {
        "sign": b"PK\x03\x04",
        "version": 0,
        "flags": _flags(item),
        "method": 0,
        "time": 0,
        "date": 0,
        "crc": true_sizes[0],
        "packed": true_sizes[1],
        "size": true_sizes[1],
        "n_name": len(name),
        "n_extra": len(padding),
    }
    return _pack("<4sHHHHHIIIHH", LOCAL, fields, item.local) + name + padding


def _entry(item: Item, at: int) -> bytes:
    fields = {
        "sign": b"PK\x01\x02",
        "made_by": 0,
        "version": 0,
        "flags": _flags(item),
        "method": 0,
        "time": 0,
        "date": 0,
        "crc": zlib.crc32(item.data),
        "packed": len(item.data),
        "size": len(item.data),
        "n_name": len(item.raw_name),
        "n_extra": len(item.extra),
        "n_comment": 0,
        "disk": 0,
        "internal": 0,
        "external": 0,
        "offset": at,
    }
    return _pack("<4sHHHHHHIIIHHHHHII", ENTRY, fields, item.entry) + item.raw_name + item.extra


def _descriptor(item: Item) -> bytes:
    if item.descriptor is not None:
        return item.descriptor
    if not item.has_descriptor:
        return b""
    return struct.pack("<4sIII", b"PK\x07\x08", zlib.crc32(item.data), len(item.data), len(item.data))
