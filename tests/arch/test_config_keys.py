"""The list of config.json's keys has all that transformers knows; what it leaves out is said, what it refuses named.

Oracle: transformers 5 here, 4.57.6 in its own environment.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
from transformers import GenerationConfig, GPTNeoXConfig
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding

from patience import HANGS_S
from press import tiny
from pythia_gguf.arch import config_from_hf
from pythia_gguf.arch.config_keys import MEANS_NOTHING, READ, READ_OR_NULL, REFUSED
from pythia_gguf.errors import ModelFileError

ROOT = Path(__file__).parents[2]
PYTHON_4 = ROOT / ".venv-transformers4" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LISTED = READ | READ_OR_NULL | MEANS_NOTHING | REFUSED.keys()
BASE = {key: value for key, value in tiny.config(32).items() if not key.startswith("rotary")} | {"hidden_size": 64}
HEAD_DIM = 64


def refusal(config: dict[str, object]) -> str:
    with pytest.raises(ModelFileError) as caught:
        config_from_hf(config, "config.json")
    return str(caught.value)


def notes_of(**keys: object) -> tuple[str, ...]:
    return config_from_hf(BASE | keys, "config.json")[1]


def test_every_key_has_one_place():
    places = [READ, READ_OR_NULL, MEANS_NOTHING, REFUSED.keys()]
    assert sum(map(len, places)) == len(LISTED)


def test_every_key_of_transformers_5_is_listed():
    written = GPTNeoXConfig().to_dict().keys() | {f.name for f in dataclasses.fields(GPTNeoXConfig)}
    generation = GenerationConfig._get_default_generation_params()
    assert (written | generation.keys()) - LISTED == set()


KEYS_4 = """
import json, transformers
assert transformers.__version__ == "4.57.6"
config = transformers.GPTNeoXConfig()
print(json.dumps([*config.to_dict(), *config._get_global_generation_defaults()]))
"""


def transformers_4(code: str, *args: str) -> object:
    done = subprocess.run([PYTHON_4, "-c", code, *args], capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.slow
def test_every_key_of_transformers_4_is_listed():
    assert set(transformers_4(KEYS_4)) - LISTED == set()


def test_what_is_exported_and_the_sample_need_no_word(tmp_path: Path):
    from pythia_gguf.export.folder import hf_config
    from pythia_gguf.intake.gguf_model import open_gguf_model

    (tmp_path / "tiny.gguf").write_bytes(tiny.gguf_bytes(keys={"gptneox.rope.freq_base": np_float32(5e4)}))
    gguf, sizes = open_gguf_model(tmp_path / "tiny.gguf")
    exported = json.loads(json.dumps(hf_config(gguf, sizes, "float16", "gelu_new")))
    again, notes = config_from_hf(exported, "config.json")
    assert notes == () and again == dataclasses.replace(sizes, hidden_act="gelu_new")


def np_float32(value: float) -> object:
    import numpy as np

    return np.float32(value)


def test_a_key_that_nobody_knows_is_left_out_and_said():
    assert notes_of(my_note="x", run={"id": 3}) == ("left out, as GPT-NeoX has no such key: my_note, run",)
    (many,) = notes_of(**{f"extra_{i}": i for i in range(9)})
    assert many.endswith("extra_3, extra_4 and 4 more")
    (odd,) = notes_of(**{"\x1b[2J\n": 1})
    assert odd.isprintable()
    (code,) = notes_of(auto_map={"AutoModelForCausalLM": "mine.Model"})
    assert "is not run" in code
    (other,) = notes_of(architectures=["FSDPGPTNeoXForCausalLM"])
    assert "FSDPGPTNeoXForCausalLM" in other
    assert notes_of(architectures=[]) == notes_of(architectures=None) == ()


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("rotary_pcts", "rotary_pct"),
        ("rotary_base", "rotary_emb_base"),
        ("Layer-Norm-Epsilon", "layer_norm_eps"),
        ("use_paralel_residual", "use_parallel_residual"),
        ("max_position_embedding", "max_position_embeddings"),
        ("hiddenAct", "hidden_act"),
    ],
)
def test_a_misspelled_key_is_refused_where_the_right_one_is_missing(key: str, meant: str):
    config = {k: v for k, v in BASE.items() if k != meant}
    assert f"{key}: no such key, and {meant} is missing. Did you mean {meant}?" in refusal(config | {key: 1})
    values = {"rotary_pct": 0.5, "rotary_emb_base": 10000} | BASE
    assert notes_of(**{meant: values[meant], key: 1}) == (f"left out, as GPT-NeoX has no such key: {key}",)


@pytest.mark.parametrize("key", sorted(REFUSED))
def test_a_key_that_may_only_say_one_thing_is_refused_by_name(key: str):
    line = refusal(BASE | {key: {"0": [1, 2]} if key != "attention_bias" else False})
    assert line.startswith(f"config.json: {key}: ")
    if key != "attention_bias":
        assert notes_of(**{key: None}) == ()


@pytest.mark.parametrize("key", sorted(READ - {"model_type"}))
def test_null_is_no_value(key: str):
    assert f"{key}: expected a value, got null" in refusal(BASE | {key: None})


def test_values_that_change_nothing_pass():
    fine = {
        "attention_bias": True,
        "is_causal": True,
        "head_dim": HEAD_DIM,
        "layer_types": ["full_attention"],
        "pruned_heads": {},
        "per_layer_config": {},
        "is_encoder_decoder": False,
        "configuration_files": [],
    }
    assert notes_of(**fine) == ()
    assert fine.keys() < REFUSED.keys()


# Every spelling, alone and against another.
SPELLINGS: list[dict[str, object]] = [
    {},
    {"rotary_pct": 0.5},
    {"rotary_emb_base": 50000},
    {"rotary_pct": 1.0, "rotary_emb_base": 500},
    {"rope_theta": 50000},
    {"partial_rotary_factor": 0.5},
    {"rope_theta": 50000, "rotary_emb_base": 50000, "partial_rotary_factor": 0.5, "rotary_pct": 0.5},
    {"rope_theta": 50000, "rotary_emb_base": 20000},
    {"rope_scaling": {"type": "default"}},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 50000}},
    {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}},
    {"rope_scaling": {"rope_type": "default", "partial_rotary_factor": 0.5}, "rotary_pct": 0.5},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 50000}, "rotary_emb_base": 20000},
    {"rope_scaling": {"type": "default", "factor": 8.0}},
    {"rope_scaling": {"type": "linear", "factor": 1.0}, "rotary_pct": 0.5},
    {"rope_scaling": None, "rope_parameters": {"rope_type": "default", "rope_theta": 50000}},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 50000, "partial_rotary_factor": 1.0}},
    {"rope_parameters": {"rope_theta": 50000}, "rotary_pct": 0.5},
    {"rope_parameters": {"rope_theta": 50000}, "rotary_emb_base": 50000},
    {"rope_parameters": {"rope_theta": 50000}, "rope_theta": 20000},
    {"rope_scaling": {"rope_type": "default"}, "rope_parameters": {"rope_theta": 50000}},
    {"rope_scaling": {"rope_type": "default", "rope_theta": 50000}, "rope_parameters": {"rope_theta": 20000}},
    {"rope_scaling": {}, "rope_parameters": {"rope_theta": 50000}},
]


@pytest.mark.parametrize("spelling", SPELLINGS, ids=json.dumps)
def test_rotation_is_that_of_transformers_5(spelling: dict[str, object]):
    read, _ = config_from_hf(BASE | json.loads(json.dumps(spelling)), "config.json")
    theirs = GPTNeoXRotaryEmbedding(GPTNeoXConfig(**json.loads(json.dumps(BASE | spelling)))).inv_freq
    assert read.rotary_dims == 2 * len(theirs)
    assert [read.rope_base ** (-2 * i / read.rotary_dims) for i in range(len(theirs))] == pytest.approx(theirs.tolist())


FREQUENCIES_4 = """
import json, sys, transformers
from transformers.models.gpt_neox.modeling_gpt_neox import GPTNeoXRotaryEmbedding
assert transformers.__version__ == "4.57.6"

