"""What a user's cache folder goes through: edits, damage, full disks, several processes, other versions, other users.

Small kernels of this file stand for the encoders wherever the encoders' bytes do not matter.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

import pythia_gguf
from patience import HANGS_S
from pythia_gguf.kernels.c_kernel import CKernel
from pythia_gguf.kernels.cache import CacheWarning, stored_code
from pythia_gguf.kernels.encode import ENCODABLE
from pythia_gguf.kernels.jit import c_kernel, is_compiled, kernel
from pythia_gguf.kernels.memory import i64_at

ENCODE_GOLDEN = Path(__file__).with_name("encode_golden.py")
OLD_S = 31 * 86400
# A CPU of this platform that is not the one we run on, for LLVM.
OTHER_CPU = "haswell" if platform.machine().lower() in ("x86_64", "amd64") else "generic"


def double(x, out):
    for i in range(x.size):
        out[i] = x[i] + x[i]


def run_double(dtype: type = np.float32) -> int:
    """Run the kernel as a new process would; gives how many times code came from the cache, 0 or 1."""
    x = np.arange(5, dtype=dtype)
    out = np.zeros_like(x)
    fresh = kernel(double)
    fresh(x, out)
    assert out.tolist() == [0, 2, 4, 6, 8]
    return sum(fresh.stats.cache_hits.values())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache folder and an empty folder for temporary files."""
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache"


def private_folder(cache: Path) -> Path:
    return cache.parent / "temporary" / f"pythia-gguf-{os.getuid() if hasattr(os, 'getuid') else 'kernels'}"


def test_compiled_once_then_loaded(cache: Path):
    assert [run_double(), run_double()] == [0, 1]
    assert [path.name.split("-")[0] for path in stored_code()] == ["test_cache.double"]


def test_other_argument_types_get_code_of_their_own(cache: Path):
    assert [run_double(np.float32), run_double(np.int32), run_double(np.float32), run_double(np.int32)] == [0, 0, 1, 1]


def test_decorating_a_kernel_touches_no_disk(cache: Path):
    fresh = kernel(double)
    x = np.zeros(1, np.float32)
    assert not is_compiled(fresh, x, x)
    assert not cache.exists()
    fresh(x, x)
    assert is_compiled(fresh, x, x)
    assert is_compiled(kernel(double), x, x)


@pytest.mark.parametrize("damage", ["empty", "short digest", "half", "one byte short", "one bit", "other pickle"])
def test_damaged_file_is_compiled_again_and_replaced(cache: Path, damage: str):
    run_double()
    (path,) = stored_code()
    whole = path.read_bytes()
    middle = len(whole) // 2
    damaged = {
        "empty": b"",
        "short digest": whole[:20],
        "half": whole[:middle],
        "one byte short": whole[:-1],
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "other pickle": b"\x80\x04N.",
    }[damage]
    path.write_bytes(damaged)
    assert [run_double(), run_double()] == [0, 1]


def put(address, n):
    i64_at(address, 1)[0] = n


def run_put(kernel: CKernel) -> None:
    out = np.zeros(1, np.int64)
    kernel.run(out.ctypes.data, 7)
    assert out.tolist() == [7]


def test_a_c_kernel_is_compiled_once_then_loaded(cache: Path):
    first = c_kernel(2)(put)
    assert not first.is_kept
    run_put(first)
    (path,) = stored_code()
    made = path.stat()
    again = c_kernel(2)(put)
    assert again.is_kept
    run_put(again)
    assert path.stat().st_ino == made.st_ino  # a file that is written anew is another one
    assert again.address != first.address  # from the file, not from memory


@pytest.mark.parametrize("damage", ["one bit", "half", "no object", "no entry point"])
def test_code_of_a_c_kernel_that_cannot_be_loaded_is_compiled_again_and_replaced(cache: Path, damage: str):
    """Also where the digest is right, so that only the linker can notice."""
    run_put(c_kernel(2)(put))
    (path,) = stored_code()
    whole = path.read_bytes()
    middle = len(whole) // 2
    lost = whole[32:].replace(b"\0pythia_gguf_kernel\0", b"\0pythia_gguf_nowher\0")
    damaged = {
        "one bit": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
        "half": whole[:middle],
        "no object": hashlib.sha256(b"no object").digest() + b"no object",
        "no entry point": hashlib.sha256(lost).digest() + lost,
    }[damage]
    assert damaged != whole
    path.write_bytes(damaged)
    run_put(c_kernel(2)(put))
    assert path.read_bytes() == whole


def test_without_a_linker_for_object_files_code_is_numbas(cache: Path):
    """As where LLVM cannot load what it has made: the kernel runs, and nothing is kept."""
    code = c_kernel(2)(put).compile_it()
    run_put(CKernel("test_cache.put", 2, lambda: code._replace(object_file=b"no object")))
    assert stored_code() == {}


