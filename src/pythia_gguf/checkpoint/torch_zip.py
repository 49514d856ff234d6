"""File of torch.save (zip format, torch 1.6 and later) -> lazy tensors at absolute offsets.

torch is never imported. Records are stored uncompressed, so the values of a contiguous tensor are a run of bytes of the
file like any other; those of other views keep their strides.

    NAME/data.pkl    the state dict, see unpickler.py        NAME/byteorder   "little"
    NAME/data/KEY    one storage                             NAME/version, NAME/.*   not needed
"""

from __future__ import annotations

import re
import zlib
from pathlib import Path

from pythia_gguf.checkpoint.pickled import Storage, StoredTensor
from pythia_gguf.checkpoint.tensor import ITEM_BYTES, FileTensors, LazyTensor, check_name, size_of
from pythia_gguf.checkpoint.unpickler import read_state_dict
from pythia_gguf.checkpoint.zip_records import LOCAL_SIGNATURE, Record, check_crc, read_records
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import RegularFile

MAX_PICKLE_BYTES = 16 << 20
# Tied weights are one storage under two names. More aliases than that would make a small file a large job.
MAX_BYTES_PER_FILE_BYTE = 2
_KNOWN_RECORD = re.compile(r"data\.pkl|data/[0-9]{1,6}|version|byteorder|\..+")


def is_torch_zip(file: RegularFile) -> bool:
    """Whether the file starts like a zip; no safetensors file can."""
    return file.size >= 4 and file.read(0, 4) == LOCAL_SIGNATURE


def read_torch_zip(file: RegularFile) -> FileTensors:
    """Every tensor of the file, in the order of the pickle; only the directory and the pickle are read.

    Raises ModelFileError for anything but one state dict of tensors, with or without plain entries beside them.
    """
    if not is_torch_zip(file):
        raise ModelFileError(_not_a_zip(file), path=file.path, offset=0)
    records = _by_name(file, read_records(file))
    pickle = records.pop("data.pkl", None)
    if pickle is None:
        raise ModelFileError("zip holds no data.pkl: not a file of torch.save", path=file.path)
    _check_byte_order(file, records)
    stored = read_state_dict(_read_checked(file, pickle, MAX_PICKLE_BYTES), path=file.path, start=pickle.offset)
    if not stored.tensors:
        raise ModelFileError("holds no tensors", path=file.path)
    storages: dict[str, Storage] = {}
    tensors: dict[str, LazyTensor] = {}
    for name, tensor in stored.tensors.items():
        check_name(name, file.path)
        storage = storages.setdefault(tensor.storage.key, tensor.storage)
        tensors[name] = _locate(name, tensor, storage, records.get(f"data/{storage.key}"), file.path)
    _check_sizes(file, tensors)
    unused = [n for n in records if n.startswith("data/") and n[5:] not in stored.storages]
    if unused:
        raise ModelFileError(f"record {unused[0]} belongs to no tensor", path=file.path)
    return FileTensors(tensors=tensors, left_out=stored.left_out)


def _not_a_zip(file: RegularFile) -> str:
    head = bytes(file.read(0, min(file.size, 512)))
    advice = "Load it with torch and save it again"
    if head[:1] == b"\x80":
        return f"written by torch.save before torch 1.6, which is not read here. {advice}"
    if head[257:262] == b"ustar":
        return f"a tar file, as torch.save wrote before torch 0.1.10. {advice}"
    return f"not a zip file of torch.save: starts with {head[:4]!r}"


def _by_name(file: RegularFile, records: tuple[Record, ...]) -> dict[str, Record]:
    """Records by their name without the folder they all share."""
    roots = {r.name.partition("/")[0] for r in records}
    if len(roots) != 1:
        raise ModelFileError(f"zip holds {len(roots)} folders, expected one", path=file.path)
    found = {r.name.partition("/")[2]: r for r in records}
    for name in found:
        if not _KNOWN_RECORD.fullmatch(name):
            raise ModelFileError(
                f"record {name[:80]!r} is none that torch.save writes. If this is TorchScript, save model.state_dict()",
                path=file.path,
            )
    return found


def _check_byte_order(file: RegularFile, records: dict[str, Record]) -> None:
    record = records.get("byteorder")
    if record is not None and _read_checked(file, record, 16) != b"little":
        raise ModelFileError("numbers are not little-endian", path=file.path, offset=record.offset)


def _read_checked(file: RegularFile, record: Record, limit: int) -> bytearray:
    if record.n_bytes > limit:
        raise ModelFileError(
            f"record {record.name}: expected at most {limit} bytes, got {record.n_bytes}",
            path=file.path,
            offset=record.offset,
        )
    data = file.read(record.offset, record.n_bytes)
    check_crc(file, record, zlib.crc32(data))
    return data


def _locate(name: str, tensor: StoredTensor, storage: Storage, record: Record | None, path: Path) -> LazyTensor:
    """The place in the file of a view into a storage; raises ModelFileError unless it lies inside."""
    item_bytes = ITEM_BYTES[storage.dtype]
    if record is None:
        problem = f"storage {storage.key} is missing"
    elif tensor.storage != storage:
        problem = f"storage {storage.key} has two types or sizes"
    elif record.n_bytes != storage.n_items * item_bytes:
        problem = f"storage {storage.key}: expected {storage.n_items * item_bytes} bytes, got {record.n_bytes}"
    elif tensor.offset + _span(tensor) > storage.n_items:
        problem = f"reaches beyond storage {storage.key} of {storage.n_items} items"
    else:
        return LazyTensor(
            name=name,
            dtype=storage.dtype,
            shape=tensor.shape,
            path=path,
            offset=record.offset + tensor.offset * item_bytes,
            n_bytes=size_of(storage.dtype, tensor.shape),
            stride=None if _is_contiguous(tensor) else tensor.stride,
        )
    raise ModelFileError(problem, path=path, field=f"tensor {name}")


def _span(tensor: StoredTensor) -> int:
    """Items from the first to the last one that the tensor touches, both included."""
    if 0 in tensor.shape:
        return 0
    return 1 + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride, strict=True))


def _is_contiguous(tensor: StoredTensor) -> bool:
    """Whether the items lie in C order without gaps; the stride of an axis of length 1 means nothing."""
    if 0 in tensor.shape:
        return True
    expected = 1
    for n, step in zip(reversed(tensor.shape), reversed(tensor.stride), strict=True):
        if n != 1 and step != expected:
            return False
        expected *= n
    return True


def _check_sizes(file: RegularFile, tensors: dict[str, LazyTensor]) -> None:
    total = sum(t.n_bytes for t in tensors.values())
    if total > MAX_BYTES_PER_FILE_BYTE * file.size:
        raise ModelFileError(
            f"tensors overlap: {total} bytes of tensors in a file of {file.size} bytes. Save them again after .clone()",
            path=file.path,
        )
