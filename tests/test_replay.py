"""The replay of a trace gives the seconds that one counts by hand: chains, processors, disk and memory as limits."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """bench/replay.py."""
    spec = importlib.util.spec_from_file_location("replay", ROOT / "bench" / "replay.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["replay"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def seconds(script: ModuleType, tasks: list[dict[str, Any]], **given: Any) -> float:
    """A replay with as many threads as processors and no other limit than those given."""
    n = given.get("processors", 1)
    n_taking = given.get("threads", n)
    limits = {"processors": n, "threads": n, "n_taking": n_taking, "n_buffers": 1000, "disk_bytes_per_s": math.inf}
    limits |= given
    return script.replay([task(script, **t) for t in tasks], **limits)


def task(script: ModuleType, **given: Any) -> Any:
    return script.Task(**{"name": "a task", "after": (), "cpu_s": 1.0} | given)


CHAIN = [{"cpu_s": 1.0}, {"cpu_s": 2.0, "after": (0,)}, {"cpu_s": 4.0, "after": (1,)}]


@pytest.mark.parametrize("processors", [1, 2, 16])
def test_a_chain_takes_its_length(script: ModuleType, processors: int):
    assert seconds(script, CHAIN, processors=processors) == 7.0


@pytest.mark.parametrize(("processors", "expected"), [(1, 8.0), (2, 4.0), (3, 3.0), (8, 1.0), (16, 1.0)])
def test_independent_tasks_share_the_processors(script: ModuleType, processors: int, expected: float):
    assert seconds(script, [{}] * 8, processors=processors) == expected


def test_the_task_that_was_ready_first_starts_first(script: ModuleType):
    """One processor: 0 and 1 are ready first, 2 after 0. Then 3 follows 1 at 3 s, and not 2 at 4 s."""
    tasks = [{}, {"cpu_s": 2.0}, {"after": (0,)}, {"after": (1,), "cpu_s": 5.0}]
    assert seconds(script, tasks) == 9.0
    assert seconds(script, tasks, processors=2) == 7.0


@pytest.mark.parametrize(("processors", "expected"), [(1, 5.0), (4, 5.0)])
def test_a_disk_writes_for_one_at_a_time(script: ModuleType, processors: int, expected: float):
    """Each of 4 tasks computes for 1 s or nothing, then writes for 1 s: the disk starts at 1 s and has 4 s of work."""
    tasks = [{"n_bytes": 100}] + [{"cpu_s": 0.0, "n_bytes": 100}] * 3
    slow_first = [{"n_bytes": 100}, *({"after": (0,), "cpu_s": 0.0, "n_bytes": 100} for _ in range(3))]
    assert seconds(script, slow_first, processors=processors, disk_bytes_per_s=100) == expected
    assert seconds(script, tasks, processors=4, disk_bytes_per_s=100) == 4.0
    assert seconds(script, tasks, processors=4, disk_bytes_per_s=200) == 2.0


def test_a_processor_works_while_the_disk_writes(script: ModuleType):
    """Two threads, one processor: computing 1 s each, the second while the first one writes for 3 s."""
    tasks = [{"n_bytes": 300}, {}]
    assert seconds(script, tasks, processors=1, threads=2, disk_bytes_per_s=100) == 4.0
    # With one thread nobody works meanwhile.
    assert seconds(script, tasks, processors=1, threads=1, disk_bytes_per_s=100) == 5.0


@pytest.mark.parametrize(("n_buffers", "expected"), [(1, 6.0), (2, 4.0), (3, 2.0)])
def test_memory_bounds_the_encoders(script: ModuleType, n_buffers: int, expected: float):
    """Three slabs, each encoded in 1 s and taken in 1 s."""
    encodings = [{"slab": i, "encodes": True} for i in range(3)]
    tasks = [*encodings, *({"slab": i, "after": (i,)} for i in range(3))]
    assert seconds(script, tasks, processors=8, n_buffers=n_buffers) == expected


@pytest.mark.parametrize(("n_taking", "expected"), [(1, 4.0), (2, 3.0), (3, 2.0)])
def test_both_kinds_have_threads_of_their_own(script: ModuleType, n_taking: int, expected: float):
    """Three slabs encoded at once, and taken by fewer threads."""
    tasks = [*({"slab": i, "encodes": True} for i in range(3)), *({"slab": i, "after": (i,)} for i in range(3))]
    assert seconds(script, tasks, processors=8, n_taking=n_taking) == expected


def test_takers_go_before_encoders(script: ModuleType):
    """One processor, memory for one slab: it could not encode the second slab first, and with more it does not."""
    tasks = [
        {"slab": 0, "encodes": True},
        {"slab": 1, "encodes": True},
        {"slab": 0, "after": (0,), "n_bytes": 100},
        {"slab": 1, "after": (1,)},
    ]
    assert seconds(script, tasks, processors=1, threads=2, n_buffers=2, disk_bytes_per_s=20) == 7.0
    assert seconds(script, tasks, processors=1, threads=2, n_buffers=1, disk_bytes_per_s=20) == 9.0


def test_a_circle_is_no_end(script: ModuleType):
    with pytest.raises(AssertionError, match="in a circle"):
        seconds(script, [{"after": (1,)}, {"after": (0,)}])


def test_longest_chain(script: ModuleType):
    tasks = [task(script, **t) for t in (*CHAIN, {"cpu_s": 3.0}, {"after": (3, 0), "n_bytes": 50, "name": "last"})]
    assert script.longest_chain(tasks, 100.0) == (7.0, ["a task"] * 3)
    assert script.longest_chain(tasks, 10.0) == (9.0, ["a task", "last"])
