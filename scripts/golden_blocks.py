"""Freezes llama.cpp's bytes for a few hundred blocks: the oracle for machines where its library is not built.

Run by `make golden`; writes tests/golden/blocks.npz.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

TESTS = Path(__file__).parent.parent / "tests"
sys.path.insert(0, str(TESTS))

import oracle  # noqa: E402
from kernels.rows import ROW, edges, full_floats, gaussian, importances  # noqa: E402
from pythia_gguf.formats import FORMATS  # noqa: E402

COMMIT = "ggml-org/llama.cpp@0c1e57098 (llama-cpp-python 0.3.36), Linux x86-64, ggml_quantize_chunk"


def main() -> None:
    """Write the weights and every format's bytes of them, without and with importances of the columns."""
    weights = np.concatenate([gaussian(1, 4), edges(2, 28), full_floats(3, 3)])
    importance = np.where(importances(5)["sparse"] > 0, importances(5)["sparse"], importances(5)["some zeros"])
    frozen = {
        "weights": weights,
        "importance": importance,
        "made_by": np.array(COMMIT),
        "command": np.array("make golden"),
    }
    for f in FORMATS.values():
        if f.block_weights > 1:
            sizes = (ROW, f.block_bytes, f.block_weights)
            frozen[f.name] = oracle.encode(f.ggml_id, weights, *sizes)
            frozen[f"{f.name} weighted"] = oracle.encode(f.ggml_id, weights, *sizes, importance=importance)
    np.savez_compressed(TESTS / "golden" / "blocks.npz", **frozen)


if __name__ == "__main__":
    main()
