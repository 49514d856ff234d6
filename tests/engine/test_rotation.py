"""Rotation tables: transformers' frequencies to the bit, and the same tables on every kind of CPU."""

from __future__ import annotations

import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from transformers import GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

from cpu_kinds import RUNNABLE, environment
from engine.rotation_elsewhere import BASES, DIMS, tables_hash
from pythia_gguf.engine.workspace import rotation_table


def turned_by(frequencies: np.ndarray) -> np.ndarray:
    """Cosines and sines of position 1, whose angles are the frequencies."""
    angles = frequencies.astype(np.float64)
    return np.concatenate([np.cos(angles), np.sin(angles)]).astype(np.float32)


@pytest.mark.parametrize("dims", [16, 20, 24, 32, 64])
def test_frequencies_of_published_models_are_those_of_transformers(dims: int):
    """To the bit. NumPy's float32 power misses some of 20, 24 and 64 dimensions with AVX-512."""
    rope = {"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": 1.0}
    config = GPTNeoXConfig(hidden_size=dims, num_attention_heads=1, rope_parameters=rope)
    frequencies = GPTNeoXRotaryEmbedding(config).inv_freq.numpy()
    assert np.array_equal(rotation_table(dims, 10000.0, 2)[1], turned_by(frequencies))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dims", DIMS)
def test_powers_are_rounded_once(dims: int, base: float):
    """They are the float32 numbers nearest to 28 decimal digits; torch's own power misses some where dims are many."""
    exponents = np.arange(0, dims, 2, dtype=np.float32) / np.float32(dims)
    powers = np.array([float(Decimal(base) ** Decimal(float(e))) for e in exponents]).astype(np.float32)
    assert np.array_equal(rotation_table(dims, base, 2)[1], turned_by(np.float32(1) / powers))


@pytest.mark.parametrize("cpu", [cpu for cpu in RUNNABLE if cpu == "haswell"])
def test_tables_are_the_same_without_avx512(cpu: str):
    program = str(Path(__file__).with_name("rotation_elsewhere.py"))
    run = subprocess.run([sys.executable, program], env=environment(cpu), capture_output=True, text=True, check=True)
    assert run.stdout == f"{tables_hash()}\n"
