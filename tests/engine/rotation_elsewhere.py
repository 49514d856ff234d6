"""A hash of rotation tables of 8,192 positions; run as a program for other kinds of CPU."""

from __future__ import annotations

import hashlib
from itertools import product

from pythia_gguf.engine.workspace import rotation_table

# Pythia has 16, 20, 32 and 64 dimensions and GPT-NeoX-20B has 24, all with a base of 10,000.
DIMS = (4, 10, 12, 16, 20, 24, 32, 48, 64, 96, 128)
BASES = (1000.0, 10000.0, 25000.0, 500000.0)


def tables_hash() -> str:
    """SHA-256 of all tables, one after the other."""
    tables = [rotation_table(dims, base, 8192).tobytes() for dims, base in product(DIMS, BASES)]
    return hashlib.sha256(b"".join(tables)).hexdigest()


if __name__ == "__main__":
    print(tables_hash())
