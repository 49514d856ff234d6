"""`make golden`: freezes outputs of llama.cpp's own tools under tests/golden, with commit and command beside them.

This file says which script makes which file. llama.cpp 0c1e57098 comes with the source package of llama-cpp-python
0.3.36; its converter runs in an environment of its own, because it needs an older transformers than the tests, and its
tools are built with cmake.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
WORK = ROOT / ".cache" / "golden"
SOURCE = "llama-cpp-python==0.3.36"
CONVERTER = [
    "transformers==4.57.6",
    "torch==2.13.0",
    "numpy~=2.2.6",
    "protobuf<5",
    "sentencepiece",
    "safetensors",
    SOURCE,
]


def main() -> None:
    """Run every script; each replaces its own files."""
    WORK.mkdir(parents=True, exist_ok=True)
    run(sys.executable, "scripts/golden_blocks.py")
    run(sys.executable, "scripts/golden_tools.py")
    run(environment("gguf-py", ["gguf==0.19.0"]), "tests/gguf/golden/make_gguf_py.py")
    tokenizer = os.environ.get("PYTHIA_GGUF_20B_TOKENIZER")
    if tokenizer is None:
        sys.exit(
            "set PYTHIA_GGUF_20B_TOKENIZER to EleutherAI/pythia's utils/20B_tokenizer.json for the converter's part"
        )
    run(environment("converter", CONVERTER), "scripts/golden_conversion.py", str(unpacked()), tokenizer)


def unpacked() -> Path:
    """llama.cpp's source: the package downloaded by pip and unpacked once."""
    folder = WORK / "llama-cpp-python"
    if not folder.exists():
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--no-binary",
            "llama-cpp-python",
            "-d",
            str(WORK),
            SOURCE,
        )
        with tarfile.open(next(WORK.glob("llama_cpp_python-*.tar.gz"))) as archive:
            archive.extractall(folder, filter="data")
    return next(folder.iterdir()) / "vendor" / "llama.cpp"


def environment(name: str, packages: list[str]) -> str:
    """The Python of a virtual environment with these packages, made once."""
    folder = WORK / name
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        run(sys.executable, "-m", "venv", str(folder))
        run(str(python), "-m", "pip", "install", "--quiet", *packages)
    return str(python)


def run(*command: str) -> None:
    """Run in the repository; the golden is not made when it fails."""
    print(" ".join(command), flush=True)
    subprocess.run(command, check=True, cwd=ROOT)


if __name__ == "__main__":
    main()
