"""How a model is trained: its sizes, and all that decides its weights but the data. Pythia's own, or a YAML file's.

Sources of Pythia's: EleutherAI/pythia a19eecb, models/*/pythia-*.yml, and at 8c199d5 for v0; gpt-neox v1.0 (71df4d5)
for what those files leave to defaults.
"""

from __future__ import annotations

import dataclasses
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pythia_gguf.arch import ARCHITECTURES, ModelConfig
from pythia_gguf.arguments import check_fields, flag, number, one_of, optional, text, whole_number
from pythia_gguf.errors import ModelFileError, UsageError, nearest, one_line
from pythia_gguf.hub.learning_rate import learning_rate
from pythia_gguf.hub.suite import MODELS, SEQUENCE_TOKENS, STEP_SEQUENCES, SuiteModel, find_model
from pythia_gguf.json_file import read_text
from pythia_gguf.yaml_text import parse_yaml

PRECISIONS = ("float32", "bfloat16", "float16")
ROTARY_TABLES = ("float32", "float16")
INITS = ("small", "normal")
# Names of activations as config.json has them; training computes the one of tanh.
GELUS = {"tanh": "gelu_new", "erf": "gelu"}
PYTHIA_STEPS = "pythia"
_KEYS_OF_FILE = ("model", "training")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """A model and its training.

    name              of the model
    source            where the values come from
    parameters        of the model, checked against the sizes; None: as many as they make
    rotary_share      share of each head's dimensions that are rotated
    rotary_table      type in which angles and their sines are computed: gpt-neox had float16, transformers has float32
    gelu              "tanh" as Pythia was trained, or "erf"
    init              "small": sqrt(2 / 5d) and 2 / L sqrt(d); "normal": 0.02 and 0.02 / sqrt(2L)
    steps             updates; each sees `batch` rows of `context` + 1 tokens
    decay_steps       updates over which the rate falls towards zero
    least_rate        where it stops falling
    warmup            share of `decay_steps` in which the rate rises
    epsilon           of Adam
    weight_decay      of matrices, both embeddings among them; norms and biases have none
    clip              largest norm of a gradient
    precision         of products; weights and moments are float32 always
    checkpoints       "pythia": 0, 1, 2, 4 to 512, and every `every`; "even": every `every` alone
    """

    name: str
    source: str = ""
    layers: int
    hidden: int
    heads: int
    vocabulary: int
    context: int = SEQUENCE_TOKENS
    feed_forward: int
    rotary_share: float = 0.25
    rotary_base: float = 10000.0
    rotary_table: str = "float32"
    norm_epsilon: float = 1e-5
    parallel_residual: bool = True
    gelu: str = "tanh"
    init: str = "small"
    parameters: int | None = None
    steps: int
    batch: int = STEP_SEQUENCES
    seed: int = 1234
    peak_rate: float
    least_rate: float
    decay_steps: int
    warmup: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    clip: float = 1.0
    precision: str = "float32"
    checkpoints: str = PYTHIA_STEPS
    every: int = 1000

    def __post_init__(self) -> None:
        """Raises UsageError for values that are out of range or contradict each other."""
        check_fields(
            self,
            name=text, source=text,
            layers=whole_number(1, 512), hidden=whole_number(1, 2**20), heads=whole_number(1, 2**16),
            vocabulary=whole_number(2, 2**16), context=whole_number(1, 2**20), feed_forward=whole_number(1, 2**22),
            rotary_share=number(0, 1), rotary_base=number(1, 1e12), norm_epsilon=number(1e-30, 1),
            parallel_residual=flag, parameters=optional(whole_number(1)),
            steps=whole_number(1, 2**40), batch=whole_number(1, 2**20), seed=whole_number(0, 2**32 - 1),
            peak_rate=number(0, 10), least_rate=number(0, 10), decay_steps=whole_number(1, 2**40), warmup=number(0, 1),
            beta1=number(0, 0.999999), beta2=number(0, 0.999999), epsilon=number(1e-30, 1), weight_decay=number(0, 10),
            clip=number(1e-9, 1e9), every=whole_number(1, 2**40),
        )  # fmt: skip
        for field, known in (
            ("rotary_table", ROTARY_TABLES),
            ("gelu", tuple(GELUS)),
            ("init", INITS),
            ("precision", PRECISIONS),
            ("checkpoints", (PYTHIA_STEPS, "even")),
        ):
            one_of(field, text(field, getattr(self, field)), known)
        if self.hidden % self.heads:
            raise UsageError(f"heads must divide hidden, {self.hidden}, got {self.heads}")
        if self.rotary_dims % 2 or not self.rotary_dims:
            raise UsageError(f"rotary_share makes {self.rotary_dims} of {self.hidden // self.heads} dimensions: "
                             "an even number, at least 2, can be rotated")  # fmt: skip
        if self.least_rate > self.peak_rate:
            raise UsageError(f"least_rate {self.least_rate} is more than peak_rate {self.peak_rate}")
        if self.parameters not in (None, self.n_parameters):
            raise UsageError(f"parameters: these sizes make {self.n_parameters:,}, not {self.parameters:,}")
        object.__setattr__(self, "parameters", self.n_parameters)

    @property
    def rotary_dims(self) -> int:
        """Dimensions of a head that are rotated."""
        return int(self.rotary_share * (self.hidden // self.heads))

    @property
    def n_parameters(self) -> int:
        """Parameters that these sizes make."""
        return sum(math.prod(shape) for shape in ARCHITECTURES["gptneox"].tensor_shapes(self.config()).values())

    def config(self) -> ModelConfig:
        """The model, as the rest of the program knows it."""
        return ModelConfig(
            architecture="gptneox",
            n_layers=self.layers,
            n_heads=self.heads,
            hidden=self.hidden,
            n_ffn=self.feed_forward,
            n_context=self.context,
            n_vocab=self.vocabulary,
            rotary_dims=self.rotary_dims,
            rope_base=self.rotary_base,
            layer_norm_eps=self.norm_epsilon,
            parallel_residual=self.parallel_residual,
            hidden_act=GELUS[self.gelu],
            tied_embeddings=False,
        )

    @property
    def token_operations(self) -> int:
        """Operations that training does for a token: 6 for each weight that it is multiplied with, and attention's.

        The rows of the embeddings are looked up and multiply nothing.
        """
        weights = self.n_parameters - self.vocabulary * self.hidden
        return 6 * weights + 12 * self.layers * self.hidden * self.context

    def rate(self, n_updates: int) -> float:
        """Learning rate of the update after so many."""
        return learning_rate(
            n_updates, peak=self.peak_rate, least=self.least_rate, decay=self.decay_steps, warmup_share=self.warmup
        )

    def is_checkpoint(self, step: int) -> bool:
        """Whether the weights after so many steps are kept; those of the end always are."""
        is_early = self.checkpoints == PYTHIA_STEPS and step <= 512 and step & (step - 1) == 0
        return is_early or (step > 0 and step % self.every == 0) or step == self.steps

    def as_yaml(self) -> str:
        """The recipe as a file that `read_recipe` reads."""
        import yaml

        values = dataclasses.asdict(self)
        at = list(values).index("steps")
        names = list(values)
        parts = {"model": names[:at], "training": names[at:]}
        return str(
            yaml.safe_dump({part: {n: values[n] for n in of_it} for part, of_it in parts.items()}, sort_keys=False)
        )


def find_recipe(name: str | os.PathLike[str]) -> Recipe:
    """The recipe in a YAML file, or of a model of the suite; raises UsageError, StorageError, ModelFileError."""
    given = os.fspath(name)
    if given.endswith((".yaml", ".yml")) or os.path.lexists(given):
        return read_recipe(given)
    try:
        model, _ = find_model(given)
    except UsageError as e:
        raise UsageError(
            f"{one_line(given, 100)}: no file of a recipe, which ends with .yaml, and as a model: {e}"
        ) from None
    return pythia_recipe(model)


def read_recipe(path: str | os.PathLike[str]) -> Recipe:
    """A recipe in a file: two parts, `model` and `training`, with the fields of `Recipe` but feed_forward, 4 `hidden`
    unless given, decay_steps, `steps` unless given, and least_rate, a tenth of the peak unless given.

    Raises StorageError, and ModelFileError that names the field
    """
    data = parse_yaml(read_text(path), path)
    fields = {f.name: f for f in dataclasses.fields(Recipe)}
    if not isinstance(data, dict) or not all(isinstance(data.get(part), dict) for part in _KEYS_OF_FILE):
        raise ModelFileError("expected two parts, model and training, each with keys", path=path)
    if more := [key for key in data if key not in _KEYS_OF_FILE]:
        raise ModelFileError(f"no part {one_line(str(more[0]), 60)!r}: expected model and training", path=path)
    values: dict[str, Any] = {}
    for part in _KEYS_OF_FILE:
        for key, value in data[part].items():
            if key not in fields:
                message = f"no such field{nearest(str(key)[:80], fields)}"
                raise ModelFileError(message, path=path, field=one_line(str(key), 60))
            if key in values:
                raise ModelFileError("is in both parts", path=path, field=key)
            values[key] = _plain(value)
    values = _defaults(values, Path(path).stem) | values
    missing = [n for n, f in fields.items() if f.default is dataclasses.MISSING and n not in values]
    if missing:
        raise ModelFileError(f"{' and '.join(missing)} must be given", path=path)
    try:
        return Recipe(**values)
    except (UsageError, TypeError) as e:
        raise ModelFileError(str(e), path=path) from None


def pythia_recipe(model: SuiteModel) -> Recipe:
    """How a model of the suite was trained."""
    size = model.size
    is_large = size.name in ("6.9b", "12b")
    commit = "a19eecb" if model.version else "8c199d5"
    file = f"models/{size.name.upper()}/{model.name.removesuffix('-v0')}.yml"
    return Recipe(
        name=model.name,
        source=f"EleutherAI/pythia {commit} {file}; gpt-neox v1.0 71df4d5",
        layers=size.n_layers,
        hidden=size.hidden,
        heads=size.n_heads,
        vocabulary=size.n_vocab,
        feed_forward=4 * size.hidden,
        init="normal" if is_large else "small",
        parameters=size.parameters,
        steps=model.updates,
        batch=2 * STEP_SEQUENCES if model.is_4m else STEP_SEQUENCES,
        peak_rate=size.peak_lr,
        least_rate=model.least_lr,
        decay_steps=model.decay_updates,
        # The standard 1B of v1 alone, as the README of EleutherAI/pythia says; its file says float16.
        precision="bfloat16" if model.name == "pythia-1b" else "float16",
        checkpoints=PYTHIA_STEPS if model.version else "even",
        every=500 if model.is_4m else 1000,
    )


def pythia_recipes() -> dict[str, Recipe]:
    """Recipes of the whole suite, by model."""
    return {name: pythia_recipe(model) for name, model in MODELS.items()}


def _plain(value: Any) -> Any:
    """A number that YAML 1.1 takes for a text: 1e-4 has no dot."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


def _defaults(values: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = {"name": name}
    if isinstance(values.get("hidden"), int):
        found["feed_forward"] = 4 * values["hidden"]
    if "steps" in values:
        found["decay_steps"] = values["steps"]
    if isinstance(values.get("peak_rate"), int | float):
        found["least_rate"] = values["peak_rate"] / 10
    return found
