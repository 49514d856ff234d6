"""Plans are llama-quantize's: its own dry run says the format of every tensor."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import oracle
from press.toy_gguf import model_metadata, shapes_of, write_sparse
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.errors import UsageError
from pythia_gguf.plan.planner import SourceTensor, make_plan
from pythia_gguf.plan.quants import FALLBACKS, MIXES, QUANTS, find_mix, more_bits, quant_of_file_type, select_quants

DISTINCT = [q for q in QUANTS.values() if q.alias_of is None]


def source_tensors(hidden: int, n_layers: int, n_ffn: int, n_vocab: int = 300) -> list[SourceTensor]:
    metadata = model_metadata(hidden=hidden, n_layers=n_layers, n_heads=2, n_ffn=n_ffn)
    metadata["tokenizer.ggml.tokens"] = [str(i) for i in range(n_vocab)]
    return [
        SourceTensor(
            name=n,
            shape=s,
            role=GPT_NEOX.role_of(n),
            layer=GPT_NEOX.layer_of(n),
            format="F16" if len(s) == 2 else "F32",
        )
        for n, s in shapes_of(metadata).items()
    ]


@pytest.mark.parametrize(
    ("hidden", "n_layers", "n_ffn"),
    # the layer counts of all Pythia models and of GPT-NeoX-20B; then rows that 256, and 32, do not divide
    [(256, n, 256) for n in (1, 2, 6, 12, 16, 24, 32, 36, 44)] + [(128, 6, 512), (256, 7, 96), (48, 9, 80)],
)
def test_formats_are_those_of_llama_quantizes_dry_run(hidden, n_layers, n_ffn, tmp_path: Path):
    metadata = model_metadata(hidden=hidden, n_layers=n_layers, n_heads=2, n_ffn=n_ffn)
    source = write_sparse(tmp_path / "toy.gguf", metadata)
    tensors = source_tensors(hidden, n_layers, n_ffn)
    for quant in DISTINCT:
        theirs = oracle.planned_formats(source, quant.file_type, [t.name for t in tensors])
        ours = {e.tensor: e.format for e in make_plan(quant, "2026", tensors).entries}
        stay = {t.name: t.format for t in tensors if t.name not in theirs}
        assert ours == theirs | stay, quant.name


def test_mix_2024_of_the_410m_shape():
    """By hand from src/llama.cpp of autumn 2024 (4ff7fe1f): its attn_qkv branch, 24 layers."""
    tensors = source_tensors(1024, 24, 4096)

    def qkv(name: str) -> set[str]:
        return {e.format for e in make_plan(QUANTS[name], "2024", tensors).entries if e.tensor.endswith("qkv.weight")}

    assert {name: qkv(name) for name in ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_K_S", "Q4_K_M", "Q5_K_M")} == {
        "Q2_K": {"Q2_K"},
        "Q3_K_S": {"Q3_K"},
        "Q3_K_M": {"Q4_K"},
        "Q3_K_L": {"Q4_K"},
        "Q4_K_S": {"Q4_K"},
        "Q4_K_M": {"Q5_K"},
        "Q5_K_M": {"Q6_K"},
    }


def test_mixes_differ_in_attn_qkv_and_fallback_only():
    tensors = source_tensors(256, 24, 256)
    for quant in DISTINCT:
        plans = [make_plan(quant, mix, tensors).entries for mix in MIXES]
        differing = {a.tensor.split(".")[-2] for a, b in zip(*plans, strict=True) if a.format != b.format}
        assert differing <= {"attn_qkv"}
    assert FALLBACKS["2024"]["Q2_K"] == FALLBACKS["2024"]["Q3_K"] == "IQ4_NL"


def test_layers_with_more_bits_of_24():
    # the list of pull request 4930's rule for 24 layers: n/8 = 3, 7n/8 = 21, every third from 3 + 2
    assert [i for i in range(24) if more_bits(i, 24)] == [0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23]


def test_every_entry_has_a_reason():
    for quant in QUANTS.values():
        assert all(e.reason for e in make_plan(quant, "2026", source_tensors(128, 6, 512)).entries)


def test_alias_has_the_plan_of_its_original():
    tensors = source_tensors(256, 24, 256)
    for quant in QUANTS.values():
        if quant.alias_of:
            assert (
                make_plan(quant, "2026", tensors).entries == make_plan(QUANTS[quant.alias_of], "2026", tensors).entries
            )


def test_bytes_of_an_entry():
    plan = make_plan(QUANTS["Q4_K_M"], "2026", source_tensors(256, 1, 512))
    sizes = {e.tensor: e.n_bytes for e in plan.entries}
    # one layer: more_bits(0, 1) holds, so Q6_K: 256 rows of 2 blocks of 210 bytes; a bias stays float32
    assert sizes["blk.0.ffn_down.weight"] == 256 * 2 * 210
    assert sizes["blk.0.ffn_down.bias"] == 256 * 4


def test_menu_has_19_names_and_16_files():
    assert len(QUANTS) == 19
    assert len(DISTINCT) == 16
    assert [q.name for q in select_quants("all")] == list(QUANTS)


def test_selection_keeps_the_order_of_the_menu_and_ignores_case():
    assert [q.name for q in select_quants("q8_0, Q4_k_m")] == ["Q4_K_M", "Q8_0"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("Q4_K_N", "unknown quant 'Q4_K_N'. Did you mean Q4_K_S or Q4_K_M or Q4_K? The menu:"),
        ("Q9", "unknown quant 'Q9'"),
        ("", "unknown quant ''"),
        ("Q4_0,,Q8_0", "unknown quant ''"),
        ("Q4_0,q4_0", "quant named twice: Q4_0"),
        ("IQ2_XXS", "unknown quant 'IQ2_XXS'"),
    ],
)
def test_unknown_quants_are_answered_with_the_nearest(names, message):
    with pytest.raises(UsageError) as e:
        select_quants(names)
    assert message in str(e.value)


def test_unknown_mix():
    with pytest.raises(UsageError, match="unknown mix '2025': known are 2026, 2024"):
        find_mix("2025")


def test_file_types_have_names():
    assert quant_of_file_type(15) == "Q4_K_M"
    assert quant_of_file_type(1) == "F16"
    assert quant_of_file_type(int(np.uint32(999))) is None
