"""Files that are made and kept: once for all who want them, whichever version made them, whatever became of them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

from hub.loopback import LoopbackHub
from models.commands import (
    FOLDER_COMMANDS,
    MODEL_COMMANDS,
    NAME_COMMANDS,
    OTHERS,
    PATH_COMMANDS,
    SOURCE_COMMANDS,
    prepare,
    words,
)
from patience import HANGS_S
from press import tiny
from pythia_gguf import load, quantize
from pythia_gguf.cli.main import COMMANDS
from pythia_gguf.errors import NetworkError, StorageError, UsageError
from pythia_gguf.lock import lock
from pythia_gguf.models.cache import kept
from pythia_gguf.models.find import find_gguf
from pythia_gguf.models.kept import MODELS, commits_of, lock_of
from pythia_gguf.press.file_names import legal_name

NANO = Path(__file__).parents[2] / "examples" / "nano"
SOURCE = "EleutherAI/pythia-14m"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny", tiny.folder_files(width=32))


FIND = (
    "import sys\nfrom pythia_gguf.models.find import find_gguf\n"
    "print(find_gguf(sys.argv[1], threads=1, tell=lambda line: print(line, file=sys.stderr, flush=True)))\n"
)
GENERATE = ("-m", "pythia_gguf", "generate", "{}", "x", "--max-tokens", "1", "--threads", "1")


def start(model: str, args: Sequence[str]) -> subprocess.Popen[str]:
    """A process that wants a file."""
    command = [sys.executable, *(arg.format(model) for arg in args)]
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, **pipes, text=True)  # type: ignore[call-overload]


def entry_of(folder: Path, quant: str) -> Path:
    """Where the file of a quant will be kept."""
    other = find_gguf(f"{folder}:Q5_1").parent
    return other.with_name(other.name.replace("Q5_1", quant))


def names_in(cache: Path) -> list[str]:
    """All but what says of a folder what it was made of."""
    return sorted(p.name for p in (cache / MODELS).iterdir() if p.suffix != ".json")


def test_processes_that_want_one_file_wait_for_the_one_that_makes_it(own_cache: Path, folder: Path):
    """Four that meet somebody who is making it and fails: one of them makes it, the others find it."""
    entry = entry_of(folder, "Q4_0")
    before = names_in(own_cache)
    with lock(lock_of(entry)):
        runs = [start(f"{folder}:Q4_0", ("-c", FIND, "{}")) for _ in range(4)]
        told = [run.stderr.readline() for run in runs if run.stderr]
    found, ends = zip(*(run.communicate(timeout=HANGS_S) for run in runs), strict=True)
    assert [run.returncode for run in runs] == [0] * 4, ends
    assert found == (f"{entry / 'tiny.Q4_0.gguf'}\n",) * 4
    assert told == [f"process {os.getpid()} is making {folder} Q4_0: waiting for it\n"] * 4
    assert sum(f"pressed {folder} to Q4_0, kept in {entry}" in err for err in ends) == 1
    assert names_in(own_cache) == sorted([*before, entry.name])


@pytest.mark.slow
def test_eight_processes_that_start_together_all_get_it(own_cache: Path):
    runs = [start(f"{NANO}:Q4_K_M", GENERATE) for _ in range(8)]
    ends = [run.communicate(timeout=HANGS_S)[1] for run in runs]
    assert [run.returncode for run in runs] == [0] * 8, ends
    assert sum("pressed" in err for err in ends) == 1
    assert all("pressed" in err or err.count("waiting for it") <= 1 for err in ends)
    assert len(names_in(own_cache)) == 1


def made_by(version: str, home: Path) -> None:
    """Make a folder one that another version made."""
    manifest = json.loads((home / "manifest.json").read_text("utf-8"))
    (home / "manifest.json").write_text(json.dumps(manifest | {"tool_version": version}), "utf-8")


def test_what_another_version_made_is_used_and_added_to(own_cache: Path, hub: LoopbackHub, folder: Path):
    """Up to 0.1.0 a commit had one folder, with all quants that had been wanted, under this name."""
    commit = hub.add("me/tiny", folder)
    key = hashlib.sha256(f"me/tiny {commit}".encode()).hexdigest()[:16]
    home = own_cache / "models" / f"tiny-{key}"
    quantize(folder, home, quants="Q8_0,Q4_K,Q4_0")
    made_by("0.0.9", home)
    (home / "tiny.Q4_0.gguf").unlink()
    before = {p: p.stat().st_mtime_ns for p in home.iterdir()}
    assert find_gguf("me/tiny:Q8_0") == home / "tiny.Q8_0.gguf"
    assert find_gguf("me/tiny:q4_k_m") == home / "tiny.Q4_K.gguf"
    for quant in ("Q4_0", "Q5_0"):
        path = find_gguf(f"me/tiny:{quant}")
        assert path.name == f"tiny.{quant}.gguf"
        made_by("9.9.9", path.parent)
        assert find_gguf(f"me/tiny:{quant}") == path
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert load("me/tiny:Q5_0", threads=1).path == path


def test_what_the_first_version_made_of_a_folder_is_used(own_cache: Path, folder: Path):
    """Its key was the folder's place, and name, size and time of every file."""
    (folder / "train.log").write_text("1")
    files = sorted((p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in folder.iterdir())
    key = hashlib.sha256(f"{folder} {files}".encode()).hexdigest()[:16]
    home = own_cache / "models" / f"tiny-{key}"
    quantize(folder, home, quants="Q8_0")
    made_by("0.0.9", home)
    assert find_gguf(f"{folder}:Q8_0") == home / "tiny.Q8_0.gguf"
    assert find_gguf(f"{folder}:Q4_0").parent != home


def test_threads_of_one_process_make_it_once(own_cache: Path, folder: Path):
    told: list[str] = []
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: find_gguf(f"{folder}:Q8_0", threads=1, tell=told.append), range(4)))
    assert len(set(found)) == 1
    assert sum("pressed" in line for line in told) == 1


