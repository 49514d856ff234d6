"""Keys and values in tiles: shared where sequences begin alike, never written by two, given back when they leave."""

from __future__ import annotations

import random
import subprocess
import sys

import numpy as np
import pytest

from engine.nano import nano_files
from pythia_gguf import load
from pythia_gguf.engine.kv_tiles import tile_bytes
from pythia_gguf.engine.model import Model
from pythia_gguf.engine.protocol import Part
from pythia_gguf.errors import UsageError
from pythia_gguf.kernels.simd import LANES


@pytest.fixture(scope="module")
def model() -> Model:
    return load(nano_files()["Q4_K_M"], threads=2)


@pytest.mark.parametrize("seed", range(3))
def test_sequences_that_share_tiles_are_those_that_do_not(model: Model, seed: int):
    """Steps, forks, truncations and ends in any order: the logits are those of the same tokens read at once."""
    drawn = random.Random(seed)
    session = model.sequences(n_sequences=6, n_context=140)
    n_tiles = session._tiles.n_free
    texts: dict[int, list[int]] = {}
    rows: list[tuple[list[int], np.ndarray]] = []
    for _ in range(60):
        what = drawn.choice(("open", "step", "step", "fork", "truncate", "close"))
        if what == "open" and len(texts) < 6:
            texts[session.open()] = []
        elif what == "fork" and 0 < len(texts) < 6:
            seq = drawn.choice(list(texts))
            n = drawn.randint(0, len(texts[seq]))
            n_free = session._tiles.n_free
            branch = session.fork(seq, n)
            assert session._tiles.n_free == n_free  # nothing is copied
            texts[branch] = texts[seq][:n]
        elif what == "truncate" and texts:
            seq = drawn.choice(list(texts))
            n = drawn.randint(0, len(texts[seq]))
            session.truncate(seq, n)
            del texts[seq][n:]
        elif what == "close" and len(texts) > 1:
            seq = drawn.choice(list(texts))
            session.close(seq)
            del texts[seq]
        elif what == "step" and texts:
            chosen = drawn.sample(list(texts), drawn.randint(1, len(texts)))
            lengths = {seq: min(drawn.choice((1, 1, 5, 33)), 140 - len(texts[seq])) for seq in chosen}
            new = {seq: [drawn.randrange(model.n_vocab) for _ in range(n)] for seq, n in lengths.items() if n}
            parts = [Part(seq=seq, ids=ids) for seq, ids in new.items()]
            logits = session.step(parts)
            for seq, ids in new.items():
                texts[seq] += ids
            rows += [(list(texts[part.seq]), row) for part, row in zip(parts, logits, strict=True)]
    assert len(rows) > 30
    for ids, row in drawn.sample(rows, 20):
        assert model.logits(ids, n_last=1)[0].tobytes() == row.tobytes()
    for seq in list(texts):
        session.close(seq)
    assert session._tiles.n_free == n_tiles


def test_budget_of_keys_and_values_is_kept_to(model: Model):
    """Two tiles: a step that needs a third is refused, and nothing has changed."""
    n_bytes = tile_bytes(model.config, model.cache)
    assert model.kv_bytes(1) == model.kv_bytes(LANES) == n_bytes == model.kv_bytes(LANES + 1) // 2
    for n in (0, -1, n_bytes - 1):
        with pytest.raises(UsageError, match=f"kv_bytes must be at least {n_bytes}, for the first 32 tokens"):
            model.sequences(n_sequences=3, n_context=100, kv_bytes=n)
    session = model.sequences(n_sequences=3, n_context=100, kv_bytes=2 * n_bytes + 1)
    first, second, third = (session.open() for _ in range(3))
    ids = list(range(LANES))
    before = session.step([Part(seq=first, ids=ids[:5]), Part(seq=second, ids=ids)])
    together = [Part(seq=first, ids=[1]), Part(seq=second, ids=[1])]
    for parts, n in (([Part(seq=third, ids=[1])], 1), ([Part(seq=first, ids=ids)], 32), (together, 2)):
        said = f"keys and values of {n} more tokens do not fit: {n_bytes:,} bytes are needed and 0 free"
        with pytest.raises(UsageError, match=said):
            session.step(parts)
    assert [session.length(seq) for seq in (first, second, third)] == [5, LANES, 0]
    session.close(second)
    assert session.step([Part(seq=third, ids=ids[:5])]).tobytes() == before[:1].tobytes()
    branch = session.fork(first, 5)
    with pytest.raises(UsageError, match=f"{n_bytes:,} bytes are needed and 0 free"):
        session.step([Part(seq=branch, ids=[1])])  # it would need a copy


MEASURE = """
import sys
import numpy as np
import pythia_gguf
from pythia_gguf.engine.protocol import Part

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

model = pythia_gguf.load(sys.argv[1], threads=1)
session = model.sequences(n_sequences=41, n_context=512)
session.step([Part(seq=session.open(), ids=[1])])
before = resident()
ids = np.arange(512) % model.n_vocab
seqs = [session.open() for _ in range(40)]
for seq in seqs:
    session.step([Part(seq=seq, ids=ids, n_wanted=1)])
full = resident()
for seq in seqs:
    session.close(seq)
print(full - before, resident() - before, 40 * model.kv_bytes(512))
"""


@pytest.mark.parametrize("quant", ["Q4_K_M"] if sys.platform == "linux" else [])
def test_memory_goes_back_when_sequences_leave(quant: str):
    """At most 32 MiB stay for the next ones, and large pages round up: 2 MiB where what is used meets what is free."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(nano_files()[quant])], capture_output=True, text=True, check=True
    )
    taken, left, said = map(int, done.stdout.split())
    assert taken > 0.9 * said > 100 << 20
    assert left < 40 << 20
