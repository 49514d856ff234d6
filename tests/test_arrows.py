"""Who may import whom, and who may use which library: held on every file against the two tables of docs/tour.md.

Knows the tables' form, not their content: the tour is the one list.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from import_graph import PACKAGE, circles, import_graph, imports
from pythia_gguf.arch import ARCHITECTURES

ROOT = Path(__file__).parents[1]
FILES = sorted(PACKAGE.rglob("*.py"))
EVERYWHERE = {
    "arguments",
    "choices",
    "cpus",
    "errors",
    "files",
    "json_file",
    "lock",
    "machine",
    "progress",
    "side_task",
    "staging",
    "text_file",
    "yaml_text",
}
# Why a file outside `arch` may name GPT-NeoX.
KNOW_GPT_NEOX = {
    "checkpoint/neox.py": "reads the layer files of the GPT-NeoX library, which holds no other model",
    "data/order.py": "the order in which the GPT-NeoX library reads its data",
    "data/token_file.py": "the files that the GPT-NeoX library keeps tokens in",
    "engine/gpt_neox_blocks.py": "the layers of GPT-NeoX as ops",
    "engine/oplist.py": "the table of blocks, one for each entry of the table of `arch`",
    "export/transformers_model.py": "the type of what users get, for type checkers",
    "press/source.py": "opens those files",
    "train/model.py": "the layers of GPT-NeoX in torch",
    "train/recipe.py": "how GPT-NeoX trained Pythia",
    "tokenizer/named_tokens.py": "GPTNeoXTokenizer is a class of transformers that models of other kinds have too",
    "tokenizer/folder.py": "the same",
    "tokenizer/vocabulary.py": "the split into words of the tokenizer of GPT-NeoX-20B",
    "tokenizer/metadata.py": "the same",
}
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
EVERYTHING = {"cli", "__init__", "__main__"}


def table_after(heading: str) -> dict[str, list[str]]:
    """First cell -> words of the second, of the first table below a heading of the tour; backticks do not count."""
    text = (ROOT / "docs" / "tour.md").read_text("utf-8")
    rows = [line for line in text.split(f"\n{heading}\n")[1].split("\n## ")[0].splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in row.replace("`", "").strip("|").split("|")] for row in rows[2:]]
    return {first: [] if second == "nothing" else second.split(", ") for first, second, *_ in cells}


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


def named_architectures(path: Path) -> list[str]:
    """Lines of code that name an architecture, one of its classes in transformers, or one of its modules there."""
    own = [word for a in ARCHITECTURES.values() for word in (a.name, a.hf_type, a.hf_class, *a.modules.values())]
    own += [module for a in ARCHITECTURES.values() for module in a.layer_modules.values()]
    pattern = re.compile("|".join([*map(re.escape, own), "neox"]), re.IGNORECASE)
    tree = ast.parse(path.read_text("utf-8"))
    texts = [node.body[0].value for node in ast.walk(tree) if isinstance(node, DOCUMENTED) and ast.get_docstring(node)]
    for node in texts:
        node.value = ""
    return [line for line in ast.unparse(tree).splitlines() if pattern.search(line)]


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


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_one_folder_knows_architectures_by_name(path: Path):
    """Everyone else asks the value that the table of `arch` has for a model."""
    if owner(path) != "arch" and path.relative_to(PACKAGE).as_posix() not in KNOW_GPT_NEOX:
        assert named_architectures(path) == []


def test_files_that_may_name_an_architecture_do():
    assert [file for file in KNOW_GPT_NEOX if not named_architectures(PACKAGE / file)] == []


def test_no_file_imports_itself_by_way_of_others():
    """Inside folders too, and imports for types alone: neither file of a circle can be read without the other."""
    assert circles(import_graph()) == []


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"a.py": "import p.b", "b.py": "import p.c", "c.py": "pass"}, []),
        ({"a.py": "import p.b", "b.py": "def f():\n    from p import a", "c.py": "import p.a"}, [["a.py", "b.py"]]),
        ({"a.py": "from p.b import x", "b.py": "if TYPE_CHECKING:\n    from p.a import A"}, [["a.py", "b.py"]]),
        ({"d/__init__.py": "from p.d.e import x", "d/e.py": "from p.d import y"}, [["d/__init__.py", "d/e.py"]]),
        ({"a.py": "import p.a"}, [["a.py"]]),
    ],
)
def test_circle_is_noticed(tmp_path: Path, files: dict[str, str], found: list[list[str]]):
    for name, text in files.items():
        path = tmp_path / "p" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    assert circles(import_graph(tmp_path / "p")) == found


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
        "lock": {"errors", "files"},
        "machine": {"errors"},
        "progress": set(),
        "side_task": {"progress"},
        "staging": {"errors", "files", "lock"},
        "text_file": {"errors"},
        "yaml_text": {"errors"},
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
