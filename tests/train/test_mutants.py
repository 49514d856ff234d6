"""What a checkpoint says of its training, damaged a thousand times: it is sound, or it is skipped with a line."""

from __future__ import annotations

import random
import shutil
from pathlib import Path

from press.damage import damaged_json
from pythia_gguf.errors import ModelFileError
from pythia_gguf.train.checkpoints import newest_state, recipe_of, told_of
from pythia_gguf.train.options import TrainOptions
from pythia_gguf.train.training import train

from .small import corpus, recipe


def test_mutants_of_a_state(tmp_path: Path):
    options, made = TrainOptions(threads=1, keep_states=0), recipe(steps=2, decay_steps=2)
    train(made, tmp_path / "run", data=corpus(tmp_path / "c"), options=options)
    shutil.rmtree(tmp_path / "run" / "step0")
    path = tmp_path / "run" / "step2" / "training.json"
    good, rng, chosen, said = path.read_bytes(), random.Random(20), dict.fromkeys((1, 2), 0), set()
    for _ in range(1000):
        path.write_bytes(damaged_json(good, rng))
        lines: list[str] = []
        found = newest_state(tmp_path / "run", warn=lines.append)
        assert found is not None
        chosen[int(found[0].name.removeprefix("step"))] += 1
        assert len(lines) == (found[0].name == "step1") and all(line.isprintable() for line in lines)
        said |= set(lines)
        if found[0].name == "step2":
            try:
                assert recipe_of(found[1], path).hidden > 0
            except ModelFileError as e:
                said.add(str(e))
    path.write_bytes(good)
    assert told_of(path.parent)["step"] == 2
    assert min(chosen.values()) > 50 and len(said) > 20
