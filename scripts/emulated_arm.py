"""An emulated ARM machine on Debian 12, x86-64: its packages, the aarch64 wheels that we need, and runs of programs.

qemu translates the machine code of one program; system calls go to the kernel that is there. Nothing is installed but
the package qemu-user-static, which needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).parent.parent
QEMU = "qemu-aarch64-static"
# Python and the libraries that it and the wheels load.
PACKAGES = [
    "python3.11-minimal",
    "libpython3.11-minimal",
    "libpython3.11-stdlib",
    "libc6",
    "libgcc-s1",
    "libstdc++6",
    "zlib1g",
    "libexpat1",
    "libssl3",
    "libffi8",
    "libbz2-1.0",
    "liblzma5",
    "libsqlite3-0",
    "libuuid1",
    "libncursesw6",
    "libtinfo6",
    "libreadline8",
    "libgomp1",
]
WHEELS = [
    "numba",
    "llvmlite",
    "numpy",
    "tokenizers",
    "click",
    "rich",
    "pyyaml",
    "huggingface_hub",
    "pygments",
    "markdown-it-py",
    "mdurl",
    "filelock",
    "fsspec",
    "packaging",
    "tqdm",
    "typing-extensions",
    "hf-xet",
]
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64", "manylinux2014_aarch64")


def build(folder: Path) -> None:
    """Make the machine in a folder, unless it is there."""
    if (folder / "ready").exists():
        return
    for name in ("lists/partial", "packages", "root"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    # 1. The emulator, if this machine has none.
    if shutil.which(QEMU) is None:
        _run("apt-get", "install", "-y", "-qq", "qemu-user-static")
    # 2. Debian's packages of the other architecture, by lists of their own: those of this machine stay as they are.
    options = ["APT::Architecture=arm64", "APT::Architectures=arm64", f"Dir::State::Lists={folder / 'lists'}"]
    apt = ["apt-get", *(word for option in options for word in ("-o", option))]
    _run(*apt, "update", "-qq")
    _run(*apt, "download", *PACKAGES, cwd=folder / "packages")
    for package in (folder / "packages").glob("*.deb"):
        _run("dpkg", "-x", str(package), str(folder / "root"))
    # 3. Wheels in the versions of this environment, and what says which version of pythia-gguf runs there.
    wanted = [f"{name}=={metadata.version(name)}" for name in WHEELS]
    platforms = [word for name in PLATFORMS for word in ("--platform", name)]
    kind = ["--no-deps", "--only-binary=:all:", "--python-version", "3.11", "--implementation", "cp", *platforms]
    _run(sys.executable, "-m", "pip", "download", "-q", *kind, "-d", str(folder / "wheels"), *wanted)
    for wheel in (folder / "wheels").glob("*.whl"):
        zipfile.ZipFile(wheel).extractall(folder / "site")
    version = metadata.version("pythia-gguf")
    info = folder / "site" / f"pythia_gguf-{version}.dist-info"
    info.mkdir(exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: pythia-gguf\nVersion: {version}\n", "utf-8")
    (folder / "ready").touch()


def run_python(folder: Path, cpu: str, cache: Path, *arguments: str) -> str:
    """Run a Python program on the machine in a folder and return what it prints.

    cpu    LLVM's name; kernels are compiled for it, whatever the emulator says that it is
    cache  of kernels
    """
    paths = (ROOT / "src", ROOT / "tests", folder / "site")
    environment = {
        "PYTHONHOME": str(folder / "root" / "usr"),
        "PYTHONPATH": os.pathsep.join(map(str, paths)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHIA_GGUF_CACHE": str(cache),
        "NUMBA_CPU_NAME": cpu,
        "NUMBA_CPU_FEATURES": "",
    }
    python = folder / "root" / "usr" / "bin" / "python3.11"
    command = [QEMU, "-cpu", "max", "-L", str(folder / "root"), str(python), *arguments]
    return subprocess.run(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True)
