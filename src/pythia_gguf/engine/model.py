"""A GGUF file opened to be run.

Knows no sampling and no text beyond its tokenizer; what runs is a `Session` of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from pythia_gguf.arch import GPTNeoXConfig, config_from_gguf
from pythia_gguf.arch.gpt_neox import GELU_OF_ACT
from pythia_gguf.engine.oplist import rounded_up, scratch_bytes
from pythia_gguf.engine.weights import PLAIN_FORMATS, Weights, check_tensors, load_weights
from pythia_gguf.engine.workers import Workers
from pythia_gguf.errors import UsageError, nearest
from pythia_gguf.gguf.reader import GGUFFile, open_gguf
from pythia_gguf.kernels.simd import LANES

GELUS = ("auto", "erf", "tanh")
ACTIVATIONS = ("int8", "float32")
CACHES = ("auto", "f16", "f32")


class Model:
    """A loaded model. Threads may share it; one step runs at a time.

    path, gguf   the file and its header
    config       sizes
    weights      tensors
    gelu         "erf" or "tanh"
    activations  "int8" or "float32"
    cache        "f16" or "f32": how keys and values are kept
    """

    def __init__(
        self,
        gguf: GGUFFile,
        config: GPTNeoXConfig,
        weights: Weights,
        *,
        gelu: str,
        activations: str,
        cache: str,
        threads: int,
    ) -> None:
        """Take what `load` has checked."""
        self.path, self.gguf = gguf.path, gguf
        self.config, self.weights = config, weights
        self.gelu, self.activations, self.cache = gelu, activations, cache
        self.workers = Workers(threads, scratch_bytes(config, rounded_up(config.n_context, LANES)))

    @property
    def n_vocab(self) -> int:
        """Rows of the output matrix, those that pad it included."""
        return self.config.n_vocab

    @property
    def n_context(self) -> int:
        """Positions that it was trained for."""
        return self.config.n_context

    @property
    def threads(self) -> int:
        """Threads that a step runs on."""
        return self.workers.n_threads

    def logits(self, ids: Sequence[int]) -> np.ndarray:
        """Logits of the next token after each of `ids`: f32 [n_tokens, n_vocab].

        Raises UsageError for more tokens than the context holds, ValueError for none or an id that there is not.
        """
        from pythia_gguf.engine.session import Part, Session

        session = Session(self, n_sequences=1, n_context=min(max(len(ids), 1), self.n_context))
        return session.step([Part(seq=session.open(), ids=ids, wanted="all")])


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    gelu: str = "auto",
    activations: str = "int8",
    cache: str = "auto",
    advance: Callable[[int], None] = lambda n_bytes: None,
) -> Model:
    """Open a GGUF file of a GPT-NeoX model to run it.

    threads      default one per CPU; no result depends on it
    gelu         "erf", "tanh", or "auto": what the manifest or config.json beside the file says, else erf
    activations  "int8" (32 values share a scale; fast) or "float32" (the error of the weights alone)
    cache        keys and values: "f16", "f32", or "auto": f32 for F32 files
    advance      hears of bytes of weights as they are packed
    Raises       ModelFileError, StorageError, UsageError
    """
    for option, value, known in (
        ("gelu", gelu, GELUS),
        ("activations", activations, ACTIVATIONS),
        ("kv", cache, CACHES),
    ):
        if value not in known:
            raise UsageError(f"--{option} must be one of {', '.join(known)}, got {value!r}{nearest(value, known)}")
    if threads is not None and threads < 1:
        raise UsageError(f"--threads must be at least 1, got {threads}")
    gguf = open_gguf(path)
    config = config_from_gguf(gguf.metadata, gguf.path)
    check_tensors(gguf, config)
    n_threads = threads or _cpus()
    weights = load_weights(gguf, n_threads, advance)
    if cache == "auto":
        cache = "f32" if all(m.packed.format == "F32" for m in weights.matrices.values()) else "f16"
    return Model(
        gguf,
        config,
        weights,
        gelu=_gelu_beside(gguf.path) if gelu == "auto" else gelu,
        activations=activations,
        cache=cache,
        threads=n_threads,
    )


def is_exact(model: Model) -> bool:
    """Whether all weights are plain numbers (F16, BF16, F32)."""
    return all(m.packed.format in PLAIN_FORMATS for m in model.weights.matrices.values())


def _gelu_beside(path: Path) -> str:
    """What manifest.json or config.json in the same folder says; erf, which the suite's configs say, without them."""
    for name in ("manifest.json", "config.json"):
        try:
            said = json.loads((path.parent / name).read_bytes())
        except (OSError, ValueError, RecursionError):
            continue
        act = said.get("hidden_act") if isinstance(said, dict) else None
        if isinstance(act, str) and act in GELU_OF_ACT:
            return GELU_OF_ACT[act]
    return "erf"


def _cpus() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
