"""Whatever the OpenAPI document allows is answered as it says; whatever it forbids is refused: Schemathesis asks."""

from __future__ import annotations

import os
from collections import Counter
from functools import cache

import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance

from serve.running import RunningServer

# The campaign asks for 1,000.
N_EXAMPLES = int(os.environ.get("PYTHIA_GGUF_EXAMPLES", "100"))
OPERATIONS = [
    "POST /v1/completions",
    "POST /v1/chat/completions",
    "POST /v1/divergence",
    "POST /tokenize",
    "POST /detokenize",
    "GET /tokenizer_info",
    "GET /v1/models",
    "GET /health",
    "GET /metrics",
]

WITH_INPUT = OPERATIONS[:6]


@cache
def operations(url: str):
    found = [each.ok() for each in schemathesis.openapi.from_url(f"{url}/openapi.json").get_all_operations()]
    return {operation.label: operation for operation in found}


def test_every_operation_is_asked(server: RunningServer):
    assert sorted(operations(server.url)) == sorted(OPERATIONS)


def ask(server: RunningServer, label: str, mode: GenerationMode) -> Counter[int]:
    """Answers by status, each checked against the document."""
    found: Counter[int] = Counter()

    @given(case=operations(server.url)[label].as_strategy(generation_mode=mode))
    @settings(max_examples=N_EXAMPLES, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    def one(case: schemathesis.Case) -> None:
        response = case.call_and_validate(excluded_checks=[positive_data_acceptance])
        found[response.status_code] += 1
        if mode is GenerationMode.POSITIVE and response.status_code != 200:
            # What a document cannot say: how many tokens a text has, and which ids there are.
            error = response.json()["error"]
            assert response.status_code in (400, 404), error
            # And Schemathesis takes integers for the floats next to them: 2**63 for 2**63 - 1, the largest seed.
            assert error["code"] in ("context_length_exceeded", "unsupported", "no_such_model") or (
                error["param"] in ("prompt", "tokens", "logit_bias", "max_tokens", "stream_options")
                or (error["param"] == "seed" and f"got {1 << 63}" in error["message"])
            ), error

    one()
    return found


@pytest.mark.parametrize("label", OPERATIONS)
def test_what_the_document_allows_is_answered(server: RunningServer, label: str):
    found = ask(server, label, GenerationMode.POSITIVE)
    assert (found[200] > 0) is (label != "POST /v1/chat/completions"), found


@pytest.mark.parametrize("label", WITH_INPUT)
def test_what_the_document_forbids_is_refused(server: RunningServer, label: str):
    found = ask(server, label, GenerationMode.NEGATIVE)
    assert sum(found[status] for status in found if 400 <= status < 500) > 0, found
