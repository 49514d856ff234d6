"""What requests and answers look like: the OpenAPI document is made of these, and every request is checked by them.

A field that is not here is refused by its name. Types are strict: "1" is no number, and true is none either.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MOST_PROMPTS, MOST_CHOICES, MOST_LOGPROBS = 64, 8, 20
MOST_STOPS, MOST_STOP_CHARS = 16, 64
_MOST_TOKENS = 1 << 20
_MOST_BIASES = 1024
_MOST_MESSAGES = 256

# Where the document has the names of the models that are served.
SERVED_NAMES = "x-served-names"


def _whole(value: Any) -> Any:
    """In JSON 2.0 is a whole number, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


_WHOLE = BeforeValidator(_whole)
Token = Annotated[int, Field(ge=0, lt=1 << 31), _WHOLE]
Ids = Annotated[list[Token], Field(min_length=1)]
Stop = Annotated[str, Field(min_length=1, max_length=MOST_STOP_CHARS)]
Name = Annotated[str, Field(description="One of /v1/models.", max_length=512, json_schema_extra={SERVED_NAMES: True})]


class Shape(BaseModel):
    """Base of everything that a client sends."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class StreamOptions(Shape):
    """What a stream also tells."""

    include_usage: bool = Field(False, description="A last chunk without choices tells how many tokens there were.")


class TextRequest(Shape):
    """What every request for new text may say."""

    model: Name
    n: Annotated[int, Field(ge=1, le=MOST_CHOICES), _WHOLE] | None = Field(
        1, description="Choices for each prompt; the i-th has seed + i."
    )
    seed: Annotated[int, Field(ge=-(1 << 63), le=(1 << 63) - 1), _WHOLE] | None = Field(
        None, description="The same seed gives the same text."
    )
    temperature: float | None = Field(1.0, ge=0, le=100, description="0 takes the most likely token.")
    top_p: float | None = Field(1.0, ge=0, le=1)
    logit_bias: (
        dict[Annotated[str, Field(pattern="^(0|[1-9][0-9]{0,8})$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(None, description="Added to logits, by token id.", max_length=_MOST_BIASES)
    stream: bool | None = Field(False, description="Server-sent events, the last of them [DONE].")
    stream_options: StreamOptions | None = None
    presence_penalty: Annotated[int, Field(ge=0, le=0), _WHOLE] | None = Field(None, description="Not supported.")
    frequency_penalty: Annotated[int, Field(ge=0, le=0), _WHOLE] | None = Field(None, description="Not supported.")
    user: None = Field(None, description="Not supported.")


class CompletionRequest(TextRequest):
    """A text to write on from, or several."""

    prompt: (
        str
        | Ids
        | Annotated[list[str], Field(min_length=1, max_length=MOST_PROMPTS)]
        | Annotated[list[Ids], Field(min_length=1, max_length=MOST_PROMPTS)]
    ) = Field(description="A text, token ids, or a list of either.")
    max_tokens: Annotated[int, Field(ge=0, le=_MOST_TOKENS), _WHOLE] | None = Field(
        16, description="Most tokens to write; 0 only with echo."
    )
    echo: bool | None = Field(False, description="Give back the prompt before the new text.")
    logprobs: Annotated[int, Field(ge=0, le=MOST_LOGPROBS), _WHOLE] | None = Field(
        None, description="Log-probabilities, and of so many of the most likely tokens."
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS)] | None = Field(
        None, description="Texts at which a choice ends; one that is the text of a special token is that token."
    )
    top_k: Annotated[int, Field(ge=0, lt=1 << 31), _WHOLE] | None = Field(
        0, description="Only the k most likely; 0 for all."
    )
    min_p: float | None = Field(0.0, ge=0, le=1)
    repeat_penalty: float | None = Field(1.0, ge=1e-3, le=1e3, description="On the last 64 tokens; 1 for none.")
    best_of: None = Field(None, description="Not supported.")
    suffix: None = Field(None, description="Not supported.")


class ChatMessage(Shape):
    """What one side says."""

    role: Literal["system", "user", "assistant"]
    content: str


class ChatRequest(TextRequest):
    """A conversation, which the format that the server was started with turns into a prompt."""

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=_MOST_MESSAGES)]
    max_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS), _WHOLE] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1, le=_MOST_TOKENS), _WHOLE] | None = Field(
        None, description="Another name for max_tokens, which comes first."
    )
    # The format brings a stop text of its own.
    stop: Stop | Annotated[list[Stop], Field(max_length=MOST_STOPS - 1)] | None = None


class TokenizeRequest(Shape):
    """A text, as vLLM's /tokenize takes it."""

    model: Name | None = Field(None, description="May be left out where one model is served.")
    prompt: str
    add_special_tokens: bool = Field(True, description="Put the tokens there that the model wants around every text.")
    return_token_strs: bool | None = False


