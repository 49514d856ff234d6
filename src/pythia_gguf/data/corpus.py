"""A labelled corpus of real text, made of documentation that Debian packages, each source by name.

    DIR/python.jsonl ...   a document a line: {"text", "meta": {"pile_set_name", "package", "file"}}
    DIR/corpus.json        sources with their packages, versions, licences, documents, bytes
    DIR/LICENSES.md        the same for people
    DIR/licenses/PACKAGE   the copyright file of each package

The same versions of packages give the same bytes. A source that is whole stays; a run that was ended makes the others.
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pythia_gguf.arguments import checked, one_of
from pythia_gguf.data.corpus_forms import unpacked
from pythia_gguf.data.corpus_sources import SOURCES, Source, shown_name
from pythia_gguf.data.debian import Package, check_programs, fetch_package, find_packages, read_files
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.files import check_folder_place, storage_error, write_all, write_beside, write_text
from pythia_gguf.json_file import json_text, read_json_object
from pythia_gguf.lock import lock
from pythia_gguf.progress import Progress, Silence

SCHEMA_VERSION = 1
LIST = "corpus.json"
_FETCHED = ".packages"
_SHAPE = {
    "sources": [
        {
            "name": str,
            "file": str,
            "n_documents": int,
            "n_bytes": int,
            "packages": [{"name": str, "version": str, "licence": str}],
        }
    ]
}
_WRITE_BYTES = 4 << 20


def list_sources() -> list[dict[str, Any]]:
    """Every source, with the packages that apt has for it now and bytes to fetch; raises UsageError without apt."""
    check_programs()
    packages = find_packages([pattern for source in SOURCES.values() for pattern in source.packages])
    listed = []
    for source in SOURCES.values():
        own = [packages[pattern] for pattern in source.packages if pattern in packages]
        listed.append(
            {
                "name": source.name,
                "packages": [{"name": p.name, "version": p.version} for p in own],
                "n_bytes": sum(package.n_bytes for package in own),
                "licence": source.licence,
            }
        )
    return listed


@checked
def make_corpus(
    out: str | os.PathLike[str],
    *,
    sources: str | Iterable[str] = "all",
    force: bool = False,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Make a corpus in a folder, or what is missing of it.

    sources  names of `SOURCES`, also as one text with commas
    force    make sources anew that are there
    Returns  what DIR/corpus.json says, with "missing": names of packages that apt does not have
    Raises   UsageError without apt, NetworkError, StorageError, LockedError, ModelFileError
    """
    chosen = _chosen(sources)
    folder, progress = Path(out), progress or Silence()
    check_folder_place(folder)
    check_programs()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise storage_error(folder, e) from e
    with lock(folder / ".corpus.lock"), ExitStack() as stack:
        stack.callback(shutil.rmtree, folder / _FETCHED, ignore_errors=True)
        shutil.rmtree(folder / _FETCHED, ignore_errors=True)  # of a run that was killed
        return _make(folder, chosen, force, progress)


def _chosen(sources: str | Iterable[str]) -> list[Source]:
    names = [name.strip() for name in sources.split(",")] if isinstance(sources, str) else list(sources)
    if names == ["all"]:
        return list(SOURCES.values())
    for name in names:
        one_of("sources", name, list(SOURCES))
    return [source for source in SOURCES.values() if source.name in names]


def _make(folder: Path, chosen: list[Source], force: bool, progress: Progress) -> dict[str, Any]:
    made = {entry["name"]: entry for entry in listed_in(folder)}
    wanted = [source for source in chosen if force or not is_whole(folder, made.get(source.name))]
    patterns = [pattern for source in wanted for pattern in source.packages]
    packages = find_packages(patterns) if patterns else {}
    if patterns and not packages and not made:
        raise UsageError("apt has none of the packages. Run apt-get update first")
    for source in wanted:
        own = [packages[pattern] for pattern in source.packages if pattern in packages]
        if not own:
            continue
        made[source.name] = _make_source(folder, source, own, progress)
        entries = [made[name] for name in SOURCES if name in made]
        write_text(folder / "LICENSES.md", _licences_text(entries))
        write_text(folder / LIST, json_text({"schema_version": SCHEMA_VERSION, "sources": entries}, indent=2) + "\n")
    missing = sorted({shown_name(pattern) for pattern in patterns if pattern not in packages})
    return {"schema_version": SCHEMA_VERSION, "sources": [made[n] for n in SOURCES if n in made], "missing": missing}


