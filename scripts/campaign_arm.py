"""`make campaign-arm`: bytes and logits on an emulated ARM CPU, compared with llama.cpp's and with those of x86-64.

    python scripts/campaign_arm.py                      every case that bench/results/arm.csv does not list
    python scripts/campaign_arm.py "logits Q4_K_M int8"  some cases, whether or not they are listed

A case is a process under qemu (scripts/emulated_arm.py); its result is a line of the file, so a run that was ended goes
on where it was. Compilers are slow under an emulator, five minutes a kernel, so kernels are compiled here
(scripts/for_arm.py, some minutes for all) and the emulated CPU finds them in its cache; one case lets it compile by
itself. About two hours on two cores; needs Debian 12, x86-64, and root where qemu is missing.
"""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import numpy as np
from emulated_arm import ROOT, build, run_python

RESULTS = ROOT / "bench" / "results" / "arm.csv"
COLUMNS = ("cpu", "case", "is_equal", "seconds", "date", "commit")
WORK = Path(os.environ.get("PYTHIA_GGUF_CACHE") or ROOT / ".cache") / "arm"
# One CPU with dot products of bytes, and one that has what every ARM CPU has.
CPUS = ("neoverse-n1", "cortex-a72")
FORMATS = ("Q2_K", "Q3_K", "Q4_0", "Q4_1", "Q4_K", "Q5_0", "Q5_1", "Q5_K", "Q6_K", "Q8_0", "IQ4_NL", "IQ4_XS")
FIRST_FILES = ("Q4_K_M", "Q8_0", "F16")
OTHER_FILES = ("Q2_K", "Q3_K_S", "Q3_K_M", "Q3_K_L", "Q4_0", "Q4_1", "Q4_K_S", "Q5_0", "Q5_1", "Q5_K_S", "Q5_K_M")
OTHER_FILES += ("Q6_K", "IQ4_NL", "IQ4_XS")
DOTS = "kernels/dots_elsewhere.py"
GOLDEN = "kernels/encode_golden.py"
LOGITS = "engine/logits_elsewhere.py"
ROTATIONS = "engine/rotation_elsewhere.py"
TELL_KEY = "from pythia_gguf.kernels.target import target_key; print(target_key())"


def main() -> None:
    """Do what is open, or what was asked for."""
    if platform.machine() != "x86_64" or sys.version_info[:2] != (3, 11):
        sys.exit("needs Python 3.11 on x86-64: it compares with this machine's bits, and shares compiled kernels")
    asked, done = sys.argv[1:], known_results()
    build(WORK)
    for cpu in CPUS:
        open_cases = [(name, run) for name, run in cases() if (name in asked if asked else (cpu, name) not in done)]
        if open_cases:
            compile_kernels(cpu)
        for name, run in open_cases:
            started = time.monotonic()
            is_equal = run(cpu)
            note(cpu, name, is_equal, time.monotonic() - started)


def cases() -> list[tuple[str, Callable[[str], bool]]]:
    """Name -> what says whether the emulated CPU's results are those of x86-64; the most important ones first."""

    def prints(program: str, argument: str, expected: str) -> Callable[[str], bool]:
        def run(cpu: str) -> bool:
            return run_python(WORK, cpu, kernels(cpu), test_program(program), argument) == f"{expected}\n"

        return run

    def logits(quant: str, activations: str) -> tuple[str, Callable[[str], bool]]:
        return f"logits {quant} {activations}", lambda cpu: has_same_logits(cpu, quant, activations)

    modes = ("int8", "float32")
    return [
        *((f"bytes {name}", prints(GOLDEN, name, f"{name} 0")) for name in FORMATS),
        *(logits(quant, mode) for quant in FIRST_FILES for mode in modes),
        *((f"sums {name}", prints(DOTS, name, f"{name} 0 0")) for name in ("Q4_K", "Q6_K", "Q8_0", "IQ4_NL")),
        ("rotations", has_same_rotations),
        ("bytes Q8_0, compiled there", compiles_by_itself),
        *((f"bytes {name} weighted", prints(GOLDEN, f"{name} weighted", f"{name} weighted 0")) for name in FORMATS),
        *(logits(quant, mode) for quant in OTHER_FILES for mode in modes),
    ]


def has_same_logits(cpu: str, quant: str, activations: str) -> bool:
    """Whether the logits of the sample are those of this machine, bit for bit."""
    with tempfile.TemporaryDirectory() as folder:
        here, there = (str(Path(folder) / name) for name in ("here.npy", "there.npy"))
        arguments = (test_program(LOGITS), str(sample_files() / f"nano.{quant}.gguf"), activations)
        run_here(*arguments, here)
        run_python(WORK, cpu, kernels(cpu), *arguments, there)
        return np.load(here).tobytes() == np.load(there).tobytes()


def has_same_rotations(cpu: str) -> bool:
    """Whether the tables of cosines and sines, which NumPy makes, are those of this machine."""
    return run_python(WORK, cpu, kernels(cpu), test_program(ROTATIONS)) == run_here(test_program(ROTATIONS))


def compiles_by_itself(cpu: str) -> bool:
    """The bytes of one encoder that the emulated CPU has compiled."""
    with tempfile.TemporaryDirectory() as folder:
        return run_python(WORK, cpu, Path(folder), test_program(GOLDEN), "Q8_0") == "Q8_0 0\n"


def compile_kernels(cpu: str) -> None:
    """Fill the cache of kernels for a CPU, where it is not full."""
    key = run_python(WORK, cpu, kernels(cpu), "-c", TELL_KEY).strip()
    run_here(str(ROOT / "scripts" / "for_arm.py"), cpu, "all", key, cache=kernels(cpu))


@cache
def sample_files() -> Path:
    """The files of the sample's menu, and F16, made on this machine."""
    folder = WORK / "files"
    run_here("-m", "pythia_gguf", "quantize", str(ROOT / "examples" / "nano"), "--out", str(folder), "--keep-f16")
    return folder


def run_here(*arguments: str, cache: Path | None = None) -> str:
    """Run a Python program on this machine and return what it prints."""
    paths = os.pathsep.join(str(ROOT / name) for name in ("src", "tests"))
    environment = os.environ | {"PYTHONPATH": paths} | ({"PYTHIA_GGUF_CACHE": str(cache)} if cache else {})
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True).stdout


def kernels(cpu: str) -> Path:
    """The cache of kernels for a CPU."""
    return WORK / f"kernels-{cpu}"


def test_program(name: str) -> str:
    """A program of the tests."""
    return str(ROOT / "tests" / name)


def known_results() -> set[tuple[str, str]]:
    """CPU and case of every line of the results."""
    if not RESULTS.exists():
        return set()
    with RESULTS.open(encoding="utf-8", newline="") as file:
        return {(row["cpu"], row["case"]) for row in csv.DictReader(file)}


def note(cpu: str, case: str, is_equal: bool, seconds: float) -> None:
    """Add a line to the results."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout
    row = (cpu, case, "yes" if is_equal else "no", f"{seconds:.0f}", datetime.now(UTC).date(), commit.strip())
    is_new = not RESULTS.exists()
    with RESULTS.open("a", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        if is_new:
            writer.writerow(COLUMNS)
        writer.writerow(row)
    print(*row, flush=True)


if __name__ == "__main__":
    main()
