"""Random damage to a whole model, through the door that users take: one line or a model, never anything else.

Every number of mutants comes from a fixed seed. CPU time is bounded too, some five times above what it was where this
was written: a reader that hangs or doubles its work on one mutant takes far longer.
"""

from __future__ import annotations

import json
import random
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from press import tiny
from press.damage import damaged, damaged_json
from pythia_gguf.arch import config_from_hf
from pythia_gguf.checkpoint.shards import read_index
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.json_file import read_json_object
from pythia_gguf.plan.quants import select_quants
from pythia_gguf.press.menu import make_menu
from pythia_gguf.press.quantize import quantize
from pythia_gguf.press.source import open_source
from pythia_gguf.tokenizer import vocabulary_of

N_MUTANTS = 20_000
QUANTS = select_quants("Q4_K_M,Q8_0")


def survivors(n: int, make: Callable[[], bytes], path: Path, read: Callable[[], object]) -> int:
    """How many of `n` mutants written to `path` are accepted by `read`; any error but a one-line refusal fails."""
    accepted, seconds = 0, time.process_time()
    with open(path, "wb", buffering=0) as out:
        for _ in range(n):
            # Overwritten in place: emptying the file first costs more than reading it.
            out.seek(0)
            out.truncate(out.write(make()))
            try:
                read()
                accepted += 1
            except PythiaGGUFError as e:
                check_line(e, path)
    assert time.process_time() - seconds < 30
    return accepted


def header_bytes_of(path: Path, gguf: bytes) -> int:
    path.write_bytes(gguf)
    return open_gguf(path).data_offset


def check_line(error: PythiaGGUFError, path: Path) -> None:
    """Bad data, or a file that a damaged index names and nobody has; one printable line."""
    assert isinstance(error, ModelFileError | StorageError)
    assert error.exit_code in (65, 74)
    assert str(error).isprintable() and len(str(error)) < 1000
    assert str(error).startswith(str(path.parent))


def test_mutants_of_a_gguf_are_refused_or_a_menu_can_be_made(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    rng, good = random.Random(1), tiny.gguf_bytes()
    n_header = header_bytes_of(path, good)

    def read() -> None:
        source = open_source(path, "model")
        if rng.randrange(10) == 0:
            assert all(item.n_bytes > 0 for item in make_menu(source, QUANTS, "2026"))

    def make() -> bytes:  # the header mostly: in the data no damage can be seen
        return damaged(good[:n_header], rng) + good[n_header:]

    assert N_MUTANTS // 50 < survivors(N_MUTANTS, make, path, read) < N_MUTANTS // 2


def test_mutants_of_a_config_are_refused_or_a_model(tmp_path: Path) -> None:
    path, rng = tmp_path / "config.json", random.Random(2)
    good = json.dumps(tiny.config()).encode()

    def read() -> None:
        config, _ = config_from_hf(read_json_object(path), path)
        assert config.hidden % config.n_heads == 0 < config.rotary_dims <= config.head_dim

    assert N_MUTANTS // 50 < survivors(N_MUTANTS, lambda: damaged_json(good, rng), path, read) < N_MUTANTS // 2


def test_mutants_of_a_tokenizer_are_refused_or_a_vocabulary(tmp_path: Path) -> None:
    path, rng = tmp_path / "tokenizer.json", random.Random(3)
    whole = json.dumps(tiny.tokenizer()).encode()
    vocab = json.dumps(tiny.tokenizer()["model"]["vocab"]).encode()
    rest = whole.replace(vocab, b"@")

    def make() -> bytes:  # most of the file is its vocabulary, and most of what is worth breaking is not
        return damaged_json(rest, rng).replace(b"@", vocab) if rng.randrange(8) else damaged_json(whole, rng)

    def read() -> None:
        vocabulary = vocabulary_of(read_json_object(path), path)
        assert len(set(vocabulary.tokens)) == len(vocabulary.tokens)

    assert N_MUTANTS // 200 < survivors(N_MUTANTS, make, path, read) < N_MUTANTS // 2


def test_mutants_of_an_index_are_refused_or_name_plain_files(tmp_path: Path) -> None:
    path, rng = tmp_path / "index.json", random.Random(4)
    where = {f"t{i}": f"m-{i % 2}.safetensors" for i in range(4)}
    good = json.dumps({"metadata": {"total_size": 8, "x": [1, {}]}, "weight_map": where}).encode()

    def read() -> None:
        shards = read_index(path, suffix=".safetensors")
        assert all(name == Path(name).name and name.endswith(".safetensors") for name in shards)

    assert N_MUTANTS // 50 < survivors(N_MUTANTS, lambda: damaged_json(good, rng), path, read) < N_MUTANTS // 2


FOLDERS = {
    "safetensors": tiny.folder_files,
    "shards": lambda: tiny.sharded(tiny.folder_files()),
    "bins": lambda: tiny.sharded_bins(tiny.folder_files()),
}


@pytest.mark.parametrize("kind", list(FOLDERS))
def test_mutants_of_every_file_of_a_folder_are_refused_or_a_model(kind: str, tmp_path: Path) -> None:
    files = FOLDERS[kind]()
    folder = tiny.write(tmp_path / "model", files)
    rng = random.Random(5)
    for name, good in files.items():
        damage = damaged_json if name.endswith(".json") else damaged
        path = folder / name
        survivors(25, lambda d=damage, g=good: d(g, rng), path, lambda: open_source(folder, "model"))
        path.write_bytes(good)
    assert len(open_source(folder, "model").tensors) == 16


def test_mutants_of_a_model_are_refused_or_quantized_to_files_that_open(tmp_path: Path) -> None:
    path, out = tmp_path / "model.gguf", tmp_path / "out"
    rng, good = random.Random(6), tiny.gguf_bytes(width=32)
    n_header = header_bytes_of(path, good)

    def read() -> None:
        result = quantize(path, out, quants="Q8_0", threads=1, force=True)
        for file in result.files:
            assert open_gguf(file.path).n_bytes == file.n_bytes == file.path.stat().st_size

    def make() -> bytes:
        if rng.randrange(2):  # keys and names, or weights: a few of them become infinite or NaN
            return damaged(good[:n_header], rng) + good[n_header:]
        return good[:n_header] + damaged(good[n_header:], rng)

    assert 10 < survivors(100, make, path, read) < 90
    assert not list(out.glob(".*"))


def test_small_hostile_files_take_little_memory(tmp_path: Path) -> None:
    """Each is under 1 MB and makes readers want more; a folder as it should be takes 1 MB."""
    bombs = {
        "config.json": b'{"a": ' + b"[" * 500_000,
        "tokenizer.json": b'{"model": {"vocab": {' + b",".join(b'"%d": 1' % i for i in range(50_000)) + b"}}}",
        "tokenizer_config.json": b"[" + b"{}," * 100_000 + b"{}]",
        "README.md": b"---\n" + b"a: [" * 50_000 + b"\n---\n",
        "model.safetensors": b"\xff\xff\xff\0\0\0\0\0" + b"{" * 100_000,
    }
    for name, data in bombs.items():
        folder = tiny.write(tmp_path / name, tiny.folder_files() | {name: data})
        tracemalloc.start()
        with pytest.raises(ModelFileError) as caught:
            open_source(folder, "model")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        check_line(caught.value, folder / name)
        # 0.1 to 0.5 MB of text, some 60 to 100 bytes for each empty object or short text in it, and the message.
        assert peak < 40 << 20, name
