"""A model as a list of ops over a workspace, which kernels/driver.py runs for each step.

The layers of each architecture are in a file of their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from pythia_gguf.arch import ModelConfig
from pythia_gguf.arch.gpt_neox import GPT_NEOX
from pythia_gguf.engine.gpt_neox_blocks import Block, gpt_neox_block
from pythia_gguf.engine.kv_tiles import Tiles
from pythia_gguf.engine.op_builder import OpBuilder, Residual
from pythia_gguf.engine.points import EMBED, LOGITS, Point
from pythia_gguf.engine.runner import Runner
from pythia_gguf.engine.workspace import Workspace
from pythia_gguf.kernels.op_words import ALL_ROWS, GATHERED_ROWS, PRODUCT, WANTED_ROWS

# By the name of an architecture in GGUF: the function that gives the block of a model of given sizes.
BLOCKS: dict[str, Callable[[ModelConfig], Block]] = {GPT_NEOX.name: gpt_neox_block}


class OpList:
    """The ops of a model for steps of at most as many tokens as a workspace has room for.

    ops     i64 [n, OP_WORDS]
    n_body  ops that every step needs; the ops after them are only for logits
    """

    def __init__(self, runner: Runner, space: Workspace, tiles: Tiles, asked: frozenset[str] = frozenset()) -> None:
        """Build it.

        tiles  keys and values of all sequences
        asked  points that hooks want to see. If there are any, all layers do all rows; otherwise the last layer does,
               from attention on, only the rows whose logits are wanted
        """
        config = runner.config
        build = OpBuilder(runner, space, tiles, asked)
        block = BLOCKS[config.architecture](config)
        x = Residual(here=space.x, there=space.spare)
        build.stop(EMBED, space.x.array[:, : config.hidden])
        for i in range(config.n_layers):
            x = block(build, i, x, not asked and i == config.n_layers - 1)
        if asked:
            build.only_wanted_rows()
        rows = GATHERED_ROWS if asked else WANTED_ROWS
        build.norm("output_norm", x, space.in_output, reader="output", point="ln_final", rows=rows)
        # Each step says where its logits go.
        build.product("output", space.in_output, space.ffn, rows=WANTED_ROWS)
        assert build.n_body is not None
        self.ops, self.n_body, self._points = build.array(), build.n_body, build.points
        self._shows_logits, self._n_vocab = LOGITS in asked, config.n_vocab
        self._kept = space, build.biases

    def write_logits_to(self, logits: np.ndarray) -> None:
        """Set where logits of the wanted rows go: f32 [at least as many, stride], stride a multiple of LANES."""
        self.ops[-1, PRODUCT.out], self.ops[-1, PRODUCT.stride] = logits.ctypes.data, logits.shape[1]

    def points(self, logits: np.ndarray) -> Iterator[Point]:
        """Where to stop for hooks, in the order of the ops; `logits` are those of the step, and may have no row."""
        yield from (point for point in self._points if point.rows == ALL_ROWS or len(logits))
        if self._shows_logits and len(logits):
            at, array = len(self.ops), logits[:, : self._n_vocab]
            yield Point(name=LOGITS, at=at, array=array, rows=WANTED_ROWS)
