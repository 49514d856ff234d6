"""Directory of a zip as torch.save writes it: uncompressed records, one after the other, nothing between.

Every byte of the file must be accounted for, and what is said twice (in the local header, the directory, the data
descriptor, both end records) must agree: so no two readers can see two different files.

    local header 30 bytes + name + padding | data | descriptor 16 or 24 bytes     for each record
    directory entry 46 bytes + name + extra                                       for each record
    zip64 end 56 bytes, its locator 20 bytes                                      torch always writes them
    end record 22 bytes

The layout is that of PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5; what torch writes was read from files of torch 2.0 to
2.13, one of them larger than 4 GiB.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from pythia_gguf.checkpoint.tensor import MAX_TENSORS
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import CHUNK_BYTES, RegularFile

LOCAL_SIGNATURE = b"PK\x03\x04"
MAX_DIRECTORY_BYTES = 16 << 20
_MAX_RECORDS = MAX_TENSORS + 64  # the storages, and the few records beside them
_LOCAL = struct.Struct("<4sHHHHHIIIHH")
_ENTRY = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_LOCATOR = struct.Struct("<4sIQI")
_END_64 = struct.Struct("<4sQHHIIQQQQ")
_HAS_DESCRIPTOR = 0x0008
_UTF8_NAME = 0x0800
_IS_FOLDER = 0x10  # torch 2.13 fills such a record's tensor with whatever was in memory before
_FULL_16 = 0xFFFF  # a field that says "see the zip64 field instead"
_FULL_32 = 0xFFFFFFFF
_NAME = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}(?:/[^/\\\x00-\x1f\x7f]{1,255})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """One file inside the zip.

    name     with its folders: "archive/data/0"
    offset   position of its first data byte in the zip
    n_bytes  of data
    crc      CRC-32 of the data, as the directory states it
    """

    name: str
    offset: int
    n_bytes: int
    crc: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entry:
    name: bytes
    flags: int
    crc: int
    n_bytes: int
    header_offset: int


def read_records(file: RegularFile) -> tuple[Record, ...]:
    """Every record in the order of the file; raises ModelFileError unless all of the file is accounted for."""
    start, n_bytes, n_records = _find_directory(file)
    if n_records == 0:
        raise _error(file, "holds no records", start)
    if n_bytes > MAX_DIRECTORY_BYTES or n_records > _MAX_RECORDS:
        raise _error(file, f"directory of {n_records} records and {n_bytes} bytes is too large", start)
    entries = _read_entries(file, start, n_bytes, n_records)
    _check_names(file, entries)
    entries.sort(key=lambda e: e.header_offset)
    if entries[0].header_offset != 0:
        raise _error(file, "bytes before the first record belong to nothing", 0)
    next_offsets = [e.header_offset for e in entries[1:]] + [start]
    return tuple(_read_record(file, e, n) for e, n in zip(entries, next_offsets, strict=True))


def checked_chunks(file: RegularFile, records: tuple[Record, ...]) -> Iterator[memoryview]:
    """The whole file in order, at most CHUNK_BYTES at a time, comparing the CRC-32 of each record as it passes.

    A view is valid until the next is asked for. Raises ModelFileError after the last chunk of a record that is damaged.
    """
    buffer = memoryview(bytearray(min(CHUNK_BYTES, max(1, file.size))))
    position = 0
    for record in records:
        yield from _chunks(file, position, record.offset, buffer)
        crc = 0
        position = record.offset + record.n_bytes
        for chunk in _chunks(file, record.offset, position, buffer):
            crc = zlib.crc32(chunk, crc)
            yield chunk
        check_crc(file, record, crc)
    yield from _chunks(file, position, file.size, buffer)


def check_crc(file: RegularFile, record: Record, crc: int) -> None:
    """Raise ModelFileError unless `crc` is the CRC-32 that the directory states for the record."""
    if crc != record.crc:
        raise ModelFileError(
            f"record {record.name}: expected CRC-32 {record.crc:08x}, got {crc:08x}. Download the file again",
            path=file.path,
            offset=record.offset,
        )


def _chunks(file: RegularFile, start: int, end: int, buffer: memoryview) -> Iterator[memoryview]:
    while start < end:
        view = buffer[: end - start]
        file.read_into(start, view)
        yield view
        start += len(view)


def _find_directory(file: RegularFile) -> tuple[int, int, int]:
    """Offset, bytes and records of the directory, from the end record or records."""
    at = file.size - _END.size
    if at < 0:
        raise _error(file, f"file is cut short: {file.size} bytes")
    sign, disk, first_disk, n_here, n_records, n_bytes, start, comment = _END.unpack(file.read(at, _END.size))
    if sign != b"PK\x05\x06":
        raise _error(file, "no end record in the last 22 bytes: cut short, or something follows it. Download it again")
    if comment or disk or first_disk or n_here != n_records:
        raise _error(file, "end record with a comment or more than one disk", at)
    if found := _find_end_64(file, at):
        at, *wide = found
        limits = (_FULL_32, _FULL_32, _FULL_16)
        for narrow, full, value in zip((start, n_bytes, n_records), limits, wide, strict=True):
            if narrow not in (value, full):
                raise _error(file, f"the two end records disagree: {narrow} and {value}", at)
        start, n_bytes, n_records = wide
    if start + n_bytes != at:
        raise _error(file, f"directory ends at byte {start + n_bytes}, end record starts at {at}", at)
    return start, n_bytes, n_records


def _find_end_64(file: RegularFile, end_at: int) -> tuple[int, int, int, int] | None:
    """Where the zip64 end record is, then directory offset, bytes and records; None when the zip has none."""
    at = end_at - _LOCATOR.size
    if at < 0:
        return None
    sign, disk, end_64_at, n_disks = _LOCATOR.unpack(file.read(at, _LOCATOR.size))
    if sign != b"PK\x06\x07":
        return None
    if disk or n_disks != 1 or end_64_at != at - _END_64.size:
        raise _error(file, "zip64 locator does not point at the record before it", at)
    sign, size, _, _, disk, first_disk, n_here, n_records, n_bytes, start = _END_64.unpack(
        file.read(end_64_at, _END_64.size)
    )
    if sign != b"PK\x06\x06" or size != _END_64.size - 12 or disk or first_disk or n_here != n_records:
        raise _error(file, "zip64 end record is damaged", end_64_at)
    return end_64_at, start, n_bytes, n_records


def _read_entries(file: RegularFile, start: int, n_bytes: int, n_records: int) -> list[_Entry]:
    data = file.read(start, n_bytes)
    entries: list[_Entry] = []
    at = 0
    for _ in range(n_records):
        if n_bytes - at < _ENTRY.size:
            raise _error(file, f"directory ends before its {n_records} records", start + at)
        sign, _, _, flags, method, _, _, crc, packed, size, n_name, n_extra, n_comment, disk, _, attributes, offset = (
            _ENTRY.unpack_from(data, at)
        )
        name_at = at + _ENTRY.size
        extra_at = name_at + n_name
        if sign != b"PK\x01\x02" or extra_at + n_extra > n_bytes:
            raise _error(file, "directory entry is damaged", start + at)
        wide = _zip64_values(data[extra_at : extra_at + n_extra])
        fields = [next(wide, -1) if v == _FULL_32 else v for v in (size, packed, offset)]
        if -1 in fields or n_comment or disk:
            raise _error(file, "directory entry without its zip64 sizes, or with a comment or disk", start + at)
        name = bytes(data[name_at:extra_at])
        if attributes & _IS_FOLDER:
            raise _error(file, f"record {_shown(name)} is marked as a folder", start + at)
        if method or fields[0] != fields[1]:
            raise _error(file, f"record {_shown(name)} is compressed: expected a file of torch.save", start + at)
        entries.append(_Entry(name=name, flags=flags, crc=crc, n_bytes=fields[0], header_offset=fields[2]))
        at = extra_at + n_extra
    if at != n_bytes:
        raise _error(file, f"directory holds more than its {n_records} records", start + at)
    return entries


def _zip64_values(extra: bytearray) -> Iterator[int]:
    """The 64-bit numbers of the zip64 field (number 1) of a directory entry; nothing when there is none."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + size]
            yield from (v for (v,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8]))
            return
        at += 4 + size


