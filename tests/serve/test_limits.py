"""Each field has its limits: a table of values with the status that each gets, and the field that the answer names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from serve.running import MODEL, RunningServer

HUGE = 10**30
KINDS = ("1", [], {}, True, 1.5)  # of another type than a whole number
GOOD = {"model": MODEL, "prompt": "def", "max_tokens": 1}
# Field -> values that are taken, values that are refused with 400.
LIMITS: dict[str, tuple[tuple[Any, ...], tuple[Any, ...]]] = {
    "model": ((), (None, 1, "", "../nano", "/etc/passwd", "nano.Q4_K_M ", "x" * 600)),
    "prompt": (
        ("", "a", [0], [4095], [1.0], ["a", ""], [[1], [2, 3]], ["a"] * 64),
        (None, 1, True, [], [[]], [4096], [-1], [HUGE], [1.5], [True], ["a", 1], [[1], "a"], [[1], []], ["a"] * 65)
        + ([[[1]]], {}, "\ud800", "a " * 2_000, [1] * 513),
    ),
    "max_tokens": ((1, 1.0, 512, None), (-1, 0, 513, HUGE, *KINDS)),
    "n": ((1, 8, None), (0, 9, -1, HUGE, *KINDS)),
    "logprobs": ((0, 20, None), (-1, 21, HUGE, *KINDS)),
    "stop": (
        ("a", "a" * 64, ["a"] * 16, [], None),
        ("", "a" * 65, ["a"] * 17, [""], [1], 1, {}, [None], "\udfff"),
    ),
    "seed": ((0, -1, (1 << 63) - 1, None), (1 << 63, HUGE, "1", 1.5, True, [])),
    "temperature": ((0, 0.0, 1, 100, None), (-0.1, 100.1, 1e300, "1", True, [], {})),
    "top_p": ((0, 0.5, 1, None), (-0.1, 1.1, "1", True, [])),
    "top_k": ((0, 1, 1 << 30, None), (-1, 1 << 31, HUGE, *KINDS)),
    "min_p": ((0, 1, None), (-0.1, 1.1, "1", True)),
    "repeat_penalty": ((0.001, 1, 1000, None), (0, -1, 1001, "1", True)),
    "logit_bias": (
        ({}, {"0": 100, "4095": -100.0}, None),
        ({"0": 101}, {"0": -101}, {"4096": 1}, {"-1": 1}, {"a": 1}, {"0": "1"}, {"0": None}, [], 1, {HUGE: 1})
        + ({str(i): 0 for i in range(1025)},),
    ),
    "echo": ((True, False, None), (0, 1, "true", [])),
    "stream": ((False, None), (0, 1, "true")),
    "stream_options": ((None,), ({"include_usage": True}, {}, {"x": 1}, 1, [])),
    "best_of": ((None,), (1, 2, 0, "1")),
    "suffix": ((None,), ("", "a")),
    "user": ((None,), ("me",)),
    "presence_penalty": ((0, None), (0.5, -2, "0", True)),
    "frequency_penalty": ((0, None), (0.5, -2, "0", True)),
    "max_tokns": ((), (1, None)),
    "n_discard": ((), (-1,)),
    "grammar": ((), ("(" * 60_000,)),
    "stop_token_ids": ((), ([0],)),
    "prompt_logprobs": ((), (-1,)),
    "guided_json": ((), ({},)),
}


def cases() -> Iterator[tuple[str, Any, int]]:
    for field, (taken, refused) in LIMITS.items():
        yield from ((field, value, 200) for value in taken)
        yield from ((field, value, 400) for value in refused)


def test_every_field_is_in_the_table(server: RunningServer):
    document = server.http.get("/openapi.json").json()
    assert document["components"]["schemas"]["CompletionRequest"]["properties"].keys() <= LIMITS.keys()
    assert sum(1 for _ in cases()) >= 180


def test_every_value_gets_its_status_and_every_refusal_names_the_field(server: RunningServer):
    for field, value, status in cases():
        try:
            response = server.post("/v1/completions", GOOD | {field: value})
        except UnicodeEncodeError:  # no client can send half a surrogate pair but as an escape
            text = str(GOOD | {field: "HALF"}).replace("'", '"').replace("HALF", "\\ud800")
            response = server.http.post("/v1/completions", content=text, headers={"content-type": "application/json"})
        case = (field, str(value)[:60], response.text[:300])
        expected = 404 if field == "model" and isinstance(value, str) and len(value) < 512 else status
        assert response.status_code == expected, case
        if status == 400:
            error = response.json()["error"]
            assert error.keys() == {"message", "type", "param", "code"}, case
            assert error["type"] == "invalid_request_error", case
            assert error["param"] == field or error["code"] == "bad_json", case
            assert field in error["message"] or error["code"] in ("bad_json", "no_such_model"), case
            assert len(error["message"]) < 400, case
            assert "\n" not in error["message"], case


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "echo": True, "prompt": [1] * 513, "logprobs": 0}, "prompt"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"max_tokens": 500, "prompt": [1] * 14}, "max_tokens"),
    ],
)
def test_fields_that_do_not_fit_together(server: RunningServer, fields: dict[str, Any], param: str):
    response = server.post("/v1/completions", GOOD | fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"1",
        b"null",
        b"{",
        b'{"model": "nano.Q4_K_M", "model": "nano.Q4_K_M", "prompt": "a"}',
        b'{"model": "nano.Q4_K_M", "prompt": "a", "temperature": NaN}',
        b'{"model": "nano.Q4_K_M", "prompt": "a", "temperature": 1e999}',
        b'{"model": "nano.Q4_K_M", "prompt": "a", "seed": ' + b"1" * 100_000 + b"}",
        b'{"model": "nano.Q4_K_M", "prompt": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"model": "nano.Q4_K_M", "prompt": "\xff"}',
        b"\xef\xbb\xbf{}",
        b"\x00" * 100,
    ],
)
def test_what_is_no_json_that_can_be_used_is_one_line(server: RunningServer, body: bytes):
    response = server.http.post("/v1/completions", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "bad_json"
    assert len(response.text) < 500


def test_other_routes_have_limits_too(server: RunningServer):
    def status(route: str, body: dict[str, Any]) -> int:
        return server.post(route, body).status_code

    assert status("/detokenize", {"tokens": [4096]}) == 400
    assert status("/detokenize", {"tokens": [-1]}) == 400
    assert status("/detokenize", {"tokens": []}) == 200
    assert status("/tokenize", {"prompt": "a", "model": "b"}) == 404
    assert status("/tokenize", {"prompt": 1}) == 400
    models = [MODEL, MODEL]
    assert status("/v1/divergence", {"models": models, "prompt": [1] * 513}) == 200
    assert status("/v1/divergence", {"models": models, "prompt": [1] * 514}) == 400
    assert status("/v1/divergence", {"models": models, "prompt": ""}) == 400
    assert status("/v1/divergence", {"models": models[:1], "prompt": "a"}) == 400
    assert status("/v1/divergence", {"models": [*models, MODEL], "prompt": "a"}) == 400
    chat = server.post("/v1/chat/completions", {"model": MODEL, "messages": [{"role": "user", "content": "Hi"}]})
    assert (chat.status_code, chat.json()["error"]["param"]) == (400, "messages")
    assert "base models know no roles" in chat.json()["error"]["message"]


def test_answers_that_are_no_route_have_the_same_shape(server: RunningServer):
    for method, path, status in (
        ("GET", "/v1/completions", 405),
        ("DELETE", "/health", 405),
        ("GET", "/nothing", 404),
        ("GET", "/page/../app.py", 404),
        ("GET", "/page/%2e%2e%2fapp.py", 404),
        ("GET", "/docs", 404),
    ):
        response = server.http.request(method, path)
        assert (path, response.status_code) == (path, status)
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}
    assert server.http.post("/v1/completions", content=b"{}").status_code == 415
