"""What all tests share: the GPT-NeoX-20B tokenizer, which is not in the repository, a hub on loopback,
and the entry point, called as the console script calls it."""

from __future__ import annotations

import os
import pickle
import shutil
import sys
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import SimpleNamespace

import pytest

from hub.loopback import LoopbackHub, loopback_hub
from pythia_gguf.cli.main import main
from pythia_gguf.files import cache_root
from pythia_gguf.hub import pull

TOKEN = "hf_loopback_secret"
_VARIABLE = "PYTHIA_GGUF_20B_TOKENIZER"
_BESIDE = Path(__file__).parents[2] / "shared" / "data" / "20B_tokenizer.json"
_HINT = f"get EleutherAI/pythia's utils/20B_tokenizer.json and set {_VARIABLE} to its path"


def _path_20b() -> Path:
    return Path(os.environ.get(_VARIABLE) or _BESIDE)


@pytest.fixture(scope="session")
def tokenizer_20b() -> Path:
    """The GPT-NeoX-20B tokenizer.json; tests that use it carry the marker `tokenizer_20b`."""
    path = _path_20b()
    if not path.is_file():
        pytest.fail(f"no 20B tokenizer at {path}: {_HINT}")
    return path


@pytest.fixture
def pythia(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Runs the entry point with arguments; gives exit code, stdout and stderr."""

    def run(*args: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["pythia", *map(str, args)])
        with pytest.raises(SystemExit) as e:
            main()
        out, err = capsys.readouterr()
        return int(e.value.code or 0), out, err

    return run


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub that huggingface_hub takes for the only one; caches are empty, the token is TOKEN, and nobody waits long
    before an answer is asked for again.
    """
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    with loopback_hub() as server:
        monkeypatch.setattr(pull, "_WAITS_S", (0.01,) * len(pull._WAITS_S))
        monkeypatch.setattr(_http, "time", SimpleNamespace(**vars(time) | {"sleep": lambda seconds: None}))
        monkeypatch.setenv("HF_TOKEN", TOKEN)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", server.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hf-cache"))
        yield server


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of models of its own, for this process and those that it starts; compiled kernels stay where they are."""
    root, own = cache_root(), tmp_path / "own cache"
    own.mkdir()
    for kernels in root.glob("kernels-*"):
        (own / kernels.name).symlink_to(kernels)
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(own))
    return own


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """In this process `os.fsync` only checks its argument: no file of a test has to survive a loss of power.

    tests/press/test_durable.py holds when it is called.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", os.fstat)
        yield


@pytest.fixture
def blank_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are drawn, and matplotlib, which takes half a second for each, does not make pixels of them."""
    from matplotlib.figure import Figure

    monkeypatch.setattr(Figure, "savefig", lambda figure, out, **options: out.write(b"no pixels"))


@pytest.fixture(scope="session")
def tasks_read_once() -> Iterator[None]:
    """The harness reads the YAML files of its own tasks once, not each time it lists them, which takes ten seconds."""
    from lm_eval.tasks import _index

    own, read = Path(_index.__file__).parent, _index.load_yaml

    @cache
    def kept(path: Path) -> bytes:
        return pickle.dumps(read(path, resolve_func=False, recursive=True))

    def load_yaml(path: Path, *, resolve_func: bool, recursive: bool = True) -> dict[str, object]:
        if resolve_func or not recursive or not path.is_relative_to(own):
            return read(path, resolve_func=resolve_func, recursive=recursive)
        return pickle.loads(kept(path))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_index, "load_yaml", load_yaml)
        yield


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that none is left for one processor at the end.

    Without the 20B tokenizer its tests are left out, which is said; in CI they run and fail. So are those of apt where
    a system has none.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
    if not (_path_20b().is_file() or os.environ.get("CI")):
        _leave_out(config, items, "tokenizer_20b", f"the 20B tokenizer: {_HINT}")
    if shutil.which("apt-get") is None:
        _leave_out(config, items, "apt", "apt-get")


def _leave_out(config: pytest.Config, items: list[pytest.Item], marker: str, need: str) -> None:
    left_out = [item for item in items if item.get_closest_marker(marker)]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.write_line(f"{len(left_out)} tests need {need}")
