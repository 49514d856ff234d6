"""Names the test files that need no build of llama.cpp, no torch, transformers or lm_eval: what every platform can run.

`python tests/portable.py` prints the paths for pytest, one a line.
"""

from __future__ import annotations

import ast
from pathlib import Path

TESTS = Path(__file__).parent
HEAVY = {"llama_cpp", "torch", "transformers", "lm_eval"}


def imported_names(path: Path) -> set[str]:
    """Dotted names that a file imports, each with all its leading parts."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {".".join(name.split(".")[:n]) for name in names for n in range(1, name.count(".") + 2)}


def is_portable(path: Path, seen: frozenset[Path] = frozenset()) -> bool:
    """Whether a file, and what it imports from tests/, imports nothing heavy."""
    names = imported_names(path)
    beside = {TESTS / (name.replace(".", "/") + ".py") for name in names} - seen
    deeper = seen | beside | {path}
    return not names & HEAVY and all(is_portable(p, deeper) for p in beside if p.is_file())


def portable_tests() -> list[Path]:
    """Test files, by path."""
    return [p for p in sorted(TESTS.rglob("test_*.py")) if is_portable(p)]


if __name__ == "__main__":
    for test in portable_tests():
        print(test.relative_to(TESTS.parent).as_posix())
