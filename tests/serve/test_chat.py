"""Conversations are completions of a prompt in a format that was chosen by name."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from patience import HANGS_S
from pythia_gguf.serve.chat import FORMATS
from pythia_gguf.serve.shapes import ChatMessage
from serve.running import MODEL, RunningServer, running, two_models

TALK = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "1+1?"},
]


@pytest.fixture(scope="module")
def talking() -> Iterator[RunningServer]:
    with running(two_models()[0], "--chat-format", "dialogue", "--threads", "2") as started:
        yield started


def test_formats_are_those_of_the_makers():
    """Source: the model cards of databricks/dolly-v2 and OpenAssistant's models of Pythia."""
    told = [ChatMessage(**message) for message in TALK]
    assert FORMATS["dialogue"].prompt(told) == "Be brief.\n\nUser: Hi\n\nAssistant: Hello.\n\nUser: 1+1?\n\nAssistant:"
    assert FORMATS["oasst"].prompt(told[1:]) == (
        "<|prompter|>Hi<|endoftext|><|assistant|>Hello.<|endoftext|><|prompter|>1+1?<|endoftext|><|assistant|>"
    )
    assert FORMATS["dolly"].prompt(told[3:]) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\n1+1?\n\n### Response:\n"
    )


def test_a_conversation_is_a_completion(talking: RunningServer):
    client = openai.OpenAI(base_url=f"{talking.url}/v1", api_key="none", timeout=HANGS_S, max_retries=0)
    options = {"seed": 3, "temperature": 0.7, "n": 2}
    answer = client.chat.completions.create(model=MODEL, messages=TALK, max_completion_tokens=12, stop=")", **options)
    prompt = FORMATS["dialogue"].prompt([ChatMessage(**message) for message in TALK])
    expected = talking.complete(prompt, max_tokens=12, stop=["\nUser:", ")"], **options)
    assert [c.message.content for c in answer.choices] == [c["text"] for c in expected["choices"]]
    assert {c.message.role for c in answer.choices} == {"assistant"}
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == expected["usage"]
    stream = client.chat.completions.create(model=MODEL, messages=TALK, max_tokens=12, stop=")", stream=True, **options)
    texts = ["", ""]
    for chunk in stream:
        assert chunk.object == "chat.completion.chunk"
        texts[chunk.choices[0].index] += chunk.choices[0].delta.content or ""
    assert texts == [c["text"] for c in expected["choices"]]


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages"),
        ({"tools": []}, "tools"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"chat_template_kwargs": {}}, "chat_template_kwargs"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"stop": ["a"] * 16}, "stop"),
    ],
)
def test_what_a_conversation_cannot_be_is_refused(talking: RunningServer, more: dict[str, object], param: str):
    response = talking.post("/v1/chat/completions", {"model": MODEL, "messages": TALK} | more)
    assert (response.status_code, response.json()["error"]["param"]) == (400, param)
