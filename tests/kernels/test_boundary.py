"""Memory safety by construction: kernels, which check nothing, are called only by the functions that check all.

Who calls a kernel is read from the sources, so that a new one or a new caller is seen without being run; what the
functions that check let through is tried out between pages that nobody may touch.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pythia_gguf
from pythia_gguf.kernels.encode import ENCODABLE

GUARDED = Path(__file__).with_name("guarded.py")
PACKAGE = Path(pythia_gguf.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
KERNELS = PACKAGE / "kernels"
ENCODE = KERNELS / "encode.py"
# Files whose kernels only they themselves call.
OF_THEIR_OWN = tuple(KERNELS / name for name in ("divergence.py", "odds.py", "suffixes.py"))
# Files whose kernels are reached by their names as text, and the two that do so, where they have checked the buffers.
BY_NAME = tuple(KERNELS / name for name in ("stored_values.py", "weighted.py"))
LOOK_UP = {"kernel_of": {KERNELS / "encode.py", KERNELS / "widen.py"}}
ENGINE = PACKAGE / "engine"


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def decorated(path: Path, *decorators: str) -> set[str]:
    """Functions of a file under one of the decorators, as in `@kernel` or `@c_kernel(3)`."""
    functions = [n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef)]
    return {f.name for f in functions if {ast.unparse(d).split("(")[0] for d in f.decorator_list} & {*decorators}}


# What runs a model is one kernel over a list of ops: who makes the list, and who runs it.
DRIVER = {"run_ops": {KERNELS / "driver.py", ENGINE / "workers.py"}}
BUILDER = ENGINE / "op_builder.py"
OPS = {
    name: {KERNELS / "driver.py", KERNELS / module}
    for module in ("ops.py", "stage_ops.py")
    for name in decorated(KERNELS / module, "c_kernel")
} | {
    "attention_kernel": {KERNELS / "ops.py", KERNELS / "stage_ops.py"},
    "op_address": {KERNELS / "driver.py", KERNELS / "ops.py", KERNELS / "stage_ops.py", BUILDER},
}
ADDRESSES = {name: {KERNELS / "matmul.py", BUILDER} for name in ("matmul_address", "quantizer_address")}


def uses(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each name that is read, called or got as an attribute, with its line; imports too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


ENCODERS = {name for path in KERNELS.glob("*.py") for name in decorated(path, "encoder")}
OTHERS = {name for path in KERNELS.glob("*.py") for name in decorated(path, "kernel")} - DRIVER.keys()
ALL_KERNELS = ENCODERS | OTHERS | {name for path in BY_NAME for name in decorated(path, "c_kernel")}


def test_there_is_one_kernel_for_every_format_beside_those_for_the_way_in() -> None:
    weighted = {f"encode_{name.lower()}_weighted" for name in ENCODABLE if name != "Q8_0"}
    assert weighted | {f"encode_{name.lower()}" for name in ENCODABLE} == ENCODERS
    assert {name for path in OF_THEIR_OWN for name in decorated(path, "kernel")} == OTHERS
    assert len(ALL_KERNELS - ENCODERS - OTHERS) == 4  # three ways in, and how much errors count


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p not in OF_THEIR_OWN], ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_no_kernel_is_named_outside_of_the_boundary(path: Path) -> None:
    """Encoders and ways in are looked up by their names, and in no other way reached; the others are seen to below."""
    assert [(name, line) for name, line in uses(tree_of(path)) if name in ALL_KERNELS] == []
    if path.parent == KERNELS:
        return
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.ImportFrom):
            machine_code = {"kernels", *_compiled_in(node.module or "")} - DRIVER.keys()
            assert not {a.name for a in node.names} & machine_code, node.lineno
        elif isinstance(node, ast.Import):
            assert not any("kernels" in alias.name for alias in node.names), node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            assert "pythia_gguf.kernels" not in node.value, node.lineno  # for importlib


@cache
def used_in(path: Path) -> frozenset[str]:
    return frozenset(name for name, _ in uses(tree_of(path)))


@pytest.mark.parametrize("name", sorted(DRIVER | OPS | ADDRESSES | LOOK_UP))
def test_what_reaches_kernels_is_named_where_buffers_are_checked(name: str) -> None:
    places = (DRIVER | OPS | ADDRESSES | LOOK_UP)[name]
    assert {path for path in SOURCES if name in used_in(path)} <= places
    assert any(name in ast.unparse(tree_of(path)) for path in places)


def _compiled_in(module: str) -> set[str]:
    """Names of machine code in a module of kernels/; the modules themselves when it is the package."""
    if module == "pythia_gguf.kernels":
        return {path.stem for path in KERNELS.glob("*.py")}
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    return decorated(path, "kernel", "c_kernel", "encoder", "inlined") if path.parent == KERNELS else set()


def test_no_byte_beside_a_buffer_is_touched_and_what_does_not_fit_is_refused() -> None:
    """All that take buffers from outside, on buffers between forbidden pages; see guarded.py."""
    run = subprocess.run([sys.executable, GUARDED], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stderr) == (0, "")
    n_good, n_refused = map(int, run.stdout.split())
    assert n_good > 200
    assert n_refused > 1500


def test_a_touch_of_a_forbidden_page_ends_the_process() -> None:
    code = "import numpy as np, ctypes; from kernels.guarded import guarded; x = guarded(np.zeros(3, np.uint8), {end});"
    code += " ctypes.memset(x.ctypes.data + {at}, 1, 1); print('alive')"
    for end, at in ((True, 2), (False, 0), (True, 3), (False, -1)):
        run = subprocess.run(
            [sys.executable, "-c", code.format(end=end, at=at)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join([str(PACKAGE.parent), str(GUARDED.parents[1])])},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (run.stdout, run.returncode == 0) == (("alive\n", True) if at in (2, 0) else ("", False))
