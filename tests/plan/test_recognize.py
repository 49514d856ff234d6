"""Which quant a file is does not depend on its name; a key that its tensors contradict does not count."""

from __future__ import annotations

import numpy as np
import pytest

from engine.nano import nano_files
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.plan.recognize import quant_of

MIXED = {"blk.0.attn_qkv.weight": "Q4_K", "blk.0.ffn_down.weight": "Q6_K", "blk.0.ffn_up.weight": "Q4_K"}
VECTORS = {"blk.0.attn_norm.weight": "F32", "output_norm.weight": "F32", "blk.0.attn_qkv.bias": "F32"}


@pytest.mark.parametrize("quant", list(nano_files()))
def test_every_file_of_the_menu_is_recognized(quant: str):
    gguf = open_gguf(nano_files()[quant])
    assert quant_of(gguf.metadata, {n: t.format for n, t in gguf.tensors.items()}) == quant


@pytest.mark.parametrize(
    ("file_type", "formats", "quant"),
    [
        (15, MIXED, "Q4_K_M"),
        (14, MIXED, "Q4_K_S"),
        (None, MIXED, "Q4_K"),
        (1, MIXED, "Q4_K"),  # a file that another program has quantized without a new key
        (7, MIXED, "Q4_K"),
        (15, {"a.weight": "F16"}, "F16"),
        (1, {"a.weight": "F32"}, "F32"),
        (0, {"a.weight": "F32"}, "F32"),
        (32, {"a.weight": "BF16"}, "BF16"),
        (10, {"a.weight": "Q4_0"}, "Q2_K"),  # narrow rows: the fallback of mix 2026
        (10, {"a.weight": "IQ4_NL"}, "Q2_K"),  # and of mix 2024
        (9999, {"a.weight": "Q8_0"}, "Q8_0"),
    ],
)
def test_key_and_tensors(file_type: int | None, formats: dict[str, str], quant: str):
    metadata = {} if file_type is None else {"general.file_type": np.uint32(file_type)}
    assert quant_of(metadata, formats | VECTORS) == quant
