"""Memory safety by construction: kernels, which check nothing, are called only by the functions that check all.

Knows no format. Read from the sources as text, so that a new kernel or a new caller is seen without being run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import pythia_gguf
from pythia_gguf.kernels.encode import ENCODABLE

PACKAGE = Path(pythia_gguf.__file__).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))
KERNELS = PACKAGE / "kernels"
ENCODE, WIDEN, DIVERGENCE = KERNELS / "encode.py", KERNELS / "widen.py", KERNELS / "divergence.py"
# How much errors count: a kernel that encode.py calls by its name, where it has checked the rows.
WEIGH = {"weigh_errors": {KERNELS / "encode.py", KERNELS / "weighted.py"}}
ENGINE = PACKAGE / "engine"
# What runs a model is one kernel over a list of ops: who makes the list, and who runs it.
DRIVER = {"run_ops": {KERNELS / "driver.py", ENGINE / "workers.py"}}
OPS = {f"{name}_op": {KERNELS / "driver.py"} for name in ("norm", "input", "product", "_attention")} | {
    "op_address": {KERNELS / "driver.py", ENGINE / "oplist.py"}
}
ADDRESSES = {name: {KERNELS / "matmul.py", ENGINE / "oplist.py"} for name in ("matmul_address", "quantizer_address")}


def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def decorated(path: Path, decorator: str) -> set[str]:
    """Functions of a file under `@kernel` or `@inlined`."""
    functions = (n for n in ast.walk(tree_of(path)) if isinstance(n, ast.FunctionDef))
    return {f.name for f in functions if any(ast.unparse(d).split(".")[-1] == decorator for d in f.decorator_list)}


def uses(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Each name that is read, called or got as an attribute, with its line; imports too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute):
            yield node.attr, node.lineno
        elif isinstance(node, ast.ImportFrom):
            yield from ((alias.name, node.lineno) for alias in node.names)


COMPILED = {name for path in KERNELS.glob("*.py") for name in decorated(path, "kernel")}
ALL_KERNELS = COMPILED - DRIVER.keys() - WEIGH.keys()


def test_there_is_one_kernel_for_every_format_beside_those_for_the_way_in() -> None:
    others = decorated(WIDEN, "kernel") | decorated(DIVERGENCE, "kernel")
    weighted = {f"encode_{name.lower()}_weighted" for name in ENCODABLE if name != "Q8_0"}
    assert ALL_KERNELS - others == weighted | {f"encode_{name.lower()}" for name in ENCODABLE}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if p not in (WIDEN, DIVERGENCE)], ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_no_kernel_is_named_outside_of_the_boundary(path: Path) -> None:
    """encode.py looks encoders up by format, and in no other way is one reached; the others are looked at below."""
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


@pytest.mark.parametrize("name", [*DRIVER, *OPS, *ADDRESSES, *WEIGH])
def test_driver_and_its_ops_are_named_where_the_list_is_made_and_run(name: str) -> None:
    places = (DRIVER | OPS | ADDRESSES | WEIGH)[name]
    assert {path for path in SOURCES if name in {used for used, _ in uses(tree_of(path))}} <= places
    assert any(name in ast.unparse(tree_of(path)) for path in places)


def _compiled_in(module: str) -> set[str]:
    """Names of machine code in a module of kernels/; the modules themselves when it is the package."""
    if module == "pythia_gguf.kernels":
        return {path.stem for path in KERNELS.glob("*.py")}
    path = PACKAGE.parent / (module.replace(".", "/") + ".py")
    return decorated(path, "kernel") | decorated(path, "inlined") if path.parent == KERNELS else set()


def calls_in(function: ast.FunctionDef) -> list[tuple[str, int]]:
    """What a function calls, in the order of the text."""
    found = [(ast.unparse(n.func), n.lineno) for n in ast.walk(function) if isinstance(n, ast.Call)]
    return sorted(found, key=lambda call: call[1])


def raises_for(function: ast.FunctionDef, words: str) -> int:
    """Line of the first `if` whose test has these words and whose body raises."""
    lines = [
        n.lineno
        for n in ast.walk(function)
        if isinstance(n, ast.If) and words in ast.unparse(n.test) and isinstance(n.body[0], ast.Raise)
    ]
    assert lines, f"no check of {words} in {function.name}"
    return min(lines)


def function_of(path: Path, name: str) -> ast.FunctionDef:
    (found,) = (n for n in tree_of(path).body if isinstance(n, ast.FunctionDef) and n.name == name)
    return found


def test_encode_compares_sizes_before_it_gets_a_kernel() -> None:
    checked = raises_for(function_of(ENCODE, "encode"), "out.size != block.row_bytes(weights.size)")
    calls = calls_in(function_of(ENCODE, "encode"))
    checks = [line for name, line in calls if name == "_check"]
    kernels = [line for name, line in calls if name in ("_kernel", "run", "_counts")]
    assert len(checks) == 2 and len(kernels) >= 3
    assert max(*checks, checked) < min(kernels)
    counts = function_of(ENCODE, "_counts")
    (weighed,) = (line for name, line in calls_in(counts) if name == "weigh_errors")
    checked = raises_for(counts, "weights.size % row or row % FORMATS[format_name].block_weights")
    assert [line for name, line in calls_in(counts) if name == "_check"][0] < checked < weighed
    # Who else calls an encoder gives it buffers made for it; only `encode` keeps one under a name.
    for function in (f for f in tree_of(ENCODE).body if isinstance(f, ast.FunctionDef) and f.name != "encode"):
        kept = [
            n for n in ast.walk(function) if isinstance(n, ast.Assign) and ast.unparse(n.value).startswith("_kernel(")
        ]
        called = [
            n for n in ast.walk(function) if isinstance(n, ast.Call) and ast.unparse(n.func).startswith("_kernel(")
        ]
        assert not kept and all(ast.unparse(n.args[0]).startswith("*_smallest(") for n in called), function.name
    sizes = ast.unparse(function_of(ENCODE, "_smallest"))
    assert "np.zeros(n, np.float32) for _ in range(2 if is_weighted else 1)" in sizes
    assert "np.empty(FORMATS[format_name].row_bytes(n), np.uint8)" in sizes


def test_widen_compares_sizes_before_it_gets_a_kernel() -> None:
    function = function_of(WIDEN, "widen")
    checked = max(raises_for(function, "row_bytes(out.size)"), raises_for(function, "c_contiguous"))
    runs = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == "_RUN"]
    assert runs and checked < min(n.lineno for n in runs)
    kernels = decorated(WIDEN, "kernel")
    (table,) = (n for n in tree_of(WIDEN).body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "_RUN")
    in_table = {ast.unparse(value) for value in table.value.values}  # type: ignore[attr-defined]
    assert kernels == in_table
    named = {(name, line) for name, line in uses(tree_of(WIDEN)) if name in kernels}
    assert {line for _, line in named} <= set(range(table.lineno, (table.end_lineno or 0) + 1))


def test_compare_checks_shapes_types_and_targets_before_its_kernel() -> None:
    function = function_of(DIVERGENCE, "compare")
    checks = [
        raises_for(function, words) for words in ("candidate.shape !=", "reference.dtype !=", "0 <= targets.min()")
    ]
    (kernel,) = decorated(DIVERGENCE, "kernel")
    (used,) = {line for name, line in uses(tree_of(DIVERGENCE)) if name == kernel}
    assert max(checks) < used <= (function.end_lineno or 0)
