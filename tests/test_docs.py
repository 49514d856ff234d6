"""The documents say what is so: every file is in the tour, tables are the code's, links lead somewhere, examples run.

The Markdown that it reads is fences, tables with pipes and inline links. Blocks that begin with ```python run are
examples; those of a page are one program, which runs in a folder that holds examples/nano and nothing else.
"""

from __future__ import annotations

import ast
import inspect
import io
import os
import re
import shutil
import subprocess
import sys
import tokenize
import tomllib
import unicodedata
from dataclasses import fields
from functools import cached_property
from pathlib import Path
from urllib.parse import unquote

import pytest
import yaml

import pythia_gguf
from engine.nano import nano_files
from patience import HANGS_S
from portable import is_portable, portable_tests
from pythia_gguf import Completion, PressResult, errors, load
from pythia_gguf.cli.main import COMMANDS, GROUPS
from pythia_gguf.engine.generation import Generation, Timings
from pythia_gguf.engine.logprobs import TokenLogprob
from pythia_gguf.engine.sampling import Sampling
from pythia_gguf.engine.scoring import Score
from pythia_gguf.engine.writing import WritingOptions
from pythia_gguf.formats import FORMATS
from pythia_gguf.gguf.container import TensorInfo
from pythia_gguf.gguf.reader import GGUFFile
from pythia_gguf.gguf.tensor_source import MemoryGGUF
from pythia_gguf.press.against import Comparison, Fit, KeyDifference
from pythia_gguf.press.quantize import PressFile
from pythia_gguf.press.verify import Verdict
from pythia_gguf.tokenizer import TextTokenizer

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "pythia_gguf"
SOURCES = sorted(PACKAGE.rglob("*.py"))
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
FENCE = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def read(path: Path) -> str:
    return path.read_text("utf-8")


def named(path: Path) -> object:
    return pytest.param(path, id=path.relative_to(ROOT).as_posix())


def examples() -> list[object]:
    """The pages with blocks that are marked to run, and these, each in the lines that it has in the page."""
    found = []
    for path in DOCUMENTS:
        source = ""
        for match in FENCE.finditer(read(path)):
            if match[1].strip() == "python run":
                line = read(path)[: match.start()].count("\n") + 1
                source += "\n" * (line - source.count("\n")) + match[2]
        if source:
            found.append(pytest.param(path, source, id=path.name))
    return found


@pytest.mark.parametrize(("path", "source"), examples())
def test_examples_of_a_page_run(path: Path, source: str, tmp_path: Path):
    """In an interpreter of its own, as a reader would; warnings are errors."""
    shutil.copytree(ROOT / "examples" / "nano", tmp_path / "examples" / "nano")
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", source],
        cwd=tmp_path,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )
    assert done.returncode == 0, done.stderr


def test_the_page_of_python_names_everything_public():
    """Each public name, method, argument, option and field of a result stands there as code."""
    text = read(ROOT / "docs" / "api.md")
    code = [match[2] for match in FENCE.finditer(text)] + re.findall(r"`([^`]+)`", FENCE.sub("", text))
    told = set(re.findall(r"\w+", " ".join(code)))
    results = (
        Comparison,
        Completion,
        Fit,
        GGUFFile,
        KeyDifference,
        MemoryGGUF,
        PressFile,
        PressResult,
        Score,
        TensorInfo,
        Timings,
        TokenLogprob,
        Verdict,
    )
    names = set(pythia_gguf.__all__)
    for kind in (*results, WritingOptions, Sampling):
        names |= {f.name for f in fields(kind)}
    for value in (getattr(pythia_gguf, name) for name in pythia_gguf.__all__):
        members = {n: m for n, m in vars(value).items() if not n.startswith("_")} if inspect.isclass(value) else {}
        functions = [m for m in members.values() if inspect.isfunction(m)] if members else [value]
        names |= {n for n, m in members.items() if isinstance(m, property | cached_property) or m in functions}
        for function in functions:
            names |= inspect.signature(function).parameters.keys() - {"self", "options", "name_of", "watch"}
    names |= vars(load(nano_files()["Q8_0"], threads=1)).keys() - {"workers"}  # that one is the engine's own
    names |= {n for kind in (TextTokenizer, Generation) for n in vars(kind) if not n.startswith("_")}
    names |= {e.__name__ for e in vars(errors).values() if inspect.isclass(e) and issubclass(e, errors.PythiaGGUFError)}
    assert sorted(n for n in names - told if not n.startswith("_")) == []


