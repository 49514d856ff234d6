"""What the pass reads, reorders and rounds is what llama.cpp's own converter writes: names, order, formats, every byte.

Oracle: tests/golden/conversion.json, made by the real convert_hf_to_gguf.py (scripts/golden_conversion.py).
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from press.toy_checkpoint import CASES, write_texts
from pythia_gguf import open_gguf, quantize

ROOT = Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / "tests" / "golden" / "conversion.json").read_text())["cases"]
# Every dtype, container and shape; the other cases differ in their texts only.
KEYS = [
    pytest.param(key, marks=() if toy.tokenizer == "nano" else pytest.mark.tokenizer_20b)
    for key, toy in CASES.items()
    if toy.outtype == "auto"
    and (
        toy.weights in ("BF16", "F32")
        or toy.mixed
        or toy.container != "safetensors"
        or key in ("bare", "many-layers", "nano")
    )
]


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """scripts/golden_conversion.py, whose way to store a toy is that of the goldens."""
    spec = importlib.util.spec_from_file_location("golden_conversion", ROOT / "scripts" / "golden_conversion.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("key", KEYS)
def test_unquantized_file_holds_the_converters_tensors(
    key: str, script, tmp_path: Path, request: pytest.FixtureRequest
):
    toy = CASES[key]
    folder = tmp_path / toy.folder
    folder.mkdir()
    nano = ROOT / "examples" / "nano" / "tokenizer.json"
    write_texts(toy, folder, nano if toy.tokenizer == "nano" else request.getfixturevalue("tokenizer_20b"))
    script.write_weights(toy, folder)
    kept = quantize(folder, tmp_path / "out", quants="Q4_0", keep_f16=True).files[-1].path
    gguf = open_gguf(kept)
    ours = [
        [name, t.format, list(t.shape), hashlib.sha256(gguf.rows(name).tobytes()).hexdigest()]
        for name, t in gguf.tensors.items()
    ]
    assert ours == GOLDEN[key]["tensors"]
