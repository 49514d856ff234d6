"""What a model writes: the same for a seed, with or without drafts, in pieces or at once; ends where it should."""

from __future__ import annotations

import gc
import math
import weakref
from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf import load
from pythia_gguf.engine.model import Model
from pythia_gguf.engine.sampling import Sampling
from pythia_gguf.engine.session import Session
from pythia_gguf.engine.visible_text import VisibleText
from pythia_gguf.engine.writing import WritingOptions
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


def end_at(m: Model, *ids: int) -> None:
    """Texts of the model end at these tokens."""
    m.tokenizer.special = replace(m.tokenizer.special, ends=frozenset(ids))


def test_control_tokens_are_not_shown_and_a_stop_text_may_name_one():
    tokenizer = model().tokenizer
    control = tokenizer.encode("<|padding|>")
    assert set(control) < tokenizer.special.control
    tokens = [*tokenizer.encode("ab"), *control, *tokenizer.encode("cd")]
    for stops, told in (
        ((), "abcd"),
        (("<|padding|>",), "ab"),
        (("b<|padding|>c",), "a"),
        (("bc",), "abcd"),
        (("g", "d"), "abc"),
    ):
        written = VisibleText(tokenizer, stops)
        pieces = [written.add(token) for token in tokens] + [written.end()]
        assert ("".join(pieces), written.is_stopped) == (told, told != "abcd")


def test_end_of_text_ends_it():
    """The token that is chosen first counts as the end of a text here."""
    m = load(nano_files()["F16"], threads=1)
    assert m.tokenizer.special.end in m.tokenizer.special.ends
    end_at(m, m.generate(PROMPT, max_tokens=1, temperature=0).tokens[0])
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
        match=r"prompt has 500 tokens, which do not fit into the context of 512 with 64 new ones: max_tokens at most"
        r" 13, or shift=True",
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


# What each option may be: least and most, and values of another type.
WHOLE = (1.5, True, "1", math.nan, [1], np.float32(1))
REAL = ("1", True, [1.0], 1j)
OPTIONS: dict[str, tuple[tuple[object, ...], tuple[object, ...]]] = {
    "max_tokens": ((0, -1, np.int64(0)), (*WHOLE, None)),
    "stop": (("", ["a", ""]), (b"a", 1, [b"a"], ["a", 1], [None])),
    "logprobs": ((-1, 101), WHOLE),
    "lookup": ((), (1, "no", None)),
    "shift": ((), (0, "yes", None)),
    "temperature": ((-0.1, 2e6, math.nan, math.inf, -math.inf, 10**400), (*REAL, None)),
    "top_k": ((-1, (1 << 31) + 1), (*WHOLE, None)),
    "top_p": ((-0.1, 1.5, math.nan, math.inf, np.float32("nan")), (*REAL, None)),
    "min_p": ((-0.1, 1.5, math.nan, math.inf), (*REAL, None)),
    "repeat_penalty": ((0, -1.0, 1001, math.nan, math.inf), (*REAL, None)),
    "logit_bias": (({-1: 1.0}, {4096: 1.0}, {5: math.nan}, {5: 2e6}), (1, [5], None, {"5": 1.0}, {5: "1"})),
    "seed": ((-1, 1 << 129, 10**5000), WHOLE),
    "prompt": (([-1], [1, 4096], np.array([4096]), [2**70]), (1.5, True, None, b"a", *([x] for x in WHOLE))),
}


def test_the_table_has_every_option():
    assert OPTIONS.keys() == {f.name for kind in (WritingOptions, Sampling) for f in fields(kind)} | {"prompt"}


@pytest.mark.parametrize("name", OPTIONS)
def test_wrong_values_are_refused_by_name_before_anything_runs(name: str):
    out_of_range, of_other_type = OPTIONS[name]
    for value in out_of_range:
        with pytest.raises(UsageError) as e:
            model().begin(**{"prompt": PROMPT, name: value})
        assert e.value.argument == name, value
        assert "\n" not in str(e.value)
        assert len(str(e.value)) < 200
    for value in of_other_type:
        with pytest.raises(TypeError, match=f"^{name} must be "):
            model().begin(**{"prompt": PROMPT, name: value})


def test_numbers_of_numpy_are_numbers():
    plain = model().generate([5, 6], max_tokens=3, top_k=5, temperature=0.5, seed=1)
    ids = np.array([5, 6], np.uint16)
    options = {"max_tokens": np.int8(3), "top_k": np.uint64(5), "temperature": np.float32(0.5), "seed": np.int64(1)}
    of_numpy = model().generate(ids, **options)
    assert of_numpy.tokens == plain.tokens
    assert type(of_numpy.seed) is int
    assert model().logits(ids).tobytes() == model().logits([5, 6]).tobytes()


@pytest.mark.parametrize("ids", [1, True, None, "ab", b"ab", [1.5], [True], ["a"], [[1]], np.ones(1), np.array([[1]])])
def test_logits_are_of_whole_numbers(ids: object):
    with pytest.raises(TypeError, match="^ids must be a list of whole numbers"):
        model().logits(ids)  # type: ignore[arg-type]


def test_threads_are_a_whole_number():
    for wrong in (1.5, True, "2"):
        with pytest.raises(TypeError, match="threads must be a whole number"):
            load(nano_files()["Q4_K_M"], threads=wrong)


def test_unknown_options_are_refused_with_the_nearest():
    with pytest.raises(TypeError, match=r"no option 'temprature'. Did you mean temperature\?"):
        model().generate(PROMPT, temprature=1)