def _check_names(file: RegularFile, entries: list[_Entry]) -> None:
    seen: set[str] = set()
    for entry in entries:
        try:
            name = entry.name.decode("utf-8")
        except UnicodeDecodeError as e:
            raise _error(file, f"record name {entry.name[:80]!r} is not UTF-8", entry.header_offset) from e
        if not _NAME.fullmatch(name) or {".", ".."} & set(name.split("/")):
            raise _error(file, f"record name {name[:80]!r}: expected folder/name, nothing that climbs out of it")
        if name.casefold() in seen:
            raise _error(file, f"record {name[:80]!r} appears twice")
        seen.add(name.casefold())


def _read_record(file: RegularFile, entry: _Entry, next_offset: int) -> Record:
    """Check one record from its local header to where the next one starts."""
    at = entry.header_offset
    sign, _, flags, method, _, _, crc, packed, size, n_name, n_extra = _LOCAL.unpack(file.read(at, _LOCAL.size))
    if sign != LOCAL_SIGNATURE:
        raise _error(file, f"no local header of record {_shown(entry.name)}", at)
    if flags & ~(_HAS_DESCRIPTOR | _UTF8_NAME):
        raise _error(file, f"record {_shown(entry.name)} is encrypted or has unknown flags {flags:#06x}", at)
    name = file.read(at + _LOCAL.size, n_name)
    sizes = (crc, packed, size)
    capped = min(entry.n_bytes, _FULL_32)
    agree = sizes == (entry.crc, capped, capped) or (flags & _HAS_DESCRIPTOR and sizes == (0, 0, 0))
    if method or (name, flags) != (entry.name, entry.flags) or not agree:
        raise _error(file, f"local header and directory disagree about record {_shown(entry.name)}", at)
    offset = at + _LOCAL.size + n_name + n_extra
    end = offset + entry.n_bytes
    _check_gap(file, entry, end, next_offset)
    return Record(name=name.decode("utf-8"), offset=offset, n_bytes=entry.n_bytes, crc=entry.crc)


def _check_gap(file: RegularFile, entry: _Entry, end: int, next_offset: int) -> None:
    """Between the data of a record and what follows lies its data descriptor, when it has one, and nothing else."""
    gap = next_offset - end
    if not entry.flags & _HAS_DESCRIPTOR and gap == 0:
        return
    layout = {16: "<4sIII", 24: "<4sIQQ"}.get(gap) if entry.flags & _HAS_DESCRIPTOR else None
    if layout is None:
        raise _error(file, f"record {_shown(entry.name)} overlaps the next one or leaves a hole of {gap} bytes", end)
    if struct.unpack(layout, file.read(end, gap)) != (b"PK\x07\x08", entry.crc, entry.n_bytes, entry.n_bytes):
        raise _error(file, f"descriptor and directory disagree about record {_shown(entry.name)}", end)


def _shown(name: bytes) -> str:
    return name[:80].decode("utf-8", "backslashreplace")


def _error(file: RegularFile, message: str, offset: int | None = None) -> ModelFileError:
    return ModelFileError(message, path=file.path, field="zip", offset=offset)
