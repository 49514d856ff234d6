"""Texts written side by side: each is the one that it is alone, whenever it joins, and nothing waits for long."""

from __future__ import annotations

import random
from collections.abc import Iterator

import numpy as np
import pytest

from engine.nano import HELDOUT, nano_files
from pythia_gguf import load
from pythia_gguf.engine.batch import Batch, write_all
from pythia_gguf.engine.logprobs import Logprobs
from pythia_gguf.engine.model import Model
from pythia_gguf.engine.protocol import Part
from pythia_gguf.engine.writing import Writing, begin_writing, options_of
from pythia_gguf.errors import UsageError


@pytest.fixture(scope="module")
def model() -> Model:
    return load(nano_files()["Q4_K_M"], threads=2)


def cases(n: int) -> Iterator[tuple[str, dict[str, object]]]:
    """Prompts of very different lengths, and every option."""
    text, drawn = HELDOUT.read_text("utf-8"), random.Random(1)
    for i in range(n):
        at, length = drawn.randrange(9_000), drawn.choice((0, 1, 10, 200, 1_000))
        options = {"max_tokens": drawn.choice((1, 2, 30)), "seed": i, "temperature": drawn.choice((0, 0.8))}
        if i % 3 == 0:
            options |= {"lookup": True}
        if i % 4 == 0:
            options |= {"logprobs": 2}
        if i % 5 == 0:
            options |= {"stop": ["\n", "("]}
        yield text[at : at + length], options
    yield text[:2_000], {"max_tokens": 40, "seed": n, "shift": True}


def outcome(writing: Writing) -> tuple[object, ...]:
    return writing.text, writing.tokens, writing.logprobs, writing.finish_reason


def test_texts_that_join_and_leave_at_any_step_are_those_written_alone(model: Model):
    asked = list(cases(24))
    alone = []
    for prompt, options in asked:
        done = model.generate(prompt, **options)
        logprobs = None if done.logprobs is None else list(done.logprobs)
        alone.append((done.text, done.tokens, logprobs, done.finish_reason))
    assert {reason for *_, reason in alone} == {"stop", "length"}
    batch, drawn = Batch(model, n_sequences=5), random.Random(2)
    writings = [begin_writing(model, prompt, *options_of(options)) for prompt, options in asked]
    waiting, pieces, left = list(range(len(asked))), dict.fromkeys(range(len(asked)), ""), []
    place = {id(writing): i for i, writing in enumerate(writings)}
    while waiting or batch:
        for _ in range(drawn.randrange(4)):
            if waiting:
                batch.insert(writings[waiting.pop()])
        if drawn.random() < 0.1 and len(batch) and len(left) < 3:
            # One that is being written, or waits, is taken out, and written again from its beginning.
            i = next(i for i, w in enumerate(writings) if i not in left and i not in waiting and not w.finish_reason)
            batch.remove(writings[i])
            with pytest.raises(ValueError, match="the batch has no such text"):
                batch.remove(writings[i])
            prompt, options = asked[i]
            writings[i], pieces[i] = begin_writing(model, prompt, *options_of(options)), ""
            place[id(writings[i])] = i
            waiting.append(i)
            left.append(i)
        for writing, new in batch.step():
            pieces[place[id(writing)]] += "".join(new)
    assert len(left) == 3
    assert [outcome(w) for w in writings] == alone
    assert [pieces[i] for i in range(len(asked))] == [text for text, *_ in alone]


def test_a_long_prompt_is_read_in_slices_beside_a_text_that_is_written(model: Model):
    """The text goes on in every step, and no step reads more than a slice of the prompt."""
    read: list[int] = []
    batch = Batch(model, n_sequences=2)
    step = batch._sequences.step

    def counted(parts: list[Part], room: np.ndarray) -> np.ndarray:
        read.append(sum(len(part.ids) for part in parts))
        return step(parts, room)

    batch._sequences.step = counted  # type: ignore[method-assign, assignment]
    short = begin_writing(model, "def main(", *options_of({"max_tokens": 100, "temperature": 0}))
    long = begin_writing(model, HELDOUT.read_text("utf-8")[:1_500], *options_of({"max_tokens": 1, "temperature": 0}))
    batch.insert(short)
    batch.step()
    batch.insert(long)
    while long.finish_reason is None:
        n_before = len(short.tokens)
        batch.step()
        assert len(short.tokens) == n_before + 1
    assert max(read[1:]) == 49
    assert long.n_prompt // 48 <= len(read) - 1 <= long.n_prompt // 48 + 1


