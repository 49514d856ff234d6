"""The rules of CONVENTIONS.md that a program can check, on every Python file of the repository.

Nothing is run here but imports.
"""

from __future__ import annotations

import ast
import io
import os
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

import pythia_gguf
from patience import HANGS_S

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pythia_gguf"
SOURCES = sorted(PACKAGE.rglob("*.py"))
TESTS = sorted((ROOT / "tests").rglob("*.py"))
ALL = [*SOURCES, *TESTS, *(p for name in ("scripts", "bench", "examples") for p in sorted((ROOT / name).rglob("*.py")))]

Function = ast.FunctionDef | ast.AsyncFunctionDef
# What branches or repeats; a `with` indents and does neither.
BLOCKS = (ast.If, ast.For, ast.While, ast.Try, ast.Match)
BANNED_WORDS = {"util", "utils", "common", "misc", "helper", "helpers", "manager", "handler"}


def names(paths: list[Path]) -> list[object]:
    """Parameters for one test per file, named by path."""
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text("utf-8"))


def functions(path: Path) -> Iterator[Function]:
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, Function))


def n_lines(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    doc = function.body[0] if ast.get_docstring(function) is not None else None
    length = (function.end_lineno or 0) - function.lineno + 1
    return length - ((doc.end_lineno or 0) - doc.lineno + 1) if doc else length


def depth(node: ast.AST) -> int:
    """Blocks inside blocks below a node; an elif is no deeper than its if, a function inside starts anew."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if isinstance(child, Function | ast.ClassDef | ast.Lambda):
            continue
        is_elif = isinstance(node, ast.If) and isinstance(child, ast.If) and child in node.orelse
        deepest = max(deepest, depth(child) + (isinstance(child, BLOCKS) and not is_elif))
    return deepest


@pytest.mark.parametrize("path", names(ALL))
def test_files_and_functions_are_short(path: Path):
    kernels = path.parent == PACKAGE / "kernels"
    assert len(path.read_text("utf-8").splitlines()) <= 400
    long = {f.name: n_lines(f) for f in functions(path) if n_lines(f) > (120 if kernels else 60)}
    deep = {f.name: depth(f) for f in functions(path) if depth(f) > (5 if kernels else 3)}
    assert (long, deep) == ({}, {})


@pytest.mark.parametrize("path", names(ALL))
def test_module_says_what_it_does(path: Path):
    """In a sentence at least."""
    if path.name == "__init__.py" and len(tree_of(path).body) <= 1:
        return  # empty, or a folder's name in words
    assert re.search(r"[.?!](?=\s|$)", ast.get_docstring(tree_of(path)) or "")


@pytest.mark.parametrize("path", names(SOURCES))
def test_public_names_have_docstrings(path: Path):
    def missing(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
        for node in body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            if ast.get_docstring(node) is None:
                yield prefix + node.name
            if isinstance(node, ast.ClassDef):
                yield from missing(node.body, f"{node.name}.")

    assert list(missing(tree_of(path).body)) == []


@pytest.mark.parametrize("path", names(SOURCES))
def test_dataclasses_are_frozen_slotted_and_keyword_only(path: Path):
    for node in ast.walk(tree_of(path)):
        if not isinstance(node, ast.ClassDef) or node.name.startswith("_"):
            continue
        for made in (d for d in node.decorator_list if "dataclass" in ast.unparse(d)):
            assert ast.unparse(made) == "dataclass(frozen=True, slots=True, kw_only=True)", node.name


@pytest.mark.parametrize("path", names(ALL))
def test_names_say_something(path: Path):
    classes = [node.name for node in ast.walk(tree_of(path)) if isinstance(node, ast.ClassDef)]
    words = {w.lower() for name in classes for w in re.findall("[A-Z]?[a-z]+|[A-Z]+", name)}
    words |= set(re.findall("[a-z]+", path.relative_to(ROOT).with_suffix("").as_posix().lower()))
    assert not words & BANNED_WORDS


def test_a_class_is_called_by_a_noun():
    """A participle alone (Found, Sent) does not say what the thing is."""
    classes = {node.name for p in SOURCES for node in ast.walk(tree_of(p)) if isinstance(node, ast.ClassDef)}
    irregular = "Found|Told|Sent|Made|Kept|Left|Taken|Given|Drawn|Shown|Written|Read|Meant|Built"
    alone = {name for name in classes if re.fullmatch(rf"_?(?:[A-Z][a-z]*[^e\W]ed|{irregular})", name)}
    assert alone == set()


@pytest.mark.parametrize("path", names(ALL))
def test_no_exception_is_swallowed_by_the_dozen(path: Path):
    """No bare except, no `except Exception`; BaseException only to clean up and raise again."""
    for node in (n for n in ast.walk(tree_of(path)) if isinstance(n, ast.ExceptHandler)):
        caught = {"BaseException"} if node.type is None else set(re.findall(r"\w+", ast.unparse(node.type)))
        raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
        assert "Exception" not in caught, f"line {node.lineno}"
        assert "BaseException" not in caught or raises_again, f"line {node.lineno}"


@pytest.mark.parametrize("path", names(ALL))
def test_open_ends_have_an_issue_number(path: Path):
    tokens = tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline)
    comments = [t.string for t in tokens if t.type == tokenize.COMMENT]
    assert [c for c in comments if re.search(r"\b(TODO|FIXME|XXX|HACK)\b(?!.*#\d)", c)] == []


@pytest.mark.parametrize("path", names(SOURCES))
def test_sources_are_ascii(path: Path):
    assert path.read_bytes().isascii()


@pytest.mark.parametrize("path", names(SOURCES))
def test_only_commands_print_and_nobody_logs(path: Path):
    calls = {ast.unparse(n.func) for n in ast.walk(tree_of(path)) if isinstance(n, ast.Call)}
    imported = {a.name for n in ast.walk(tree_of(path)) if isinstance(n, ast.Import) for a in n.names}
    assert "logging" not in imported
    assert PACKAGE / "cli" in path.parents or "print" not in calls


def identifiers(path: Path) -> set[str]:
    """Every name, attribute, keyword and imported name of a file."""
    found = set()
    for node in ast.walk(tree_of(path)):
        for field in ("id", "attr", "arg", "name", "asname"):
            found |= {word for word in str(getattr(node, field, "")).split(".") if word}
    return found


@pytest.mark.parametrize("path", names(SOURCES))
def test_only_one_file_knows_how_to_compile(path: Path):
    """No option of Numba is set anywhere but in kernels/jit.py, and the ones that change results not even there."""
    found = identifiers(path)
    assert not found & {"fastmath", "parallel", "prange", "objmode", "exec", "eval"}
    if path != PACKAGE / "kernels" / "jit.py":
        assert not found & {"jit", "njit", "vectorize", "guvectorize", "cfunc", "stencil", "error_model", "nogil"} - {
            "jit" if path.parent == PACKAGE / "kernels" else ""  # the name of that file, in imports
        }


@pytest.mark.parametrize("path", names([p for p in TESTS if p != Path(__file__)]))
def test_tests_neither_skip_nor_sleep_nor_mock_nor_roll_dice(path: Path):
    forbidden = {"skip", "skipif", "xfail", "importorskip", "sleep", "Mock", "MagicMock", "mock", "flaky", "rerun"}
    assert not identifiers(path) & forbidden
    dice = [n for n in map(ast.unparse, calls(path)) if re.match(r"(np\.|numpy\.)?random\.", n)]
    seeded = re.compile(
        r"(np|numpy)\.random\.(default_rng|Generator|PCG64|SeedSequence|RandomState)\(.|random\.Random\(."
    )
    assert [n for n in dice if not seeded.match(n) or n.endswith("()")] == []


def calls(path: Path) -> Iterator[ast.Call]:
    yield from (node for node in ast.walk(tree_of(path)) if isinstance(node, ast.Call))


def test_tests_mirror_the_package():
    mirrored = {p.name for p in PACKAGE.iterdir() if p.is_dir()} | {"golden", "naive", "browser"}
    assert {p.relative_to(ROOT / "tests").parts[0] for p in TESTS if p.parent != ROOT / "tests"} <= mirrored


def run(code: str, folder: Path) -> str:
    """What a fresh interpreter prints, warnings being errors, home and working directory being `folder`."""
    env = os.environ | dict.fromkeys(("HOME", "USERPROFILE", "XDG_CACHE_HOME", "LOCALAPPDATA"), str(folder))
    env |= {"PYTHIA_GGUF_CACHE": str(folder / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def imported_at_top(path: Path) -> set[str]:
    """Modules that a file imports when it is imported itself."""
    names: set[str] = set()
    for node in tree_of(path).body:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    return names


def needs(library: str) -> set[Path]:
    """Files that import a library at their top, or a file that does: so alone can a class be one of the library's."""
    found = {p for p in SOURCES if any(name.split(".")[0] == library for name in imported_at_top(p))}
    while more := {p for p in SOURCES if imported_at_top(p) & {dotted(f) for f in found}} - found:
        found |= more
    return found


def dotted(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


def modules() -> list[str]:
    light = [p for p in SOURCES if p not in needs("lm_eval") | needs("torch")]
    return [dotted(p) for p in light if p.stem != "__main__"]


def test_importing_every_module_only_defines_names(tmp_path: Path):
    """No file, no output, no warning, no thread, no change of the environment, nothing configured for logging."""
    code = (
        "import importlib, logging, os, sys, threading\n"
        "before = dict(os.environ)\n"
        f"for name in {modules()}: importlib.import_module(name)\n"
        "assert dict(os.environ) == before\n"
        "assert threading.active_count() == 1\n"
        "assert not logging.root.handlers\n"
        "assert sys.modules.keys().isdisjoint({'torch', 'transformers', 'llama_cpp', 'lm_eval'})\n"
    )
    assert run(code, tmp_path) == ""
    assert not list(tmp_path.iterdir())


def test_few_files_need_lm_eval_or_torch():
    """The first changes the environment; the second takes seconds, and the base install has neither."""
    assert {p.name for p in needs("lm_eval")} == {"harness.py"}
    assert {p.relative_to(PACKAGE).as_posix() for p in needs("torch")} == {
        f"train/{name}.py" for name in ("checkpoints", "loss", "model", "replaying", "training", "update")
    }


def test_importing_the_package_loads_no_library(tmp_path: Path):
    own = "{name.split('.')[0] for name in sys.modules} - set(sys.stdlib_module_names)"
    before = run(f"import sys; print(sorted({own}))", tmp_path)
    after = run(f"import sys, pythia_gguf; print(sorted({own} - {{'pythia_gguf'}}))", tmp_path)
    assert after == before


def test_help_loads_neither_numba_nor_numpy(tmp_path: Path):
    code = (
        "import sys; sys.argv = ['pythia', '--help']\n"
        "from pythia_gguf.cli.main import main\n"
        "try: main()\n"
        "except SystemExit as e: assert e.code == 0\n"
        "assert sys.modules.keys().isdisjoint({'numba', 'numpy', 'rich', 'yaml', 'tokenizers'})\n"
    )
    assert "quantize" in run(code, tmp_path)


def test_public_names_are_sorted_and_there():
    assert pythia_gguf.__all__ == sorted(pythia_gguf.__all__)
    assert dir(pythia_gguf) == pythia_gguf.__all__
    for name in pythia_gguf.__all__:
        assert getattr(pythia_gguf, name).__name__ == name
    with pytest.raises(AttributeError, match="has no attribute 'quantise'"):
        pythia_gguf.quantise  # noqa: B018
