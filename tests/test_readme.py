"""No figure in README.md and docs/benchmarks.md is typed by hand: tables and pictures are those of kept results."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

from pythia_gguf.evals.plots import is_drawn_from
from pythia_gguf.evals.report import read_report
from pythia_gguf.files import sha256_of

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
SAMPLE = ROOT / "docs" / "sample"


def readme_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("readme", ROOT / "scripts" / "readme.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tables_are_made_from_the_results():
    script = readme_script()
    assert {page.name for page in script.PAGES} == {"README.md", "benchmarks.md"}
    for page in script.PAGES:
        text = page.read_text("utf-8")
        assert script.filled(text) == text, "run `make readme`"
        assert "<!-- " in text


def test_readme_fits_in_120_lines():
    assert len(README.read_text("utf-8").splitlines()) <= 120


def test_picture_is_of_the_report_beside_it_and_that_of_the_files_of_llama_cpp():
    """The hash in the picture is the report's, and those in the report are of llama-quantize's own files."""
    report = SAMPLE / "report.json"
    assert "](docs/sample/perplexity.png)" in README.read_text("utf-8")
    assert is_drawn_from(SAMPLE / "perplexity.png", sha256_of(report)), "run `make report`"
    golden = json.loads((ROOT / "tests" / "golden" / "tools.json").read_text("utf-8"))
    made = golden["quantize"] | {"F16": golden["source_sha256"]}
    measured = {row["quant"]: row["sha256"] for row in read_report(report)["files"] if "alias_of" not in row}
    assert measured == made
