"""The Pythia suite as data: its models, their sizes and old names, their training steps and learning rates.

Sources: EleutherAI/pythia a19eecb, models/*/pythia-*.yml, and at 8c199d5 for v0; the model cards of both versions;
gpt-neox v1.0 (71df4d5), megatron/learning_rates.py for the schedule.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from pythia_gguf.errors import UsageError, nearest
from pythia_gguf.hub.learning_rate import learning_rate

ORGANIZATION = "EleutherAI"
SEQUENCE_TOKENS = 2048
STEP_SEQUENCES = 1024
STEP_TOKENS = STEP_SEQUENCES * SEQUENCE_TOKENS
LAST_STEP = 143_000
_EVEN_STEPS = tuple(range(1000, LAST_STEP + 1, 1000))
_EARLY_STEPS = (0, *(2**i for i in range(10)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """The facts that all models of a size have in common.

    name         as in the models' names, "410m"
    old_name     name before January 2023, or None
    n_vocab      rows of the embeddings, padded: 50277 tokens rounded up to 128 times the model parallelism in training
    peak_lr      learning rate at the end of the warm-up, as in the configuration that ran
    card_lr      learning rate in the model card, where it differs
    is_4m        whether v0 was trained with batches of 4 M tokens, in half as many iterations as its steps say
    equivalents  models of the same size elsewhere, as in the model card
    """

    name: str
    old_name: str | None
    n_layers: int
    hidden: int
    n_heads: int
    n_vocab: int
    peak_lr: float
    card_lr: float | None = None
    is_4m: bool = False
    equivalents: tuple[str, ...] = ()

    @property
    def non_embedding_parameters(self) -> int:
        """All but the matrices of both embeddings: 12 d^2 + 13 d in a layer, and the last norm."""
        return self.n_layers * (12 * self.hidden**2 + 13 * self.hidden) + 2 * self.hidden

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.non_embedding_parameters + 2 * self.n_vocab * self.hidden


# name, old name, layers, width, heads, rows of the embeddings, peak learning rate, the card's where it differs,
# whether v0 had batches of 4 M tokens, equivalents
_ROWS: tuple[tuple[str, str | None, int, int, int, int, float, float | None, bool, tuple[str, ...]], ...] = (
    ("14m", None, 6, 128, 4, 50304, 1e-3, None, False, ()),
    ("31m", None, 6, 256, 8, 50304, 1e-3, None, False, ()),
    ("70m", "19m", 6, 512, 8, 50304, 1e-3, None, False, ()),
    ("160m", "125m", 12, 768, 12, 50304, 6e-4, None, True, ("GPT-Neo 125M", "OPT-125M")),
    ("410m", "350m", 24, 1024, 16, 50304, 3e-4, None, True, ("OPT-350M",)),
    ("1b", "800m", 16, 2048, 8, 50304, 2.5e-4, 3e-4, False, ()),
    ("1.4b", "1.3b", 24, 2048, 16, 50304, 2e-4, None, True, ("GPT-Neo 1.3B", "OPT-1.3B")),
    ("2.8b", "2.7b", 32, 2560, 32, 50304, 1.6e-4, None, False, ("GPT-Neo 2.7B", "OPT-2.7B")),
    ("6.9b", "6.7b", 32, 4096, 32, 50432, 1.2e-4, None, False, ("OPT-6.7B",)),
    ("12b", "13b", 36, 5120, 40, 50688, 1.2e-4, None, False, ()),
)
SIZES = tuple(
    Size(
        name=name,
        old_name=old_name,
        n_layers=n_layers,
        hidden=hidden,
        n_heads=n_heads,
        n_vocab=n_vocab,
        peak_lr=peak_lr,
        card_lr=card_lr,
        is_4m=is_4m,
        equivalents=equivalents,
    )
    for name, old_name, n_layers, hidden, n_heads, n_vocab, peak_lr, card_lr, is_4m, equivalents in _ROWS
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteModel:
    """One trained model: a repository with a branch for each step.

    version     0: autumn 2022, names end in -v0; 1: April 2023
    is_deduped  whether it was trained on the deduplicated Pile
    """

    size: Size
    is_deduped: bool
    version: int

    @property
    def name(self) -> str:
        """Its name in its repository: "pythia-410m-deduped-v0"."""
        deduped, version = "-deduped" if self.is_deduped else "", "-v0" if self.version == 0 else ""
        return f"pythia-{self.size.name}{deduped}{version}"

    @property
    def old_name(self) -> str | None:
        """Its name before January 2023."""
        return None if self.size.old_name is None else self.name.replace(self.size.name, self.size.old_name)

    @property
    def repo_id(self) -> str:
        """Its repository on the Hub."""
        return f"{ORGANIZATION}/{self.name}"

    @property
    def steps(self) -> tuple[int, ...]:
        """N of its branches stepN: 154, or the 143 even ones of v0."""
        return _EVEN_STEPS if self.version == 0 else (*_EARLY_STEPS, *_EVEN_STEPS)

    @property
    def is_4m(self) -> bool:
        """Whether an iteration saw 4 M tokens; branch stepN then is iteration N / 2."""
        return self.version == 0 and self.size.is_4m

    @property
    def updates(self) -> int:
        """Updates of its whole training."""
        return LAST_STEP // 2 if self.is_4m else LAST_STEP

    @property
    def decay_updates(self) -> int:
        """Updates over which its learning rate falls."""
        return 71_250 if self.is_4m else LAST_STEP

    @property
    def least_lr(self) -> float:
        """Where its learning rate stops falling: a tenth of the peak, but zero in the two largest models of v0."""
        return 0.0 if self.version == 0 and self.size.name in ("6.9b", "12b") else round(self.size.peak_lr / 10, 12)

    def step(self, n: int) -> Step:
        """Facts of branch stepN; raises UsageError with the nearest ones where there is no such branch."""
        if n not in self.steps:
            raise UsageError(f"{self.name} has no step{n}. {nearest_steps(n, self.steps)}")
        return Step(model=self, n=n)


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A training checkpoint, branch stepN of its repository."""

    model: SuiteModel
    n: int

    @property
    def iteration(self) -> int:
        """Updates of the weights so far."""
        return self.n // 2 if self.model.is_4m else self.n

    @property
    def sequences(self) -> int:
        """Number of sequences of 2048 tokens that it has seen, from the beginning of the shuffled data."""
        return self.n * STEP_SEQUENCES

    @property
    def tokens_seen(self) -> int:
        """Number of tokens that it has seen."""
        return self.n * STEP_TOKENS

    @property
    def learning_rate(self) -> float:
        """Learning rate of the next update."""
        model = self.model
        return learning_rate(self.iteration, peak=model.size.peak_lr, least=model.least_lr, decay=model.decay_updates)