def test_tour_names_every_file_once_and_no_other():
    named = re.findall(r"^- `([\w./]+\.(?:py|js|css|html|svg))` - .", read(ROOT / "docs" / "tour.md"), re.MULTILINE)
    there = [p for p in PACKAGE.rglob("*.py") if p.name != "__init__.py" or p.stat().st_size]
    there += (PACKAGE / "serve" / "page").iterdir()
    assert sorted(named) == sorted(p.relative_to(PACKAGE).as_posix() for p in there)


def defined_in(file: Path) -> set[str]:
    """Names of functions, classes and methods of a file, methods as `Class.method`."""
    found = set()
    for node in ast.parse(read(file)).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
            found |= {f"{node.name}.{inner.name}" for inner in ast.walk(node) if isinstance(inner, ast.FunctionDef)}
    return found


@pytest.mark.parametrize("path", [named(p) for p in DOCUMENTS])
def test_functions_that_documents_name_are_there(path: Path):
    """`file.py: name`, as the walks of the tour have it."""
    pairs = re.findall(r"`([\w/]+\.py):\s+([\w.]+)`", read(path))
    assert [(f, name) for f, name in pairs if not (PACKAGE / f).exists() or name not in defined_in(PACKAGE / f)] == []


def test_walks_have_ten_steps_each():
    walks = re.split(r"^## ", read(ROOT / "docs" / "tour.md"), flags=re.MULTILINE)[1:3]
    assert [re.findall(r"^(\d+)\. ", walk, re.MULTILINE) for walk in walks] == [[str(i) for i in range(1, 11)]] * 2
    assert all(len(re.findall(r"`[\w/]+\.py: ", walk)) >= 10 for walk in walks)


def test_format_table_is_that_of_the_code():
    rows = re.findall(
        r"^\| (\w+) \| (\d+) \| (\d+) \| (\d+) \| ([\d.]+) \| (.*) \|$",
        read(ROOT / "docs" / "formats.md"),
        re.MULTILINE,
    )
    told = [(name, *map(float, numbers)) for name, *numbers, _ in rows]
    assert told == [(f.name, f.ggml_id, f.block_weights, f.block_bytes, f.bits_per_weight) for f in FORMATS.values()]
    for name, *_, holds in rows:
        if FORMATS[name].block_weights > 1:
            fields = holds.partition(":")[0].split(", ")
            assert tuple(fields) == FORMATS[name].block.names, name


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings of a document."""
    text = FENCE.sub("", read(path))
    titles = re.findall(r"^#+ +(.+?) *#*$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", unicodedata.normalize("NFC", t).lower()).replace(" ", "-") for t in titles}


@pytest.mark.parametrize("path", [named(p) for p in DOCUMENTS])
def test_links_lead_somewhere(path: Path):
    text = re.sub(r"`[^`\n]*`", "", FENCE.sub("", read(path)))
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r"^\[[^\]]+\]: *(\S+)", text, re.MULTILINE):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = unquote(target).partition("#")
        goal = (path.parent / file).resolve() if file else path
        is_there = goal.exists() and goal.is_relative_to(ROOT)
        if not is_there or (anchor and goal.suffix == ".md" and anchor not in anchors(goal)):
            broken.append(target)
    assert broken == []


def words_of(path: Path) -> str:
    """A document without what it quotes, or the docstrings and comments of a source file, on one line."""
    if path.suffix == ".md":
        return " ".join(re.sub(r'"[^"\n]*"', "", read(path)).split())
    tokens = tokenize.generate_tokens(io.StringIO(read(path)).readline)
    texts = [t.string for t in tokens if t.type == tokenize.COMMENT or t.string.startswith('"""')]
    return " ".join(word for text in texts for word in text.split() if word != "#")


