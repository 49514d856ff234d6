"""The layers of GPT-NeoX in the words of engine/op_builder.py: which op reads what, and in which order.

With `is_short`, only the rows whose logits are wanted go on after attention, and the residual stream has only those.
"""

from __future__ import annotations

from collections.abc import Callable

from pythia_gguf.arch import ModelConfig
from pythia_gguf.engine.op_builder import OpBuilder, Residual
from pythia_gguf.kernels.op_words import ALL_ROWS, GATHERED_ROWS, WANTED_ROWS
from pythia_gguf.kernels.threads import SECOND_TAKEN

# Adds the ops of one layer: block(builder, i_layer, x, is_short) returns the residual stream after it.
Block = Callable[[OpBuilder, int, Residual, bool], Residual]


def gpt_neox_block(config: ModelConfig) -> Block:
    """The block for a model of these sizes."""
    return _parallel_block if config.parallel_residual else _sequential_block


def _parallel_block(build: OpBuilder, i: int, x: Residual, is_short: bool) -> Residual:
    """Both halves read x; the ops between two barriers do not need each other's results."""
    name, point, space = f"blk.{i}.", f"blocks.{i}.", build.space
    gathered, rows = (GATHERED_ROWS, WANTED_ROWS) if is_short else (ALL_ROWS, ALL_ROWS)
    x = build.residual(point + "resid_pre", x)

    # 1. Both norms. The one that does the rows that are needed after the layer also keeps the sum x.
    build.norm(
        *(name + "ffn_norm", x, space.in_up),
        reader=name + "ffn_up",
        point=point + "ln2",
        begins=1,
        rows=gathered,
        keeps=is_short,
    )
    build.go_on()
    build.norm(name + "attn_norm", x, space.in_qkv, reader=name + "attn_qkv", point=point + "ln1", keeps=not is_short)
    x = x.kept(gathered=is_short)

    # 2. All rows need keys and values, because later tokens read them; after that only some rows may be wanted.
    build.product(name + "attn_qkv", space.in_qkv, space.qkv)
    dense, down = name + "attn_output", name + "ffn_down"
    z_is_ready = build.attention(i, reader=dense, point=point + "attn", quantizes=not is_short)
    build.go_on()
    if is_short:
        build.only_wanted_rows()
    ffn_is_ready = build.activated_product(
        *(name + "ffn_up", space.in_up, space.ffn, space.in_down),
        reader=down,
        point=point + "mlp",
        counter=SECOND_TAKEN,
        rows=rows,
    )

    # 3. The products that end both halves, side by side.
    in_dense = space.gathered if is_short else space.in_dense
    build.input(space.in_dense, in_dense, reader=dense, is_quantized=z_is_ready, rows=gathered)
    build.input(space.ffn, space.in_down, reader=down, is_quantized=ffn_is_ready, rows=rows)
    build.product(dense, in_dense, space.from_attention, point=point + "attn_out", rows=rows)
    build.go_on()
    build.product(down, space.in_down, space.from_ffn, point=point + "mlp_out", counter=SECOND_TAKEN, rows=rows)
    return build.residual(point + "resid_post", x.plus(space.from_attention, space.from_ffn))


def _sequential_block(build: OpBuilder, i: int, x: Residual, is_short: bool) -> Residual:
    """The feed-forward half reads the result of the attention half."""
    name, point, space = f"blk.{i}.", f"blocks.{i}.", build.space
    gathered, rows = (GATHERED_ROWS, WANTED_ROWS) if is_short else (ALL_ROWS, ALL_ROWS)
    dense, down = name + "attn_output", name + "ffn_down"

    # 1. Attention of all rows.
    x = build.residual(point + "resid_pre", x)
    build.norm(name + "attn_norm", x, space.in_qkv, reader=name + "attn_qkv", point=point + "ln1", keeps=True)
    x = x.kept()
    build.product(name + "attn_qkv", space.in_qkv, space.qkv)
    z_is_ready = build.attention(i, reader=dense, point=point + "attn", quantizes=True)
    build.input(space.in_dense, space.in_dense, reader=dense, is_quantized=z_is_ready)
    build.product(dense, space.in_dense, space.from_attention, point=point + "attn_out")
    x = build.residual(point + "resid_mid", x.plus(space.from_attention))

    # 2. The feed-forward half, for the rows that are wanted after the layer.
    if is_short:
        build.only_wanted_rows()
    build.norm(
        *(name + "ffn_norm", x, space.in_up), reader=name + "ffn_up", point=point + "ln2", rows=gathered, keeps=True
    )
    x = x.kept(gathered=is_short)
    ffn_is_ready = build.activated_product(
        name + "ffn_up", space.in_up, space.ffn, space.in_down, reader=down, point=point + "mlp", rows=rows
    )
    build.input(space.ffn, space.in_down, reader=down, is_quantized=ffn_is_ready, rows=rows)
    build.product(down, space.in_down, space.from_ffn, point=point + "mlp_out", rows=rows)
    return build.residual(point + "resid_post", x.plus(space.from_ffn))
