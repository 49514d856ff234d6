"""`pythia cache`: what is kept, what goes, and what another process needs stays."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf import load
from pythia_gguf.lock import lock
from pythia_gguf.models.cache import kept, prune
from pythia_gguf.models.find import find_gguf, found_gguf
from pythia_gguf.models.kept import lock_of

DAY_S = 86400
# Waits inside what it does with a file until somebody says go on.
USE = (
    "import sys\nfrom pythia_gguf.models.find import found_gguf\n"
    "with found_gguf(sys.argv[1], threads=1) as path:\n    print(path, flush=True)\n    sys.stdin.readline()\n"
    "    path.read_bytes()\n"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tiny.write(tmp_path / "tiny", tiny.folder_files(width=32))


def make(folder: Path, *quants: str) -> list[Path]:
    """Files, the first the longest unused."""
    paths = [find_gguf(f"{folder}:{quant}") for quant in quants]
    for i, path in enumerate(paths):
        set_age(path, len(paths) - i)
    return paths


def set_age(path: Path, days: float) -> None:
    os.utime(path.parent, (time.time() - days * DAY_S,) * 2)


def told(pythia, *args: str) -> dict:
    code, out, err = pythia("cache", *args, "--output-format", "json")
    assert (code, err) == (0, "")
    return json.loads(out)


def test_the_list_says_what_can_be_given_again(pythia, own_cache: Path, folder: Path, hub: LoopbackHub):
    hub.add("me/tiny", folder, branch="step3")
    by_name, by_path = find_gguf("me/tiny@step3:Q8_0"), find_gguf(f"{folder}:Q4_0")
    kernels = own_cache / "kernels-0123456789abcdef"
    kernels.mkdir()
    (kernels / "x.code").write_bytes(bytes(1000))
    found = {e["what"]: e for e in told(pythia)["entries"]}
    assert set(found) == {"me/tiny@step3:Q8_0", f"{folder}:Q4_0", kernels.name}
    for what, path in (("me/tiny@step3:Q8_0", by_name), (f"{folder}:Q4_0", by_path)):
        assert find_gguf(what) == path
        assert found[what]["folder"] == str(path.parent)
        assert found[what]["bytes"] == sum(p.stat().st_size for p in path.parent.iterdir())
    assert (found[kernels.name]["kind"], found[kernels.name]["bytes"]) == ("kernels", 1000)
    code, out, _ = pythia("cache")
    assert code == 0
    assert all(what in out for what in found)
    assert out.splitlines()[-1].startswith("3 folders, ")


def test_finding_a_file_is_using_it(own_cache: Path, folder: Path):
    (path,) = make(folder, "Q8_0")
    assert time.time() - kept()[0].last_used > DAY_S / 2
    find_gguf(f"{folder}:Q8_0")
    assert time.time() - kept()[0].last_used < 60
    set_age(path, 3)
    load(f"{folder}:Q8_0", threads=1)
    assert time.time() - kept()[0].last_used < 60


def test_prune_removes_what_is_old_and_what_is_too_much(pythia, own_cache: Path, folder: Path):
    paths = make(folder, "Q8_0", "Q4_0", "Q5_0")
    sizes = {Path(e["folder"]): e["bytes"] for e in told(pythia)["entries"]}
    before = sorted(p for p in own_cache.rglob("*"))
    for args, n_gone in (
        (("--older-than", "10d"), 0),
        (("--older-than", "60h"), 1),
        (("--older-than", "1.5d"), 2),
        (("--older-than", "0h"), 3),
        (("--to", "1T"), 0),
        (("--to", str(sum(sizes.values()))), 0),
        (("--to", str(sum(sizes.values()) - 1)), 1),
        (("--to", "0"), 3),
        (("--older-than", "60h", "--to", str(sizes[paths[2].parent])), 2),
    ):
        result = told(pythia, "prune", *args, "--dry-run")
        assert [Path(e["folder"]) for e in result["removed"]] == [p.parent for p in paths[:n_gone]], args
        assert result["freed_bytes"] == sum(sizes[p.parent] for p in paths[:n_gone])
        assert result["kept_bytes"] + result["freed_bytes"] == sum(sizes.values())
    assert sorted(p for p in own_cache.rglob("*")) == before
    code, out, err = pythia("cache", "prune", "--older-than", "36h")
    assert (code, err) == (0, "")
    assert f"removed {folder}:Q8_0, " in out
    assert [p.exists() for p in paths] == [False, False, True]
    assert find_gguf(f"{folder}:Q8_0") == paths[0]  # made again


def test_what_another_process_makes_or_loads_stays(pythia, own_cache: Path, folder: Path):
    making, loading, free = make(folder, "Q8_0", "Q4_0", "Q5_0")
    command = [sys.executable, "-c", USE, f"{folder}:Q4_0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdin is not None
        assert user.stdout is not None
        assert user.stdout.readline() == f"{loading}\n"
        with lock(lock_of(making.parent)):
            result = told(pythia, "prune", "--to", "0")
        assert {Path(e["folder"]): e["reason"] for e in result["spared"]} == {
            making.parent: f"process {os.getpid()} is making it",
            loading.parent: f"process {user.pid} is loading it",
        }
        assert [p.exists() for p in (making, loading, free)] == [True, True, False]
        user.stdin.write("\n")
    assert user.returncode == 0
    assert len(told(pythia, "prune", "--to", "0")["removed"]) == 2
    assert list((own_cache / "models").iterdir()) == []


def test_marks_of_a_process_that_was_killed_spare_nothing(pythia, own_cache: Path, folder: Path):
    command = [sys.executable, "-c", USE, f"{folder}:Q4_0"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as user:
        assert user.stdout is not None
        user.stdout.readline()
        user.kill()
    assert len(list((own_cache / "models").glob("*.use-*.lock"))) == 1
    assert len(told(pythia, "prune", "--to", "0")["removed"]) == 1
    assert list((own_cache / "models").iterdir()) == []


def test_a_file_that_goes_before_it_is_loaded_is_made_again(own_cache: Path, folder: Path):
    """Between finding and loading somebody prunes: who loads finds again."""
    (path,) = make(folder, "Q8_0")
    with found_gguf(f"{folder}:Q8_0") as found:
        assert found == path
        result = prune(most_bytes=0)
        assert [reason for _, reason in result.spared] == [f"process {os.getpid()} is loading it"]
    assert [entry.path for entry in prune(most_bytes=0).removed] == [path.parent]
    assert load(f"{folder}:Q8_0", threads=1).path == path


def test_compiled_kernels_go_too_but_not_those_in_use(own_cache: Path):
    old, new = own_cache / "kernels-0123456789abcdef", own_cache / "kernels-fedcba9876543210"
    for kernels in (old, new):
        kernels.mkdir()
    os.utime(old, (time.time() - DAY_S,) * 2)
    result = prune(older_than_s=0)
    assert [entry.path for entry in result.removed] == [old]
    assert [(entry.path, reason) for entry, reason in result.spared] == [(new, "used within the last hour")]


def test_what_is_not_ours_stays(own_cache: Path, tmp_path: Path):
    """Files, links and folders of other names; an empty cache, and none."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (own_cache / "models").mkdir()
    (own_cache / "models" / "link").symlink_to(outside)
    (own_cache / "models" / "notes.txt").write_text("mine")
    (own_cache / "kernels-mine").mkdir()
    before = sorted(own_cache.rglob("*"))
    assert prune(older_than_s=0, most_bytes=0).removed == ()
    assert sorted(own_cache.rglob("*")) == before
    assert outside.is_dir()


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("prune",), "--older-than 30d, --to 20G"),
        (("prune", "--older-than", "30"), "a time such as 30d"),
        (("prune", "--older-than", "soon"), "a time such as 30d"),
        (("prune", "--to", "-1"), "a size such as 20G"),
        (("prune", "--to", "20X"), "a size such as 20G"),
        (("list", "--to", "20G"), "changes nothing with list"),
        (("--dry-run",), "changes nothing with list"),
        (("remove",), "'remove' is not one of"),
    ],
)
def test_what_makes_no_sense_is_one_line(pythia, own_cache: Path, args: tuple[str, ...], said: str):
    code, _, err = pythia("cache", *args)
    assert code == 2
    assert said in err
    with pytest.raises(ValueError, match="needs older_than_s or most_bytes"):
        prune()
