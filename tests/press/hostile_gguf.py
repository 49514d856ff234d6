"""GGUF files that are sound containers and impossible models: each has one key or tensor that cannot be.

Rows are named after the checklist that the reader was written to: S sizes, V vocabulary, J templates and splits.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

u16, u32, i32, f32 = np.uint16, np.uint32, np.int32, np.float32
TOKENS = [*"abcdefg", "ab"]
N = len(TOKENS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """name  what is wrong; keys, shapes  changes to the tiny model; says  a part of the line that names the rule"""

    name: str
    says: str
    keys: dict[str, Any] = field(default_factory=dict)
    shapes: dict[str, Any] = field(default_factory=dict)


def keyed(name: str, key: str, value: object, says: str) -> Case:
    """One key changed; `...` leaves it out. The line names the key."""
    return Case(name=name, keys={key: value}, says=f"{key}: {says}")


def sized(name: str, key: str, value: object, says: str) -> Case:
    return keyed(name, f"gptneox.{key}", value, says)


def worded(name: str, key: str, value: object, says: str) -> Case:
    return keyed(name, f"tokenizer.ggml.{key}", value, says)


def shaped(name: str, tensor: str, shape: object, says: str) -> Case:
    return Case(name=name, shapes={tensor: shape}, says=f"tensor {tensor}: {says}")


HEADS, EPS, ROPE = "attention.head_count", "attention.layer_norm_epsilon", "rope.dimension_count"

SIZES = [
    keyed("S01 other architecture", "general.architecture", "llama", "expected 'gptneox'"),
    keyed("S01 architecture with escapes", "general.architecture", "gptneox\x1b[2J\n", "expected 'gptneox'"),
    keyed("S02 no architecture", "general.architecture", ..., "expected 'gptneox'"),
    keyed("S03 architecture is a number", "general.architecture", u32(1), "expected 'gptneox'"),
    keyed("S03 architecture is a list", "general.architecture", ["gptneox"], "expected 'gptneox'"),
    sized("S04 no layers", "block_count", u32(0), "expected 1..512, got 0"),
    sized("S05 513 layers", "block_count", u32(513), "expected 1..512, got 513"),
    sized("S06 2^32-1 layers", "block_count", u32(2**32 - 1), "expected 1..512, got 4294967295"),
    sized("S07 no heads", HEADS, u32(0), "expected 1..65536, got 0"),
    sized("S08 heads do not divide", HEADS, u32(3), "expected a divisor of the width 2, got 3"),
    Case(
        name="S08 heads of one dimension",
        keys={f"gptneox.{HEADS}": u32(2)},
        says=f"gptneox.{ROPE}: expected an even number of rotated dimensions in 2..1, got 2",
    ),
    sized("S09 width 0", "embedding_length", u32(0), "expected 1..1048576, got 0"),
    sized("S10 width 2^31", "embedding_length", u32(2**31), "expected 1..1048576"),
    sized("S11 no rotary dimensions", ROPE, u32(0), "expected an even number of rotated dimensions in 2..2, got 0"),
    sized(
        "S12 more rotary dimensions than a head",
        ROPE,
        u32(4),
        "expected an even number of rotated dimensions in 2..2, got 4",
    ),
    sized("S12 2^32-1 rotary dimensions", ROPE, u32(2**32 - 1), "expected 0..1048576"),
    sized("S13 odd rotary dimensions", ROPE, u32(1), "expected an even number"),
    sized("S14 no context", "context_length", u32(0), "expected 1..2147483647, got 0"),
    sized("S15 context 2^32-1", "context_length", u32(2**32 - 1), "expected 1..2147483647"),
    sized("S16 epsilon NaN", EPS, f32("nan"), "expected a number above 1e-30"),
    sized("S16 epsilon infinite", EPS, f32("inf"), "expected a number above 1e-30 and at most 1, got inf"),
    sized("S17 epsilon negative", EPS, f32(-1e-5), "expected a number above 1e-30"),
    sized("S17 epsilon 0", EPS, f32(0), "expected a number above 1e-30"),
    sized("S18 layers as text", "block_count", "1", "expected a whole number, got '1'"),
    sized("S18 layers as i32", "block_count", i32(1), "expected a uint32, got a int32"),
    sized("S18 layers as u64", "block_count", np.uint64(1), "expected a uint32, got a uint64"),
    sized("S18 layers as bool", "block_count", True, "expected a whole number, got True"),
    sized("S18 layers as float", "block_count", f32(1), "expected a whole number"),
    sized("S18 layers as a list", "block_count", ["1"], "expected a whole number"),
    sized("S18 layers as an array", "block_count", np.ones(1, u32), "expected a whole number"),
    sized("S18 heads as i64", HEADS, np.int64(1), "expected a uint32, got a int64"),
    sized("S18 epsilon as f64", EPS, np.float64(1e-5), "expected a float32, got a float64"),
    sized("S18 epsilon as text", EPS, "1e-5", "expected a number"),
    sized("S18 rotary dimensions as u8", ROPE, np.uint8(2), "expected a uint32, got a uint8"),
    sized("S18 rotary base as f64", "rope.freq_base", np.float64(10000), "expected a float32"),
    sized("S18 rotary base NaN", "rope.freq_base", f32("nan"), "expected a number above 1"),
    sized("S18 residual as number", "use_parallel_residual", u32(1), "expected true or false"),
    *(
        sized(f"S19 no {key}", key, ..., "key is missing")
        for key in ("block_count", "embedding_length", "feed_forward_length", "context_length", HEADS, EPS)
    ),
    sized("S19 no residual", "use_parallel_residual", ..., "key is missing"),
    sized("S22 grouped heads", "attention.head_count_kv", u32(2), "expected 1, got"),
    sized("S22 scaled positions", "rope.scaling.type", "yarn", "expected 'none', got 'yarn'"),
]

TENSORS = [
    shaped("S20 no embedding", "token_embd.weight", ..., "tensor is missing"),
    shaped("S20 no output", "output.weight", ..., "tensor is missing"),
    shaped("S20 no bias", "blk.0.ffn_up.bias", ..., "tensor is missing"),
    shaped("S20 one tensor too many", "blk.1.ffn_up.bias", (2,), "no GPT-NeoX model of these sizes has such a tensor"),
    shaped("S20 a tensor of another model", "rope_freqs.weight", (2,), "no GPT-NeoX model of these sizes"),
    shaped("T06 a name like a path", "../../etc/passwd", (2,), "no GPT-NeoX model of these sizes"),
    shaped("S21 feed-forward does not fit", "blk.0.ffn_up.weight", (3, 2), "expected shape [2, 2], got [3, 2]"),
    Case(
        name="S21 feed-forward of another size",
        keys={"gptneox.feed_forward_length": u32(4)},
        says="tensor blk.0.ffn_down.weight: expected shape [2, 4], got [2, 2]",
    ),
    shaped("T22 embedding one row short", "token_embd.weight", (7, 2), "expected shape [8, 2], got [7, 2]"),
    shaped("T22 output one row long", "output.weight", (9, 2), "expected shape [8, 2], got [9, 2]"),
    shaped("T22 a matrix for a vector", "output_norm.weight", (2, 1), "expected shape [2], got [2, 1]"),
    shaped("T22 a vector for a matrix", "output.weight", (16,), "expected shape [8, 2], got [16]"),
    shaped("T22 an axis of 1 in front", "output.weight", (1, 8, 2), "expected shape [8, 2], got [1, 8, 2]"),
]

VOCABULARY = [
    worded("V01 no tokens", "tokens", ..., "expected an array of texts, one for each token"),
    worded("V02 a token twice", "tokens", [*"abcdefg", "a"], "token 'a' has two ids: 0 is the first"),
    Case(
        name="V03 a token less",
        keys={"tokenizer.ggml.tokens": TOKENS[:-1]},
        says="expected shape [7, 2], got [8, 2]",
    ),
    worded("V04 tokens are empty", "tokens", [], "expected an array of texts, one for each token"),
    worded("V05 tokens are numbers", "tokens", np.arange(N, dtype=i32), "expected an array of texts"),
    worded("V05 tokens are one text", "tokens", "abcdefgh", "expected an array of texts"),
    worded("V06 types are u8", "token_type", np.ones(N, np.uint8), "expected an array of int32"),
    worded("V06 types are texts", "token_type", ["1"] * N, "expected an array of int32"),
    worded("V06 types are one number", "token_type", i32(1), "expected an array of int32"),
    worded("V07 a type less", "token_type", np.ones(N - 1, i32), "expected 8 numbers, one for each token, got 7"),
    worded("V07 no types", "token_type", np.ones(0, i32), "expected 8 numbers, one for each token, got 0"),
    worded("V08 scores are u8", "scores", np.ones(N, np.uint8), "expected an array of float32 or int32"),
    worded("V08 scores are f64", "scores", np.ones(N, np.float64), "expected an array of float32 or int32"),
    worded("V09 a score less", "scores", np.ones(N - 1, f32), "expected 8 numbers, one for each token, got 7"),
    worded("V10 merges are numbers", "merges", np.ones(3, i32), "expected an array of texts"),
    worded("V10 merges are one text", "merges", "a b", "expected an array of texts"),
    worded("V11 a merge without space", "merges", ["a b", "cd"], "merge 1: expected two tokens and a space, got 'cd'"),
    worded("V11 a merge of one token", "merges", ["a "], "merge 0: expected two tokens and a space"),
    worded("V11 an empty merge", "merges", [""], "merge 0: expected two tokens and a space, got ''"),
    worded("V11 a merge of a space", "merges", [" "], "merge 0: expected two tokens and a space"),
    worded("V12 no merges", "merges", ..., "expected an array of texts"),
    worded("V13 begin token out of range", "bos_token_id", u32(N), "expected an id in 0..7, got 8"),
    worded("V13 end token out of range", "eos_token_id", u32(2**31), "expected an id in 0..7, got 2147483648"),
    worded("V13 pad token out of range", "padding_token_id", u32(2**32 - 2), "expected an id in 0..7"),
    worded("V13 unknown token out of range", "unknown_token_id", u32(50000), "expected an id in 0..7"),
    worded("V13 begin token as i32", "bos_token_id", i32(0), "expected a uint32"),
    worded("V13 begin token as text", "bos_token_id", "a", "expected a uint32, got 'a'"),
    worded("V15 pre-tokenizer is a number", "pre", u32(1), "expected a text"),
    worded("V16 unknown model", "model", "gpt-2", "no such tokenizer: 'gpt-2'. Did you mean gpt2"),
    worded("V16 model is a number", "model", u32(2), "no such tokenizer"),
    worded("V16 tokens without a model", "model", ..., "no such tokenizer: None"),
    worded("V16 another model without scores of its size", "scores", np.ones(1, f32), "expected 8 numbers"),
    worded("V20 flag is a number", "add_bos_token", u32(1), "expected a bool, got"),
    worded("V20 flag is text", "add_eos_token", "yes", "expected a bool, got 'yes'"),
]

SPLITS = [
    keyed("J04 65535 files", "split.count", u16(65535), "expected a whole model, got one of 65535 files"),
    keyed(
        "J05 two files",
        "split.count",
        u16(2),
        "expected a whole model, got one of 2 files. Put them together with llama-gguf-split --merge",
    ),
    keyed("J05 count as u32", "split.count", u32(1), "expected a uint16"),
    keyed("J05 count as text", "split.count", "../../other.gguf", "expected a uint16, got '../../other.gguf'"),
]

CASES = [*SIZES, *TENSORS, *VOCABULARY, *SPLITS]

# Accepted on purpose, with the reason: llama.cpp takes them too, and the press copies these keys as they are.
ACCEPTED: dict[str, dict[str, Any]] = {
    "V14 no end token, as writers say it": {"tokenizer.ggml.eos_token_id": u32(2**32 - 1)},
    "V15 pre-tokenizer of a later llama.cpp": {"tokenizer.ggml.pre": "not-yet-invented"},
    "V15 no pre-tokenizer, as in files of 2023": {"tokenizer.ggml.pre": ...},
    "V18 a token of 1 MiB": {"tokenizer.ggml.tokens": [*TOKENS[:-1], "x" * 2**20]},
    "V18 empty tokens, which llama.cpp gives names": {"tokenizer.ggml.tokens": [*TOKENS[:-2], "", ""]},
    "V18 a token of escapes": {"tokenizer.ggml.tokens": [*TOKENS[:-1], "\x1b[2J\n"]},
    "V07 more types than tokens": {"tokenizer.ggml.token_type": np.ones(N + 1, i32)},
    "V19 bytes without a token": {},  # the tiny model has seven
    "V11 a merge whose first token is a space": {"tokenizer.ggml.merges": ["  a"]},
    "V20 begin token wanted and not named": {
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.bos_token_id": ...,
    },
    "V16 no tokenizer at all": {
        "gptneox.vocab_size": u32(N),
        **{f"tokenizer.ggml.{key}": ... for key in ("model", "pre", "tokens", "token_type", "merges", "bos_token_id")},
    },
    "V16 a tokenizer without tokens": {
        "gptneox.vocab_size": u32(N),
        "tokenizer.ggml.model": "none",
        "tokenizer.ggml.tokens": ...,
    },
    "V16 a SentencePiece vocabulary": {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.scores": np.zeros(N, f32),
        "tokenizer.ggml.merges": ...,
    },
    "J01 template with an error": {"tokenizer.chat_template": "{% for %}{{"},
    "J02 template that never ends": {"tokenizer.chat_template": "{% for i in range(10**9) %}x{% endfor %}"},
    "J03 template of 10000 parentheses": {"tokenizer.chat_template": "{{ " + "(" * 10_000 + ")" * 10_000 + " }}"},
    "J03 template that runs code": {"tokenizer.chat_template": "{{ ''.__class__.__mro__[1].__subclasses__() }}"},
    "J05 one file of one": {"split.count": u16(1), "split.no": u16(0)},
    "S11 rotary dimensions left out: the whole head, as in llama.cpp": {"gptneox.rope.dimension_count": ...},
}
