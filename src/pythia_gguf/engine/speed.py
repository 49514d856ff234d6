"""How fast a model runs here: tokens a second of reading a prompt, and of writing.

A step that writes must read all weights, so bytes of weights times steps a second is the bandwidth used.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import numpy as np

from pythia_gguf.arguments import whole_number
from pythia_gguf.engine.protocol import Engine, Part, Sequences
from pythia_gguf.errors import Argument, UsageError
from pythia_gguf.progress import Progress, Silence


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """Medians over repeats.

    prefill_tokens_per_s  reading a prompt, including the logits after its last token
    decode_tokens_per_s   writing, all sequences together
    weights_bytes_per_s   weights read while writing
    """

    prefill_tokens_per_s: float
    decode_tokens_per_s: float
    weights_bytes_per_s: float


def measure_speed(
    model: Engine,
    *,
    n_prompt: int,
    n_tokens: int,
    depth: int = 0,
    n_sequences: int = 1,
    repeats: int = 3,
    progress: Progress | None = None,
) -> Speed:
    """Time steps over random tokens, after one round that is not counted.

    n_prompt     tokens of the prompt
    n_tokens     tokens to write after the prompt was forgotten
    depth        tokens in a sequence before writing begins
    n_sequences  sequences written side by side, each of that depth
    repeats      rounds that count
    progress     hears of rounds
    Raises       UsageError when the tokens do not fit into the context or into memory, or a number is too small
    """
    for name, n, least in (
        ("n_prompt", n_prompt, 1),
        ("n_tokens", n_tokens, 1),
        ("depth", depth, 0),
        ("n_sequences", n_sequences, 1),
        ("repeats", repeats, 1),
    ):
        whole_number(least)(name, n)
    n_context = max(n_prompt, depth + n_tokens)
    if n_context > model.n_context:
        name = "n_prompt" if n_prompt > model.n_context else "n_tokens"
        fault = f": {n_context} tokens do not fit into the context of {model.n_context}"
        raise UsageError(Argument(name), fault)
    session = model.sequences(n_sequences=n_sequences, n_context=n_context)
    ids = np.random.default_rng(0).integers(0, model.n_vocab, n_context)
    prefill, decode = [], []
    progress = progress or Silence()
    progress.stage("measuring", repeats + 1, "rounds")
    for _ in range(repeats + 1):
        seq = session.open()
        started = time.perf_counter()
        session.step([Part(seq=seq, ids=ids[:n_prompt])])
        prefill.append(time.perf_counter() - started)
        session.close(seq)
        decode.append(_decode_s(session, ids, n_tokens, depth))
        progress.advance("prefill and decode", 1)
    prefill_s, decode_s = statistics.median(prefill[1:]), statistics.median(decode[1:])
    return Speed(
        prefill_tokens_per_s=n_prompt / prefill_s,
        decode_tokens_per_s=n_tokens * n_sequences / decode_s,
        weights_bytes_per_s=model.bytes_per_step * n_tokens / decode_s,
    )


def _decode_s(session: Sequences, ids: np.ndarray, n_tokens: int, depth: int) -> float:
    seqs = [session.open() for _ in range(session.n_sequences)]
    if depth:
        session.step([Part(seq=seq, ids=ids[:depth], n_wanted=0) for seq in seqs])
    started = time.perf_counter()
    for i in range(n_tokens):
        session.step([Part(seq=seq, ids=ids[depth + i : depth + i + 1]) for seq in seqs])
    seconds = time.perf_counter() - started
    for seq in seqs:
        session.close(seq)
    return seconds
