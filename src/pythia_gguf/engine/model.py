"""A GGUF file that is loaded to run: the object that a user holds. Sessions, generations and scores do its work."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.arch.activation import gelu_beside
from pythia_gguf.arguments import checked, one_of, pairs_of_texts, place, whole_number, whole_numbers
from pythia_gguf.choices import ACTIVATIONS, ANY_GELU, CACHES
from pythia_gguf.cpus import threads_of
from pythia_gguf.engine.generation import Completion, Generation
from pythia_gguf.engine.points import HookPlace, matrix_at, point_names
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Part
from pythia_gguf.engine.runner import Runner
from pythia_gguf.engine.scoring import Score, request_of, score_requests
from pythia_gguf.engine.session import Session, kv_bytes_of, session_bytes
from pythia_gguf.engine.weights import Weights, load_weights, matrix_formats, weights_bytes
from pythia_gguf.engine.workers import Workers
from pythia_gguf.engine.workspace import rounded_up, scratch_bytes
from pythia_gguf.engine.writing import options_of
from pythia_gguf.errors import Argument, UsageError, one_line
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.tensor_source import TensorSource
from pythia_gguf.intake.gguf_model import check_model, open_gguf_model
from pythia_gguf.kernels.compiling import Job, compile_all
from pythia_gguf.kernels.driver import OPS, STAGE_OPS, op_jobs, run_ops_job
from pythia_gguf.kernels.matmul import known_activations, product_jobs, quantizer_jobs
from pythia_gguf.kernels.odds import odds_job
from pythia_gguf.kernels.simd import LANES
from pythia_gguf.machine import require_memory
from pythia_gguf.plan.recognize import quant_of
from pythia_gguf.progress import Progress, Silence
from pythia_gguf.tokenizer import TextTokenizer, pre_tokenizer_note, tokens_beside


class Model(ProcessBound):
    """A loaded model. Threads may share it; one step runs at a time.

    gguf    source of its keys and tensors: the header of a file, or a GGUF in memory
    runner  its weights and everything else that its sessions share
    """

    def __init__(self, gguf: TensorSource, runner: Runner) -> None:
        """Use `load`; this constructor trusts its arguments."""
        self.gguf, self.runner = gguf, runner

    @property
    def path(self) -> Path:
        """The file; for a model that was loaded from memory, the name that messages call it by."""
        return self.runner.path

    @property
    def config(self) -> ModelConfig:
        """Sizes."""
        return self.runner.config

    @property
    def weights(self) -> Weights:
        """Tensors in memory."""
        return self.runner.weights

    @property
    def n_vocab(self) -> int:
        """Rows of the output matrix, including those that pad it."""
        return self.runner.n_vocab

    @property
    def n_context(self) -> int:
        """Positions that the model was trained for."""
        return self.runner.n_context

    @property
    def gelu(self) -> str:
        """The form of the activation: "erf" or "tanh"."""
        return self.runner.gelu

    @property
    def activations(self) -> str:
        """ "int8", "float32" or "bf16x3", as used: unquantized weights take float32 where int8 was asked for."""
        return self.runner.activations

    @property
    def cache(self) -> str:
        """How keys and values are kept: "f16" or "f32"."""
        return self.runner.cache

    @property
    def threads(self) -> int:
        """Threads that a step runs on."""
        return self.runner.threads

    @property
    def n_parameters(self) -> int:
        """Weights and biases, over all tensors."""
        return sum(math.prod(tensor.shape) for tensor in self.gguf.tensors.values())

    @property
    def bytes_per_step(self) -> int:
        """Bytes of weights that every step reads, however few tokens it takes along."""
        return self.runner.weights.bytes_per_token

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Which file runs, and how; the first call reads the whole file for its hash."""
        # The file's hash does not cover what a manifest beside it says of special tokens.
        beside = tokens_beside(self.gguf.metadata, self.gguf.beside)
        return {
            "file": self.path.name,
            "sha256": self.gguf.sha256(),
            "quant": quant_of(self.gguf.metadata, self.gguf.formats),
            "gelu": self.gelu,
            "activations": self.activations,
            "kv": self.cache,
            **({"special_tokens": beside} if beside else {}),
        }

    @property
    def notes(self) -> tuple[str, ...]:
        """What users of the model should know, a line each."""
        note = pre_tokenizer_note(self.gguf.metadata)
        return () if note is None else (note,)

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """Text to ids and back; raises ModelFileError when the file has no tokenizer that we know."""
        return TextTokenizer(self.gguf.metadata, self.path, self.gguf.beside)

    @checked
    def sequences(self, n_sequences: int = 1, n_context: int | None = None, *, kv_bytes: int | None = None) -> Session:
        """Room for so many sequences of so many tokens each; see `engine.session.Session`."""
        return Session(self.runner, n_sequences, n_context, kv_bytes)

    @checked
    def kv_bytes(self, n_tokens: int) -> int:
        """Memory for the keys and values of a sequence of so many tokens."""
        return kv_bytes_of(self.runner, n_tokens)

    @checked
    def session_bytes(self, n_sequences: int = 1, n_context: int | None = None) -> int:
        """Memory of a session with so many sequences, each of so many tokens; default all positions of the model.

        That is for keys, values and workspace, not for weights; logits take another 4 * n_vocab bytes a row.
        """
        return session_bytes(self.runner, n_sequences, self.n_context if n_context is None else n_context)

    def logits(self, ids: Iterable[int], n_last: int | None = None) -> np.ndarray:
        """Logits of the next token after each of `ids`, or after the last `n_last` of them: f32 [n_last, n_vocab].

        Raises UsageError for more tokens than the context or memory holds, NotFiniteError where a logit is infinity or
        NaN, ValueError for no token or an unknown id, TypeError for anything but whole numbers.
        """
        ids = whole_numbers("ids", ids)
        n_wanted = len(ids) if n_last is None else whole_number(0, len(ids))("n_last", n_last)
        session = self.sequences(n_context=_room(self, ids))
        return session.step([Part(seq=session.open(), ids=ids, n_wanted=n_wanted)])

    def watch(self, ids: Iterable[int], watch: Callable[[str, np.ndarray], None]) -> None:
        """Run tokens; `watch` sees what each matrix of the layers multiplies. Raises as `logits` does.

        watch  called with the matrix's name and f32 [n_tokens, n_columns], valid while it is called; a long text is
               read in slices
        """
        ids = whole_numbers("ids", ids)
        matrices = {name: matrix for name in point_names(self.config) if (matrix := matrix_at(name))}

        def see(x: np.ndarray, place: HookPlace) -> None:
            watch(matrices[place.name], x.reshape(len(x), -1))

        session = self.sequences(n_context=_room(self, ids))
        session.step([Part(seq=session.open(), ids=ids, n_wanted=0)], hooks=dict.fromkeys(matrices, see))

    def generate(self, prompt: str | Iterable[int], **options: Any) -> Completion:
        """Write a text after a prompt; options as in `begin`."""
        generation = self.begin(prompt, **options)
        for _ in generation:
            pass
        return generation.completion

    def stream(self, prompt: str | Iterable[int], **options: Any) -> Iterator[str]:
        """Write the same text piece by piece; to stop, take no more pieces. Options as in `begin`."""
        return iter(self.begin(prompt, **options))

    def begin(self, prompt: str | Iterable[int], **options: Any) -> Generation:
        """Begin a text: iterate for its pieces, each of whole characters, then ask for its `completion`.

        prompt  text, or token ids
        max_tokens, stop, logprobs, lookup, shift               see `engine.writing.WritingOptions`
        temperature, top_k, top_p, min_p, repeat_penalty, logit_bias, seed
                      see `engine.sampling.Sampling`; seed None: a new one
        Raises  UsageError for a value out of range, and when prompt and new tokens do not fit into the context;
                TypeError for a value of another type, and for an unknown option
        """
        return Generation(self, prompt, *options_of(options))

    @checked
    def score(
        self, pairs: Iterable[tuple[str, str]], *, encoding: str = "joint", progress: Progress | None = None
    ) -> list[Score]:
        """Log-likelihood of each continuation after its prompt, in order; shared beginnings are computed once.

        pairs     (prompt, continuation)
        encoding  see `engine.scoring.request_of`
        Raises    UsageError for an empty continuation, or texts longer than the context; TypeError for anything but
                  pairs of texts
        """
        requests = [request_of(self, *pair, encoding) for pair in pairs_of_texts("pairs", pairs)]
        heard = progress or Silence()
        heard.stage("scoring", len(set(requests)), "requests")
        return score_requests(self, requests, lambda n_requests: heard.advance("", n_requests))


