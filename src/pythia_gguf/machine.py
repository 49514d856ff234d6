"""What of this machine is ours to use: CPUs, and memory that is available, both as the limits of containers leave them.

Limits are those of cgroups, version 1 and 2: each level of the tree has its own, and the least counts.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pythia_gguf.errors import Part, UsageError

_ROOT = Path("/")
# Version 1 says "no limit" with a number near 2^63.
_NO_LIMIT = 1 << 60
# Less is taken without a look at what is available: that takes half a millisecond.
_NO_QUESTION_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpus:
    """CPUs that this process may use.

    n_allowed  CPUs in the process's affinity
    quota      processor seconds that its cgroups get in a second; None: no limit
    """

    n_allowed: int
    quota: float | None

    @property
    def n(self) -> int:
        """Threads that keep them busy: the number of CPUs, where a part of one counts as one."""
        return self.n_allowed if self.quota is None else max(1, min(self.n_allowed, -int(-self.quota // 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Memory in bytes; None: the system does not say.

    available  what can be had without swapping: the least of what the system and every cgroup have left
    limit      the least limit of the cgroups; None: there is none
    """

    available: int | None
    limit: int | None


@contextlib.contextmanager
def variable_set(name: str, value: str) -> Iterator[None]:
    """A block in which this process has a variable in its environment; afterwards it is as it was."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def usable_cpus(root: Path = _ROOT) -> Cpus:
    """CPUs of this process; `root` is where /proc and /sys are."""
    quotas = [quota for group in _groups(root, "cpu") if (quota := _quota(group)) is not None]
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpus(n_allowed=allowed, quota=min(quotas, default=None))


def usable_memory(root: Path = _ROOT) -> Memory:
    """Memory for this process now; `root` is where /proc and /sys are."""
    left, limits = [], []
    if (available := _table(root / "proc/meminfo").get("MemAvailable:")) is not None:
        left.append(available * 1024)
    elif root == _ROOT and "SC_AVPHYS_PAGES" in getattr(os, "sysconf_names", ()):
        left.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for group in _groups(root, "memory"):
        used, its_limits = _memory(group)
        limits += its_limits
        left += [max(0, limit - used) for limit in its_limits]
    return Memory(available=min(left, default=None), limit=min(limits, default=None))


def available_memory_bytes() -> int | None:
    """Bytes that this process can have now without swapping; None where the system does not say."""
    return usable_memory().available


def require_memory(n_bytes: int, *what: Part, hints: Sequence[Part] = ()) -> None:
    """Raises UsageError when so many bytes are not available: "WHAT needs 12.3 GB of memory, 4.1 GB are free".

    The system gives memory to every process that asks and takes it only as it is touched, so without this check it
    would end the process later, in the middle of its work.
    """
    if n_bytes < _NO_QUESTION_BYTES:
        return
    available = available_memory_bytes()
    if available is not None and n_bytes > available:
        needed = f" needs {in_units(n_bytes)} of memory, {in_units(available)} are free"
        raise UsageError(*what, needed, *hints)


def in_units(n_bytes: int) -> str:
    """A size for people: "4.1 GB"."""
    size, unit = float(n_bytes), "bytes"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if size < 999.5:
            break
        size, unit = size / 1000, larger
    return f"{size:.1f} {unit}" if unit != "bytes" else f"{n_bytes} bytes"


def _groups(root: Path, controller: str) -> Iterator[Path]:
    """Folders of this process's cgroups that may hold limits of a controller: every level, in both versions."""
    paths = {}
    for line in _lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers or controller in controllers.split(","):
            paths[controllers != ""] = path
    for line in _lines(root / "proc/self/mountinfo"):
        mount, _, kind = line.partition(" - ")
        fields, kinds = mount.split(), kind.split()
        if len(fields) < 5 or len(kinds) < 3 or kinds[0] not in ("cgroup", "cgroup2"):
            continue
        is_first = kinds[0] == "cgroup"
        if is_first in paths and (not is_first or controller in kinds[2].split(",")):
            yield from _levels(root / _unescaped(fields[4]).lstrip("/"), _unescaped(fields[3]), paths[is_first])


def _levels(mount: Path, mounted: str, path: str) -> Iterator[Path]:
    """A cgroup's folder and those above it, below `mount`, where the cgroup `mounted` is seen."""
    inside = posixpath.relpath(path, mounted)
    parts = (
        [] if inside == "." or inside.startswith("..") else inside.split("/")
    )  # "..": it lies outside of what this process sees
    for n in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:n])


def _quota(group: Path) -> float | None:
    """CPUs that a cgroup gets; None: as many as there are."""
    quota = [word for line in _lines(group / "cpu.max") for word in line.split()]
    if not quota:
        quota = [*_lines(group / "cpu.cfs_quota_us"), *_lines(group / "cpu.cfs_period_us")]
    if len(quota) != 2 or not all(map(str.isdecimal, quota)) or int(quota[1]) == 0:
        return None  # "max", or -1
    return int(quota[0]) / int(quota[1])


def _memory(group: Path) -> tuple[int, list[int]]:
    """Bytes that a cgroup uses, less what the kernel can take back, and its limits."""
    cache = _table(group / "memory.stat")
    limits = [_number(group / name) for name in ("memory.max", "memory.high", "memory.limit_in_bytes")]
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    inactive = cache.get("total_inactive_file", cache.get("inactive_file", 0))
    return max(0, used - inactive), [n for n in limits if n is not None and n < _NO_LIMIT]


def _number(path: Path) -> int | None:
    lines = _lines(path)
    return int(lines[0]) if lines and lines[0].isdecimal() else None


def _table(path: Path) -> dict[str, int]:
    """First word -> number after it, of each line that has one."""
    words = [line.split() for line in _lines(path)]
    return {w[0]: int(w[1]) for w in words if len(w) > 1 and w[1].isdecimal()}


def _lines(path: Path) -> list[str]:
    """Lines of a file; none where it is not there or cannot be read."""
    try:
        return path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return []


def _unescaped(path: str) -> str:
    """A path as mountinfo writes it: "\\040" is a space."""
    return path.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
