"""Recipes are the suite's, to the number, and a file that contradicts itself is one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.hub.suite import MODELS
from pythia_gguf.train.recipe import Recipe, find_recipe, pythia_recipes, read_recipe

from .small import recipe

# EleutherAI/pythia a19eecb, README and model cards.
PARAMETERS = {
    "pythia-14m": 14_067_712,
    "pythia-31m": 30_494_720,
    "pythia-70m": 70_426_624,
    "pythia-160m": 162_322_944,
    "pythia-410m": 405_334_016,
    "pythia-1b": 1_011_781_632,
    "pythia-1.4b": 1_414_647_808,
    "pythia-2.8b": 2_775_208_960,
    "pythia-6.9b": 6_857_302_016,
    "pythia-12b": 11_846_072_320,
}


def test_every_model_has_its_recipe():
    recipes = pythia_recipes()
    assert recipes.keys() == MODELS.keys()
    assert {name: recipes[name].n_parameters for name in PARAMETERS} == PARAMETERS
    for name, made in recipes.items():
        assert made.steps * made.batch * made.context == 299_892_736_000
        kept = [step for step in range(made.steps + 1) if made.is_checkpoint(step)]
        model = MODELS[name]
        assert kept == [model.step(n).iteration for n in model.steps]
        assert all(
            made.rate(n) == model.step(n).learning_rate for n in (0, 1000) if n in model.steps and not model.is_4m
        )


def test_rates_of_the_410m_are_those_that_were_published():
    """Computed by gpt-neox v1.0's learning_rates.py; later versions have 8.693654e-05 at step 100,000."""
    made = find_recipe("pythia-410m")
    expected = {
        0: 0.0, 1000: 2.097902e-4, 1430: 3e-4, 50000: 2.224074e-4, 71500: 1.547116e-4, 100000: 6.596025e-5,
        115000: 3.027522e-5, 115_139: 3e-5, 143000: 3e-5,
    }  # fmt: skip
    assert {step: made.rate(step) for step in expected} == pytest.approx(expected, rel=5e-7, abs=0)
    assert made.rate(115_138) > made.rate(115_139) == made.rate(143_000)


def test_what_is_odd_in_the_suite():
    made = pythia_recipes()
    assert made["pythia-1b"].precision == "bfloat16" and made["pythia-1b-deduped"].precision == "float16"
    assert made["pythia-1b"].peak_rate == 2.5e-4
    assert {name for name, r in made.items() if r.least_rate == 0} == {
        f"pythia-{size}{kind}-v0" for size in ("6.9b", "12b") for kind in ("", "-deduped")
    }
    assert {r.init for name, r in made.items() if "6.9b" in name or "12b" in name} == {"normal"}
    assert made["pythia-410m-v0"].batch == 2048 and made["pythia-410m-v0"].decay_steps == 71_250
    # Clamped from update 57,369 on.
    v0 = made["pythia-410m-v0"]
    assert v0.rate(57_368) > v0.rate(57_369) == v0.least_rate


def test_a_recipe_survives_its_file(tmp_path: Path):
    for made in (*pythia_recipes().values(), recipe(gelu="erf", parallel_residual=False)):
        path = tmp_path / "r.yaml"
        path.write_text(made.as_yaml())
        assert read_recipe(path) == made


SMALL = """
model: {layers: 2, hidden: 64, heads: 4, vocabulary: 300, context: 32}
training: {steps: 10, batch: 4, peak_rate: 1e-3}
"""


def test_what_a_file_may_leave_out(tmp_path: Path):
    path = tmp_path / "mine.yaml"
    path.write_text(SMALL)
    made = read_recipe(path)
    assert (made.name, made.feed_forward, made.decay_steps, made.peak_rate, made.least_rate) == (
        "mine",
        256,
        10,
        1e-3,
        1e-4,
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("heads: 4", "heads: 5", "heads must divide hidden, 64, got 5"),
        ("heads: 4", "heads: 64", "rotary_share makes 0 of 1 dimensions"),
        ("layers: 2, ", "", "layers must be given"),
        ("layers: 2", "layer: 2", "layer: no such field. Did you mean layers"),
        ("layers: 2", "layers: two", "layers must be a whole number, got str 'two'"),
        ("layers: 2", "layers: 2.5", "layers must be a whole number, got float 2.5"),
        ("layers: 2", "layers: true", "layers must be a whole number, got bool True"),
        ("layers: 2", "layers: 0", "layers must be between 1 and 512, got 0"),
        ("layers: 2", "layers: 2, parameters: 7", "parameters: these sizes make 138,496, not 7"),
        ("layers: 2", "layers: 2, gelu: relu", "gelu must be one of tanh, erf, got 'relu'"),
        ("vocabulary: 300", "vocabulary: 70000", "vocabulary must be between 2 and 65536"),
        ("peak_rate: 1e-3", "peak_rate: .nan", "peak_rate must be between 0 and 10, got nan"),
        ("peak_rate: 1e-3", "peak_rate: 1e-3, least_rate: 1", "least_rate 1.0 is more than peak_rate 0.001"),
        ("batch: 4", "batch: 4, layers: 3", "layers: is in both parts"),
        ("training:", "train:", "expected two parts, model and training"),
        ("batch: 4", "batch: [4", "not valid YAML"),
        ("batch: 4", "batch: 4, precision: fp8", "precision must be one of float32, bfloat16, float16, got 'fp8'"),
    ],
)  # fmt: skip
def test_a_file_that_cannot_be_is_refused_in_one_line(old: str, new: str, says: str, tmp_path: Path):
    path = tmp_path / "mine.yaml"
    assert SMALL.count(old) == 1
    path.write_text(SMALL.replace(old, new))
    with pytest.raises(ModelFileError) as refusal:
        read_recipe(path)
    assert says in str(refusal.value) and str(refusal.value).startswith(f"{path}: ")


def test_no_such_recipe():
    says = "pythia-71m: no file of a recipe, which ends with .yaml, and as a model: no model .* Did you mean pythia-70m"
    with pytest.raises(UsageError, match=says):
        find_recipe("pythia-71m")


def test_a_recipe_is_json():
    """Checkpoints hold it so."""
    import dataclasses

    made = recipe()
    assert Recipe(**json.loads(json.dumps(dataclasses.asdict(made)))) == made
