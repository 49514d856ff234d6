"""What a model writes: the same for a seed, with or without drafts, in pieces or at once; ends where it should."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf import load
from pythia_gguf.engine.model import Model
from pythia_gguf.errors import UsageError

PROMPT = "def main(self):\n    for i in range("


@cache
def model(quant: str = "Q4_K_M", threads: int = 2) -> Model:
    return load(nano_files()[quant], threads=threads)


def test_greedy_text_is_the_argmax_of_the_logits():
    m = model()
    done = m.generate(PROMPT, max_tokens=20, temperature=0)
    ids = m.tokenizer.encode(PROMPT)
    for token in done.tokens:
        assert token == int(np.argmax(m.logits(ids)[-1]))
        ids.append(token)
    assert done.finish_reason == "length"
    assert done.text == m.tokenizer.decode(done.tokens)


@pytest.mark.parametrize("options", [{}, {"temperature": 1.5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}])
def test_seed_gives_the_same_text_on_any_number_of_threads(options: dict):
    texts = {model("Q4_K_M", n).generate(PROMPT, seed=5, max_tokens=40, **options).text for n in (1, 2)}
    assert len(texts) == 1
    assert model().generate(PROMPT, seed=6, max_tokens=40, **options).text not in texts


def test_without_a_seed_one_is_drawn_and_told():
    done = model().generate(PROMPT, max_tokens=30)
    assert model().generate(PROMPT, max_tokens=30, seed=done.seed).text == done.text


@pytest.mark.parametrize("quant", ["Q4_K_M", "Q2_K", "F16"])
@pytest.mark.parametrize("temperature", [0, 0.3])
def test_drafts_change_no_token(quant: str, temperature: float):
    """Text that repeats itself, so that drafts are made, are right, and are wrong."""
    prompt = HELDOUT.read_text("utf-8")[:700] * 2
    options = {"max_tokens": 100, "temperature": temperature, "seed": 1}
    plain = model(quant).generate(prompt, **options)
    drafted = model(quant).generate(prompt, lookup=True, **options)
    assert drafted.tokens == plain.tokens
    assert drafted.timings.n_steps <= plain.timings.n_steps == 99


def test_drafts_save_steps_where_text_repeats_itself():
    done = model().generate("    self.x = None\n" * 20, max_tokens=100, temperature=0, lookup=True)
    assert done.tokens == model().generate("    self.x = None\n" * 20, max_tokens=100, temperature=0).tokens
    assert done.timings.n_steps < 50


def test_stream_gives_the_text_in_pieces():
    pieces = list(model().stream(PROMPT, max_tokens=30, temperature=0))
    assert "".join(pieces) == model().generate(PROMPT, max_tokens=30, temperature=0).text
    assert len(pieces) > 5


def test_pieces_never_split_a_character():
    """Every token of random bytes: what comes is text, and nothing is lost."""
    m = model()
    text = "a\u00e9\u4e16\U0001f40d b\u0301 \u2028 end"
    from pythia_gguf.tokenizer import TextStream

    stream = TextStream(m.tokenizer)
    pieces = [stream.add(i) for i in m.tokenizer.encode(text)] + [stream.end()]
    assert "".join(pieces) == text
    assert "\ufffd" not in "".join(pieces)
    assert any(piece == "" for piece in pieces)  # a token that ends inside a character waits


def test_stop_text_is_not_part_of_the_text():
    whole = model().generate(PROMPT, max_tokens=60, temperature=0).text
    stop = whole[20:24]
    at = whole.find(stop)
    done = model().generate(PROMPT, max_tokens=60, temperature=0, stop=["never there", stop])
    assert (done.text, done.finish_reason) == (whole[:at], "stop")
    assert "".join(model().stream(PROMPT, max_tokens=60, temperature=0, stop=[stop])) == whole[:at]


def test_end_of_text_ends_it():
    """The logits of one token are raised by hand, so that it is chosen."""
    m = load(nano_files()["F16"], threads=1)
    i = m.tokenizer.i_eos
    assert i is not None
    m.tokenizer.i_eos = m.generate(PROMPT, max_tokens=1, temperature=0).tokens[0]
    done = m.generate(PROMPT, max_tokens=9, temperature=0)
    assert (done.text, done.tokens, done.finish_reason) == ("", (), "stop")


def test_logprobs_are_the_log_softmax():
    m = model()
    done = m.generate(PROMPT, max_tokens=5, temperature=0, logprobs=3)
    assert done.logprobs is not None
    ids = m.tokenizer.encode(PROMPT)
    logits = m.logits([*ids, *done.tokens])[len(ids) - 1 : -1].astype(np.float64)
    for row, told in zip(logits, done.logprobs, strict=True):
        p = row - row.max() - math.log(np.exp(row - row.max()).sum())
        assert told.logprob == pytest.approx(p[told.token], abs=1e-12)
        assert [t for t, _ in told.top] == np.argsort(-p)[:3].tolist()
        assert told.top[0] == (told.token, told.logprob)


def test_context_is_a_limit_or_a_window():
    m = model()
    ids = m.tokenizer.encode(HELDOUT.read_text("utf-8")[:4000])[:500]
    with pytest.raises(
        UsageError,
        match=r"a prompt of 500 tokens and 64 new ones do not fit into the context of 512: at"
        r" most --max-tokens 13, or shift=True",
    ):
        m.generate(ids)
    assert len(m.generate(ids, max_tokens=13, temperature=0).tokens) == 13
    shifted = m.generate(ids, max_tokens=40, temperature=0, shift=True)
    assert len(shifted.tokens) == 40
    # After 13 tokens the context is full: the newer 256 of its 512 stay.
    seen = [*ids, *shifted.tokens]
    assert shifted.tokens[13] == int(np.argmax(m.logits(seen[513 - 256 : 513])[-1]))
    long = m.tokenizer.encode(HELDOUT.read_text("utf-8")[:8000])[:600]
    with pytest.raises(UsageError, match="a shorter prompt, or shift=True"):
        m.generate(long)
    assert len(m.generate(long, max_tokens=3, shift=True).tokens) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "--max-tokens must be at least 1"),
        ({"temperature": -1.0}, "--temperature must be between 0 and 1e"),
        ({"temperature": math.nan}, "--temperature must be"),
        ({"top_p": 1.5}, "--top-p must be between 0 and 1"),
        ({"min_p": -0.1}, "--min-p must be between 0 and 1"),
        ({"top_k": -1}, "--top-k must be"),
        ({"repeat_penalty": 0.0}, "--repeat-penalty must be"),
        ({"logprobs": 101}, "--logprobs must be between 0 and 100"),
        ({"stop": [""]}, "--stop must not be empty"),
        ({"seed": -1}, "--seed must be"),
    ],
)
def test_values_out_of_range_are_refused_by_name(options: dict, message: str):
    with pytest.raises(UsageError, match=message):
        model().generate(PROMPT, **options)


def test_unknown_options_are_refused():
    with pytest.raises(TypeError, match="temprature"):
        model().generate(PROMPT, temprature=1)


def test_empty_prompt_begins_after_the_end_of_another_text():
    m = model()
    assert (
        m.generate("", max_tokens=4, temperature=0).tokens
        == m.generate([m.tokenizer.i_eos], max_tokens=4, temperature=0).tokens
    )
