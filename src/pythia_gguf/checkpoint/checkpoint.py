"""A folder as published on the Hugging Face Hub -> its tensors, still on disk.

Which tensors a model needs, and what they are for, is the business of arch/.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pythia_gguf.checkpoint.safetensors import read_safetensors
from pythia_gguf.checkpoint.shards import check_names_match, check_stays_inside, read_index
from pythia_gguf.checkpoint.tensor import FileTensors, LazyTensor
from pythia_gguf.checkpoint.torch_zip import is_torch_zip, read_torch_zip
from pythia_gguf.checkpoint.zip_records import checked_chunks, read_records
from pythia_gguf.errors import ModelFileError, StorageError, one_line
from pythia_gguf.files import FileElsewhere, RegularFile

# Kind -> the file, and the ending of its shards' names.
_KINDS = {"safetensors": ("model.safetensors", ".safetensors"), "torch": ("pytorch_model.bin", ".bin")}
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One revision of a model, opened.

    folder   as given
    kind     "safetensors" or "torch"
    files    the files that hold tensors, in reading order, then the index if there is one
    tensors  in the order llama.cpp's converter sees them: file by file in name order; in each the names sorted as
             strings (safetensors) or in the order of the state dict (torch). Source: llama.cpp 0c1e57098,
             conversion/base.py `index_tensors` and gguf-py/gguf/utility.py `SafetensorsLocal`.
    left_out  entries of state dicts that are no tensors, as name -> kind: "a number"
    """

    folder: Path
    kind: str
    files: tuple[Path, ...]
    tensors: dict[str, LazyTensor]
    left_out: dict[str, str]


def open_checkpoint(
    folder: str | os.PathLike[str], elsewhere: Mapping[str, FileElsewhere] = MappingProxyType({})
) -> Checkpoint:
    """Open the first of: model.safetensors, its index, pytorch_model.bin, its index. Reads headers, no weights.

    elsewhere  files that belong in the folder but lie elsewhere, by name
    Raises StorageError when the folder or a file is missing or cannot be read, ModelFileError when a file is damaged,
    hostile or of a kind that is refused.
    """
    root = Path(folder)
    if not os.path.isdir(root):
        problem = "is a file, expected the folder that holds it" if os.path.lexists(root) else "no such folder"
        raise StorageError(f"{one_line(str(root))}: {problem}")
    for kind, (name, _) in _KINDS.items():
        # lexists: a link to nothing must be an error, not a reason to take the next file.
        if name in elsewhere or os.path.lexists(root / name):
            found = _read_file(root / name, kind, elsewhere)
            return Checkpoint(
                folder=root, kind=kind, files=(root / name,), tensors=found.tensors, left_out=found.left_out
            )
        if os.path.lexists(root / f"{name}.index.json"):
            return _open_shards(root, kind, root / f"{name}.index.json", elsewhere)
    raise StorageError(f"{one_line(str(root))}: {_nothing_found(root)}")


def iter_file_checked(path: str | os.PathLike[str]) -> Iterator[memoryview]:
    """The bytes of any file in order, a few MB at a time; in a file of torch.save, checks every record on the way.

    Made for hashing: `for chunk in iter_file_checked(path): digest.update(chunk)` reads the file once. A chunk is valid
    until the next is asked for. Other files carry no checksums; their bytes pass as they are.
    Raises ModelFileError at the first record whose CRC-32 is wrong (torch.load does not look), StorageError.
    """
    with RegularFile(path) as file:
        yield from checked_chunks(file, read_records(file) if is_torch_zip(file) else ())


def _open_shards(root: Path, kind: str, index: Path, elsewhere: Mapping[str, FileElsewhere]) -> Checkpoint:
    check_stays_inside(index)
    shards = read_index(index, suffix=_KINDS[kind][1])
    for name in shards:
        if name not in elsewhere and not os.path.lexists(root / name):
            raise StorageError(f"{one_line(str(root / name))}: missing, {index.name} names it. Download it too")
    tensors: dict[str, LazyTensor] = {}
    left_out: dict[str, str] = {}
    for name, listed in shards.items():
        found = _read_file(root / name, kind, elsewhere)
        check_names_match(set(found.tensors), listed, shard=root / name, index=index)
        tensors |= found.tensors
        left_out |= found.left_out
    files = (*(root / name for name in shards), index)
    return Checkpoint(folder=root, kind=kind, files=files, tensors=tensors, left_out=left_out)


def _read_file(path: Path, kind: str, elsewhere: Mapping[str, FileElsewhere]) -> FileTensors:
    if path.name in elsewhere:
        with contextlib.closing(elsewhere[path.name].open()) as remote:
            return FileTensors(tensors=read_safetensors(remote))
    check_stays_inside(path)
    with RegularFile(path) as file:
        if file.read(0, min(file.size, len(_LFS_POINTER))) == _LFS_POINTER:
            raise ModelFileError("a Git LFS pointer, not the file it stands for. Run git lfs pull", path=path)
        return read_torch_zip(file) if kind == "torch" else FileTensors(tensors=read_safetensors(file))


def _nothing_found(root: Path) -> str:
    names = [n for name, _ in _KINDS.values() for n in (name, f"{name}.index.json")]
    try:
        present = sorted(os.listdir(root))
    except OSError as e:
        return f"cannot list: {e.strerror}"
    for name, suffix in _KINDS.values():
        shards = [p for p in present if p.startswith(f"{name.removesuffix(suffix)}-") and p.endswith(suffix)]
        if shards:
            return f"found {one_line(shards[0], 80)} but no {name}.index.json. Download it too"
    return f"no checkpoint here, looked for {', '.join(names)}"
