"""`pythia doctor` as a person meets it: facts of this machine, a line for what is wrong, where all is broken too."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path

import pytest

from conftest import TOKEN
from cpu_kinds import FEATURES, environment
from hub.loopback import LoopbackHub
from patience import HANGS_S
from pythia_gguf.cpus import threads_of
from pythia_gguf.kernels.cache import stored_code
from pythia_gguf.kernels.matmul import known_activations


def told(pythia) -> dict:
    code, out, err = pythia("doctor", "--output-format", "json")
    assert (code, err) == (0, "")
    assert TOKEN not in out
    return json.loads(out)


def test_facts_are_those_of_this_machine(pythia, hub: LoopbackHub):
    facts = told(pythia)
    assert facts["schema_version"] == 1
    assert facts["threads"]["used"] == threads_of(None)
    assert facts["cpu"]["amx"] == ("bf16x3" in known_activations())
    assert set(facts["cpu"]["features"]) >= ({"avx512f"} if facts["cpu"]["vectors"] == "AVX-512" else set())
    assert facts["cache"]["kernels"] == len(stored_code())
    assert facts["versions"]["numba"] == metadata.version("numba")
    assert facts["versions"]["python"] == ".".join(map(str, sys.version_info[:3]))


# Kinds of CPU -> the paths of kernels; those of x86-64 by the environment, those of ARM as scripts/for_arm.py does it.
PATHS = {
    "haswell": "AVX2, int8 by pairs of bytes, IQ4 by VPSHUFB, float16 by F16C, a * b + c rounded once",
    "x86-64": "baseline, int8 by 16-bit products, IQ4 by selects, float16 by shifts, a * b + c rounded twice",
    "apple-m1": "NEON, int8 by SDOT, IQ4 by TBL, float16 by FCVT, a * b + c rounded once",
    "cortex-a72": "NEON, int8 by SMULL, IQ4 by TBL, float16 by FCVT, a * b + c rounded once",
}
DOCTOR = """
import sys
if sys.argv[2:]:
    sys.path.insert(0, sys.argv[2])
    import for_arm
    for_arm.compile_for(sys.argv[1])
from pythia_gguf.cli.main import cli
cli.main(["doctor"], standalone_mode=False)
"""


@pytest.mark.parametrize("cpu", PATHS)
def test_paths_of_kernels_are_named_for_every_kind_of_cpu(cpu: str):
    """Also for those whose code does not run here: asking compiles no kernel."""
    scripts = Path(__file__).parents[2] / "scripts"
    command = [sys.executable, "-c", DOCTOR, cpu, *([] if cpu in FEATURES else [str(scripts)])]
    env = environment(cpu) if cpu in FEATURES else dict(os.environ)
    env |= {"HF_HUB_OFFLINE": "1"}
    shown = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=HANGS_S).stdout
    kernels = next(line for line in shown.splitlines() if line.startswith("kernels"))
    assert kernels.split(maxsplit=1)[1] == PATHS[cpu]


def test_hub_answers_and_a_token_is_never_shown(pythia, hub: LoopbackHub):
    found = told(pythia)["hub"]
    assert (found["endpoint"], found["answers"], found["token"]) == (hub.url, True, True)
    assert 0 < found["seconds"] < 3
    code, out, _ = pythia("doctor")
    assert code == 0
    assert f"{hub.url}, answers in 0." in out
    assert ", a token\n" in out
    assert TOKEN not in out


def test_nothing_is_asked_offline(pythia, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    facts = told(pythia)
    assert (facts["hub"]["offline"], facts["hub"]["answers"]) == (True, None)
    assert hub.requests == []
    assert not [line for line in facts["problems"] if line.startswith("hub: ")]
    assert "not asked, HF_HUB_OFFLINE is set" in pythia("doctor")[1]


def test_it_works_where_all_is_broken(tmp_path: Path):
    """No home, a cache that is a file, a hub that takes calls and never answers: told in a few seconds, code 0."""
    (tmp_path / "file").write_text("")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME", "HF_TOKEN")}
        environment |= {
            "PYTHIA_GGUF_CACHE": str(tmp_path / "file" / "cache"),
            "HF_HOME": str(tmp_path / "file" / "hf"),
            "HF_ENDPOINT": f"http://127.0.0.1:{silent.getsockname()[1]}",
            "TMPDIR": str(tmp_path / "file"),
        }
        started = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "pythia_gguf", "doctor"],
            env=environment,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            timeout=HANGS_S,
        )
    assert time.perf_counter() - started < 30
    assert (done.returncode, done.stderr) == (0, "")
    problems = done.stdout.split("\n\n")[1].splitlines()
    assert [line.split(":")[0] for line in problems] == ["cache", "cache", "hub", "hub"]
    assert "cannot be written: set PYTHIA_GGUF_CACHE to a folder of yours" in problems[0]
    assert "run pythia warmup" in problems[1]
    assert "the token cannot be read" in problems[2]
    assert "does not answer" in problems[3]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]  # it makes no folder


def test_it_imports_no_library_that_takes_long():
    code = (
        "import sys\nfrom pythia_gguf.cli.main import cli\ncli.main(['doctor'], standalone_mode=False)\n"
        "assert not {'torch', 'transformers', 'lm_eval', 'matplotlib', 'datasets'} & sys.modules.keys()"
    )
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, stdout=subprocess.DEVNULL, timeout=HANGS_S
    )
