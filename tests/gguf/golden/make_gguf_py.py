"""Makes gguf_py.gguf and gguf_py.json beside this file, with gguf-py 0.19.0 and nothing of this project.

    python -m venv /tmp/oracle && /tmp/oracle/bin/pip install gguf==0.19.0
    /tmp/oracle/bin/python tests/gguf/golden/make_gguf_py.py

The .gguf is written by gguf-py's writer, the .json is what gguf-py's reader finds in it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import gguf

HERE = Path(__file__).parent


def write(path: Path) -> None:
    """A file with a key of each type and a tensor of several formats, alignment 64."""
    out = gguf.GGUFWriter(path, "gptneox")
    out.add_custom_alignment(64)
    out.add_name("caf\u00e9 \u4e16\u754c")
    out.add_uint8("a.u8", 200)
    out.add_int8("a.i8", -100)
    out.add_uint16("a.u16", 60000)
    out.add_int16("a.i16", -30000)
    out.add_uint32("a.u32", 2**32 - 1)
    out.add_int32("a.i32", -(2**31))
    out.add_uint64("a.u64", 2**64 - 1)
    out.add_int64("a.i64", -(2**63))
    out.add_float32("a.f32", 1e-5)
    out.add_float64("a.f64", 1e-5)
    out.add_bool("a.yes", True)
    out.add_bool("a.no", False)
    out.add_array("b.words", ["one", "\u4e8c", "drei" * 20])
    out.add_array("b.i32", [1, -2, 3])
    out.add_array("b.f32", [0.5, -1.5])
    out.add_array("b.bool", [True, False])
    rng = np.random.default_rng(3)
    out.add_tensor("vector", np.arange(5, dtype=np.float32))
    out.add_tensor("half", np.arange(12, dtype=np.float16).reshape(3, 4))
    for name in ("Q4_0", "Q5_1", "Q8_0", "BF16"):
        kind = gguf.GGMLQuantizationType[name]
        weights = rng.standard_normal((3, 64)).astype(np.float32)
        out.add_tensor(f"blocks.{name.lower()}", gguf.quants.quantize(weights, kind), raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()


def read(path: Path) -> dict[str, object]:
    """Every key and tensor as gguf-py's reader has them."""
    reader = gguf.GGUFReader(path)
    keys = {
        name: {"types": [t.name for t in field.types], "value": field.contents()}
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    tensors = {
        t.name: {
            "format": t.tensor_type.name,
            "shape": [int(n) for n in reversed(t.shape)],
            "data_offset": int(t.data_offset),
            "n_bytes": int(t.n_bytes),
            "weights": gguf.quants.dequantize(t.data, t.tensor_type).astype(float).reshape(-1).tolist(),
        }
        for t in reader.tensors
    }
    return {"gguf": "0.19.0", "data_offset": int(reader.data_offset), "keys": keys, "tensors": tensors}


if __name__ == "__main__":
    write(HERE / "gguf_py.gguf")
    (HERE / "gguf_py.json").write_text(json.dumps(read(HERE / "gguf_py.gguf"), indent=1) + "\n")
