"""Sequences that a model is working on: their keys and values, and steps that take several of them along.

The logits of a sequence do not depend on what else is in a step, nor on how its tokens are cut into steps.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pythia_gguf.arguments import shown, whole_numbers
from pythia_gguf.engine.kv_tiles import Tiles, n_tiles_of, tile_bytes
from pythia_gguf.engine.oplist import OpList
from pythia_gguf.engine.points import Hook, HookPlace, Point, hooks_by_name, matrix_at, point_names
from pythia_gguf.engine.process_bound import ProcessBound
from pythia_gguf.engine.protocol import Part
from pythia_gguf.engine.runner import Runner
from pythia_gguf.engine.workspace import SLICE_TOKENS, Workspace, rounded_up, workspace_bytes
from pythia_gguf.errors import Argument, NotFiniteError, UsageError
from pythia_gguf.kernels.memory import aligned
from pythia_gguf.kernels.op_words import (
    ALL_ROWS,
    N_SEGMENTS,
    N_TOKENS,
    N_WANTED,
    SEGMENT_WORDS,
    SEGMENTS,
    WANTED,
)
from pythia_gguf.kernels.simd import LANES
from pythia_gguf.machine import require_memory

_SHORTER = ". Fewer tokens need less"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Tokens of one part that fall into one slice."""

    seq: int
    position: int
    ids: np.ndarray
    wanted: range