def test_one_stop_text_is_one():
    whole = model().generate(PROMPT, max_tokens=60, temperature=0).text
    stop = whole[20:24]
    for stops in (stop, [stop], (stop,), {stop}, iter([stop])):
        assert model().generate(PROMPT, max_tokens=60, temperature=0, stop=stops).text == whole[: whole.find(stop)]
    for none in (None, (), []):
        assert model().generate(PROMPT, max_tokens=60, temperature=0, stop=none).text == whole


def test_a_generation_is_iterated_once():
    generation = model().begin(PROMPT, max_tokens=5, temperature=0)
    text = "".join(generation)
    done = generation.completion
    with pytest.raises(ValueError, match="iterated once"):
        list(generation)
    assert (done, done.text, len(done.tokens)) == (generation.completion, text, 5)


def test_completion_is_true_at_any_time():
    """Before, during, after a break, after the end: text is what was given, and no reason to end before the end."""
    whole = model().generate(PROMPT, max_tokens=12, temperature=0)
    generation = model().begin(PROMPT, max_tokens=12, temperature=0)
    empty = generation.completion
    assert (empty.text, empty.tokens, empty.finish_reason, empty.timings.generate_s) == ("", (), None, 0)
    given = ""
    for piece in generation:
        given += piece
        now = generation.completion
        assert (now.text, now.tokens) == (given, whole.tokens[: len(now.tokens)])
        if len(now.tokens) == 6:
            break
        assert now.finish_reason is None
    abandoned = generation.completion
    assert (abandoned.text, abandoned.finish_reason, len(abandoned.tokens)) == (given, None, 6)
    assert abandoned.timings.generate_s > 0
    assert whole.finish_reason == "length"


def test_completion_is_true_after_an_exception():
    generation = model().begin(PROMPT, max_tokens=12, temperature=0)
    pieces = iter(generation)
    first = next(pieces)
    with pytest.raises(KeyboardInterrupt):
        pieces.throw(KeyboardInterrupt)  # type: ignore[attr-defined]
    assert (generation.completion.text, generation.completion.finish_reason) == (first, None)
    assert list(pieces) == []


@pytest.mark.parametrize("end", ["close", "drop", "finish"])
def test_a_generation_that_is_left_gives_its_memory_back(end: str):
    """Without the collector of cycles: what a server has cancelled must not wait for it."""
    gc.collect()
    gc.disable()
    try:
        generation = model().begin(PROMPT, max_tokens=3, temperature=0)
        others = {id(o) for o in gc.get_objects() if type(o) is Session}
        pieces = iter(generation)
        next(pieces)
        sessions = [weakref.ref(o) for o in gc.get_objects() if type(o) is Session and id(o) not in others]
        assert [s() for s in sessions] != []
        if end == "close":
            pieces.close()  # type: ignore[attr-defined]
        elif end == "finish":
            list(pieces)
        else:
            del pieces
        assert [s() for s in sessions if s() is not None] == []
        assert generation.completion.tokens
    finally:
        gc.enable()


def test_text_is_that_of_the_tokens_up_to_the_first_stop():
    """Any tokens, any stops of their text, any end: pieces are the text, and no byte is lost or shown too early.

    Chosen at random from all tokens, so characters are cut everywhere; the end of text is any of them too.
    """
    m = load(nano_files()["Q4_K_M"], threads=1)
    dice = np.random.default_rng(3)
    ends, control = m.tokenizer.special.ends, m.tokenizer.special.control
    ended = set()
    anything = {"temperature": 1e5, "top_k": 0, "top_p": 1.0, "min_p": 0.0}
    for seed in range(150):
        options = anything | {"max_tokens": int(dice.integers(1, 14))}
        end_at(m, *ends)
        tokens = m.generate("a", seed=seed, **options).tokens
        if seed % 3 == 0 and tokens:
            end_at(m, tokens[-1])
            tokens = tokens[: tokens.index(tokens[-1])]
        if control & set(tokens):  # the test above is of these
            continue
        text = m.tokenizer.decode(tokens)
        first, length = dice.integers(0, len(text) + 1), dice.integers(1, 5)
        stops = [s for s in (text[first : first + length], text[-1:] + "?", text[-2:]) if s][: seed % 4]
        generation = m.begin("a", seed=seed, stop=stops, **options)
        pieces = list(generation)
        done = generation.completion
        # A stop text ends it at the token with which it is whole.
        text = m.tokenizer.decode(done.tokens)
        found = [at for s in stops if (at := text.find(s)) >= 0]
        expected = text[: min(found)] if found else text
        assert "".join(pieces) == done.text == expected, (seed, stops)
        assert "" not in pieces
        assert done.tokens == tokens[: len(done.tokens)]
        assert found or done.tokens == tuple(tokens)
        assert done.finish_reason == "stop" or not found
        ended.add((done.finish_reason, bool(found), text.endswith("\ufffd")))
    # Every kind of end has been seen, with and without a character that was never completed.
    assert ended >= {(r, f, u) for r, f in (("stop", True), ("stop", False), ("length", False)) for u in (True, False)}


def test_empty_prompt_begins_with_the_token_that_begins_a_text():
    m = model()
    assert (
        m.generate("", max_tokens=4, temperature=0).tokens
        == m.generate([m.tokenizer.special.begin], max_tokens=4, temperature=0).tokens
    )