@pytest.mark.parametrize("path", [named(p) for p in [*DOCUMENTS, *SOURCES] if p.name not in ("log.md", "CHANGELOG.md")])
def test_texts_are_written_in_sentences(path: Path):
    """None has a phrase that shows a sentence without its subject; CONVENTIONS.md names them in quotes."""
    signs = r"of which|for who|who wants|who does not|whoever|whomever|for whom"
    assert re.findall(rf"(?i)\b(?:{signs})\b.{{0,60}}", words_of(path)) == []


@pytest.mark.parametrize("path", [named(p) for p in DOCUMENTS])
def test_paths_and_commands_in_documents_exist(path: Path):
    """`src/...`, `tests/...`, `docs/...` and `make x` in backticks, and every `pythia x`."""
    text = read(path)
    paths = re.findall(r"`((?:src|tests|docs|scripts|bench|examples|\.github)/[\w./-]*[\w/])`", text)
    assert [p for p in paths if not (ROOT / p).exists()] == []
    targets = set(re.findall(r"^([a-z-]+):", read(ROOT / "Makefile"), re.MULTILINE))
    assert set(re.findall(r"`make ([a-z-]+)", text)) <= targets
    named = re.findall(r"(?:`|^|    )pythia ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?", text, re.MULTILINE)
    assert {f"{word} {second}" if word in GROUPS else word for word, second in named} <= set(COMMANDS)


def test_decisions_are_numbered_without_gaps_and_fit_a_page():
    pages = sorted((ROOT / "docs" / "decisions").glob("*.md"))
    assert [int(p.name[:4]) for p in pages] == list(range(1, len(pages) + 1))
    for page in pages:
        text = read(page)
        assert len(text.splitlines()) <= 50, page.name
        assert re.findall(r"^#+ (.*)$", text, re.MULTILINE)[1:] == ["Context", "Choice", "Price"], page.name


def test_versions_agree():
    version = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]["version"]
    citation = yaml.safe_load(read(ROOT / "CITATION.cff"))
    assert (citation["version"], citation["license"]) == (version, "Apache-2.0")
    # The newest section of a release is this version's; before the first release there is none.
    sections = re.findall(r"^## \[(.+?)\]", read(ROOT / "CHANGELOG.md"), re.MULTILINE)
    assert sections
    assert [name for name in sections if name != "Unreleased"][:1] in ([], [version])


def test_workflow_runs_tests_that_exist_and_need_no_oracle():
    workflow = yaml.safe_load(read(ROOT / ".github" / "workflows" / "ci.yml"))
    steps = " ".join(step.get("run", "") for step in workflow["jobs"]["bytes"]["steps"])
    paths = [ROOT / p for p in re.findall(r"tests/[\w/]+\.py", steps)]
    assert ROOT / "tests" / "kernels" / "test_golden.py" in paths
    assert all(is_portable(p) for p in paths)
    assert not {"test_encode.py", "test_parity.py"} & {p.name for p in portable_tests()}


def test_nothing_names_the_machine_it_was_written_on():
    folders = [ROOT / name for name in ("src", "tests", "docs", "scripts", "bench", "examples", ".github", ".ci")]
    files = [
        p for p in [*ROOT.iterdir(), *(p for f in folders for p in f.rglob("*"))] if p.is_file() and p.name != ".git"
    ]
    here = re.compile("/(?:work|root|tmp/llama)/")
    texts = (".md", ".py", ".toml", ".yml", ".cff", ".txt", "")
    assert [p for p in files if p.suffix in texts and here.search(p.read_text("utf-8", "replace"))] == []
