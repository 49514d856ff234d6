"""Names come apart, and sizes are shown, as gguf-py does it.

Oracle: tests/golden/conversion_names.json, made by gguf-py's own functions (scripts/golden_conversion.py). Whole sets
of keys, model cards included, are compared in tests/press/test_conversion.py.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from hub.name_cases import N_PARAMS, NAMES
from pythia_gguf.errors import ModelFileError
from pythia_gguf.hub.identity import identity_metadata, size_label
from pythia_gguf.hub.identity_from_name import name_parts, title

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "conversion_names.json").read_text())["names"]


def keys_of(name="pythia-70m", n_params=70_426_624, *, card=None, config=None, generation_config=None):
    return identity_metadata(
        name=name,
        n_params=n_params,
        card=card or {},
        config=config or {},
        generation_config=generation_config or {},
        folder="folder",
    )


def test_the_golden_file_covers_every_name_and_size():
    assert [(row[0], row[1]) for row in GOLDEN] == [(name, n) for name in NAMES for n in N_PARAMS]


def test_names_come_apart_as_in_gguf_py():
    for name, n_params, expected, _, _ in GOLDEN:
        p = name_parts(name, n_params)
        ours = [p.full_name, p.organization, p.basename, p.finetune, p.version, p.size_label]
        assert ours == expected, (name, n_params)


def test_titles_and_sizes_are_those_of_gguf_py():
    for name, n_params, _, as_title, size in GOLDEN:
        assert title(name) == as_title
        assert size_label(n_params) == size


def test_a_pythia_name_says_who_it_is():
    assert keys_of("pythia-410m-deduped-v0", 405_334_016) == {
        "general.type": "model",
        "general.name": "Pythia 410m Deduped v0",
        "general.version": "v0",
        "general.finetune": "deduped",
        "general.basename": "pythia",
        "general.size_label": "410M",
    }


def test_a_repository_id_also_gives_the_organization():
    keys = keys_of("EleutherAI/pythia-70m")
    assert (keys["general.name"], keys["general.organization"]) == ("Pythia 70m", "EleutherAI")


def test_numbers_that_yaml_made_of_texts_are_written_as_texts():
    # `version: 1.0` in a card; the converter stops at it.
    assert keys_of(card={"version": 1.0})["general.version"] == "1.0"


def test_sampling_values_have_their_types():
    keys = keys_of(generation_config={"top_k": 5, "temperature": 1, "penalty_repeat": 1.5, "repetition_penalty": 9.0})
    assert [(k, type(v), v.item()) for k, v in keys.items() if "sampling" in k] == [
        ("general.sampling.top_k", np.int32, 5),
        ("general.sampling.temp", np.float32, 1.0),
        ("general.sampling.penalty_repeat", np.float32, 1.5),
    ]


@pytest.mark.parametrize("value", [True, [], {}, {"a": 1}])
def test_a_card_value_that_is_no_text_is_refused_with_its_key(value):
    with pytest.raises(ModelFileError, match=r"README\.md: author: expected a text, got"):
        keys_of(card={"author": value})
