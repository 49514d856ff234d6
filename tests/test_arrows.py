"""Who may import whom, and who may use which library: held on every file against the two tables of docs/tour.md.

Knows the tables' form, not their content: the tour is the one list.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pythia_gguf"
FILES = sorted(PACKAGE.rglob("*.py"))
EVERYWHERE = {"arguments", "choices", "cpus", "errors", "files", "json_file", "machine", "progress", "text_file"}
EVERYTHING = {"cli", "__init__", "__main__"}


def table_after(heading: str) -> dict[str, list[str]]:
    """First cell -> words of the second, of the first table below a heading of the tour; backticks do not count."""
    text = (ROOT / "docs" / "tour.md").read_text("utf-8")
    rows = [line for line in text.split(f"\n{heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.replace("`", "").strip("|").split("|")] for row in rows[2:]]
    return {first: [] if second == "nothing" else second.split(", ") for first, second, *_ in cells}


def imports(path: Path) -> Iterator[tuple[int, str, bool]]:
    """(line, full dotted name, whether at module level) of every import, those by name in a string too."""
    tree = ast.parse(path.read_text("utf-8"))
    at_top = {id(node) for node in tree.body}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            names = [ast.unparse(node.args[0]).lstrip("f").strip("'\"")]
        else:
            continue
        for name in names:
            yield node.lineno, name, id(node) in at_top


def owner(path: Path) -> str:
    """The folder of the package that a file lies in; for a file at the top its own name."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def faults(path: Path, folder: str) -> Iterator[str]:
    """One line for each import of a file of `folder` that the tables do not allow."""
    allowed = {folder, *EVERYWHERE, *MAY_IMPORT.get(folder, ())}
    for line, name, at_top in imports(path):
        top, _, rest = name.partition(".")
        place = f"{folder}/{path.name}:{line}: {folder}"
        if top == "pythia_gguf":
            target = rest.split(".")[0]
            if folder not in EVERYTHING and target not in allowed:
                yield f"{place} may not import {target}"
            if folder == "cli" and at_top and target not in {"cli", *EVERYWHERE}:
                yield f"{place} imports {target} before a command runs"
        elif folder == "__init__" and name == "_HOME_OF[name]":
            continue  # the public names, whose places are checked in test_conventions.py
        elif top not in sys.stdlib_module_names and folder not in LIBRARIES.get(top, ()):
            yield f"{place} may not use {top}"


MAY_IMPORT = table_after("## Who may import whom")
LIBRARIES = table_after("## Who may use which library")


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_tables(path: Path):
    assert not list(faults(path, owner(path)))


def test_every_folder_has_a_row_and_every_row_a_folder():
    folders = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert set(MAY_IMPORT) == folders - {"cli"}


def test_folders_import_only_rows_above_them():
    """So there is no circle, and the table is in the order in which data flows."""
    seen: set[str] = set()
    for folder, targets in MAY_IMPORT.items():
        assert set(targets) <= seen, f"{folder} imports {sorted(set(targets) - seen)}, which stand below it"
        seen.add(folder)


def test_no_row_allows_what_nobody_uses():
    """A permission that is not needed is one that nobody decided on."""
    used: set[tuple[str, str]] = set()
    for path in FILES:
        for _, name, _ in imports(path):
            top, _, rest = name.partition(".")
            used.add((owner(path), rest.split(".")[0] if top == "pythia_gguf" else top))
    spare = [(folder, t) for folder, targets in MAY_IMPORT.items() for t in targets if (folder, t) not in used]
    spare += [
        (folder, library) for library, users in LIBRARIES.items() for folder in users if (folder, library) not in used
    ]
    assert not spare


def test_errors_and_files_stand_below_everything():
    named = {
        e: {n.split(".")[1] for _, n, _ in imports(PACKAGE / f"{e}.py") if n.startswith("pythia_gguf.")}
        for e in EVERYWHERE
    }
    assert named == {
        "arguments": {"errors"},
        "choices": set(),
        "cpus": {"arguments", "machine"},
        "errors": set(),
        "files": {"errors"},
        "json_file": {"errors", "files"},
        "machine": {"errors"},
        "progress": set(),
        "text_file": {"errors"},
    }


@pytest.mark.parametrize(
    ("folder", "line", "fault"),
    [
        ("formats", "from pythia_gguf.kernels.jit import kernel", "formats may not import kernels"),
        ("formats", "import pythia_gguf.press", "formats may not import press"),
        ("formats", "def f():\n    from pythia_gguf import quantize", "formats may not import quantize"),
        ("press", "import numba", "press may not use numba"),
        ("press", "import torch", "press may not use torch"),
        ("kernels", "import importlib\nimportlib.import_module(f'pythia_gguf.gguf.{x}')", "may not import gguf"),
        ("cli", "from pythia_gguf.press.quantize import quantize", "imports press before a command runs"),
    ],
)
def test_wrong_import_is_noticed(tmp_path: Path, folder: str, line: str, fault: str):
    path = tmp_path / "x.py"
    path.write_text(line + "\n")
    found = list(faults(path, folder))
    assert len(found) == 1
    assert fault in found[0]
