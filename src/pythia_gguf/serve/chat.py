"""Conversations as prompts, in formats that are chosen by name, and completions in the shape of chats.

A template in a model file is a program by somebody else: none is ever run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from pythia_gguf.serve.shapes import ChatMessage, ChatRequest, CompletionRequest, TextRequest


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatFormat:
    """How a conversation is written down.

    opening  before the first message
    written  role -> what stands before and after a message of it
    answer   what the model writes on from
    stop     what the model would write when it goes on with the other side
    """

    opening: str = ""
    written: Mapping[str, tuple[str, str]]
    answer: str
    stop: str

    def prompt(self, messages: Sequence[ChatMessage]) -> str:
        """The text of a conversation, up to the place where the model goes on."""
        told = (f"{self.written[m.role][0]}{m.content}{self.written[m.role][1]}" for m in messages)
        return self.opening + "".join(told) + self.answer


_ALPACA = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
FORMATS: Mapping[str, ChatFormat] = MappingProxyType(
    {
        # For base models, which have seen dialogues like this.
        "dialogue": ChatFormat(
            written={"system": ("", "\n\n"), "user": ("User: ", "\n\n"), "assistant": ("Assistant: ", "\n\n")},
            answer="Assistant:",
            stop="\nUser:",
        ),
        # databricks/dolly-v2, tuned from Pythia: its model cards.
        "dolly": ChatFormat(
            opening=f"{_ALPACA}\n\n",
            written={
                "system": ("", "\n\n"),
                "user": ("### Instruction:\n", "\n\n"),
                "assistant": ("### Response:\n", "\n\n"),
            },
            answer="### Response:\n",
            stop="### End",
        ),
        # OpenAssistant/oasst-sft-1-pythia-12b and its successors: their model cards.
        "oasst": ChatFormat(
            written={
                "system": ("<|system|>", "<|endoftext|>"),
                "user": ("<|prompter|>", "<|endoftext|>"),
                "assistant": ("<|assistant|>", "<|endoftext|>"),
            },
            answer="<|assistant|>",
            stop="<|endoftext|>",
        ),
    }
)


def completion_of(chat: ChatRequest, name: str) -> CompletionRequest:
    """The completion that answers a conversation, in a format of `FORMATS`."""
    chosen = FORMATS[name]
    n_tokens = chat.max_completion_tokens if chat.max_tokens is None else chat.max_tokens
    given = [] if chat.stop is None else [chat.stop] if isinstance(chat.stop, str) else chat.stop
    sampled = {field: getattr(chat, field) for field in TextRequest.model_fields}
    prompt = chosen.prompt(chat.messages)
    return CompletionRequest(**sampled, prompt=prompt, max_tokens=n_tokens, stop=[*given, chosen.stop])


def as_chat(answer: Mapping[str, Any]) -> dict[str, Any]:
    """A whole completion as a chat."""
    return _around(answer, "chat.completion", lambda c: {"message": {"role": "assistant", "content": c["text"]}})


def as_chat_chunk(chunk: Mapping[str, Any]) -> dict[str, Any]:
    """A piece of a completion as a piece of a chat."""
    return _around(chunk, "chat.completion.chunk", lambda c: {"delta": {"role": "assistant", "content": c["text"]}})


def _around(
    answer: Mapping[str, Any], kind: str, said: Callable[[Mapping[str, Any]], dict[str, Any]]
) -> dict[str, Any]:
    choices = [
        {"index": c["index"], **said(c), "logprobs": None, "finish_reason": c["finish_reason"]}
        for c in answer["choices"]
    ]
    return {**answer, "id": f"chat{answer['id']}", "object": kind, "choices": choices}
