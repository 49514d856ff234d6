"""Hostile files through the real entry point: one line on stderr, nothing on stdout, the exit code of its kind."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from checkpoint import hostile_zip
from checkpoint.craft_safetensors import LFS_POINTER, file_of
from gguf import craft
from press import tiny
from pythia_gguf.cli.main import main

Files = dict[str, bytes | None]
FOLDER = tiny.folder_files()
GGUF = tiny.gguf_bytes()
QUANTIZE, QUANTS, INSPECT, VERIFY = ("quantize", "--dry-run"), ("quants",), ("inspect",), ("verify",)


def answer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `pythia ...`."""
    monkeypatch.setattr(sys, "argv", ["pythia", *args])
    with pytest.raises(SystemExit) as caught:
        main()
    out, err = capsys.readouterr()
    return int(caught.value.code or 0), out, err


def gguf_with(**keys: object) -> bytes:
    return tiny.gguf_bytes(keys={name.replace("__", "."): value for name, value in keys.items()})


def claims(n: int) -> bytes:
    """A header that claims an array of `n` strings."""
    key = craft.Key(name=b"a", type_id=craft.ARRAY, payload=craft.array(craft.STRING, n, b""))
    return bytes(craft.draft([key], []).data)


LONE: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "truncated header"),
    "twenty bytes": (GGUF[:20], "truncated header: need 24 bytes, have 20"),
    "half": (GGUF[: len(GGUF) // 2], "download it again"),
    "one byte short": (GGUF[:-1], "download it again"),
    "one byte more": (GGUF + b"\0", "1 bytes follow the last tensor"),
    "a zip": (b"PK\3\4" + bytes(60), "a zip archive"),
    "an LFS pointer": (LFS_POINTER, "run `git lfs pull`"),
    "version 1": (GGUF[:4] + b"\1" + GGUF[5:], "unsupported version 1"),
    "big-endian": (GGUF[:4] + b"\0\0\0\3" + GGUF[8:], "big-endian file"),
    "2^64-1 tensors": (GGUF[:8] + b"\xff" * 8 + GGUF[16:], "exceed the limit of 65536"),
    "2^64-1 keys": (GGUF[:16] + b"\xff" * 8 + GGUF[24:], "exceed the limit of 65536"),
    "2^64-1 bytes of key": (GGUF[:24] + b"\xff" * 8 + GGUF[32:], "key length 18446744073709551615 exceeds"),
    "2^22 strings": (claims(2**22), "strings need"),
}
MODELS: dict[str, tuple[bytes, str]] = {
    "another architecture": (gguf_with(general__architecture="llama"), "expected 'gptneox'"),
    "no layers": (gguf_with(gptneox__block_count=np.uint32(0)), "expected 1..512, got 0"),
    "layers as text": (gguf_with(gptneox__block_count="1"), "expected a whole number"),
    "epsilon NaN": (gguf_with(gptneox__attention__layer_norm_epsilon=np.float32("nan")), "got nan"),
    "a token twice": (gguf_with(tokenizer__ggml__tokens=["a"] * 8), "token 'a' has two ids"),
    "no merges": (gguf_with(tokenizer__ggml__merges=...), "merges: expected an array of texts"),
    "two files": (gguf_with(split__count=np.uint16(2)), "llama-gguf-split --merge"),
    "no output": (tiny.gguf_bytes(shapes={"output.weight": ...}), "tensor output.weight: tensor is missing"),
}
FOLDERS: dict[str, tuple[Files, int, str]] = {
    "no config": ({"config.json": None}, 74, "config.json: cannot open"),
    "no tokenizer": ({"tokenizer.json": None}, 74, "tokenizer.json: cannot open"),
    "no weights": ({"model.safetensors": None}, 74, "no checkpoint here"),
    "config of another model": ({"config.json": b'{"model_type": "llama"}'}, 65, "expected 'gpt_neox'"),
    "config nested": ({"config.json": b"[" * 10**6}, 65, "not usable JSON"),
    "config is binary": ({"config.json": bytes(range(256))}, 65, "config.json: byte 128: not UTF-8 text"),
    "tokenizer is empty": ({"tokenizer.json": b"{}"}, 65, "pre_tokenizer: expected an object"),
    "tokenizer in UTF-16": ({"tokenizer.json": FOLDER["tokenizer.json"].decode().encode("utf-16")}, 65, "not UTF-8"),
    "card runs code": ({"README.md": b"---\na: !!python/name:os.system\n---\n"}, 65, "front matter"),
    "card of a huge number": ({"README.md": b"---\nversion: 0x" + b"f" * 9999 + b"\n---\n"}, 65, "front matter"),
    "template that is a number": ({"tokenizer_config.json": b'{"chat_template": 1}'}, 65, "expected a text or a list"),
    "weights are an LFS pointer": ({"model.safetensors": LFS_POINTER}, 65, "Git LFS pointer"),
    "weights of 2^60 bytes": ({"model.safetensors": file_of("{}", length=2**60)}, 65, "header length"),
    "weights cut short": ({"model.safetensors": FOLDER["model.safetensors"][:-1]}, 65, "cut short"),
    "a zip with other tensors": (
        {"model.safetensors": None, "pytorch_model.bin": hostile_zip.good_zip()},
        65,
        "tensor a: no tensor of a GPT-NeoX model",
    ),
    "a pickle that runs code": (
        {
            "model.safetensors": None,
            "pytorch_model.bin": hostile_zip.with_pickle(b"\x80\x02cos\nsystem\nX\0\0\0\0\x85R."),
        },
        65,
        "refused 'os.system'",
    ),
    "a bomb": ({"model.safetensors": None, "pytorch_model.bin": hostile_zip.bomb(1 << 20)}, 65, "is compressed"),
    "an index that climbs": (
        {"model.safetensors": None, "model.safetensors.index.json": b'{"weight_map": {"a": "../../x.safetensors"}}'},
        65,
        "expected a plain file name",
    ),
    "an index of a missing shard": (
        {"model.safetensors": None, "model.safetensors.index.json": b'{"weight_map": {"a": "x.safetensors"}}'},
        74,
        "x.safetensors: missing",
    ),
}


def gguf_case(data: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "model.gguf"
        path.write_bytes(data)
        return path

    return make


def folder_case(changes: Files) -> Callable[[Path], Path]:
    files = {name: data for name, data in (FOLDER | changes).items() if data is not None}
    return lambda folder: tiny.write(folder / "model", files)


CASES = [
    *((f"gguf: {name}", (QUANTIZE, QUANTS, INSPECT), gguf_case(data), 65, says) for name, (data, says) in LONE.items()),
    *((f"model: {name}", (QUANTIZE, QUANTS), gguf_case(data), 65, says) for name, (data, says) in MODELS.items()),
    *((f"folder: {n}", (QUANTIZE,), folder_case(files), code, says) for n, (files, code, says) in FOLDERS.items()),
]


@pytest.mark.parametrize(("name", "commands", "make", "code", "says"), CASES, ids=[case[0] for case in CASES])
def test_hostile_file_is_one_line_and_an_exit_code(name, commands, make, code, says, tmp_path, monkeypatch, capsys):
    path = make(tmp_path)
    for command in commands:
        got, out, err = answer(monkeypatch, capsys, *command, str(path))
        assert (got, out) == (code, ""), (command, err)
        assert err.startswith(f"Error: {path}") and err.endswith("\n")
        assert err[:-1].isprintable() and len(err) < 1000
        assert says in err
    assert sorted(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("data", [GGUF[:-1], b"", LFS_POINTER, GGUF + b"x"], ids=["cut", "empty", "pointer", "tail"])
def test_verify_says_what_is_wrong_with_a_lone_file(data: bytes, tmp_path: Path, monkeypatch, capsys) -> None:
    got, _, err = answer(monkeypatch, capsys, *VERIFY, str(gguf_case(data)(tmp_path)))
    assert got == 65 and "Traceback" not in err and len(err.splitlines()) == 1


def test_damaged_weights_stop_the_run_with_no_file_left(tmp_path: Path, monkeypatch, capsys) -> None:
    """A NaN in a GGUF, and one flipped bit in a torch file, which torch itself takes."""
    weights = bytearray(tiny.gguf_bytes(width=32))
    weights[-2:] = np.float16("nan").tobytes()
    bins = tiny.sharded_bins(tiny.folder_files(32))
    flipped = bytearray(bins[tiny.BINS[0]])
    flipped[flipped.index(b"data/0") + 200] ^= 1
    sources = {
        "nan": (gguf_case(bytes(weights)), "is not finite"),
        "bit": (lambda f: tiny.write(f / "model", bins | {tiny.BINS[0]: bytes(flipped)}), "CRC-32"),
    }
    for name, (make, says) in sources.items():
        (tmp_path / name).mkdir()
        source, out = make(tmp_path / name), tmp_path / name / "out"
        got, shown, err = answer(
            monkeypatch, capsys, "quantize", str(source), "--out", str(out), "--quants", "Q8_0", "--quiet"
        )
        assert (got, shown) == (65, "") and says in err
        assert len(err.splitlines()) == 1
        assert not out.exists() or os.listdir(out) == []
