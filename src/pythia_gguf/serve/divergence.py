"""How far two models are apart on one text: for each token the divergence over all tokens, computed slice by slice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import numpy as np

from pythia_gguf.engine.protocol import Part
from pythia_gguf.kernels.divergence import KL, NLL_CANDIDATE, NLL_REFERENCE, SAME_TOP, compare
from pythia_gguf.serve.engine_thread import EngineThread
from pythia_gguf.serve.refusals import RefusalError
from pythia_gguf.serve.registry import ServedModel
from pythia_gguf.serve.token_texts import Offsets, bytes_of, text_of

# Read between two steps of other requests; those wait for both models.
_SLICE_TOKENS = 16


async def divergence(
    engine: EngineThread, reference: ServedModel, candidate: ServedModel, prompt: str | list[int]
) -> dict[str, Any]:
    """The answer of /v1/divergence. Raises RefusalError, and what a step of a model raises."""
    models = (reference, candidate)
    ids = await asyncio.to_thread(_checked_ids, models, prompt)
    rows: list[np.ndarray] = []
    await engine.do(_compared(models, ids, rows))
    tokenizer = reference.model.tokenizer
    found = np.concatenate(rows) if rows else np.empty((0, SAME_TOP + 1))
    return {
        "object": "divergence",
        "models": [served.name for served in models],
        "system_fingerprints": [served.fingerprint for served in models],
        "tokens": [text_of(tokenizer, token) for token in ids],
        "token_ids": ids,
        "text_offset": Offsets(tokenizer).of(ids),
        "bytes": [bytes_of(tokenizer, token) for token in ids],
        # Rounding can leave a divergence of equal models a little below 0.
        "kl": [None, *np.maximum(found[:, KL], 0.0).tolist()],
        "logprobs": [None, *(-found[:, (NLL_REFERENCE, NLL_CANDIDATE)]).tolist()],
        "is_same_top": [None, *(found[:, SAME_TOP] == 1).tolist()],
    }


def _checked_ids(models: tuple[ServedModel, ServedModel], prompt: str | list[int]) -> list[int]:
    reference, candidate = models
    if reference.model.n_vocab != candidate.model.n_vocab:
        raise RefusalError(
            "bad_value",
            f"models must have one vocabulary, got {reference.model.n_vocab} and {candidate.model.n_vocab} tokens",
            "models",
        )
    ids = reference.model.tokenizer.encode(prompt) if isinstance(prompt, str) else prompt
    n_context = min(served.batch.n_context for served in models)
    if not 1 <= len(ids) <= n_context + 1:
        raise RefusalError(
            "context_length_exceeded", f"prompt must be of 1 to {n_context + 1} tokens, got {len(ids)}", "prompt"
        )
    if max(ids) >= reference.model.n_vocab:
        most = reference.model.n_vocab - 1
        raise RefusalError("bad_value", f"prompt must have token ids of 0 to {most}, got {max(ids)}", "prompt")
    return ids


def _compared(models: tuple[ServedModel, ServedModel], ids: list[int], rows: list[np.ndarray]) -> Iterator[None]:
    """Append rows of `kernels.divergence` for each token but the first; pauses after each slice."""
    n_read = len(ids) - 1
    sessions = [served.model.sequences(n_context=max(1, n_read)) for served in models]
    seqs = [session.open() for session in sessions]
    threads = models[0].model.threads
    for first in range(0, n_read, _SLICE_TOKENS):
        read = ids[first : min(first + _SLICE_TOKENS, n_read)]
        reference, candidate = (
            session.step([Part(seq=seq, ids=read, n_wanted=len(read))])
            for session, seq in zip(sessions, seqs, strict=True)
        )
        targets = np.array(ids[first + 1 : first + 1 + len(read)])
        rows.append(compare(reference, candidate, targets, threads))
        yield