def listed_in(folder: Path) -> list[dict[str, Any]]:
    """Sources that earlier runs have made; raises StorageError, ModelFileError."""
    if not (folder / LIST).exists():
        return []
    entries: list[dict[str, Any]] = read_json_object(folder / LIST, _SHAPE, what="a list of sources")["sources"]
    return [entry for entry in entries if entry["name"] in SOURCES]


def is_whole(folder: Path, entry: dict[str, Any] | None) -> bool:
    """Whether the file of a source is as long as the list says."""
    place = folder / f"{entry['name']}.jsonl" if entry else folder
    return entry is not None and place.is_file() and place.stat().st_size == entry["n_bytes"]


def _make_source(folder: Path, source: Source, packages: list[Package], progress: Progress) -> dict[str, Any]:
    """Write one source, whole or not at all."""
    progress.stage(f"fetching {source.name}", sum(package.n_bytes for package in packages), "bytes")
    (folder / _FETCHED).mkdir(exist_ok=True)
    read: list[tuple[Package, dict[str, bytes]]] = []
    told = []
    for package in packages:
        path = fetch_package(package, folder / _FETCHED)
        files, copyright_text = _files_of(path, package, source)
        read.append((package, files))
        (folder / "licenses").mkdir(exist_ok=True)
        write_text(folder / "licenses" / package.name, copyright_text)
        told.append({"name": package.name, "version": package.version, "licence": _licence(copyright_text, source)})
        progress.advance(package.name, package.n_bytes)
    progress.stage(f"reading {source.name}", sum(len(files) for _, files in read), "files")
    place = folder / f"{source.name}.jsonl"
    n_documents, n_bytes, waiting = 0, 0, bytearray()
    with write_beside(place) as out:
        for line in _lines(source, read, progress):
            n_documents += 1
            n_bytes += len(line)
            waiting += line
            if len(waiting) > _WRITE_BYTES:
                write_all(out, waiting)
                waiting.clear()
        write_all(out, waiting)
    return {
        "name": source.name,
        "file": place.name,
        "n_documents": n_documents,
        "n_bytes": n_bytes,
        "packages": told,
    }


def _files_of(path: Path, package: Package, source: Source) -> tuple[dict[str, bytes], str]:
    """The files of a package that documents are made of, unpacked, and its copyright file.

    The folder of the copyright file may be a link to another package's, which has the text.
    """
    files, licence = {}, f"usr/share/doc/{package.name}/copyright"
    text = f"{licence} is not in the package\n"
    for file in read_files(path):
        if file.data is None:
            if file.path == f"usr/share/doc/{package.name}":
                text = f"The same as that of {file.target}\n"
        elif file.path == licence:
            text = file.data.decode("utf-8", "replace")
        elif source.files.fullmatch(file.path):
            try:
                files[file.path] = unpacked(file.path, file.data)
            except (OSError, EOFError, zlib.error) as e:
                raise ModelFileError(f"{file.path} is damaged: {e}", path=path) from None
    return files, text


def _lines(source: Source, read: list[tuple[Package, dict[str, bytes]]], progress: Progress) -> Iterator[bytes]:
    """Lines of JSON, in the order of packages and of paths; what has no text gives none."""
    for package, files in read:
        for path in sorted(files):
            documents = [(name, text.strip()) for name, text in _documents(source, path, files)]
            yield from (_line(source, package, name, text) for name, text in documents if text)
            progress.advance(path, 1)


def _line(source: Source, package: Package, name: str, text: str) -> bytes:
    meta = {"pile_set_name": source.name, "package": package.name, "file": name}
    return json_text({"text": text, "meta": meta}, ascii_only=False).encode() + b"\n"


def _documents(source: Source, path: str, files: Mapping[str, bytes]) -> Iterator[tuple[str, str]]:
    try:
        yield from source.form(path, files)
    except (ValueError, LookupError, zlib.error, struct.error) as e:
        raise ModelFileError(f"not in the form that {source.name} has: {e!r}", path=path) from None


def _licence(text: str, source: Source) -> str:
    """Names of licences in a copyright file that programs can read, in their order; else ours in short."""
    if not text.startswith("Format:"):
        return source.licence
    names = re.findall(r"^License:[ \t]*(\S.*)$", text, re.MULTILINE)
    return "; ".join(dict.fromkeys(names)) or source.licence


def _licences_text(entries: list[dict[str, Any]]) -> str:
    rows = [
        f"| {entry['name']} | {package['name']} | {package['version']} | {package['licence']} |"
        for entry in entries
        for package in entry["packages"]
    ]
    head = "Texts of other people; the licence of each package is in licenses/, as the package has it."
    return "\n".join([head, "", "| source | package | version | licences |", "|---|---|---|---|", *rows, ""])