class DetokenizeRequest(Shape):
    """Ids, as vLLM's /detokenize takes them."""

    model: Name | None = Field(None, description="May be left out where one model is served.")
    tokens: list[Token]


class DivergenceRequest(Shape):
    """One text, read by two models."""

    models: Annotated[list[Name], Field(min_length=2, max_length=2, description="Reference and candidate.")]
    prompt: str | Ids = Field(description="A text, or token ids.")


class TokenLogprobs(BaseModel):
    """OpenAI's lists, one entry for each token, and four more.

    A token that is not UTF-8 by itself is written as OpenAI writes it, `bytes:\\xe2\\x80`; `bytes` has its bytes.
    """

    tokens: list[str]
    token_logprobs: list[float | None] = Field(description="Nats; null for the first token of a prompt.")
    top_logprobs: list[dict[str, float] | None] = Field(description="The most likely tokens, and the one that came.")
    text_offset: list[int] = Field(description="Where the token begins in the text, in characters.")
    bytes: list[list[int] | None]
    token_ids: list[int]
    top_ids: list[list[list[float]] | None] = Field(
        description="Ids and log-probabilities of the most likely tokens, most likely first."
    )
    top_tokens: list[list[str] | None] = Field(description="Texts of the tokens in top_ids.")


class Choice(BaseModel):
    """One text."""

    index: int = Field(description="Choice j of prompt i of a request for n choices has index i * n + j.")
    text: str
    logprobs: TokenLogprobs | None
    finish_reason: Literal["stop", "length"] | None


class Usage(BaseModel):
    """Tokens."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Completion(BaseModel):
    """The answer of /v1/completions; a stream has chunks of the same shape."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str = Field(description="Equal fingerprints: equal requests get equal bits.")
    seed: int
    choices: list[Choice]
    usage: Usage | None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: None
    finish_reason: Literal["stop", "length"]


class Chat(BaseModel):
    """The answer of /v1/chat/completions."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    seed: int
    choices: list[ChatChoice]
    usage: Usage


class ModelCard(BaseModel):
    """A model that is served."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    is_loaded: bool
    quant: str | None = Field(description="null where that is known only when the model is loaded.")
    step: int | None = Field(description="The training step, where the name tells one.")
    max_model_len: int | None


class ModelList(BaseModel):
    """The answer of /v1/models."""

    object: Literal["list"]
    data: list[ModelCard]


class Tokens(BaseModel):
    """The answer of /tokenize."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None


class Text(BaseModel):
    """The answer of /detokenize."""

    prompt: str


class TokenizerInfo(BaseModel):
    """The answer of /tokenizer_info; chat templates are programs, and are not handed out."""

    tokenizer_class: str
    model_max_length: int
    vocab_size: int
    bos_token: str | None
    eos_token: str | None
    pad_token: str | None
    unk_token: str | None


class Divergence(BaseModel):
    """The answer of /v1/divergence: lists have one entry for each token, and the first has no numbers."""

    object: Literal["divergence"]
    models: list[str]
    system_fingerprints: list[str]
    tokens: list[str]
    token_ids: list[int]
    text_offset: list[int]
    bytes: list[list[int] | None]
    kl: list[float | None] = Field(description="Of the candidate from the reference, over all tokens, nats.")
    logprobs: list[list[float] | None] = Field(description="Of the token that came, under each model.")
    is_same_top: list[bool | None] = Field(description="Whether both find the same token most likely.")


class Health(BaseModel):
    """The answer of /health."""

    status: Literal["ok"]


class ErrorBody(BaseModel):
    """OpenAI's fields of an error."""

    message: str
    type: str
    param: str | None
    code: str


class Error(BaseModel):
    """Every answer that is not 200."""

    error: ErrorBody
