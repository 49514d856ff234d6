"""`pythia doctor`: what this machine gives the program, and what is wrong with it."""

from __future__ import annotations

import os
import platform
import sys
import threading
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cpus import threads_of
from pythia_gguf.errors import PythiaGGUFError, StorageError, one_line
from pythia_gguf.files import cache_root
from pythia_gguf.json_file import json_text
from pythia_gguf.machine import in_units, usable_cpus, usable_memory

SCHEMA_VERSION = 1
_NEEDED = ("pythia-gguf", "numpy", "numba", "llvmlite", "tokenizers", "huggingface_hub")
_OPTIONAL = ("lm_eval", "torch", "transformers", "matplotlib")
_HUB_S = 3.0
_LITTLE_BYTES = 1 << 30
_TOKEN = {True: "a token", False: "no token", None: "token unknown"}
_Facts = dict[str, Any]


@click.command("doctor", cls=Command)
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(output_format: str) -> None:
    """Say what this machine gives: processor and kernels, threads, memory, cache, versions, the Hub.

    What is wrong is a line with what to do; the exit code is 0 then too. No token is ever shown.

    \b
    pythia doctor
    pythia doctor --output-format json
    """
    problems: list[str] = []
    facts = {
        name: _asked(name, ask, problems)
        for name, ask in (
            ("cpu", _cpu),
            ("threads", _threads),
            ("memory", _memory),
            ("cache", _cache),
            ("versions", _versions),
            ("hub", _hub),
        )
    }
    if output_format == "json":
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | facts | {"problems": problems}))
        return
    from pythia_gguf.cli.tables import print_columns

    print_columns([row for name, found in facts.items() for row in _rows(name, found)])
    click.echo("")
    for line in problems or ["nothing is wrong"]:
        click.echo(line)


def _asked(name: str, ask: Callable[[list[str]], _Facts], problems: list[str]) -> _Facts | None:
    """What one part of the report says; None and a problem where even asking fails."""
    try:
        return ask(problems)
    except (ImportError, OSError, PythiaGGUFError) as e:
        problems.append(f"{name}: cannot be asked: {one_line(str(e))}")
        return None


def _cpu(problems: list[str]) -> _Facts:
    from pythia_gguf.kernels.cpu_kind import cpu_kind

    kind = cpu_kind()
    if platform.machine() in ("x86_64", "AMD64") and "avx2" not in kind.features:
        problems.append("cpu: there is no AVX2, so all is several times slower than on processors since 2013")
    return {
        "model": _cpu_model(),
        "architecture": platform.machine(),
        "compiled_for": kind.name,
        "features": list(kind.features),
        "vectors": kind.vectors,
        "products": kind.products,
        "levels": kind.levels,
        "halves": kind.halves,
        "fused": kind.is_fused,
        "amx": kind.has_amx,
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8", "replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or "unknown")


def _threads(problems: list[str]) -> _Facts:
    cpus = usable_cpus()
    return {"used": threads_of(None), "cpus": os.cpu_count(), "allowed": cpus.n_allowed, "quota": cpus.quota}


def _memory(problems: list[str]) -> _Facts:
    memory = usable_memory()
    if memory.available is not None and memory.available < _LITTLE_BYTES:
        problems.append(f"memory: {in_units(memory.available)} are available: end other programs, or raise the limit")
    return {"available_bytes": memory.available, "limit_bytes": memory.limit}


def _cache(problems: list[str]) -> _Facts:
    from pythia_gguf.kernels.cache import stored_code

    root = cache_root()
    kernels = stored_code()
    can_be_written = _can_be_written(root)
    if not can_be_written:
        problems.append(
            f"cache: {one_line(str(root))} cannot be written: set PYTHIA_GGUF_CACHE to a folder of yours, or kernels"
            " are compiled again and again and models of the Hub cannot be kept"
        )
    if not kernels:
        problems.append("cache: no kernel is compiled yet, so first runs are slow to start: run pythia warmup")
    return {
        "folder": str(root),
        "bytes": _size(root),
        "can_be_written": can_be_written,
        "kernels": len(kernels),
        "kernel_bytes": sum(kernels.values()),
    }


