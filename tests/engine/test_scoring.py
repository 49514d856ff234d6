"""Log-likelihoods are sums of log-softmax of `logits`, whatever is shared or computed together."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf import load
from pythia_gguf.engine.model import Model
from pythia_gguf.engine.scoring import Request, score_requests
from pythia_gguf.errors import UsageError


@cache
def model() -> Model:
    return load(nano_files()["Q4_K_M"], threads=2)


def by_hand(m: Model, ids: list[int], start: int) -> tuple[float, bool]:
    """From the logits of the sequence alone."""
    rows = m.logits(ids[:-1])[start - 1 :].astype(np.float64)
    total = 0.0
    for row, token in zip(rows, ids[start:], strict=True):
        total += row[token] - row.max() - math.log(np.exp(row - row.max()).sum())
    return total, all(int(np.argmax(row)) == token for row, token in zip(rows, ids[start:], strict=True))


def test_scores_are_those_of_logits_in_the_order_asked():
    m = model()
    text = HELDOUT.read_text("utf-8")
    ids = m.tokenizer.encode(text[:6000])
    greedy = list(m.generate(ids[:30], max_tokens=5, temperature=0).tokens)
    # Shared beginnings of several depths, one that is the beginning of another, equal ones, lone ones.
    requests = [
        Request(ids=tuple(ids[:40]), start=30),
        Request(ids=(*ids[:30], *greedy), start=30),
        Request(ids=(*ids[:30], 5), start=30),
        Request(ids=(*ids[:20], 7, 8, 9), start=20),
        Request(ids=tuple(ids[:35]), start=1),
        Request(ids=tuple(ids[:40]), start=30),
        Request(ids=tuple(ids[:40]), start=39),
        Request(ids=tuple(ids[100:300]), start=150),
        Request(ids=(4, 5), start=1),
    ]
    scores = score_requests(m, requests)
    assert len(scores) == len(requests)
    for request, score in zip(requests, scores, strict=True):
        logprob, is_greedy = by_hand(m, list(request.ids), request.start)
        assert score.logprob == pytest.approx(logprob, abs=1e-9)  # the same bits of logits; sums in float64
        assert score.is_greedy == is_greedy
        assert score.n_tokens == len(request.ids) - request.start
    assert scores[1].is_greedy
    assert not scores[2].is_greedy


def test_more_requests_than_sequences():
    m, rng = model(), np.random.default_rng(1)
    requests = [Request(ids=tuple(rng.integers(0, 3, rng.integers(2, 9)).tolist()), start=1) for _ in range(150)]
    heard: list[int] = []
    scores = score_requests(m, requests, heard.append)
    assert sum(heard) == len(set(requests))
    for i in range(0, 150, 17):
        assert scores[i].logprob == pytest.approx(by_hand(m, list(requests[i].ids), 1)[0], abs=1e-9)


def test_choices_of_one_question_stay_together():
    """32 sequences have room for six questions of five choices; two more would be computed twice."""
    rng = np.random.default_rng(2)
    questions = [rng.integers(10, 4000, 30).tolist() for _ in range(15)]
    requests = [Request(ids=(*q, choice, 3), start=30) for q in questions for choice in range(5)]
    heard: list[int] = []
    score_requests(model(), requests, heard.append)
    assert heard == [30, 30, 15]


def test_logits_of_long_continuations_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch):
    """100 scored tokens take 100 x 4096 x 4 bytes of logits and 0.6 MB of keys and values: twice in 5 MB."""
    from pythia_gguf.engine import scoring

    monkeypatch.setattr(scoring, "_CACHE_BYTES", 5_000_000)
    requests = [Request(ids=(i, *[9] * 100), start=1) for i in range(6)]
    heard: list[int] = []
    scores = score_requests(model(), requests, heard.append)
    assert heard == [2, 2, 2]
    assert scores[3].logprob == pytest.approx(by_hand(model(), list(requests[3].ids), 1)[0], abs=1e-9)


def test_joint_encoding_moves_white_space_to_the_continuation():
    m = model()
    encode = m.tokenizer.encode
    (joint,) = m.score([("import ", "sys\n")])
    whole, before = encode("import sys\n"), encode("import")
    assert joint.logprob == pytest.approx(by_hand(m, whole, len(before))[0], abs=1e-9)
    (separate,) = m.score([("import ", "sys\n")], encoding="separate")
    ids = [*encode("import "), *encode("sys\n")]
    assert separate.logprob == pytest.approx(by_hand(m, ids, len(encode("import ")))[0], abs=1e-9)
    assert joint.logprob != separate.logprob


def test_empty_prompt_is_the_end_of_another_text():
    m = model()
    (score,) = m.score([("", "import sys")])
    assert score.logprob == pytest.approx(by_hand(m, [0, *m.tokenizer.encode("import sys")], 1)[0], abs=1e-9)


def test_probabilities_of_all_next_tokens_add_up_to_one():
    m = model()
    ids = tuple(m.tokenizer.encode("for i in"))
    scores = score_requests(m, [Request(ids=(*ids, i), start=len(ids)) for i in range(m.n_vocab)])
    assert math.fsum(math.exp(s.logprob) for s in scores) == pytest.approx(1, abs=1e-9)


def test_nothing_is_scored_quietly():
    m = model()
    assert m.score([]) == []
    with pytest.raises(UsageError, match="continuation must have at least one token"):
        m.score([("x =", " 1"), ("a", "")])
    with pytest.raises(UsageError, match="continuation 'b' becomes part of the prompt's last token"):
        m.score([("a", "b")])
    with pytest.raises(UsageError, match="do not fit into the context of 512"):
        m.score([("x =", " 1"), ("a " * 600, "b")])
    with pytest.raises(UsageError, match=r"encoding must be one of joint, separate, got 'jont'"):
        m.score([("x =", " 1")], encoding="jont")