def test_a_beginning_that_prompts_have_in_common_is_read_once(model: Model):
    """Five texts of one prompt, one that leaves its beginning early, and one whose leader is taken out."""
    text = HELDOUT.read_text("utf-8")
    prompts = [text[:900]] * 5 + [text[:500] + "# other", text[1_000:1_400], text[1_000:1_400] + " "]
    options = [{"max_tokens": 1 + 6 * (i % 3), "seed": i} for i in range(len(prompts))]
    alone = [model.generate(*pair[:1], **pair[1]).text for pair in zip(prompts, options, strict=True)]
    batch = Batch(model, n_sequences=8)
    step, read = batch._sequences.step, [0]

    def counted(parts: list[Part], room: np.ndarray) -> np.ndarray:
        read[0] += sum(len(part.ids) for part in parts)
        return step(parts, room)

    batch._sequences.step = counted  # type: ignore[method-assign, assignment]
    writings = [begin_writing(model, p, *options_of(o)) for p, o in zip(prompts, options, strict=True)]
    for writing in writings:
        batch.insert(writing)
    while batch:
        batch.step()
        if writings[6] in [member.writing for member in batch._members] and writings[0].finish_reason:
            batch.remove(writings[6])
    assert [w.text for w in writings[:6]] == alone[:6]
    assert writings[7].text == alone[7]
    n_unshared = sum(w.n_prompt for w in writings)
    assert read[0] < n_unshared - 3.5 * writings[0].n_prompt


def test_memory_for_keys_and_values_is_kept_to(model: Model):
    budget = 3 * model.kv_bytes(64)
    batch = Batch(model, n_sequences=8, kv_bytes=budget)
    writings = [begin_writing(model, "x = ", *options_of({"max_tokens": 40 + i, "seed": i})) for i in range(8)]
    for writing in writings:
        batch.insert(writing)
    most = 0
    while batch:
        open_texts = {id(writing) for writing, _ in batch.step()}
        most = max(most, len(open_texts))
    assert most == 3
    assert all(writing.finish_reason for writing in writings)
    too_long = begin_writing(model, "x = ", *options_of({"max_tokens": 300, "seed": 0}))
    with pytest.raises(
        UsageError, match=r"keys and values of \d+ tokens take [\d,]+ bytes, and all texts together may"
    ):
        batch.insert(too_long)
    with pytest.raises(UsageError, match=r"\d+ tokens do not fit into a batch of 64 each"):
        Batch(model, n_context=64).insert(too_long)
    assert len(batch) == 0
    assert batch.step() == []


def test_write_all_tells_of_each_text_that_ends(model: Model):
    told: list[int] = []
    writings = [begin_writing(model, "import ", *options_of({"max_tokens": 3, "seed": i})) for i in range(40)]
    write_all(model, writings, lambda: told.append(1))
    assert len(told) == 40
    assert [w.text for w in writings] == [model.generate("import ", max_tokens=3, seed=i).text for i in range(40)]
    write_all(model, [])


def counted_steps(batch: Batch) -> list[list[tuple[int, int]]]:
    """A list that gets, for each step to come, sequence and number of tokens of each part."""
    steps: list[list[tuple[int, int]]] = []
    step = batch._sequences.step

    def counted(parts: list[Part], room: np.ndarray) -> np.ndarray:
        steps.append([(part.seq, len(part.ids)) for part in parts])
        return step(parts, room)

    batch._sequences.step = counted  # type: ignore[method-assign, assignment]
    return steps


def run(batch: Batch, writing: Writing) -> Writing:
    batch.insert(writing)
    while batch:
        batch.step()
    return writing


def test_prompts_share_a_step_evenly(model: Model):
    """A short prompt that comes while a long one is read has its first token after two steps of 48 tokens at most."""
    text = HELDOUT.read_text("utf-8")
    batch = Batch(model, n_sequences=4)
    long, short = (
        begin_writing(model, p, *options_of({"max_tokens": 3, "seed": 1})) for p in (text[:1_200], "def main(")
    )
    batch.insert(long)
    batch.step()
    steps = counted_steps(batch)
    batch.insert(short)
    while not short.tokens:
        batch.step()
    assert [sum(n for _, n in parts) for parts in steps] == [48]
    assert [n for _, n in steps[0]] == [45, 3] or [n for _, n in steps[0]] == [3, 45]
    others = [begin_writing(model, text[at:][:900], *options_of({"max_tokens": 1, "seed": 1})) for at in (2_000, 4_000)]
    for other in others:
        batch.insert(other)
    batch.step()
    prompts = [n for _, n in steps[-1] if n > 1]
    assert max(prompts) - min(prompts) <= 1
    assert len(prompts) == 3
    while batch:
        batch.step()
    assert long.text == model.generate(text[:1_200], max_tokens=3, seed=1).text