def test_switches_of_numba_give_code_a_name_of_its_own(tmp_path: Path):
    """What changes no code does not; .numba_config.yaml of the working directory counts as the variables do."""
    code = "from pythia_gguf.kernels.cache import code_name; print(code_name('a.b', ()))"

    def name(**env: str) -> str:
        command = [sys.executable, "-c", code]
        return subprocess.check_output(command, env=os.environ | env, cwd=tmp_path, text=True, timeout=HANGS_S)

    usual = name()
    assert name(NUMBA_NUM_THREADS="1") == usual
    others = [name(NUMBA_CPU_NAME=OTHER_CPU), name(NUMBA_CPU_FEATURES=""), name(NUMBA_OPT="1")]
    (tmp_path / ".numba_config.yaml").write_text("opt: 1\n")
    assert len({usual, *others, name()}) == 5


def test_without_a_cache_folder_code_is_kept_in_a_private_temporary_one(cache: Path):
    cache.write_text("a file where the folder should be")
    with pytest.warns(CacheWarning) as told:
        assert run_double() == 0
    (line,) = [str(w.message) for w in told]
    assert "\n" not in line
    assert str(cache) in line
    assert str(private_folder(cache)) in line
    assert run_double() == 1  # a second warning would be an error here
    assert [path.parent.parent for path in stored_code()] == [private_folder(cache)]
    if os.name == "posix":
        assert stat.S_IMODE(private_folder(cache).stat().st_mode) == 0o700


def test_without_any_folder_code_lives_as_long_as_the_process(cache: Path):
    cache.write_text("")
    private_folder(cache).write_text("")
    with pytest.warns(CacheWarning, match="compiled again in the next run; set PYTHIA_GGUF_CACHE"):
        assert run_double() == 0
    assert stored_code() == {}