def cut(path: Path, n_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:n_bytes])


def as_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


DAMAGES: dict[str, Callable[[Path, Path], object]] = {
    "nothing is left": lambda folder, file: [p.unlink() for p in folder.iterdir()],
    "only the file is left": lambda folder, file: [p.unlink() for p in folder.iterdir() if p != file],
    "the file is gone": lambda folder, file: file.unlink(),
    "the file is shorter": lambda folder, file: cut(file, 3000),
    "the file is empty": lambda folder, file: cut(file, 0),
    "the file is longer": lambda folder, file: file.write_bytes(file.read_bytes() + b"\0"),
    "the header is damaged": lambda folder, file: file.write_bytes(b"GGUF" + bytes(file.stat().st_size - 4)),
    "the file is a folder": lambda folder, file: as_folder(file),
    "the file is of another quant": lambda folder, file: quantize(
        folder.parents[2] / "tiny", folder, quants="Q4_0", force=True
    ),
    "no manifest": lambda folder, file: (folder / "manifest.json").unlink(),
    "the manifest is empty": lambda folder, file: cut(folder / "manifest.json", 0),
    "the manifest is cut": lambda folder, file: cut(folder / "manifest.json", 300),
    "the manifest is another's": lambda folder, file: (folder / "manifest.json").write_text('{"schema_version": 2}'),
    "the manifest is a list": lambda folder, file: (folder / "manifest.json").write_text("[]"),
    "the manifest is a folder": lambda folder, file: as_folder(folder / "manifest.json"),
    "the manifest lists no file": lambda folder, file: (folder / "manifest.json").write_text(
        '{"schema_version": 1, "files": []}'
    ),
    "the folder is a file": lambda folder, file: (shutil.rmtree(folder), folder.write_text("")),
    "the folder is a link to nothing": lambda folder, file: (shutil.rmtree(folder), folder.symlink_to("nowhere")),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again(own_cache: Path, folder: Path, damage: str):
    path = find_gguf(f"{folder}:Q8_0")
    whole = path.read_bytes()
    DAMAGES[damage](path.parent, path)
    assert find_gguf(f"{folder}:Q8_0") == path
    assert path.read_bytes() == whole
    assert len(names_in(own_cache)) == 1


def test_what_no_option_of_the_command_could_mend_is_not_advised(
    pythia, own_cache: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A cache that cannot be written: the line names the variable, no option that is of another place."""
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(folder / "config.json"))
    text = tmp_path / "text"
    text.write_text("abc " * 50)
    for args in (
        ("generate", f"{folder}:Q8_0", "x"),
        ("imatrix", f"{folder}:Q8_0", "--text", text, "-o", tmp_path / "imatrix.gguf"),
    ):
        code, _, err = pythia(*args)
        assert (code, err.count("\n")) == (74, 1)
        assert "PYTHIA_GGUF_CACHE" in err
        assert "--" not in err


def test_the_key_of_a_folder_is_what_decides_its_files(own_cache: Path, folder: Path):
    first = find_gguf(f"{folder}:Q8_0")
    for name in ("train.log", "optimizer.pt", "LICENSE", "events.out.tfevents.1", "rng_state.pth"):
        (folder / name).write_text("new")
    (folder / "runs").mkdir()
    assert find_gguf(f"{folder}:Q8_0") == first
    seen = {first}
    for name in ("model.safetensors", "config.json", "tokenizer.json", "tokenizer_config.json", "README.md"):
        (folder / name).write_bytes((folder / name).read_bytes())  # saved again
        os.utime(folder / name, ns=(len(seen), len(seen)))
        seen.add(find_gguf(f"{folder}:Q8_0"))
    assert len(seen) == 6
    (folder / "chat_template.jinja").write_text("{{ x }}")
    seen.add(find_gguf(f"{folder}:Q8_0"))
    moved = folder.rename(folder.with_name("moved"))
    seen.add(find_gguf(f"{moved}:Q8_0"))
    assert len(seen) == 8


def test_a_second_name_is_no_second_file(own_cache: Path, folder: Path):
    assert find_gguf(f"{folder}:Q4_K_M") == find_gguf(f"{folder}:q4_k") == find_gguf(folder, quant="Q4_K_m")
    assert len(names_in(own_cache)) == 1
    for quant in ("all", "Q4_0,Q8_0"):
        with pytest.raises(UsageError, match="a model to run has one quant"):
            find_gguf(folder, quant=quant)
    with pytest.raises(UsageError, match="Did you mean"):
        find_gguf(folder, quant="Q4_9")


@pytest.mark.parametrize("quant", ["Q4_0", "Q2_K", "Q4_K_M", "F16"])
def test_a_model_of_odd_rows_is_made_and_kept(own_cache: Path, tmp_path: Path, quant: str):
    """Rows of 48 are whole blocks of no format: all weights stay F16, in a file of the quant's name."""
    odd = tiny.write(tmp_path / "odd", tiny.folder_files(width=48))
    path = find_gguf(f"{odd}:{quant}")
    assert path.name == f"odd.{quant}.gguf"
    made_at = path.stat().st_mtime_ns
    assert find_gguf(f"{odd}:{quant}").stat().st_mtime_ns == made_at
    quantize(odd, tmp_path / "out", quants="Q4_0,Q2_K,Q4_K_M", keep_f16=True)
    if quant != "F16":
        assert find_gguf(f"{tmp_path / 'out'}:{quant}").name == f"odd.{quant}.gguf"


def test_a_revision_beside_a_name_with_a_quant(own_cache: Path, hub: LoopbackHub, folder: Path):
    hub.add("me/tiny", folder, branch="v1.")
    path = find_gguf("me/tiny:Q8_0", revision="v1.")
    assert path.name == f"{legal_name('tiny-v1.')}.Q8_0.gguf"
    assert find_gguf("me/tiny@v1.:Q8_0") == path


def test_a_cache_that_is_read_only_serves(own_cache: Path, folder: Path):
    """As the owner of an image or of a cluster's cache leaves it: files are found, none can be made."""
    path = find_gguf(f"{folder}:Q8_0")
    for p in (path.parent, path.parent.parent):
        p.chmod(0o555)
    try:
        assert load(f"{folder}:Q8_0", threads=1).path == path
        if not os.access(path.parent, os.W_OK):  # root may write everywhere
            with pytest.raises(StorageError, match="PYTHIA_GGUF_CACHE may name another"):
                find_gguf(f"{folder}:Q4_0")
    finally:
        for p in (path.parent, path.parent.parent):
            p.chmod(0o755)


def test_every_command_is_looked_at():
    tables = (MODEL_COMMANDS, SOURCE_COMMANDS, NAME_COMMANDS, PATH_COMMANDS, FOLDER_COMMANDS, OTHERS)
    assert sorted(name for table in tables for name in table) == sorted(COMMANDS)


def test_without_a_network_every_command_takes_what_is_here(pythia, hub: LoopbackHub, own_cache: Path, tmp_path: Path):
    """First what pull has fetched is made into what is wanted; then what was made serves alone."""
    prepare(tmp_path / "work")
    hub.add(SOURCE, NANO, branch="step3000")
    name = f"{SOURCE}@step3000"
    assert pythia("pull", name)[0] == 0
    hub.close()
    for command, args in (MODEL_COMMANDS | SOURCE_COMMANDS | NAME_COMMANDS).items():
        code, _, err = pythia(*words(command, args, name, tmp_path / "work"))
        assert code == 0, (command, err)
    assert {name.rpartition("-")[2] for name in names_in(own_cache)} == {"Q8_0", "unquantized"}
    shutil.rmtree(constants.HF_HUB_CACHE)
    for command, args in MODEL_COMMANDS.items():
        work = tmp_path / command
        prepare(work)
        code, _, err = pythia(*words(command, args, name, work))
        assert code == 0, (command, err)
        assert "pressed" not in err
    for command, args in (SOURCE_COMMANDS | NAME_COMMANDS).items():
        code, _, err = pythia(*words(command, args, name, tmp_path / "work"))
        assert (code, err.count("\n")) == (69, 1), (command, err)


def test_after_streaming_the_quants_that_were_made_serve(
    pythia, hub: LoopbackHub, own_cache: Path, folder: Path, tmp_path: Path
):
    hub.add("me/tiny", folder)
    assert find_gguf("me/tiny:Q8_0").is_file()
    hub.close()
    told: list[str] = []
    assert find_gguf("me/tiny:Q8_0", tell=told.append).is_file()
    assert len(told) == 1
    assert "the Hub cannot be reached: me/tiny is taken as it was at commit" in told[0]
    for args in (("generate", "me/tiny:Q4_0", "x"), ("quantize", "me/tiny", "--out", tmp_path / "out")):
        code, _, err = pythia(*args, "--quiet")
        assert (code, err.count("\n")) == (69, 1)
        assert "me/tiny@" in err or "me/tiny:" in err
        assert "its weights are not in the cache" in err


def test_notes_that_are_damaged_stop_nobody(own_cache: Path, hub: LoopbackHub, folder: Path):
    """1,000 mutants of what says what a file was made of: no more is lost than which branch it was of."""
    hub.add("me/tiny", folder)
    path = find_gguf("me/tiny:Q8_0")
    shutil.rmtree(constants.HF_HUB_CACHE)
    note = path.parent.with_name(f"{path.parent.name}.json")
    whole = note.read_bytes()
    numbers = np.random.default_rng(3)
    n_found = 0
    for i in range(1000):
        data = bytearray(whole)
        for _ in range(numbers.integers(1, 4)):
            at = numbers.integers(len(data))
            data[at : at + numbers.integers(0, 3)] = numbers.bytes(numbers.integers(0, 3))
        note.write_bytes(data[: numbers.integers(len(data))] if i % 5 == 0 else data)
        n_found += path.parent.name in [entry.path.name for entry in kept()]
        commits = commits_of(own_cache, "me/tiny", "main")
        assert commits in ([], [hub.commit("me/tiny", "main")]) or len(commits[0]) == 40
    assert n_found == 1000
    hub.close()
    note.write_bytes(whole[:-5])
    with pytest.raises(NetworkError, match="me/tiny: cannot reach the Hub"):
        find_gguf("me/tiny:Q8_0")
    note.write_bytes(whole)
    assert find_gguf("me/tiny:Q8_0") == path


def test_a_commit_that_was_made_is_not_asked_for(hub: LoopbackHub, own_cache: Path, folder: Path):
    commit = hub.add("me/tiny", folder)
    path = find_gguf(f"me/tiny@{commit}:Q8_0")
    before = len(hub.requests)
    assert find_gguf(f"me/tiny@{commit}:Q8_0") == path
    assert len(hub.requests) == before


def test_a_branch_that_moves_while_it_is_pressed_is_kept_as_it_was(hub: LoopbackHub, own_cache: Path, folder: Path):
    hub.add("me/tiny", folder)
    hub.faults.after_listing = lambda: hub.add("me/tiny", tiny.folder_files(width=64))
    first = find_gguf("me/tiny:Q8_0")
    second = find_gguf("me/tiny:Q8_0")
    assert load(first, threads=1).config.hidden == 32
    assert load(second, threads=1).config.hidden == 64


def test_a_folder_of_any_name_serves_every_command(
    pythia, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    name = "Модель (1), lr=1e-5"
    prepare(tmp_path / "work")
    shutil.copytree(NANO, tmp_path / name, ignore=shutil.ignore_patterns("heldout*"))
    monkeypatch.chdir(tmp_path)
    for command, args in (MODEL_COMMANDS | SOURCE_COMMANDS).items():
        code, _, err = pythia(*words(command, args, name, tmp_path / "work"))
        assert code == 0, (command, err)