@pytest.mark.parametrize("lookup", [False, True])
def test_beginnings_of_texts_that_have_left_are_read_once(model: Model, lookup: bool):
    """Also what was written, and of a text that was taken out; drafts that were wrong are no part of it."""
    text = HELDOUT.read_text("utf-8")[:900]
    options = {"max_tokens": 40, "seed": 1, "lookup": lookup}
    batch = Batch(model, n_sequences=2, n_kept=2)
    steps = counted_steps(batch)
    first = run(batch, begin_writing(model, text, *options_of(options)))
    goes_on = [*first.ids, 5, 6, 7]
    del steps[:]
    second = run(batch, begin_writing(model, goes_on, *options_of({"max_tokens": 4, "seed": 2, "logprobs": 1})))
    alone = model.generate(goes_on, max_tokens=4, seed=2, logprobs=1)
    assert (second.text, second.logprobs) == (alone.text, list(alone.logprobs or ()))
    assert sum(n for parts in steps for _, n in parts) < 12
    # One that is taken out in the middle of its prompt leaves what was read.
    other = begin_writing(model, HELDOUT.read_text("utf-8")[3_000:4_500], *options_of(options))
    batch.insert(other)
    batch.step()
    batch.remove(other)
    del steps[:]
    assert (
        run(batch, begin_writing(model, other.ids, *options_of(options))).text
        == model.generate(other.ids, **options).text
    )
    assert sum(n for _, n in steps[0]) <= 192
    assert sum(n for parts in steps[:1] for _, n in parts) < other.n_prompt - 150
    assert len(batch) == 0


def test_kept_beginnings_give_way_to_texts(model: Model):
    """Within the memory that is given, those first that were not used for the longest time."""
    text = HELDOUT.read_text("utf-8")
    budget = model.kv_bytes(400)
    batch = Batch(model, n_sequences=2, kv_bytes=budget, n_kept=8)
    prompts = [model.tokenizer.encode(text[at : at + 400])[:90] for at in range(0, 8_000, 1_000)]
    for prompt in [*prompts, *prompts]:
        done = run(batch, begin_writing(model, prompt, *options_of({"max_tokens": 3, "seed": 1})))
        assert done.text == model.generate(prompt, max_tokens=3, seed=1).text
        assert sum(map(model.kv_bytes, batch._kept.lengths)) <= budget
    assert 2 <= len(batch._kept.lengths) <= 4
    whole = run(batch, begin_writing(model, prompts[0] * 4, *options_of({"max_tokens": 1, "seed": 1})))
    assert whole.finish_reason == "length"


def test_prompts_are_scored_in_slices(model: Model):
    """The same bits as in one step, and never more rows of logits at a time than a slice has."""
    ids = model.tokenizer.encode(HELDOUT.read_text("utf-8"))[:450]
    batch = Batch(model, n_sequences=2, n_kept=1)
    run(batch, begin_writing(model, ids, *options_of({"max_tokens": 1, "seed": 1})))
    rows = model.logits(ids)
    steps = counted_steps(batch)
    # The second finds the scores of the first, the third wants more of them, the fourth has fewer tokens.
    for n_top, n, n_read in ((3, 450, 450), (2, 450, 1), (5, 450, 450), (4, 300, 1)):
        del steps[:]
        options = {"max_tokens": 2, "seed": 1, "logprobs": n_top}
        scored = run(batch, begin_writing(model, ids[:n], *options_of(options), scores_prompt=True))
        expected = [Logprobs(row).of(i, n_top) for row, i in zip(rows, ids[1:n], strict=False)]
        assert scored.prompt_logprobs == expected
        alone = model.generate(ids[:n], **options)
        assert (scored.text, scored.logprobs) == (alone.text, list(alone.logprobs or ()))
        assert sum(m for parts in steps for _, m in parts) == n_read + 1
    assert len(batch._logits) <= 192


def test_choices_of_one_context_are_scored_side_by_side_and_read_it_once(model: Model):
    """As lm_eval asks for them through a server: whole sequences, with the likelihoods of all tokens."""
    context = model.tokenizer.encode(HELDOUT.read_text("utf-8")[:800])
    choices = [[*context, *model.tokenizer.encode(c)] for c in (" a", " self.x", " return None", " not in y")]
    batch = Batch(model, n_sequences=4)
    steps = counted_steps(batch)
    options = options_of({"max_tokens": 1, "temperature": 0, "logprobs": 1})
    writings = [begin_writing(model, ids, *options, scores_prompt=True) for ids in choices]
    for writing in writings:
        batch.insert(writing)
    while batch:
        batch.step()
    for writing, ids in zip(writings, choices, strict=True):
        rows = model.logits(ids)
        assert writing.prompt_logprobs == [Logprobs(row).of(i, 1) for row, i in zip(rows, ids[1:], strict=False)]
    assert sum(n for parts in steps for _, n in parts) < len(context) + 40