MODELS = {
    model.name: model
    for version in (1, 0)
    for size in SIZES
    for is_deduped in ((False, True) if size.old_name else (False,))
    if size.old_name or version == 1
    for model in [SuiteModel(size=size, is_deduped=is_deduped, version=version)]
}
_BY_OLD_NAME = {model.old_name: model for model in MODELS.values() if model.old_name}


def nearest_steps(n: int, steps: Iterable[int]) -> str:
    """A sentence, without its full stop, with the one or two nearest steps."""
    near = [f"step{s}" for s in sorted(sorted(steps, key=lambda s: abs(s - n))[:2])]
    return f"The nearest {'is' if len(near) == 1 else 'are'} {' and '.join(near)}"


def find_model(name: str) -> tuple[SuiteModel, str | None]:
    """A model by its name, with or without "EleutherAI/", in any case; and a notice if the name is an old one.

    Raises UsageError with the nearest names.
    """
    plain = name.lower().removeprefix(f"{ORGANIZATION.lower()}/")
    if plain in MODELS:
        return MODELS[plain], None
    if plain in _BY_OLD_NAME:
        model = _BY_OLD_NAME[plain]
        return model, f"{name} is called {model.name} since January 2023"
    hint = nearest(plain, MODELS) or nearest(f"pythia-{plain}", MODELS)
    raise UsageError(f"no model {name!r} in the Pythia suite{hint}")
