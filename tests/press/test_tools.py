"""The sample's files are those of llama-quantize itself, the program; tests/golden/tools.json has their hashes."""

from __future__ import annotations

import hashlib
import json

import pytest

from engine.nano import ROOT, nano_files
from pythia_gguf.plan.quants import QUANTS

GOLDEN = json.loads((ROOT / "tests" / "golden" / "tools.json").read_text())


@pytest.mark.parametrize("quant", [q.name for q in QUANTS.values() if q.alias_of is None])
def test_file_is_that_of_llama_quantize(quant: str):
    files = nano_files()
    assert hashlib.sha256(files["F16"].read_bytes()).hexdigest() == GOLDEN["source_sha256"]
    assert hashlib.sha256(files[quant].read_bytes()).hexdigest() == GOLDEN["quantize"][quant]
