"""Which file of the package imports which, read from the source: imports inside functions and for types alone count.

    python tests/import_graph.py cli/quantize.py engine/model.py

says how many files each of these reaches.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "src" / "pythia_gguf"


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


def import_graph(package: Path = PACKAGE) -> dict[str, set[str]]:
    """File -> files that it imports, as paths below the package; `__init__.py` where only the folder is named."""
    return {
        path.relative_to(package).as_posix(): {
            file for _, name, _ in imports(path) if (file := _file_of(name, package)) is not None
        }
        for path in sorted(package.rglob("*.py"))
    }


def _file_of(name: str, package: Path) -> str | None:
    """The file that holds a dotted name; None for a name of another package, or one only known when it runs."""
    top, *parts = name.split(".")
    if top != package.name:
        return None
    for n in range(len(parts), -1, -1):
        for file in (Path(*parts[:n]).with_suffix(".py") if n else Path(), Path(*parts[:n], "__init__.py")):
            if (package / file).is_file():
                return file.as_posix()
    return None


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Groups of files each of which reaches all others of its group."""
    reached = {file: reachable(graph, file) for file in graph}
    groups = {frozenset({file, *(f for f in reached[file] if file in reached[f])}) for file in graph}
    return sorted(sorted(group) for group in groups if len(group) > 1 or group <= reached[min(group)])


def reachable(graph: Mapping[str, set[str]], start: str) -> set[str]:
    """All files that a file imports, and those that they import; itself only where it is part of a circle."""
    seen: set[str] = set()
    new = set(graph[start])
    while new:
        seen |= new
        new = {file for known in new for file in graph[known]} - seen
    return seen


if __name__ == "__main__":
    whole = import_graph()
    for start in sys.argv[1:]:
        print(f"{start}: {len(reachable(whole, start) | {start})} files")
