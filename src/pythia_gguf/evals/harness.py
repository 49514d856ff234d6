"""A model as lm-evaluation-harness sees it: every request has its result, in order, or there is an error.

Importing this file imports lm_eval, of the extra `eval`, and makes "pythia-gguf" a model that it knows by name:
`simple_evaluate(model="pythia-gguf", model_args="model=nano.Q4_K_M.gguf,gelu=tanh")`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from importlib import metadata
from itertools import islice
from typing import TYPE_CHECKING, Any

from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import handle_stop_sequences, normalize_gen_kwargs, postprocess_generated_text
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from pythia_gguf.arguments import one_of
from pythia_gguf.choices import ENCODINGS
from pythia_gguf.engine.batch import write_all
from pythia_gguf.engine.protocol import Engine
from pythia_gguf.engine.scoring import Request, score_requests
from pythia_gguf.engine.writing import Writing, begin_writing, options_of
from pythia_gguf.errors import Argument, ModelFileError, UsageError, nearest, one_line
from pythia_gguf.models.load import load
from pythia_gguf.progress import Progress, Silence

if TYPE_CHECKING:
    from lm_eval.api.instance import Instance

NAME = "pythia-gguf"
SCHEMA_VERSION = 1
# What the model `hf` of the harness does where a task says nothing; 50 is transformers' own.
_MOST_NEW_TOKENS = 256
_TOP_K = 50
_SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "num_beams")


@register_model(NAME)
class PythiaLM(TemplateLM):
    """A model to give to lm_eval: `simple_evaluate(model=PythiaLM(model), tasks=["piqa"])`.

    Texts become tokens and are cut to the context as for the harness's model `hf`. What several requests begin with is
    computed once; no result depends on what else was asked.
    """

    def __init__(
        self,
        model: Engine | str | os.PathLike[str],
        *,
        encoding: str = "joint",
        seed: int = 1234,
        progress: Progress | None = None,
        batch_size: int | str | None = None,
        max_batch_size: int | None = None,
        device: str | None = None,
        **options: Any,
    ) -> None:
        """Take a model, or load one.

        model     loaded, or what `models.load.load` takes, with its `options`
        encoding  "joint": context and continuation are one text, as in the harness today; "separate": each is encoded
                  by itself, as when the published scores of Pythia were made
        seed      of sampled text; the n-th text asked for has a seed of its own
        progress  hears how far it is
        batch_size, max_batch_size  are the harness's; the engine makes its own batches, which change no bit
        Raises    UsageError for an unknown encoding or a device other than "cpu", and as `load` does
        """
        super().__init__()
        one_of("encoding", encoding, ENCODINGS)
        if device not in (None, "cpu"):
            raise UsageError(f"device must be cpu, got {device!r}: models run on the CPU")
        if options and not isinstance(model, str | os.PathLike):
            raise TypeError(f"{', '.join(options)}: options are for a model that is loaded here")
        self._progress = progress or Silence()
        self._model = load(model, progress=progress, **options) if isinstance(model, str | os.PathLike) else model
        self._encoding, self._seed = encoding, seed
        self._n_written = 0

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        end = self._model.tokenizer.special.end
        return self.prefix_token_id if end is None else end

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context: the one that begins a text, else the one that ends it."""
        return self._model.tokenizer.prefix

    @property
    def max_length(self) -> int:
        """Positions of the context."""
        return self._model.n_context

    @property
    def tokenizer_name(self) -> str:
        """What the harness names the tokenizer by, in the requests that it keeps."""
        return str(self._model.facts["file"])

    def chat_template(self, chat_template: bool | str = False) -> str | None:
        """None where no template is asked for; raises UsageError as `apply_chat_template` does."""
        return self.apply_chat_template([]) if chat_template else None

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """Raises UsageError: a template is a program by the maker of the file, and is never run here."""
        if not self._model.tokenizer.has_chat_template:
            raise UsageError(Argument("apply_chat_template"), " cannot be used: the model has no chat template")
        raise UsageError(
            Argument("apply_chat_template"),
            " cannot be used: templates are programs from elsewhere, which are not run here. Leave it out, or let the"
            " harness's model hf run what pythia export writes",
        )

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **options: Any) -> list[int]:
        """Ids of a text, with the tokens that the model wants around every text once."""
        return self._model.tokenizer.encode(string, special=add_special_tokens)

    def loglikelihood(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """For each (context, continuation) its log-likelihood in nats, and whether greedy text would be the same.

        Raises UsageError for a continuation that is empty, longer than the context, or (joint encoding) becomes part
        of the context's last token.
        """
        for instance in requests:
            if not instance.args[1]:
                raise UsageError(f"task {instance.task_name}: an empty continuation has no likelihood")
        scores: list[tuple[float, bool]] = super().loglikelihood(list(requests), disable_tqdm=True)
        return scores

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[float]:
        """For each (text,) its log-likelihood in nats, every token after as many as fit into the harness's windows."""
        windows = [
            [
                make_disjoint_window(window)
                for window in get_rolling_token_windows(
                    token_list=self.tok_encode(instance.args[0]),
                    prefix_token=self.prefix_token_id,
                    max_seq_len=self.max_length,
                    context_len=1,
                )
            ]
            for instance in requests
        ]
        scores = iter(self._loglikelihood_tokens([(("", ""), *window) for text in windows for window in text]))
        return [math.fsum(logprob for logprob, _ in islice(scores, len(text))) for text in windows]

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = True) -> list[str]:
        """For each (context, options) the text that the model writes, up to the first of the texts in `until`.

        Options are `until`, `max_gen_toks` and its other names, `do_sample`, `temperature`, `top_k`, `top_p`, `min_p`.
        Filters come before the temperature, which is the engine's order.
        Raises UsageError for other options, and for max_gen_toks that leave no room for a context.
        """
        self._progress.stage("writing", len(requests), "texts")
        asked = [self._begun(*instance.args) for instance in requests]
        write_all(self._model, [writing for writing, _ in asked], lambda: self._progress.advance("", 1))
        return [str(postprocess_generated_text(writing.text, until, None)) for writing, until in asked]

    def get_model_info(self) -> dict[str, Any]:
        """What the harness puts into the `config` of its results; our facts have a key of their own."""
        facts = self.facts
        n_parameters = self._model.n_parameters
        return {"model_num_parameters": n_parameters, "model_dtype": facts["quant"], "pythia_gguf": facts}

    @cached_property
    def facts(self) -> dict[str, Any]:
        """Which file runs, and how."""
        version = metadata.version("pythia-gguf")
        own = {"schema_version": SCHEMA_VERSION, "tool_version": version, "encoding": self._encoding}
        return own | dict(self._model.facts)

    def _encode_pair(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        if self._encoding == "separate":
            return self.tok_encode(context), self.tok_encode(continuation, add_special_tokens=False)
        before, after = super()._encode_pair(context, continuation)
        return before, after

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[tuple[str, str], list[int], list[int]]], **options: Any
    ) -> list[tuple[float, bool]]:
        asked = [self._request(*request) for request in requests]
        self._progress.stage("scoring", len(set(asked)), "requests")
        scores = score_requests(self._model, asked, lambda n_requests: self._progress.advance("", n_requests))
        for (texts, _, _), score in zip(requests, scores, strict=True):
            if not math.isfinite(score.logprob):
                raise ModelFileError(f"no likelihood for {one_line(texts[1], 40)!r}", path=self._model.facts["file"])
        return [(score.logprob, score.is_greedy) for score in scores]

    def _request(self, texts: tuple[str, str], context: list[int], continuation: list[int]) -> Request:
        """The last tokens that fit; of them the last one is predicted, not read."""
        if not continuation:
            raise UsageError(
                f"the continuation {one_line(texts[1], 40)!r} becomes part of the context's last token: use ",
                Argument("encoding", "separate"),
            )
        if len(continuation) > self.max_length:
            raise UsageError(
                f"a continuation of {len(continuation)} tokens, {one_line(texts[1], 40)!r}, does not fit into the"
                f" context of {self.max_length}"
            )
        ids = [*(context or [self.prefix_token_id]), *continuation][-(self.max_length + 1) :]
        return Request(ids=tuple(ids), start=len(ids) - len(continuation))

    def check_generation(self, options: Mapping[str, Any]) -> None:
        """Raise UsageError where `generate_until` would for these options."""
        self._wanted(options)

    def _wanted(self, options: Mapping[str, Any]) -> tuple[list[str], int, dict[str, float]]:
        """Texts that end a text, its most tokens, and how tokens are sampled."""
        try:
            wanted = normalize_gen_kwargs(dict(options), _MOST_NEW_TOKENS)
        except (TypeError, ValueError) as e:
            raise UsageError(f"options of generation cannot be used: {one_line(str(e))}") from e
        end = self._model.tokenizer.decode([self.eot_token_id])
        until = handle_stop_sequences(wanted.pop("until"), eos=end)
        n_tokens = wanted.pop("max_gen_toks")
        if self.max_length - n_tokens < 1:
            raise UsageError(f"max_gen_toks {n_tokens} leaves no room in the context of {self.max_length}")
        return until, n_tokens, _sampling(wanted)

    def _begun(self, context: str, options: Mapping[str, Any]) -> tuple[Writing, list[str]]:
        """A text to be written, and the texts that end it."""
        until, n_tokens, sampling = self._wanted(options)
        seed = self._seed + self._n_written
        self._n_written += 1
        ids = self.tok_encode(context)[n_tokens - self.max_length :]
        stops = [term for term in until if term]
        options = {"max_tokens": n_tokens, "seed": seed, "stop": stops} | sampling
        # transformers goes on where only the text of a token tells that it ends a text.
        ends = self._model.tokenizer.special.named_ends
        return begin_writing(self._model, ids, *options_of(options), ends), until


def _sampling(wanted: Mapping[str, Any]) -> dict[str, float]:
    """The engine's options for those of a task that remain."""
    for name in wanted:
        if name not in _SAMPLING:
            raise UsageError(f"tasks cannot ask for {name} here{nearest(name, _SAMPLING)}")
    if wanted.get("num_beams", 1) != 1:
        raise UsageError("num_beams must be 1: there is no beam search")
    if not wanted["do_sample"]:
        return {"temperature": 0}
    temperature = float(wanted.get("temperature", 0))
    if temperature <= 0:
        raise UsageError(f"do_sample needs a temperature above 0, got {temperature}")
    filters = {"top_k": wanted.get("top_k", _TOP_K), "top_p": wanted.get("top_p", 1), "min_p": wanted.get("min_p", 0)}
    return {"temperature": temperature, **filters}
