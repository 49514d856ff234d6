"""Log-likelihoods of continuations: every request answered, in order, shared beginnings computed once.

Requests become sequences of tokens, and the sequences form a tree: a node is a stretch of tokens that several sequences
have in common after a common beginning. All nodes of a level go through the model in one step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from pythia_gguf.arguments import one_of
from pythia_gguf.choices import ENCODINGS
from pythia_gguf.engine.logprobs import log_sum_exp
from pythia_gguf.engine.prefixes import n_shared
from pythia_gguf.engine.protocol import Engine, Part, Sequences
from pythia_gguf.errors import Argument, UsageError, one_line

# Sequences in one tree, and the memory that their keys, values and logits may take.
_MOST_SEQUENCES = 32
_CACHE_BYTES = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """The result for one continuation.

    logprob    natural logarithm of its probability after the prompt
    is_greedy  whether each of its tokens is the most likely one there; of equals the lowest id
    n_tokens   tokens of the continuation
    """

    logprob: float
    is_greedy: bool
    n_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """Tokens of a text; those from `start` on are scored, and start is at least 1."""

    ids: tuple[int, ...]
    start: int


@dataclass(slots=True, kw_only=True)
class _Node:
    """Tokens first .. last - 1 of some requests, which agree so far."""

    first: int
    last: int
    requests: list[int]
    children: list[_Node] = field(default_factory=list)


def request_of(model: Engine, prompt: str, continuation: str, encoding: str) -> Request:
    """A prompt and its continuation as tokens; raises UsageError for an empty continuation.

    encoding  "joint": white space at the prompt's end goes to the continuation, both are encoded as one text and the
              prompt by itself, and the rest is the continuation, as lm_eval 0.4 does it; "separate": each by itself
    Tokens that the tokenizer puts around every text appear once. An empty prompt becomes the token that begins a text,
    or, without one, the token that ends it; if the continuation begins with that token itself, only the tokens after it
    are scored.
    """
    one_of("encoding", encoding, ENCODINGS)
    encode = model.tokenizer.encode
    if encoding == "separate" or not prompt:
        before, after = encode(prompt) if prompt else [], encode(continuation, special=False)
        if not before and len(after) > 1 and after[0] == model.tokenizer.special.prefix:
            before, after = after[:1], after[1:]
    else:
        bare = prompt.rstrip()
        continuation = prompt[len(bare) :] + continuation
        before = encode(bare)
        after = encode(bare + continuation)[len(before) :]
    if not after and continuation:
        raise UsageError(
            Argument("continuation"),
            f" {one_line(continuation, 40)!r} becomes part of the prompt's last token: begin it with a space",
            (", or use ", Argument("encoding", "separate")),
        )
    if not after:
        raise UsageError(Argument("continuation"), " must have at least one token")
    before = before or [model.tokenizer.prefix]
    return Request(ids=(*before, *after), start=len(before))


def score_requests(
    model: Engine, requests: Sequence[Request], advance: Callable[[int], None] = lambda n_requests: None
) -> list[Score]:
    """A score for each request, in their order; equal requests are computed once.

    Raises  UsageError for a request that does not fit into the context
    """
    for request in requests:
        if not 1 <= request.start < len(request.ids):
            raise ValueError(f"start {request.start} of {len(request.ids)} tokens")
        if len(request.ids) - 1 > model.n_context:
            raise UsageError(f"{len(request.ids) - 1} tokens do not fit into the context of {model.n_context}")
    # 1. Sort, so that requests that begin alike are neighbours, and land in the same tree.
    unique = sorted(set(requests), key=lambda r: (r.ids, r.start))
    found: dict[Request, Score] = {}
    # 2. Take as many sequences as memory allows, even if every request were as long as the longest.
    longest = max((len(r.ids) for r in unique), default=2) - 1
    most_scored = max((len(r.ids) - r.start for r in unique), default=1)
    of_each = model.kv_bytes(longest) + most_scored * model.n_vocab * 4
    n_sequences = max(1, min(_MOST_SEQUENCES, len(unique), _CACHE_BYTES // of_each))
    session = model.sequences(n_sequences=n_sequences, n_context=longest) if unique else None
    # 3. Score tree after tree, then answer in the order of the requests.
    at = 0
    while at < len(unique):
        chunk = unique[at : _end_of_tree(unique, at, n_sequences)]
        at += len(chunk)
        assert session is not None
        found |= dict(zip(chunk, _score_tree(session, chunk), strict=True))
        advance(len(chunk))
    return [found[r] for r in requests]


def _end_of_tree(requests: Sequence[Request], first: int, n_most: int) -> int:
    """Where the tree that begins at `first` ends: the place in its last quarter where neighbours share least."""
    last = first + n_most
    if last >= len(requests):
        return len(requests)
    places = range(last, last - n_most // 4 - 1, -1)
    return min(places, key=lambda i: n_shared(requests[i - 1].ids, requests[i].ids))


def _score_tree(session: Sequences, requests: Sequence[Request]) -> list[Score]:
    """Scores of at most as many sorted requests as the session has sequences."""
    # The model never reads the last token of a request: no later token needs it.
    read = [r.ids[:-1] for r in requests]
    logprobs = [0.0] * len(requests)
    greedy = [True] * len(requests)
    level = [(node, session.open()) for node in _children(read, list(range(len(read))), 0)]
    while level:
        # 1. Read all nodes of this level in one step.
        wanted = [_n_wanted(node, requests) for node, _ in level]
        parts = [
            Part(seq=seq, ids=read[node.requests[0]][node.first : node.last], n_wanted=n)
            for (node, seq), n in zip(level, wanted, strict=True)
        ]
        logits, at = session.step(parts), 0
        following: list[tuple[_Node, int]] = []
        for (node, seq), n in zip(level, wanted, strict=True):
            # 2. Add to each request what its tokens score after this node.
            rows = _Rows(logits[at : at + n], node.last - n)
            at += n
            for i in node.requests:
                _add(requests[i], rows, node.last, logprobs, greedy, i)
            # 3. The first child goes on in the node's sequence, the others in forks, which share its keys and values.
            places = [session.fork(seq, node.last) for _ in node.children[1:]]
            following += zip(node.children, [seq, *places] if node.children else [], strict=True)
            if not node.children:
                session.close(seq)
        level = following
    return [
        Score(logprob=logprobs[i], is_greedy=greedy[i], n_tokens=len(r.ids) - r.start) for i, r in enumerate(requests)
    ]


class _Rows:
    """Rows of logits after consecutive tokens, each summed at most once."""

    def __init__(self, logits: np.ndarray, first: int) -> None:
        self.first = first
        self._logits = logits
        self._sums: dict[int, tuple[float, int]] = {}

    def score(self, position: int, token: int) -> tuple[float, bool]:
        """Log-probability of a token after the token at `position`, and whether it is the most likely one."""
        row = self._logits[position - self.first]
        if position not in self._sums:
            self._sums[position] = log_sum_exp(row), int(np.argmax(row))
        total, best = self._sums[position]
        return float(row[token]) - total, best == token


def _add(request: Request, rows: _Rows, last: int, logprobs: list[float], greedy: list[bool], i: int) -> None:
    for position in range(max(rows.first, request.start - 1), last):
        logprob, is_best = rows.score(position, request.ids[position + 1])
        logprobs[i] += logprob
        greedy[i] &= is_best


def _n_wanted(node: _Node, requests: Sequence[Request]) -> int:
    """How many of a node's last tokens some request needs logits after."""
    first = min(requests[i].start - 1 for i in node.requests)
    return max(0, node.last - max(first, node.first))


def _children(read: Sequence[tuple[int, ...]], members: list[int], depth: int) -> list[_Node]:
    """The nodes below sequences that agree in their first `depth` tokens, by what comes next."""
    nodes = []
    for group in _groups(read, members, depth):
        last = depth
        shortest = min(len(read[i]) for i in group)
        while last < shortest and len({read[i][last] for i in group}) == 1:
            last += 1
        node = _Node(first=depth, last=last, requests=group)
        node.children = _children(read, [i for i in group if len(read[i]) > last], last)
        nodes.append(node)
    return nodes


def _groups(read: Sequence[tuple[int, ...]], members: list[int], depth: int) -> Iterator[list[int]]:
    by_next: dict[int, list[int]] = {}
    for i in members:
        by_next.setdefault(read[i][depth], []).append(i)
    yield from by_next.values()