def _room(model: Model, ids: list[int]) -> int:
    """Tokens of a session for so many ids; raises UsageError when they do not fit into the context."""
    if len(ids) > model.n_context:
        raise UsageError(Argument("ids"), f" must be at most {model.n_context} tokens, got {len(ids)}")
    return max(len(ids), 1)


@checked
def load(
    model: str | os.PathLike[str] | TensorSource,
    *,
    threads: int | None = None,
    gelu: str = "auto",
    activations: str = "int8",
    cache: str = "auto",
    progress: Progress | None = None,
) -> Model:
    """Load a model to run it.

    model        a GGUF file, or another source of keys and tensors such as `press.encoded.encode_model` makes, which
                 stays in memory beside the weights as they are packed for the kernels
    threads      default one per CPU; no result depends on it
    gelu         "erf", "tanh", or "auto": what the manifest or config.json beside the file says, else erf
    activations  "int8" (32 values share a scale; fast), "float32" (no error but the weights' own) or "bf16x3" (nearly
                 as exact, in three products of bfloat16 numbers; needs a processor with AMX)
    cache        keys and values: "f16", "f32", or "auto": f32 for F32 files
    progress     hears what is going on
    Raises       ModelFileError, StorageError; UsageError, also for a model that does not fit into memory
    """
    for option, value, known in (
        ("gelu", gelu, ANY_GELU),
        ("activations", activations, ACTIVATIONS),
        ("cache", cache, CACHES),
    ):
        one_of(option, value, known)
    if activations not in known_activations():
        raise UsageError(
            Argument("activations", activations), " needs Linux on a processor with AMX; float32 runs anywhere"
        )
    n_threads = threads_of(threads)
    gguf, config = (
        (model, check_model(model)) if isinstance(model, TensorSource) else open_gguf_model(place("model", model))
    )
    if activations == "bf16x3" and (config.hidden % 32 or config.n_ffn % 32):
        sizes = f"{config.hidden} and {config.n_ffn}"
        raise UsageError(
            Argument("activations", activations), f" needs rows of whole 32 numbers, got {sizes} in {gguf.name}"
        )
    progress = progress or Silence()
    activations, cache = as_used(gguf, activations, cache)
    compile_all(model_jobs(gguf, activations, cache), progress, n_threads)
    scratch = scratch_bytes(config, rounded_up(config.n_context, LANES), activations)
    require_memory(weights_bytes(gguf) + n_threads * scratch, one_line(gguf.name), hints=(". Choose a smaller quant",))
    runner = Runner(
        path=Path(gguf.name),
        config=config,
        weights=load_weights(gguf, n_threads, progress),
        workers=Workers(n_threads, scratch),
        gelu=gelu_beside(gguf.beside) if gelu == "auto" else gelu,
        activations=activations,
        cache=cache,
    )
    return Model(gguf, runner)


