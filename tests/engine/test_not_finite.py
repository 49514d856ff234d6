"""Infinity and NaN end in one line that names their place: in a weight when the file is loaded, in what the model
computes when it is computed.

Wrong numbers are put into files of the sample model; where they lie is known from the layout of the formats.
"""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from cli.command_lines import make_corpus, make_run
from engine.nano import HELDOUT, NANO, nano_files
from pythia_gguf.cli.main import COMMANDS, find_command
from pythia_gguf.engine.model import load
from pythia_gguf.engine.protocol import Part
from pythia_gguf.errors import ModelFileError, NotFiniteError
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.reader import open_gguf

# Tensors of the sample model in every format that its 17 files hold: (format, file, tensor).
HOLDERS = {
    info.format: (quant, info.name)
    for quant in ("Q2_K", "Q3_K_M", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q5_K_M", "Q8_0", "IQ4_NL", "IQ4_XS", "F16")
    for info in open_gguf(nano_files()[quant]).tensors.values()
}
HALVES = [
    (name, field)
    for name in HOLDERS
    for field in FORMATS[name].block.names or ()
    if FORMATS[name].block[field].str in ("<f2", "<f4")
]


def damaged(path: Path, source: Path, tensor: str, changes: dict[int, bytes]) -> int:
    """A copy with other bytes in a tensor, by their offset in it; where the tensor begins."""
    data = bytearray(source.read_bytes())
    gguf = open_gguf(source)
    start = gguf.data_offset + gguf.tensors[tensor].offset
    for offset, new in changes.items():
        data[start + offset : start + offset + len(new)] = new
    path.write_bytes(data)
    return start


def test_all_formats_that_are_run_are_tried():
    assert HOLDERS.keys() == FORMATS.keys() - {"BF16"}


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize(("name", "field"), HALVES)
def test_block_that_is_no_number_is_found(name: str, field: str, value: float):
    kind = FORMATS[name].block
    blocks = np.zeros(40_000, kind)
    assert FORMATS[name].first_not_finite(blocks.view(np.uint8)) is None
    largest = np.finfo(kind[field]).max
    blocks[field] = largest
    assert FORMATS[name].first_not_finite(blocks.view(np.uint8)) is None
    for i in (0, 12_345, 39_999):
        blocks[field][i:] = value
        assert FORMATS[name].first_not_finite(blocks.view(np.uint8)) == i
        blocks[field] = -largest


def test_bfloat16_is_looked_at_as_what_it_is():
    bits = np.full(100, 0x7F7F, "<u2")  # the largest
    assert FORMATS["BF16"].first_not_finite(bits.view(np.uint8)) is None
    bits[42] = 0xFF80
    assert FORMATS["BF16"].first_not_finite(bits.view(np.uint8)) == 42


@pytest.mark.parametrize(("name", "field"), HALVES)
def test_weight_that_is_no_number_is_one_line_with_its_place(name: str, field: str, tmp_path: Path):
    quant, tensor = HOLDERS[name]
    block, path = FORMATS[name], tmp_path / "m.gguf"
    i = 5
    offset = i * block.block_bytes + block.block.fields[field][1]  # type: ignore[index]
    new = struct.pack("<e" if block.block[field].str == "<f2" else "<f", np.nan)
    start = damaged(path, nano_files()[quant], tensor, {offset: new})
    with pytest.raises(NotFiniteError) as e:
        load(path, threads=2)
    n, columns = block.block_weights, open_gguf(path).tensors[tensor].shape[-1]
    row, column = divmod(i * n, columns)
    which = f"weight {column}" if n == 1 else f"the scale of weights {column} to {column + n - 1}"
    assert str(e.value).startswith(
        f"{path}: byte {start + i * block.block_bytes}: tensor {tensor}: {which} of row {row} is infinity or NaN: "
    )
    assert e.value.position is None


def exploding(path: Path, quant: str = "Q4_0", tensor: str = "output_norm.weight", value: float = 3e38) -> Path:
    """A model of finite weights whose numbers overflow."""
    n = open_gguf(nano_files()[quant]).tensors[tensor].n_weights
    damaged(path, nano_files()[quant], tensor, {0: np.full(n, value, np.float32).tobytes()})
    return path


def test_logits_that_are_no_numbers_say_where(tmp_path: Path):
    """A bias in layer 2 overflows, so layer 3 is the first to keep what is no number; a kept float16 ends at 65504."""
    path = exploding(tmp_path / "m.gguf", tensor="blk.2.attn_qkv.bias")
    for kv in ("f16", "f32"):
        with pytest.raises(NotFiniteError, match=r"m\.gguf: keys and values of layer 3: infinity or NaN") as e:
            load(path, threads=1, cache=kv).logits([5, 6, 7])
        assert (e.value.position, "at position 0 (token 5): " in str(e.value)) == (0, True)
    path = exploding(tmp_path / "m.gguf")
    with pytest.raises(NotFiniteError, match=r"m\.gguf: logits: infinity or NaN at position 2 \(token 7\): ") as e:
        load(path, threads=1).logits([5, 6, 7], n_last=1)
    assert e.value.position == 2


def test_a_step_that_fails_leaves_its_sequences_as_they_were(tmp_path: Path):
    model = load(exploding(tmp_path / "m.gguf"), threads=1)
    session = model.sequences(n_sequences=2)
    seqs = [session.open(), session.open()]
    session.step([Part(seq=seq, ids=[1, 2], n_wanted=0) for seq in seqs])
    with pytest.raises(NotFiniteError):  # the second part fails in a later slice than the first
        session.step([Part(seq=seqs[0], ids=[3] * 300, n_wanted=0), Part(seq=seqs[1], ids=[4])])
    assert [session.length(seq) for seq in seqs] == [2, 2]


def test_what_a_matrix_multiplies_is_looked_at(tmp_path: Path):
    model = load(exploding(tmp_path / "m.gguf", tensor="blk.3.ffn_norm.weight"), threads=1)
    with pytest.raises(NotFiniteError, match=r"what blk\.3\.ffn_up\.weight multiplies: .* at position 0 \(token 9\)"):
        model.watch([9, 8], lambda name, x: None)


# What each command that runs a model is called with, MODEL being the file.
CALLS: dict[str, tuple[object, ...]] = {
    "generate": ("MODEL", "def"),
    "score": ("MODEL", "--prompt", "a", "--continuation", " b"),
    "bench": ("MODEL", "--prompt", "8", "--tokens", "2", "--repeats", "1"),
    "imatrix": ("MODEL", "--text", HELDOUT, "--context", "32", "--chunks", "1", "-o", "OUT"),
    "data effect": ("CORPUS", " import os", "--batch", "2", "--tokenizer", NANO, "--model", "RUN"),
    "measure": ("MODEL", "--reference", "GOOD", "--text", HELDOUT, "--context", "32", "--chunks", "1"),
}
# tests/evals/test_not_finite.py needs lm_eval, tests/serve a server
ELSEWHERE = {"eval", "serve"}


def test_every_command_that_runs_a_model_is_called():
    run = {name for name in COMMANDS for p in find_command(name).params if p.name == "activations"}
    assert run == CALLS.keys() | ELSEWHERE


@pytest.mark.parametrize("command", CALLS)
def test_every_command_says_so_in_one_line(pythia, command: str, tmp_path: Path):
    """A file with a NaN, then one that overflows; `measure` makes a report of that, with null for what there is not."""
    damaged(tmp_path / "nan.gguf", nano_files()["Q4_0"], "output_norm.weight", {4: struct.pack("<f", np.nan)})
    exploding(tmp_path / "inf.gguf")
    says = {"nan": "tensor output_norm.weight: weight 1 of row 0", "inf": "infinity or NaN at position"}
    if command == "imatrix":  # it asks for no logits
        exploding(tmp_path / "inf.gguf", tensor="blk.3.ffn_norm.weight")
    for kind in ("nan", *(["inf"] if command != "measure" else [])):
        named = {"MODEL": tmp_path / f"{kind}.gguf", "OUT": tmp_path / "out.gguf", "GOOD": nano_files()["F16"]}
        if command == "data effect":
            named |= {"CORPUS": make_corpus(tmp_path / f"corpus-{kind}"), "RUN": tmp_path / f"run-{kind}"}
            make_run(named["RUN"], named["MODEL"])
            named["MODEL"] = named["RUN"] / "step0" / named["MODEL"].name
        code, out, err = pythia(*command.split(), *(named.get(str(a), a) for a in CALLS[command]))
        assert (code, out) == (ModelFileError.exit_code, ""), err
        last = err.splitlines()[-1]
        assert command != "imatrix" or kind == "nan" or "ffn_up.weight multiplies: window 1: " in last
        assert says[kind] in last
        assert last.startswith(f"Error: {named['MODEL']}: ")
