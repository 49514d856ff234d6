"""CPUs and memory as /proc and the cgroups say them: files laid out as the kernel's documentation has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pythia_gguf.cpus import threads_of
from pythia_gguf.machine import Cpus, available_memory_bytes, in_units, usable_cpus, usable_memory

GB = 1 << 30
V2 = "31 23 0:28 / /sys/fs/cgroup rw,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate"


def tree(root: Path, files: dict[str, str], cgroup: str, *mounts: str, available_kb: int = 20 << 20) -> Path:
    """A root folder with /proc of a process and what else is given."""
    own = {
        "proc/meminfo": f"MemTotal: 99999999 kB\nMemFree: 1 kB\nMemAvailable: {available_kb} kB\n",
        "proc/self/cgroup": cgroup + "\n",
        "proc/self/mountinfo": "\n".join(("23 1 0:5 / /sys rw - sysfs sysfs rw", *mounts)) + "\n",
    }
    for name, text in (own | files).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


QUOTAS = [
    ({"app/cpu.max": "150000 100000"}, "0::/app", (V2,), 1.5),
    ({"app/cpu.max": "max 100000"}, "0::/app", (V2,), None),
    ({"a/b/cpu.max": "max 100000", "a/cpu.max": "50000 100000", "cpu.max": "800000 100000"}, "0::/a/b", (V2,), 0.5),
    ({"cpu.max": "300000 100000"}, "0::/", (V2,), 3.0),
    # A container that sees the host's tree from its own group on, and one whose path lies outside of what it sees.
    ({"cpu.max": "200000 100000"}, "0::/docker/x", (V2.replace(" / /sys", " /docker/x /sys"),), 2.0),
    ({"cpu.max": "250000 100000"}, "0::/../../other", (V2,), 2.5),
    ({"app/cpu.max": "broken"}, "0::/app", (V2,), None),
    ({}, "", (), None),
    # Version 1, alone and beside an empty tree of version 2.
    (
        {"cpu/app/cpu.cfs_quota_us": "400000", "cpu/app/cpu.cfs_period_us": "100000", "cpu/cpu.cfs_quota_us": "-1"},
        "4:memory:/app\n3:cpuacct,cpu:/app\n0::/",
        (
            "33 31 0:30 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct",
            "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw",
        ),
        4.0,
    ),
    (
        {"cpu set/cpu.cfs_quota_us": "50000", "cpu set/cpu.cfs_period_us": "100000"},
        "3:cpu:/",
        (r"33 31 0:30 / /sys/fs/cgroup/cpu\040set rw - cgroup cgroup rw,cpu",),
        0.5,
    ),
]


@pytest.mark.parametrize(("files", "cgroup", "mounts", "quota"), QUOTAS)
def test_quota_is_the_least_of_all_levels(tmp_path: Path, files: dict, cgroup: str, mounts: tuple, quota: float | None):
    root = tree(tmp_path, {f"sys/fs/cgroup/{name}": text + "\n" for name, text in files.items()}, cgroup, *mounts)
    cpus = usable_cpus(root)
    assert cpus.quota == quota
    assert 1 <= cpus.n_allowed <= (os.cpu_count() or 1)


@pytest.mark.parametrize(
    ("allowed", "quota", "n"), [(64, 2.0, 2), (64, 1.5, 2), (64, 0.1, 1), (2, 8.0, 2), (3, None, 3), (8, 2.000001, 3)]
)
def test_threads_are_whole_cpus_of_affinity_and_quota(allowed: int, quota: float | None, n: int):
    assert Cpus(n_allowed=allowed, quota=quota).n == n


def test_jobs_get_these_threads():
    assert threads_of(None) == usable_cpus().n
    assert threads_of(7) == 7


MEMORY = [
    # 20 GB are available in all; of 4 GB the group uses 3, of which 1 is cache that would be given back.
    ({"app/memory.max": 4 * GB, "app/memory.current": 3 * GB, "app/memory.stat": 1 * GB}, 2 * GB, 4 * GB),
    ({"app/memory.max": "max", "app/memory.current": 3 * GB}, 20 * GB, None),
    ({"app/memory.max": 90 * GB, "app/memory.current": 0}, 20 * GB, 90 * GB),
    ({"app/memory.max": 4 * GB, "app/memory.high": 3 * GB, "app/memory.current": 1 * GB}, 2 * GB, 3 * GB),
    ({"app/memory.max": 1 * GB, "app/memory.current": 2 * GB}, 0, 1 * GB),
    # The group above has less left than the group itself.
    (
        {
            "app/memory.max": 8 * GB,
            "app/memory.current": 1 * GB,
            "memory.max": 10 * GB,
            "memory.current": 9 * GB,
        },
        1 * GB,
        8 * GB,
    ),
]


@pytest.mark.parametrize(("files", "available", "limit"), MEMORY)
def test_memory_is_the_least_that_any_level_has_left(tmp_path: Path, files: dict, available: int, limit: int | None):
    texts = {
        f"sys/fs/cgroup/{name}": f"anon 5\ninactive_file {value}\n" if name.endswith("stat") else f"{value}\n"
        for name, value in files.items()
    }
    memory = usable_memory(tree(tmp_path, texts, "0::/app", V2))
    assert (memory.available, memory.limit) == (available, limit)


def test_memory_of_cgroups_of_version_1(tmp_path: Path):
    folder = "sys/fs/cgroup/memory"
    files = {
        f"{folder}/app/memory.limit_in_bytes": f"{4 * GB}\n",
        f"{folder}/app/memory.usage_in_bytes": f"{3 * GB}\n",
        f"{folder}/app/memory.stat": f"inactive_file 7\ntotal_inactive_file {2 * GB}\n",
        f"{folder}/memory.limit_in_bytes": f"{(1 << 63) - 4096}\n",  # none
        f"{folder}/memory.usage_in_bytes": f"{50 * GB}\n",
    }
    mount = "35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory"
    memory = usable_memory(tree(tmp_path, files, "4:memory:/app\n0::/", mount))
    assert (memory.available, memory.limit) == (3 * GB, 4 * GB)


def test_a_system_that_tells_nothing_gives_no_figure(tmp_path: Path):
    assert usable_memory(tmp_path).available is None
    assert usable_cpus(tmp_path).quota is None


def test_a_full_page_cache_is_available(tmp_path: Path):
    """MemFree is 1 kB there: what files keep in memory is given back."""
    assert usable_memory(tree(tmp_path, {}, "", available_kb=5 << 20)).available == 5 * GB
    here = available_memory_bytes()
    assert here is None or here > 1 << 28


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (4_100_000_000, "4.1 GB"), (999_960, "1.0 MB"), (10**19, "10.0 EB")],
)
def test_sizes_are_said_in_units(n_bytes: int, text: str):
    assert in_units(n_bytes) == text