def as_used(gguf: TensorSource, activations: str, cache: str = "auto") -> tuple[str, str]:
    """The activations and the cache that a model really uses when int8 or "auto" was asked for."""
    formats = matrix_formats(gguf)
    if activations == "int8" and all(FORMATS[name].block_weights == 1 for name in formats):
        activations = "float32"
    if cache == "auto":
        cache = "f32" if formats == {"F32"} else "f16"
    return activations, cache


def model_jobs(gguf: TensorSource, activations: str, cache: str = "auto") -> list[Job]:
    """Jobs that compile every kernel that running a model needs; arguments as for `load`."""
    activations, cache = as_used(gguf, activations, cache)
    ops = [name for name in OPS if not name.startswith("attention") or name == f"attention_{cache}"]
    return _jobs(matrix_formats(gguf), [activations], ops)


def engine_jobs() -> list[Job]:
    """Jobs that compile every kernel that running any file may need."""
    return _jobs(FORMATS, known_activations(), [*OPS, *STAGE_OPS])


def _jobs(formats: Iterable[str], activations: Iterable[str], ops: Iterable[str]) -> list[Job]:
    made = [job for kind in activations for jobs in (product_jobs, quantizer_jobs) for job in jobs(formats, kind)]
    return [*made, *op_jobs(ops), run_ops_job(), odds_job()]
