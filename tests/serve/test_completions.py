"""Completions have OpenAI's shapes, as its own client reads them, and the numbers of the model in this process."""

from __future__ import annotations

import re
from functools import cache

import openai
import pytest

from engine.nano import HELDOUT, nano_files
from patience import HANGS_S
from pythia_gguf import load
from pythia_gguf.engine.logprobs import Logprobs
from pythia_gguf.engine.model import Model
from serve.running import MODEL, RunningServer, events

OPEN = {"top_k": 0, "top_p": 1.0, "min_p": 0.0}  # OpenAI's defaults filter nothing
TEXT = "def naïve(x):\n    return '\N{SNOWMAN}\N{PILE OF POO}'\n"


@cache
def model() -> Model:
    return load(nano_files()["Q4_K_M"], threads=2)


@pytest.fixture
def client(server: RunningServer) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", timeout=HANGS_S, max_retries=0)


@pytest.mark.parametrize("options", [{"temperature": 0}, {"seed": 5}, {"seed": 6, "temperature": 0.7, "top_p": 0.9}])
def test_the_text_is_the_engines(client: openai.OpenAI, options: dict[str, float]):
    answer = client.completions.create(model=MODEL, prompt="def main(", max_tokens=24, logprobs=3, **options)
    expected = model().generate("def main(", max_tokens=24, logprobs=3, **OPEN | {"temperature": 1.0} | options)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason) == (expected.text, expected.finish_reason)
    assert choice.logprobs is not None
    assert choice.logprobs.token_logprobs == [t.logprob for t in expected.logprobs or ()]
    assert (choice.logprobs.model_extra or {})["token_ids"] == list(expected.tokens)
    tops = (choice.logprobs.model_extra or {})["top_ids"]
    assert tops == [[list(pair) for pair in t.top] for t in expected.logprobs or ()]
    piece = model().tokenizer.piece
    names = [[piece(token).decode() for token, _ in top] for top in tops]
    assert (choice.logprobs.model_extra or {})["top_tokens"] == names
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 24)


def test_the_prompt_has_likelihoods_too(client: openai.OpenAI):
    """The first token has none; offsets are characters, and half a character has its bytes."""
    answer = client.completions.create(model=MODEL, prompt=TEXT, max_tokens=0, echo=True, logprobs=1)
    told = answer.choices[0].logprobs
    assert told is not None
    ids = model().tokenizer.encode(TEXT)
    rows = model().logits(ids)
    expected = [Logprobs(row).of(token, 1) for row, token in zip(rows, ids[1:], strict=False)]
    assert told.token_logprobs == [None, *(e.logprob for e in expected)]
    assert told.top_logprobs is not None
    assert told.top_logprobs[0] is None
    assert [max(top.values()) for top in told.top_logprobs[1:]] == [e.top[0][1] for e in expected]
    assert answer.choices[0].text == TEXT
    pieces = [model().tokenizer.piece(i) for i in ids]
    # What is no whole character yet is left out.
    before = [b"".join(pieces[:i]).decode("utf-8", "ignore") for i in range(len(pieces))]
    assert told.text_offset == [len(text) for text in before]
    told_bytes = (told.model_extra or {})["bytes"]
    halves = {i for i, piece in enumerate(pieces) if "\ufffd" in piece.decode("utf-8", "replace")}
    assert len(halves) > 0
    for i, (token, piece) in enumerate(zip(told.tokens or (), pieces, strict=True)):
        if i in halves:
            assert token == "bytes:" + "".join(f"\\x{b:02x}" for b in piece)
            assert told_bytes[i] == list(piece)
        else:
            assert (token, told_bytes[i]) == (piece.decode("utf-8"), None)


def test_a_stream_says_the_same_piece_by_piece(server: RunningServer, client: openai.OpenAI):
    asked = {"prompt": TEXT, "max_tokens": 30, "logprobs": 2, "seed": 3, "echo": True, "n": 2}
    whole = server.complete(**asked)
    text, tokens, reasons = ["", ""], [[], []], [None, None]
    stream = client.completions.create(model=MODEL, stream=True, stream_options={"include_usage": True}, **asked)
    *chunks, last = list(stream)
    for chunk in chunks:
        (choice,) = chunk.choices
        text[choice.index] += choice.text
        tokens[choice.index] += choice.logprobs.token_logprobs
        reasons[choice.index] = choice.finish_reason
        assert chunk.system_fingerprint == whole["system_fingerprint"]
    assert text == [c["text"] for c in whole["choices"]]
    assert tokens == [c["logprobs"]["token_logprobs"] for c in whole["choices"]]
    assert reasons == [c["finish_reason"] for c in whole["choices"]]
    assert last.choices == []
    assert last.usage.model_dump(exclude_none=True) == whole["usage"]


def test_lists_of_prompts_get_the_answers_of_each(server: RunningServer):
    prompts = ["def main(", "import ", "class A"]
    fields = {"max_tokens": 6, "logprobs": 0, "seed": 9, "n": 2}
    alone = [choice for p in prompts for choice in server.complete(p, **fields)["choices"]]
    of_texts = server.complete(prompts, **fields)["choices"]
    of_ids = server.complete([model().tokenizer.encode(p) for p in prompts], **fields)["choices"]
    assert [c | {"index": 0} for c in of_texts] == [c | {"index": 0} for c in alone]
    assert of_ids == of_texts
    assert [c["index"] for c in of_texts] == list(range(6))
    assert of_texts[0]["text"] != of_texts[1]["text"]
    second = server.complete(prompts[0], **fields | {"n": 1, "seed": 10})["choices"][0]
    assert second["text"] == of_texts[1]["text"]