def frequencies(config):
    try:
        return GPTNeoXRotaryEmbedding(transformers.GPTNeoXConfig(**config)).inv_freq.tolist()
    except KeyError:  # it wants a type in every rope_scaling
        return None

print(json.dumps([frequencies(config) for config in json.loads(sys.argv[1])]))
"""


@pytest.mark.slow
def test_a_note_says_where_transformers_4_rotates_otherwise():
    configs = [BASE | spelling for spelling in SPELLINGS]
    theirs = transformers_4(FREQUENCIES_4, json.dumps(configs))
    assert isinstance(theirs, list)
    known = [(config, values) for config, values in zip(configs, theirs, strict=True) if values is not None]
    assert len(known) == len(configs) - 1
    for config, frequencies in known:
        read, notes = config_from_hf(config, "config.json")
        ours = [read.rope_base ** (-2 * i / read.rotary_dims) for i in range(read.rotary_dims // 2)]
        is_same = len(ours) == len(frequencies) and ours == pytest.approx(frequencies)
        assert is_same is not any("transformers 4 would" in note for note in notes), (config, notes)


@pytest.mark.parametrize(
    ("spelling", "said"),
    [
        ({"rope_theta": 50000}, "rope_theta 50000 at the top was left out for 10000, as transformers does"),
        ({"partial_rotary_factor": 0.5}, "call it rotary_pct"),
        ({"rope_scaling": {"rope_theta": 5e4}}, "rope_scaling.rope_theta 50000 counts, as in transformers 5"),
        ({"rope_scaling": {"type": "default", "factor": 8.0}}, "rope_scaling.factor was left out"),
        ({"rope_scaling": {"type": "default"}, "rope_parameters": {"rope_theta": 5e4}}, "rope_parameters was left out"),
    ],
)
def test_what_is_left_out_of_the_rotation_is_said(spelling: dict[str, object], said: str):
    assert [note for note in notes_of(**spelling) if said in note]
