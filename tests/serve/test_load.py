"""A server under load and under attack: it stays quick, forgets nothing it owes, and keeps nothing it does not need."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from serve.running import MODEL, RunningServer, ended_by, running, two_models
from serve.storms import be_slow, crowd, leave_in_waves, send_mutants, stream_of

# Where other tests run beside this one; the campaign has the machine for itself and takes 1 s and 0.1 s.
BUSY_S = 5.0


@pytest.fixture(scope="module")
def rough() -> Iterator[RunningServer]:
    """A server for tests that are not nice to it."""
    with running(two_models()[0], "--threads", "2") as started:
        yield started


def test_clients_that_leave_are_forgotten_at_once(rough: RunningServer):
    leave_in_waves(rough, 3, 60, BUSY_S)
    assert rough.complete("def main(", max_tokens=4, seed=1)["choices"][0]["finish_reason"] == "length"


def test_many_connections_are_all_answered_alike(rough: RunningServer):
    crowd(rough, 400, 32)


def test_a_request_for_hundreds_of_texts_lets_others_in(rough: RunningServer):
    """Another client's text is written while the first of them are."""
    body = {"model": MODEL, "prompt": ["def"] * 64, "n": 8, "max_tokens": 16, "seed": 1, "logit_bias": {"0": -100}}
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(rough.post, "/v1/completions", body)
        while rough.metric("texts") == 0:
            pass
        rough.complete("a", max_tokens=1)
        assert not many.done()
        n_steps = rough.metric("steps_total")
        rough.complete("a", max_tokens=1)
        # Those that are being written come to their end at most, and the few that are before it in the queue.
        assert rough.metric("steps_total") - n_steps < 4 * 16
        assert len(many.result().json()["choices"]) == 512


def test_a_queue_that_is_full_says_when_to_come_again(rough: RunningServer):
    bodies = [{"model": MODEL, "prompt": ["def"] * 64, "n": 8, "max_tokens": 200, "seed": 1}] * 3
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(rough.http.post, "/v1/completions", json=body, timeout=2.0) for body in bodies]
        errors = [a.exception() for a in answers]
    refused = [a.result() for a, e in zip(answers, errors, strict=True) if e is None]
    assert [r.status_code for r in refused] == [503]
    assert refused[0].headers["retry-after"] == "1"
    assert refused[0].json()["error"]["code"] == "busy"
    rough.wait_until_idle(BUSY_S)


def test_bytes_that_are_no_requests_harm_nobody(rough: RunningServer):
    send_mutants(rough, 2_000, seed=3, limit_s=BUSY_S)


def test_slow_connections_are_shut_and_those_beyond_256_refused(rough: RunningServer):
    be_slow(rough, 270)


def test_a_kill_leaves_nothing_behind_and_a_signal_lets_streams_come_to_their_end():
    with running(two_models()[0]) as killed, stream_of(killed, 500, 1):
        assert ended_by(killed, signal.SIGKILL) == -signal.SIGKILL
    with running(two_models()[0]) as server, stream_of(server, 300, 1) as connection:
        assert ended_by(server, signal.SIGTERM) == 0
        rest = b""
        while data := connection.recv(1 << 16):
            rest += data
        assert b"data: [DONE]" in rest