class Session(ProcessBound):
    """A pool of sequences over one pool of keys and values.

    n_sequences  at most so many are open at a time
    n_context    each has at most so many tokens
    n_slice      tokens that go through the model at once; a longer step is cut into slices of so many
    """

    def __init__(
        self, runner: Runner, n_sequences: int = 1, n_context: int | None = None, kv_bytes: int | None = None
    ) -> None:
        """Reserve memory; it is taken page by page as tokens come. Raises UsageError when it does not fit.

        kv_bytes  limit for keys and values; None: enough for all sequences at their longest
        """
        self.runner = runner
        self.n_sequences = n_sequences
        self.n_context = runner.n_context if n_context is None else n_context
        if n_sequences < 1 or not 1 <= self.n_context <= runner.n_context:
            raise ValueError(f"{n_sequences} sequences of {self.n_context} tokens; the model has {runner.n_context}")
        if kv_bytes is not None and kv_bytes < (least := kv_bytes_of(runner, 1)):
            raise UsageError(
                Argument("kv_bytes"),
                f" must be at least {least}, for the first {LANES} tokens of a text, got {kv_bytes}",
            )
        require_memory(
            session_bytes(runner, n_sequences, self.n_context, kv_bytes),
            f"a session of {n_sequences} sequences of {self.n_context} tokens",
            hints=((". A smaller ", Argument("n_sequences"), " needs less"), _SHORTER),
        )
        self._tiles = Tiles(runner.config, runner.cache, _n_tiles(runner, n_sequences, self.n_context, kv_bytes))
        self._tiles_of: list[list[int]] = [[] for _ in range(n_sequences)]
        self._lengths: list[int | None] = [None] * n_sequences
        # Where the tiles of each sequence begin.
        self._places = aligned((n_sequences, n_tiles_of(self.n_context)), np.int64)
        self.n_slice = _slice_tokens(runner, n_sequences, self.n_context)
        self._stride = rounded_up(runner.n_vocab, LANES)
        self._space = Workspace(runner.config, self.n_slice, rounded_up(self.n_context, LANES))
        self._list = self._list_for(frozenset())
        # The points of the last hooks, and their list: most steps have the hooks of the step before.
        self._hooked: tuple[frozenset[str], OpList] = (frozenset(), self._list)
        self._segments = aligned((self.n_slice, SEGMENT_WORDS), np.int64)
        self._step = runner.workers.new_step()
        self._step[WANTED] = self._space.wanted.ctypes.data
        self._step[SEGMENTS] = self._segments.ctypes.data

    def open(self) -> int:
        """A new, empty sequence; raises UsageError when all are in use."""
        for seq, length in enumerate(self._lengths):
            if length is None:
                self._lengths[seq] = 0
                return seq
        raise UsageError(f"all {self.n_sequences} sequences are in use")

    def close(self, seq: int) -> None:
        """Give up a sequence, its place and its memory; tiles that it shares stay with the others."""
        self.truncate(seq, 0)
        self._lengths[seq] = None
        self._tiles.release()

    def length(self, seq: int) -> int:
        """Tokens of a sequence; raises ValueError when no sequence has that number."""
        length = self._lengths[seq] if 0 <= seq < self.n_sequences else None
        if length is None:
            raise ValueError(f"no sequence {seq}")
        return length

    def truncate(self, seq: int, n_tokens: int) -> None:
        """Forget all but the first n tokens."""
        if not 0 <= n_tokens <= self.length(seq):
            raise ValueError(f"sequence {seq} has {self.length(seq)} tokens, not {n_tokens}")
        self._lengths[seq] = n_tokens
        n = n_tiles_of(n_tokens)
        self._tiles.drop(self._tiles_of[seq][n:])
        del self._tiles_of[seq][n:]

    def fork(self, seq: int, n_tokens: int) -> int:
        """Begin a sequence with the first n tokens of another, and share their keys and values.

        Raises UsageError when all sequences are in use.
        """
        if not 0 <= n_tokens <= self.length(seq):
            raise ValueError(f"sequence {seq} has {self.length(seq)} tokens, not {n_tokens}")
        new = self.open()
        self._tiles_of[new] = self._tiles_of[seq][: n_tiles_of(n_tokens)]
        self._tiles.share(self._tiles_of[new])
        self._note_places(new)
        self._lengths[new] = n_tokens
        return new

    def step(
        self, parts: Sequence[Part], room: np.ndarray | None = None, *, hooks: Mapping[str, Hook] | None = None
    ) -> np.ndarray:
        """Append tokens to sequences; returns logits f32 [rows wanted, n_vocab], in the order of the parts.

        room    memory for the logits, from `room_for`, for at least as many rows; None takes new memory
        hooks   functions that see the values at points (`engine.points`), by name; `*` in a name stands for anything. A
                long step is done in slices, and a hook is called for each. It gets an array of the rows of the slice,
                valid only during the call, and their `HookPlace`. The model goes on with what the hook writes into the
                array, or with the array that it returns instead.
        Raises  UsageError when a sequence would be longer than the context or memory holds, and for an unknown point;
                NotFiniteError for logits, or values that a hook would see, that are infinity or NaN; ValueError for a
                part without tokens, an unknown id, or two parts of one sequence. No sequence is longer then.
        """
        # 1. Check everything that the caller can have got wrong, before any sequence changes.
        runs = self._slices(parts)
        called = hooks_by_name(hooks, point_names(self.runner.config)) if hooks else {}
        n_rows = sum(p.n_wanted for p in parts)
        logits = self.room_for(n_rows) if room is None else room[:n_rows]
        if logits.shape != (n_rows, self._stride) or logits.dtype != np.float32 or not logits.flags.c_contiguous:
            raise ValueError(f"no room for {n_rows} rows: {logits.shape} of {logits.dtype}")
        # 2. Take tiles for the new tokens; this fails before it changes anything.
        self._make_room(parts)
        # 3. Run slice after slice.
        done = 0
        for slice_runs in runs:
            done += self._run(slice_runs, logits[done:], called)
        # 4. Only now do the sequences grow: if a slice fails, they are as long as before, and no step reads the rest.
        for r in (r for slice_runs in runs for r in slice_runs):
            self._lengths[r.seq] = r.position + len(r.ids)
        return logits[:, : self.runner.n_vocab]

    def room_for(self, n_rows: int) -> np.ndarray:
        """Memory for the logits of so many rows, with any content; raises UsageError when it does not fit."""
        require_memory(n_rows * self._stride * 4, f"logits of {n_rows} tokens", hints=(_SHORTER,))
        return np.empty((n_rows, self._stride), np.float32)

    def _make_room(self, parts: Sequence[Part]) -> None:
        """Give each part tiles that no other sequence uses; raises UsageError before anything has changed."""
        grown = [(part.seq, n_tiles_of(self.length(part.seq) + len(part.ids))) for part in parts]
        # A shared tile in which a sequence goes on must be copied; the last of its users keeps the tile itself.
        writers = Counter(self._tile_written(part.seq) for part in parts)
        copies = sum(min(n, self._tiles.n_users(tile) - 1) for tile, n in writers.items() if tile is not None)
        needed = copies + sum(max(0, n - len(self._tiles_of[seq])) for seq, n in grown)
        if needed > self._tiles.n_free:
            n_tokens, of_each = sum(len(part.ids) for part in parts), tile_bytes(self.runner.config, self.runner.cache)
            raise UsageError(
                f"keys and values of {n_tokens} more tokens do not fit: {needed * of_each:,} bytes are needed and"
                f" {self._tiles.n_free * of_each:,} free. End a text, or take fewer or shorter ones"
            )
        for seq, n in grown:
            tiles, written = self._tiles_of[seq], self._tile_written(seq)
            if written is not None and self._tiles.n_users(written) > 1:
                tiles[self.length(seq) // LANES] = self._tiles.copy_of(written)
                self._note_places(seq)
            if n > len(tiles):
                tiles += [self._tiles.take() for _ in range(n - len(tiles))]
                self._note_places(seq)

    def _note_places(self, seq: int) -> None:
        """Tell the kernels where the tiles of a sequence are; called whenever it has got other ones."""
        tiles = self._tiles_of[seq]
        self._places[seq, : len(tiles)] = self._tiles.places(tiles)

    def _tile_written(self, seq: int) -> int | None:
        """The tile in which a sequence goes on; None where its next token begins a tile."""
        i, position = divmod(self.length(seq), LANES)
        return self._tiles_of[seq][i] if position else None

    def _slices(self, parts: Sequence[Part]) -> list[list[_Run]]:
        """Check the parts and cut them into slices."""
        if len({part.seq for part in parts}) != len(parts):
            raise ValueError("two parts of one step are for the same sequence")
        slices: list[list[_Run]] = [[]]
        room = self.n_slice
        for part in parts:
            ids = self._checked(part)
            position, first_wanted = self.length(part.seq), len(ids) - part.n_wanted
            at = 0
            while at < len(ids):
                if room == 0:
                    slices.append([])
                    room = self.n_slice
                n = min(room, len(ids) - at)
                wanted = range(max(0, first_wanted - at), n)
                slices[-1].append(_Run(seq=part.seq, position=position + at, ids=ids[at : at + n], wanted=wanted))
                at += n
                room -= n
        return slices

    def _checked(self, part: Part) -> np.ndarray:
        ids: Sequence[int] | np.ndarray = part.ids
        # Check ids one by one only where they may be anything: that takes as long as a step of a small model.
        if not (isinstance(ids, np.ndarray) and ids.ndim == 1 and ids.dtype.kind == "i"):
            ids = whole_numbers("ids", ids)
        if not len(ids):
            raise ValueError("ids must be at least one token")
        if not 0 <= part.n_wanted <= len(ids):
            raise ValueError(f"logits wanted after {part.n_wanted} of {len(ids)} tokens")
        least, most = (ids.min(), ids.max()) if isinstance(ids, np.ndarray) else (min(ids), max(ids))
        if least < 0 or most >= self.runner.n_vocab:
            raise ValueError(
                f"ids must be in 0..{self.runner.n_vocab - 1}, got {shown(int(least))}..{shown(int(most))}"
            )
        needed = self.length(part.seq) + len(ids)
        if needed > self.n_context:
            raise UsageError(f"{needed} tokens do not fit into a context of {self.n_context}")
        return np.array(ids, np.int64)

    def _list_for(self, asked: frozenset[str]) -> OpList:
        return OpList(self.runner, self._space, self._tiles, asked)

    def _run(self, runs: list[_Run], logits: np.ndarray, hooks: Mapping[str, Sequence[Hook]]) -> int:
        """Run one slice; returns the number of rows written."""
        # 1. A step that a signal interrupted may still be using the buffers: let it end.
        self.runner.workers.settle()
        if hooks and hooks.keys() != self._hooked[0]:
            self._hooked = frozenset(hooks), self._list_for(frozenset(hooks))
        step, space, ops = self._step, self._space, self._hooked[1] if hooks else self._list
        # 2. Tell the ops where each run's tiles are, and which rows are wanted, and fill in the embeddings.
        n_tokens = n_wanted = 0
        for i, r in enumerate(runs):
            self._segments[i] = n_tokens, len(r.ids), self._places[r.seq].ctypes.data, r.position
            space.wanted[n_wanted : n_wanted + len(r.wanted)] = np.arange(r.wanted.start, r.wanted.stop) + n_tokens
            n_tokens += len(r.ids)
            n_wanted += len(r.wanted)
        hidden = self.runner.config.hidden
        space.x.array[:n_tokens, :hidden] = self.runner.weights.embed(np.concatenate([r.ids for r in runs]))
        step[N_TOKENS], step[N_WANTED], step[N_SEGMENTS] = n_tokens, n_wanted, len(runs)
        if n_wanted:
            ops.write_logits_to(logits)
        wanted = [(r, i) for r in runs for i in r.wanted]
        # 3. Run the ops, in stretches that end where hooks look inside; without hooks that is one call.
        first, last = 0, len(ops.ops) if n_wanted else ops.n_body
        for point in ops.points(logits[:n_wanted]) if hooks else ():
            if first < point.at:
                self.runner.workers.run(ops.ops, first, point.at, step, (self, ops, logits))
                first = point.at
            every = [(r, i) for r in runs for i in range(len(r.ids))]
            self._show(point, every if point.rows == ALL_ROWS else wanted, hooks[point.name])
        if first < last:
            self.runner.workers.run(ops.ops, first, last, step, (self, ops, logits))
        # 4. Refuse logits that are no numbers, before the caller chooses a token by them.
        self._check(logits[:n_wanted, : self.runner.n_vocab], wanted)
        return n_wanted

    def _show(self, point: Point, tokens: Sequence[tuple[_Run, int]], hooks: Sequence[Hook]) -> None:
        """Let hooks see and change the values at a point; `tokens` has one entry for each row."""
        place = HookPlace(
            name=point.name,
            seqs=np.array([run.seq for run, _ in tokens]),
            positions=np.array([run.position + i for run, i in tokens]),
        )
        x = point.values(place)
        if not np.isfinite(seen := point.where_seen(x, place)).all():
            self._check(seen, tokens, point.name)
        for hook in hooks:
            point.change(x, hook(x, place), place)

    def _check(self, rows: np.ndarray, places: Iterable[tuple[_Run, int]], name: str | None = None) -> None:
        """Raises NotFiniteError for the first row with infinity or NaN.

        rows    f32 [n, any]
        places  for each row its run and the token's number in it
        name    the point that the rows come from; None: they are logits
        """
        for row, (run, i) in zip(rows, places, strict=True):
            if not np.isfinite(row).all():
                n_tokens = run.position + i + 1
                found = self._tiles.first_not_finite(self._tiles_of[run.seq][: n_tiles_of(n_tokens)], n_tokens)
                where = "logits" if found is None else f"keys and values of layer {found[0]}"
                position = n_tokens - 1 if found is None else found[1]
                is_here = 0 <= position - run.position < len(run.ids)
                token = f" (token {run.ids[position - run.position]})" if is_here else ""
                raise NotFiniteError(
                    f"infinity or NaN at position {position}{token}: weights are damaged, or the model has diverged",
                    path=self.runner.path,
                    field=where if name is None else _said(name),
                    position=position,
                )


def _said(point: str) -> str:
    """The words for a point in a message."""
    matrix = matrix_at(point)
    return point if matrix is None else f"what {matrix} multiplies"


def session_bytes(runner: Runner, n_sequences: int, n_context: int, kv_bytes: int | None = None) -> int:
    """Memory that a session takes, without the logits that a step returns."""
    n_slice = _slice_tokens(runner, n_sequences, n_context)
    cache = _n_tiles(runner, n_sequences, n_context, kv_bytes) * tile_bytes(runner.config, runner.cache)
    places = n_sequences * n_tiles_of(n_context) * 8
    workspace = workspace_bytes(runner.config, n_slice, rounded_up(n_context, LANES))
    return cache + places + n_slice * SEGMENT_WORDS * 8 + workspace


def kv_bytes_of(runner: Runner, n_tokens: int) -> int:
    """Memory for the keys and values of a sequence of so many tokens."""
    return n_tiles_of(n_tokens) * tile_bytes(runner.config, runner.cache)


def _n_tiles(runner: Runner, n_sequences: int, n_context: int, kv_bytes: int | None) -> int:
    n_tiles = n_sequences * n_tiles_of(n_context)
    return n_tiles if kv_bytes is None else min(n_tiles, kv_bytes // tile_bytes(runner.config, runner.cache))


def _slice_tokens(runner: Runner, n_sequences: int, n_context: int) -> int:
    """Most tokens that go through the model at once."""
    return min(SLICE_TOKENS[runner.activations], rounded_up(max(n_context, n_sequences), 8))