def test_without_a_home_nothing_is_made_in_the_working_directory(cache: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("PYTHIA_GGUF_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for name in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(name, "~")  # what expanding gives where the user has no entry
    (cache.parent / "work").mkdir()
    monkeypatch.chdir(cache.parent / "work")
    with pytest.warns(CacheWarning, match="cannot keep compiled kernels"):
        run_double()
    assert not list(Path.cwd().iterdir())
    assert run_double() == 1


def test_a_temporary_folder_that_others_could_write_is_refused(cache: Path, monkeypatch: pytest.MonkeyPatch):
    """Code from it would be run: not one with another owner, not one open to a group, not a link."""
    if os.name != "posix":
        return  # the folder lies in the user's own profile there
    cache.write_text("")
    folder = private_folder(cache)
    folder.mkdir(mode=0o770)
    folder.chmod(0o770)
    with pytest.warns(CacheWarning, match="compiled again"):
        run_double()
    folder.rmdir()
    (cache.parent / "elsewhere").mkdir(mode=0o700)
    folder.symlink_to(cache.parent / "elsewhere")
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(cache / "2"))  # another place: each warning is given once
    with pytest.warns(CacheWarning, match="compiled again"):
        run_double()
    folder.unlink()
    folder.mkdir(mode=0o700)
    # Only root can make a folder of somebody else, so somebody else is who we claim to be.
    other = os.getuid() + 1
    monkeypatch.setattr(os, "getuid", lambda: other)
    folder.rename(private_folder(cache))
    monkeypatch.setenv("PYTHIA_GGUF_CACHE", str(cache / "3"))
    with pytest.warns(CacheWarning, match="compiled again"):
        run_double()
    assert not list(private_folder(cache).iterdir())
    assert not list((cache.parent / "elsewhere").iterdir())


def test_folders_of_other_versions_go_after_30_days_without_use(cache: Path):
    names = ["kernels-0123456789abcdef", "kernels-fedcba9876543210", "kernels-mine", "xkernels-0123456789abcdef"]
    for name in names:
        (cache / name / "inside").mkdir(parents=True)
    (cache / "kernels-00000000000000ff").write_text("a file")
    (cache / "kernels-00000000000000aa").symlink_to(cache / "kernels-mine", target_is_directory=True)
    for path in cache.iterdir():
        if path.name != names[1]:
            os.utime(path, (time.time() - OLD_S,) * 2)
    run_double()
    (mine,) = {path.parent.name for path in stored_code()}
    left = {path.name for path in cache.iterdir()}
    assert left == {*names[1:], "kernels-00000000000000ff", "kernels-00000000000000aa", mine}


def test_use_counts_as_use(cache: Path):
    run_double()
    folder = next(iter(stored_code())).parent
    os.utime(folder, (time.time() - OLD_S,) * 2)
    run_double()
    assert time.time() - folder.stat().st_mtime < OLD_S / 2


def golden(names: str, cache: Path, **env: str) -> subprocess.Popen[str]:
    """A process that encodes the frozen weights and prints, per format, how many bytes differ from llama.cpp's."""
    return subprocess.Popen(
        [sys.executable, ENCODE_GOLDEN, names],
        env=os.environ | {"PYTHIA_GGUF_CACHE": str(cache)} | env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    out, err = process.communicate(timeout=HANGS_S)
    assert (process.returncode, err) == (0, "")
    return out


def code_files(cache: Path) -> dict[Path, int]:
    """Path -> time of change of all machine code."""
    return {path: path.stat().st_mtime_ns for path in cache.rglob("*.code")}


@pytest.mark.parametrize(
    ("names", "n_rounds"),
    [
        pytest.param(("Q8_0",), 1, marks=pytest.mark.slow, id="one format"),
        pytest.param(ENCODABLE, 3, marks=pytest.mark.campaign, id="all formats, three rounds"),
    ],
)
def test_processes_that_compile_at_once_for_several_cpus_leave_good_code(
    tmp_path: Path, names: tuple[str, ...], n_rounds: int
):
    """Three processes on an empty cache; then each kind of CPU finds its code, which makes llama.cpp's bytes."""
    cpus = [{}, {}, {"NUMBA_CPU_NAME": OTHER_CPU, "NUMBA_CPU_FEATURES": ""}]
    right = "".join(f"{name} 0\n" for name in names)
    for i_round in range(n_rounds):
        cache = tmp_path / str(i_round)
        running = [golden(",".join(names), cache, **cpu) for cpu in cpus]
        assert [finished(process) for process in running] == [right] * 3
        made = code_files(cache)
        assert len({path.read_bytes() for path in made}) == len(made) == 2 * len(names)
        assert [finished(golden(",".join(names), cache, **cpu)) for cpu in cpus[1:]] == [right] * 2
        assert code_files(cache) == made


@pytest.mark.slow
def test_an_edited_kernel_or_table_never_meets_older_code(tmp_path: Path):
    """In a copy of the package, one after the other: how kernels/lanes.py rounds; a level in formats/iq4_nl.py."""
    package = tmp_path / "pythia_gguf"
    shutil.copytree(Path(pythia_gguf.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    cache = tmp_path / "cache"
    assert finished(golden("Q8_0,IQ4_NL", cache, PYTHONPATH=str(tmp_path))) == "Q8_0 0\nIQ4_NL 0\n"
    made = code_files(cache)
    for name, file, old, new in (
        ("Q8_0", "kernels/lanes.py", "(a + 0xFFF +", "(a + 0x2FFF +"),
        ("IQ4_NL", "formats/iq4_nl.py", "[-127, -104,", "[-127, -100,"),
    ):
        original = (package / file).read_text("utf-8")
        assert original.count(old) == 1
        (package / file).write_text(original.replace(old, new), "utf-8")
        assert finished(golden(name, cache, PYTHONPATH=str(tmp_path))) != f"{name} 0\n"
        (package / file).write_text(original, "utf-8")
    assert finished(golden("Q8_0,IQ4_NL", cache, PYTHONPATH=str(tmp_path))) == "Q8_0 0\nIQ4_NL 0\n"
    assert made.items() <= code_files(cache).items()  # loaded, not compiled again


@pytest.mark.slow
def test_compiling_encoders_fills_the_cache_and_names_each_format_once(tmp_path: Path):
    """Run where nothing is compiled yet; what progress raises comes out, and no process is left behind."""
    code = (
        "from pythia_gguf.kernels.compiling import compile_all\n"
        "from pythia_gguf.kernels.encode import encoder_jobs\n"
        "from pythia_gguf.progress import Silence\n"
        "heard = []\n"
        "class Heard(Silence):\n    def advance(self, *what): heard.append(what)\n"
        "class Stop(Silence):\n    def advance(self, *what): raise KeyboardInterrupt\n"
        "compile_all(encoder_jobs(['Q4_1', 'Q8_0', 'Q5_0']), Heard())\n"
        "print(sorted(heard))\n"
        "try: compile_all(encoder_jobs(['IQ4_NL', 'Q5_1', 'Q4_0']), Stop())\n"
        "except KeyboardInterrupt: print('stopped')\n"
    )
    shown = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=os.environ | {"PYTHIA_GGUF_CACHE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=HANGS_S,
    )
    assert shown.stderr == ""
    assert shown.stdout.splitlines() == ["[('Q4_1', 1), ('Q5_0', 1), ('Q8_0', 1)]", "stopped"]
    kept = {path.name.split("-")[0].rpartition(".")[2] for path in code_files(tmp_path)}
    assert {"encode_q4_1", "encode_q5_0", "encode_q8_0", "encode_iq4_nl"} <= kept
