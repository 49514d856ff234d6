"""llama.cpp's quantizer built for a kind of CPU: `-march=... -ffp-contract=off`, same bytes, all its instructions.

Needs a C compiler and pip's index, for benchmarks only.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from golden import WORK, unpacked  # noqa: E402

# What the two files want from the rest of llama.cpp, which quantizing never calls for.
STUB = "void ggml_critical_section_start(void) {}\nvoid ggml_critical_section_end(void) {}\n"
VERSION = '#pragma once\n#define GGML_VERSION "bench"\n#define GGML_COMMIT "0c1e57098"\n'
FLAGS = ["-O3", "-DNDEBUG", "-fPIC", "-shared", "-std=gnu11", "-ffp-contract=off"]


def native_library(march: str = "native") -> ctypes.CDLL:
    """Build once, then load; `ggml_quantize_chunk` in it is typed.

    march  the compiler's name of a CPU that this one can stand for, "haswell"; "native" is this one
    """
    folder = WORK / f"quantizer-{march}"
    library = folder / f"libggml-{march}.so"
    if not library.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "stub.c").write_text(STUB)
        (folder / "ggml-version.h").write_text(VERSION)
        ggml = unpacked() / "ggml"
        sources = [ggml / "src" / "ggml-quants.c", ggml / "src" / "ggml.c", folder / "stub.c"]
        includes = [f"-I{path}" for path in (folder, ggml / "include", ggml / "src")]
        subprocess.run(
            ["cc", *FLAGS, f"-march={march}", *includes, *map(str, sources), "-o", str(library), "-lm", "-lpthread"],
            check=True,
        )
    loaded = ctypes.CDLL(str(library), mode=1)  # lazy: symbols of parts that are not there are never called
    loaded.ggml_quantize_chunk.restype = ctypes.c_size_t
    loaded.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, *[ctypes.c_int64] * 3, ctypes.c_void_p,
    ]  # fmt: skip
    return loaded
