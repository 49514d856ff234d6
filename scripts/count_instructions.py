"""Counts the instructions of the inner loops of int8 products, for any kind of CPU, on any x86-64 machine.

    python scripts/count_instructions.py --save     those of ARM, into bench/results/instructions.csv
    python scripts/count_instructions.py haswell    those of another CPU

A loop multiplies 32 columns: of 16 rows with one token or four where few tokens are read, of 32 rows where many are.
What a loop has of each is known by its products of bytes: so many bytes does an instruction of PRODUCTS multiply.
"""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from cpu_kinds import FEATURES, environment  # noqa: E402

RESULTS = ROOT / "bench" / "results" / "instructions.csv"
COLUMNS = ("cpu", "format", "tokens", "rows", "instructions", "products", "loads_of_stack", "stores_to_stack")
ARM = ("apple-m1", "neoverse-v1", "cortex-a72")
FORMATS = ("Q4_K", "Q8_0", "IQ4_NL")
# Instruction -> products of two bytes, in registers of 32 bytes on x86.
PRODUCTS = {"sdot": 16, "smull": 8, "smull2": 8, "vpmaddubsw": 32, "vpdpbusd": 32}
LOOPS = {512: (1, 16), 1024: (1, 32), 2048: (4, 16), 4096: (4, 32)}
# A jump, with a place in the same function; comments and what belongs to no function are left out before.
JUMP = re.compile(r"\t(?:b\S*|cbn?z|tbn?z|j\w+)\t.*?(\.LBB\d+_\d+)$")
SHOW = """
import sys
from pythia_gguf.kernels.matmul import _kernel
print(_kernel(sys.argv[1], "int8").compile_it().assembly())
"""


def main() -> None:
    """Print or save a line for each loop."""
    is_saved = sys.argv[1:] == ["--save"]
    kinds = sys.argv[1:] if sys.argv[1:] and not is_saved else ARM
    rows = [(cpu, name, *loop) for cpu in kinds for name in FORMATS for loop in loops(assembly(cpu, name))]
    if is_saved:
        with RESULTS.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file, lineterminator="\n").writerows([COLUMNS, *rows])
    for row in (COLUMNS, *rows):
        print(*(f"{cell!s:16}" for cell in row))


def assembly(cpu: str, format_name: str) -> str:
    """The machine code of a format's product."""
    on_arm = [str(ROOT / "scripts" / "for_arm.py"), cpu, f"{format_name}:int8"]
    command = ["-c", SHOW, format_name] if cpu in FEATURES else on_arm
    with tempfile.TemporaryDirectory() as cache:  # code that is loaded from one shows no instructions
        env = (
            environment(cpu, PYTHIA_GGUF_CACHE=cache) if cpu in FEATURES else os.environ | {"PYTHIA_GGUF_CACHE": cache}
        )
        return subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True, check=True).stdout


def loops(code: str) -> list[tuple[int, ...]]:
    """Of each innermost loop with products: tokens, rows, instructions, products, loads and stores of the stack."""
    lines = [re.split(r"\s*(?:#|//)", line)[0].rstrip() for line in code.replace("{vex}\t", "").splitlines()]
    places = {line[:-1]: i for i, line in enumerate(lines) if line.startswith(".LBB")}
    jumps = [(places.get(jump[1], i), i) for i, line in enumerate(lines) if (jump := JUMP.match(line))]
    back = [(first, last) for first, last in jumps if first < last]
    inner = [
        (first, last)
        for first, last in back
        if not any(first <= a and b <= last and (a, b) != (first, last) for a, b in back)
    ]
    found = {}
    for first, last in inner:
        body = [line for line in lines[first : last + 1] if re.match(r"\t[a-z]", line)]
        count = Counter(line.split()[0] for line in body)
        n_bytes = sum(n * PRODUCTS.get(name, 0) for name, n in count.items())
        if n_bytes in LOOPS:
            on_stack = [line for line in body if re.search(r"\[sp|\(%rsp|\(%rbp", line)]
            stores = sum(is_store(line) for line in on_stack)
            n_products = sum(n for name, n in count.items() if name in PRODUCTS)
            found[LOOPS[n_bytes]] = (*LOOPS[n_bytes], len(body), n_products, len(on_stack) - stores, stores)
    return [found[loop] for loop in sorted(found)]


def is_store(line: str) -> bool:
    """Whether an instruction that names the stack writes to it: AT&T's syntax has the target at the end."""
    return line.startswith("\tst") or line.endswith(")")


if __name__ == "__main__":
    main()