def _can_be_written(folder: Path) -> bool:
    """Whether files can be made in a folder, or in its nearest parent that exists."""
    while not os.path.lexists(folder) and folder != folder.parent:
        folder = folder.parent
    return os.path.isdir(folder) and os.access(folder, os.W_OK | os.X_OK)


def _size(folder: Path) -> int:
    """Bytes of all files below a folder that we can see."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(parent, name)
            total += os.lstat(path).st_size if os.path.lexists(path) else 0
    return total


def _versions(problems: list[str]) -> _Facts:
    found: _Facts = {"python": platform.python_version()}
    for name in (*_NEEDED, *_OPTIONAL):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = None
            if name in _NEEDED:
                problems.append(
                    f"versions: {name} is not installed: run {Path(sys.executable).name} -m pip install {name}"
                )
    return found


def _hub(problems: list[str]) -> _Facts:
    from pythia_gguf.hub.client import Hub

    hub = Hub()
    facts: _Facts = {
        "endpoint": hub.endpoint,
        "offline": hub.is_offline,
        "token": None,
        "answers": None,
        "seconds": None,
    }
    try:
        facts["token"] = hub.has_token()
    except StorageError as e:
        problems.append(f"hub: {e}")
    if facts["offline"]:
        return facts
    answers: list[float | PythiaGGUFError] = []

    def ask() -> None:
        try:
            answers.append(hub.answer_s(_HUB_S))
        except PythiaGGUFError as e:
            answers.append(e)

    # A thread, because looking up a name in a network that swallows packets has no time limit.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_HUB_S + 1)
    facts["answers"] = bool(answers) and isinstance(answers[0], float)
    if facts["answers"]:
        facts["seconds"] = answers[0]
    else:
        why = f" ({answers[0]})" if answers else f" within {_HUB_S:g} s"
        problems.append(
            f"hub: {one_line(hub.endpoint)} does not answer{why}: check network and proxy; with HF_HUB_OFFLINE=1 what"
            " is on this machine is used at once"
        )
    return facts


def _rows(name: str, facts: _Facts | None) -> list[tuple[str, str]]:
    """One part of the report as lines of a table."""
    if facts is None:
        return [(name, "unknown")]
    f = facts
    if name == "cpu":
        amx = ", AMX: bf16x3 activations" if f["amx"] else ""
        rounded = "once" if f["fused"] else "twice"
        kinds = f"{f['vectors']}, int8 by {f['products']}, IQ4 by {f['levels']}, float16 by {f['halves']}"
        kinds += f", a * b + c rounded {rounded}{amx}"
        return [("cpu", one_line(f["model"])), ("features", " ".join(f["features"]) or "none"), ("kernels", kinds)]
    if name == "threads":
        quota = "no quota" if f["quota"] is None else f"a quota of {f['quota']:g}"
        return [("threads", f"{f['used']}: {f['cpus']} CPUs, {f['allowed']} of them allowed, {quota}")]
    if name == "memory":
        available, limit = (None if f[k] is None else in_units(f[k]) for k in ("available_bytes", "limit_bytes"))
        return [("memory", f"{available or 'unknown'} available, " + (f"limit {limit}" if limit else "no limit"))]
    if name == "cache":
        written = "can be written" if f["can_be_written"] else "cannot be written"
        kernels = f"{f['kernels']} compiled, {in_units(f['kernel_bytes'])}"
        return [("cache", f"{one_line(f['folder'])}, {in_units(f['bytes'])}, {written}"), ("compiled", kernels)]
    if name == "versions":
        return [("versions", ", ".join(f"{n} {v}" for n, v in f.items() if v is not None))]
    how = "not asked, HF_HUB_OFFLINE is set" if f["offline"] else "does not answer"
    how = f"answers in {f['seconds']:.2f} s" if f["answers"] else how
    return [("hub", f"{one_line(f['endpoint'])}, {how}, {_TOKEN[f['token']]}")]