def test_stop_texts_end_a_text_and_may_be_special_tokens(server: RunningServer):
    whole = server.complete("def main(", max_tokens=40, temperature=0)["choices"][0]["text"]
    cut = server.complete("def main(", max_tokens=40, temperature=0, stop="\n")["choices"][0]
    assert (cut["text"], cut["finish_reason"]) == (whole[: whole.index("\n")], "stop")
    # With this bias the model writes the token at once; the stop text is that token.
    forced = {"logit_bias": {"1": 100.0}, "max_tokens": 5, "temperature": 0}
    assert model().tokenizer.decode([1]) == "<|padding|>"
    written = server.complete("def", logprobs=0, **forced)["choices"][0]
    assert (written["text"], written["logprobs"]["token_ids"]) == ("", [1] * 5)
    ended = server.complete("def", stop=["<|padding|>"], logprobs=0, **forced)["choices"][0]
    assert (ended["finish_reason"], ended["logprobs"]["token_ids"]) == ("stop", [1])


def test_the_token_that_ends_a_text_has_its_likelihood(server: RunningServer):
    """Or clients that take off the last token, as lm_eval does, would take off one of the prompt."""
    fields = {"max_tokens": 5, "temperature": 0, "logprobs": 1, "echo": True, "logit_bias": {"0": 100}}
    choice = server.complete("def", **fields)["choices"][0]
    ids = model().tokenizer.encode("def")
    expected = Logprobs(model().logits(ids, 1)[0]).of(0, 1)
    assert choice["finish_reason"] == "stop"
    assert choice["logprobs"]["token_ids"] == [*ids, 0]
    assert choice["logprobs"]["token_logprobs"] == [None, expected.logprob]
    assert (choice["text"], choice["logprobs"]["text_offset"]) == ("def", [0, 3])


def test_biases_are_added_to_logits(server: RunningServer):
    fields = {"max_tokens": 8, "seed": 4}
    plain = server.complete("def main(", **fields)
    zero = server.complete("def main(", logit_bias={"5": 0.0}, **fields)
    biased = server.complete("def main(", logit_bias={"453": 3.5, "9": -100}, **fields)
    options = {"max_tokens": 8, "seed": 4, "temperature": 1.0, "logit_bias": {453: 3.5, 9: -100}}
    expected = model().generate("def main(", **OPEN | options).text
    assert plain["choices"] == zero["choices"]
    assert biased["choices"][0]["text"] == expected != plain["choices"][0]["text"]


def test_an_empty_prompt_begins_a_text(server: RunningServer):
    choice = server.complete("", max_tokens=3, temperature=0, echo=True, logprobs=0)["choices"][0]
    assert choice["text"] == model().generate("", max_tokens=3, temperature=0).text
    assert len(choice["logprobs"]["tokens"]) == 3
    assert choice["logprobs"]["token_logprobs"][0] is not None


def test_a_long_prompt_is_scored_like_a_short_one(server: RunningServer):
    """Read in slices, with a logit row for every token."""
    ids = model().tokenizer.encode(HELDOUT.read_text("utf-8"))[:500]
    told = server.complete(ids, max_tokens=0, echo=True, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"]
    rows = model().logits(ids)
    assert told[1:] == [Logprobs(row).of(i, 0).logprob for row, i in zip(rows, ids[1:], strict=False)]


def test_what_is_not_asked_for_is_the_same_as_its_default(server: RunningServer):
    body = {"model": MODEL, "prompt": "import", "seed": 1}
    nulls = dict.fromkeys(("max_tokens", "n", "stop", "temperature", "top_p", "logit_bias", "best_of", "suffix"))
    answers = [server.post("/v1/completions", body | more).json()["choices"] for more in ({}, nulls)]
    assert answers[0] == answers[1]
    streamed = server.post("/v1/completions", body | {"stream": True})
    assert "".join(e["choices"][0]["text"] for e in events(streamed.text)) == answers[0][0]["text"]
    with_seed = server.complete("import")
    assert server.complete("import", seed=with_seed["seed"])["choices"] == with_seed["choices"]


def test_models_and_tokens(client: openai.OpenAI, server: RunningServer):
    assert [m.id for m in client.models.list()] == ["nano.Q4_K_M", "nano.Q8_0"]
    told = server.post("/tokenize", {"prompt": TEXT, "return_token_strs": True}).json()
    assert told["tokens"] == model().tokenizer.encode(TEXT)
    assert told["count"] == len(told["tokens"]) == len(told["token_strs"])
    assert server.post("/detokenize", {"tokens": told["tokens"]}).json() == {"prompt": TEXT}
    info = server.http.get("/tokenizer_info").json()
    assert (info["eos_token"], info["model_max_length"]) == ("<|endoftext|>", 512)


def test_counters_are_what_prometheus_reads(server: RunningServer):
    before = server.metric("written_tokens_total"), server.metric("prompt_tokens_total")
    server.complete("def main(", max_tokens=7, temperature=0)
    assert server.metric("written_tokens_total") - before[0] == 7
    assert server.metric("prompt_tokens_total") - before[1] == 3
    response = server.http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    kinds = {}
    for line in response.text.splitlines():
        comment = re.fullmatch(r"# (HELP|TYPE) (pythia_\w+) (.+)", line)
        if comment is not None:
            kinds[comment[2]] = comment[3]
            continue
        sample = re.fullmatch(r"(pythia_\w+)(\{(\w+=\"[^\"]*\",?)+\})? [\d.e+-]+", line)
        assert sample is not None, line
        assert kinds[sample[1]] in ("counter", "gauge")
