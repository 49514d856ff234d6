"""`pythia eval` of a model whose numbers are no numbers: one line, and no results."""

from __future__ import annotations

import struct
from pathlib import Path

from engine.nano import nano_files
from engine.test_not_finite import damaged, exploding
from evals.local_tasks import write_tasks


def test_eval_says_so_in_one_line(pythia, tmp_path: Path):
    folder, out = write_tasks(tmp_path / "tasks"), tmp_path / "results.json"
    damaged(tmp_path / "nan.gguf", nano_files()["Q4_0"], "output_norm.weight", {4: struct.pack("<f", float("nan"))})
    exploding(tmp_path / "inf.gguf")
    for kind, says in (("nan", "tensor output_norm.weight: weight 1 of row 0"), ("inf", "infinity or NaN at position")):
        path = tmp_path / f"{kind}.gguf"
        code, told, err = pythia("eval", path, "--tasks", "sciq", "--include-path", folder, "-o", out)
        assert (code, told) == (65, ""), err
        assert says in err.splitlines()[-1]
        assert err.splitlines()[-1].startswith(f"Error: {path}: ")
        assert not out.exists()
