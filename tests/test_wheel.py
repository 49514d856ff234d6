"""The wheel installs into a bare environment, without torch and without a compiler, and does the main job there."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from patience import HANGS_S

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True, timeout=HANGS_S)
    return next(out.glob("*.whl"))


def test_wheel_is_pure_python_and_holds_only_the_package(wheel: Path):
    assert wheel.name == "pythia_gguf-0.1.0-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    assert {n.split("/")[0] for n in names} == {"pythia_gguf", "pythia_gguf-0.1.0.dist-info"}
    page = ROOT / "src" / "pythia_gguf" / "serve" / "page"
    assert {"pythia_gguf/py.typed", *(f"pythia_gguf/serve/page/{path.name}" for path in page.iterdir())} <= set(names)
    assert any(n.endswith("licenses/NOTICE") for n in names)


def test_bare_environment_makes_the_menu(wheel: Path, tmp_path: Path):
    """No torch, no compiler on the PATH, an empty home: install, quantize, verify."""
    venv.create(tmp_path / "bare")
    bin_folder = tmp_path / "bare" / ("Scripts" if os.name == "nt" else "bin")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTHIA", "NUMBA"))}
    env |= {"PATH": str(bin_folder), "HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def run(*command: str) -> str:
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANGS_S, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    # By the pip of this environment: to put one into the new environment takes longer than to use it.
    pip = (sys.executable, "-m", "pip", "--python", str(bin_folder / "python"))
    run(*pip, "install", "--quiet", "--no-compile", str(wheel))
    missing = "import importlib.util as u; print([n for n in ('torch', 'llama_cpp', 'transformers') if u.find_spec(n)])"
    assert run(str(bin_folder / "python"), "-c", missing) == "[]\n"
    nano = str(ROOT / "examples" / "nano")
    table = run(str(bin_folder / "pythia"), "quantize", nano, "--out", "out", "--quants", "Q4_0,Q8_0")
    assert "nano.Q8_0.gguf" in table
    assert run(str(bin_folder / "pythia"), "verify", "out").count("ok ") == 2
