"""What a session or a model takes is known before it is taken, and refused in one line where it is not there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from data import neox
from engine.nano import HELDOUT, nano_files
from press import tiny
from pythia_gguf.cli.main import COMMANDS, find_command
from pythia_gguf.engine.kv_tiles import Tiles
from pythia_gguf.engine.model import Model, load
from pythia_gguf.engine.oplist import OpList
from pythia_gguf.engine.weights import weights_bytes
from pythia_gguf.engine.workspace import Buffer, Workspace
from pythia_gguf.errors import UsageError
from pythia_gguf.kernels.memory import Pages


@pytest.fixture(scope="module")
def model() -> Model:
    return load(nano_files()["Q4_K_M"], threads=2)


def owned(thing: object, seen: set[int]) -> int:
    """Bytes of the arrays that an object holds, those below it included; an array that two share counts once."""
    if isinstance(thing, np.ndarray):
        base = thing
        while isinstance(base.base, np.ndarray):
            base = base.base
        fresh = id(base) not in seen
        seen.add(id(base))
        return base.nbytes if fresh else 0
    if isinstance(thing, list | tuple):
        return sum(owned(each, seen) for each in thing)
    if isinstance(thing, Buffer):
        return owned(thing.array, seen) + owned(thing.records, seen)
    if isinstance(thing, Pages):
        return owned(thing.array, seen)
    if isinstance(thing, OpList | Tiles | Workspace):
        return sum(owned(each, seen) for each in vars(thing).values())
    return 0


@pytest.mark.parametrize(("n_sequences", "n_context"), [(1, 1), (1, 512), (3, 100), (300, 40)])
def test_session_takes_what_was_said(model: Model, n_sequences: int, n_context: int):
    session = model.sequences(n_sequences=n_sequences, n_context=n_context)
    seen: set[int] = set()
    taken = sum(owned(thing, seen) for name, thing in vars(session).items() if name != "runner")
    said = model.session_bytes(n_sequences, n_context)
    # Biases and the list itself, some kB a layer, are not counted.
    assert said <= taken <= said + 40_000 * model.config.n_layers


def test_default_is_one_sequence_of_all_that_the_model_has(model: Model):
    assert model.session_bytes() == model.session_bytes(1, model.n_context)
    sizes = [model.session_bytes(n, c) for n, c in ((1, 64), (1, 512), (8, 512), (9, 512))]
    assert sizes == sorted(set(sizes))


def test_weights_take_what_was_said(model: Model):
    weights = model.runner.weights
    taken = sum(m.packed.data.nbytes for m in weights.matrices.values()) + weights.embeddings.nbytes
    taken += sum(v.nbytes for v in weights.vectors.values())
    assert weights_bytes(model.gguf) == taken


def test_session_that_does_not_fit_is_refused(model: Model):
    with pytest.raises(
        UsageError,
        match=r"a session of 100000000 sequences of 512 tokens needs \d+\.\d TB of memory, \d+\.\d [GM]B are free\. "
        r"A smaller n_sequences needs less\. Fewer tokens need less",
    ):
        model.sequences(n_sequences=100_000_000)
    session = model.sequences()
    with pytest.raises(UsageError, match=r"logits of \d+ tokens needs .* of memory"):
        session.room_for(1 << 40)


def test_file_that_does_not_fit_is_refused_before_it_is_read(tmp_path: Path):
    """A context of 2 ** 31 - 1 needs that much for attention."""
    path = tmp_path / "m.gguf"
    path.write_bytes(tiny.gguf_bytes(keys={"gptneox.context_length": np.uint32(2**31 - 1)}))
    with pytest.raises(UsageError, match=r"m\.gguf needs \d+\.\d [GT]B of memory, \d+\.\d [GM]B are free\. Choose"):
        load(path, threads=64)


# Numbers that no machine has memory for, of each command that takes one.
HUGE = {
    "bench --batch": ("bench", "MODEL", "--batch", "100000000"),
    "bench --depth": ("bench", "MODEL", "--depth", "100000000"),
    "bench --prompt": ("bench", "MODEL", "--prompt", "100000000"),
    "bench --tokens": ("bench", "MODEL", "--tokens", "100000000"),
    "bench --repeats": ("bench", "MODEL", "--repeats", "0"),
    "data order --context": ("data", "order", "PREFIX", "--steps", "1000", "--context", "1000000000"),
    "generate --max-tokens": ("generate", "MODEL", "a", "--max-tokens", "100000000"),
    "imatrix --context": ("imatrix", "MODEL", "--text", str(HELDOUT), "--context", "100000000", "-o", "OUT"),
    "serve --context": ("serve", "MODEL", "--context", "100000000", "--port", "0", "--check"),
    "measure --context": ("measure", "MODEL", "--reference", "MODEL", "--text", str(HELDOUT), "--context", "100000000"),
}


def test_every_size_that_a_command_takes_is_tried():
    sizes = {"n_prompt", "n_tokens", "depth", "n_sequences", "repeats", "max_tokens", "context"}
    options = {
        f"{name} {max(p.opts, key=len)}" for name in COMMANDS for p in find_command(name).params if p.name in sizes
    }
    assert options == HUGE.keys()


@pytest.mark.parametrize("option", HUGE)
def test_size_beyond_all_memory_is_one_line(pythia, option: str, tmp_path: Path):
    named = {"MODEL": str(nano_files()["Q4_K_M"]), "OUT": str(tmp_path / "out.gguf")}
    named["PREFIX"] = str(neox.write_corpus(tmp_path / "corpus", [[1, 2]]))
    code, out, err = pythia(*(named.get(a, a) for a in HUGE[option]))
    assert (code, out) == (2, ""), err
    assert "Traceback" not in err
    flag = option.split()[-1]
    assert flag in err.splitlines()[-1] or "do not fit into the context of 512" in err.splitlines()[-1]


def test_prompt_longer_than_the_context_is_not_cut_in_silence(pythia):
    code, out, err = pythia("bench", nano_files()["Q4_K_M"], "--prompt", "9999")
    assert (code, out) == (2, "")
    assert "--prompt: 9999 tokens do not fit into the context of 512" in err


@pytest.mark.parametrize("limit", [2 << 30] if sys.platform == "linux" else [])
def test_memory_that_the_system_refuses_is_one_line(limit: int, model: Model):
    """A limit of the process's address space (`ulimit -v`), which nobody counts beforehand: NumPy's own error."""
    n = 1 + limit * 5 // 4 // (model.session_bytes(2) - model.session_bytes(1))
    code = "import resource, sys; resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[1]),) * 2); del sys.argv[1]\n"
    code += "from pythia_gguf.cli.main import main; main()"
    args = ["bench", str(model.path), "--threads", "1", "--prompt", str(model.n_context), "--batch", str(n)]
    done = subprocess.run([sys.executable, "-c", code, str(limit), *args], capture_output=True, text=True, check=False)
    last = done.stderr.splitlines()[-1]
    assert done.stdout == ""
    assert (done.returncode, last.startswith("Error: not enough memory: Unable to allocate ")) == (71, True), (
        done.stderr
    )
