"""Checkpoints as transformers 4.57.6 saves them, in its own environment: it and transformers 5 exclude each other."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from patience import HANGS_S
from pythia_gguf import quantize
from pythia_gguf.export.folder import export

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
PYTHON = ROOT / ".venv-transformers4" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
NANO = ROOT / "examples" / "nano"
SAVE = """
import sys, transformers
assert transformers.__version__ == "4.57.6"
model = transformers.GPTNeoXForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
for folder, options in (("safetensors", {}), ("bins", {"safe_serialization": False, "max_shard_size": "4MB"})):
    model.save_pretrained(f"{sys.argv[2]}/{folder}", **options)
    tokenizer.save_pretrained(f"{sys.argv[2]}/{folder}")
"""


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample saved again, as safetensors and as sharded .bin files."""
    out = tmp_path_factory.mktemp("transformers4")
    done = subprocess.run([PYTHON, "-c", SAVE, NANO, out], capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    return out


@pytest.mark.parametrize("folder", ["safetensors", "bins"])
def test_what_transformers_4_saves_gives_the_samples_files(saved: Path, tmp_path: Path, folder: str):
    if folder == "bins":
        assert len(list((saved / "bins").glob("pytorch_model-*.bin"))) > 2
    again = quantize(saved / folder, tmp_path / "again", quants="Q4_K_M,Q8_0", name="nano")
    first = quantize(NANO, tmp_path / "first", quants="Q4_K_M,Q8_0")
    assert [f.sha256 for f in again.files] == [f.sha256 for f in first.files]


LOGITS = """
import sys, numpy, torch, transformers
assert transformers.__version__ == "4.57.6"
model = transformers.GPTNeoXForCausalLM.from_pretrained(sys.argv[1], dtype=torch.float32)
tokenizer = transformers.AutoTokenizer.from_pretrained(sys.argv[1])
ids = tokenizer(open(sys.argv[2], encoding="utf-8").read()[:2000]).input_ids
with torch.no_grad():
    numpy.savez(sys.argv[3], ids=ids, logits=model(torch.tensor([ids[:64]])).logits[0].numpy())
"""


def test_transformers_4_loads_what_is_exported(tmp_path: Path):
    plain = quantize(NANO, tmp_path / "f16", quants=[], keep_f16=True).files[0].path
    export(plain, tmp_path / "again")
    results = []
    for folder in (NANO, tmp_path / "again"):
        out = tmp_path / f"{folder.name}.npz"
        command = [PYTHON, "-c", LOGITS, folder, NANO / "heldout.txt", out]
        done = subprocess.run(command, capture_output=True, text=True, timeout=HANGS_S)
        assert done.returncode == 0, done.stderr
        results.append(np.load(out))
    assert np.array_equal(results[0]["ids"], results[1]["ids"])
    assert np.array_equal(results[0]["logits"], results[1]["logits"])
