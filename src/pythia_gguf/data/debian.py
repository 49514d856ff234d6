"""Packages of Debian and its kin: what apt has, one fetched, and its files read without unpacking it to disk.

Nothing is installed, and no right of an administrator is needed. All of it is left to apt-get, apt-cache and dpkg-deb.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import ModelFileError, NetworkError, UsageError, one_line

_PROGRAMS = ("apt-cache", "apt-get", "dpkg-deb")


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A version of a package that apt can fetch.

    n_bytes    to fetch
    installed  bytes of its files, as the package says
    """

    name: str
    version: str
    n_bytes: int
    installed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PackageFile:
    """A file of a package, or a link.

    path    without a slash at its beginning
    data    what it holds; None for a link
    target  of a link, as it is written
    """

    path: str
    data: bytes | None
    target: str


def check_programs() -> None:
    """Raises UsageError where apt or dpkg is not installed."""
    missing = [program for program in _PROGRAMS if shutil.which(program) is None]
    if missing:
        raise UsageError(f"{', '.join(missing)} not found: this needs Debian, Ubuntu or another system with apt")


def find_packages(patterns: list[str]) -> dict[str, Package]:
    """For each pattern of a name the package that matches; of several, the one with the highest numbers in its name."""
    names = _output("apt-cache", "pkgnames").split()
    matches = {pattern: sorted(filter(re.compile(pattern).fullmatch, names), key=_numbers) for pattern in patterns}
    wanted = sorted({name for found in matches.values() for name in found})
    known = {package.name: package for package in _shown(wanted)} if wanted else {}
    best = {pattern: [known[name] for name in found if name in known] for pattern, found in matches.items()}
    return {pattern: found[-1] for pattern, found in best.items() if found}


def fetch_package(package: Package, folder: Path) -> Path:
    """The file of a package, fetched into a folder if it is not there; raises NetworkError, StorageError."""
    own = folder / package.name
    own.mkdir(exist_ok=True)
    if not (found := list(own.glob("*.deb"))):
        _output("apt-get", "--quiet", "download", f"{package.name}={package.version}", cwd=own)
        found = list(own.glob("*.deb"))
    if len(found) != 1:
        raise NetworkError(f"apt-get gave no file of {package.name} {package.version}")
    return found[0]


def read_files(path: Path) -> Iterator[PackageFile]:
    """The files and links of a .deb, in its order; raises ModelFileError where it is damaged."""
    process = subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", os.fspath(path)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout is not None
    try:
        with tarfile.open(fileobj=process.stdout, mode="r|") as archive:
            for member in archive:
                name = member.name.removeprefix("./")
                if member.isreg() and (file := archive.extractfile(member)) is not None:
                    yield PackageFile(path=name, data=file.read(), target="")
                elif member.issym():
                    yield PackageFile(path=name, data=None, target=member.linkname)
        # What follows the last file must be read, or dpkg-deb fails to write it.
        while process.stdout.read(1 << 20):
            pass
        if process.wait():
            raise ModelFileError("damaged. Run again", path=path)
    except tarfile.TarError as e:
        raise ModelFileError(f"damaged: {e}. Run again", path=path) from None
    finally:
        process.kill()
        process.stdout.close()
        process.wait()


def _numbers(name: str) -> tuple[list[int], str]:
    return [int(number) for number in re.findall(r"\d+", name)], name


def _shown(names: list[str]) -> Iterator[Package]:
    """Those that apt can fetch, in the version that it would install."""
    for stanza in _output("apt-cache", "--no-all-versions", "show", *names, may_fail=True).split("\n\n"):
        fields = dict(re.findall(r"^(Package|Version|Size|Installed-Size|Filename): (.*)$", stanza, re.MULTILINE))
        # What is installed, and in no list, has no name of a file.
        if {"Package", "Version", "Size", "Filename"} <= fields.keys():
            yield Package(
                name=fields["Package"],
                version=fields["Version"],
                n_bytes=int(fields["Size"]),
                installed=1024 * int(fields.get("Installed-Size", 0)),
            )


def _output(*command: str, cwd: Path | None = None, may_fail: bool = False) -> str:
    """What a program prints; raises NetworkError with its last complaint."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env=os.environ | {"LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode and not may_fail:
        lines = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()
        why = one_line(lines[-1].removeprefix("E:").strip()) if lines else f"exit code {done.returncode}"
        raise NetworkError(f"{command[0]}: {why}")
    return done.stdout
