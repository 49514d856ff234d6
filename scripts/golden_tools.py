"""Freeze what llama.cpp's own tools make of the sample model: `make golden` builds them with cmake, this runs them.

Only pythia_gguf's command is used, once, to make the float16 file that the tools start from; the hash of that file is
kept with the results. It writes tests/golden/tools.json:

    quantize    quant -> sha256 of the file that llama-quantize writes
    perplexity  quant -> PPL of llama-perplexity, and its error, on the held-out text of the sample
    divergence  quant -> mean KL divergence from the float16 file, and share of tokens with the same most likely one
    quantize_imatrix  the hashes again, with --imatrix imatrix.gguf; and one with imatrix.dat

and tests/golden/imatrix.gguf, imatrix.dat: what llama-imatrix collects on the same text, in both of its forms.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))

from golden import WORK, run, unpacked  # noqa: E402
from pythia_gguf.plan.quants import QUANTS  # noqa: E402

COMMIT = "ggml-org/llama.cpp 0c1e57098 (vendor/llama.cpp of llama-cpp-python 0.3.36)"
TOOLS = ("llama-quantize", "llama-perplexity", "llama-imatrix", "llama-bench", "llama-batched-bench")
# Nothing of the network, of the web page or of the tests; no AMX (the Makefile says why); everything else as cmake has
# it by default: native code.
OPTIONS = ("-DCMAKE_BUILD_TYPE=Release", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DLLAMA_BUILD_UI=OFF",
           "-DLLAMA_USE_PREBUILT_UI=OFF", "-DLLAMA_BUILD_IS_DEV=OFF",
           "-DCMAKE_C_FLAGS=-U__AMX_INT8__", "-DCMAKE_CXX_FLAGS=-U__AMX_INT8__")  # fmt: skip
# The same for a kind of CPU instead of this one: instructions of x86-64 by name.
AVX2 = ("-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in ("AVX", "AVX2", "FMA", "F16C", "BMI2")))
OPTIONS_OF = {"haswell": AVX2, "alderlake": (*AVX2, "-DGGML_AVX_VNNI=ON")}
CHUNKS, CONTEXT = 32, 256


def tools(names: Sequence[str] = TOOLS, cpu: str | None = None) -> Path:
    """The folder with some of the tools, built once (some minutes).

    cpu  LLVM's name of a kind of CPU in OPTIONS_OF; None: this CPU
    """
    build = WORK / (f"tools-{cpu}" if cpu else "tools")
    if not all((build / "bin" / tool).exists() for tool in names):
        run("cmake", "-S", str(unpacked()), "-B", str(build), *OPTIONS, *(OPTIONS_OF[cpu] if cpu else ()))
        run("cmake", "--build", str(build), "--parallel", "2", "--target", *names)
    return build / "bin"


def main() -> None:
    """Run them all."""
    folder = tools()
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(temporary)
        run(sys.executable, "-m", "pythia_gguf", "quantize", "examples/nano", "--out", str(work), "--quants", "Q8_0",
            "--keep-f16", "--quiet")  # fmt: skip
        source = work / "nano.F16.gguf"
        files = {name: work / f"theirs.{name}.gguf" for name, quant in QUANTS.items() if quant.alias_of is None}
        for name, path in files.items():
            said(folder / "llama-quantize", source, path, name, "2")
        text = (*("-f", ROOT / "examples" / "nano" / "heldout.txt", "-c", CONTEXT), *("--chunks", CHUNKS, "-t", 2))
        logits = work / "logits"
        perplexity = {
            "F16": final(
                said(folder / "llama-perplexity", "-m", source, *text, "--kl-divergence-base", logits, parts=("Final",))
            )
        }
        divergence = {}
        for name, path in files.items():
            compared = ("-m", path, "--kl-divergence-base", logits, "--kl-divergence")
            told = said(
                folder / "llama-perplexity", *compared, *text, parts=("Mean PPL(Q) ", "Mean    KLD", "Same top p")
            )
            perplexity[name] = final(told)
            divergence[name] = {
                "mean": number(told, r"Mean +KLD: +([\d.]+)"),
                "same_top1": number(told, r"Same top p: +([\d.]+)"),
            }
        weighted = imatrix_files(folder, work, source)
        result = {
            "commit": COMMIT,
            "command": "scripts/golden_tools.py",
            "text": f"examples/nano/heldout.txt, {CHUNKS} chunks of {CONTEXT} tokens",
            "source_sha256": digest(source),
            "quantize": {name: digest(path) for name, path in files.items()},
            "perplexity": perplexity,
            "divergence": divergence,
            "quantize_imatrix": weighted,
        }
    (ROOT / "tests" / "golden" / "tools.json").write_text(json.dumps(result, indent=1) + "\n")


def imatrix_files(folder: Path, work: Path, source: Path) -> dict[str, str]:
    """Collect an importance matrix, and hash what llama-quantize makes with it, in `work`: it keeps the path."""
    text = ("-f", "heldout.txt", "-c", CONTEXT, "--chunks", CHUNKS, "-t", 2, "--no-ppl")
    shutil.copy(ROOT / "examples" / "nano" / "heldout.txt", work)
    said(folder / "llama-imatrix", "-m", source, *text, "-o", "imatrix.gguf", cwd=work)
    # Without its own matrix in front it would be of other pieces: the form is only converted.
    convert = ("--in-file", "imatrix.gguf", "-o", "imatrix.dat", "--output-format", "dat", "-c", CONTEXT)
    said(folder / "llama-imatrix", "-m", source, *convert, cwd=work)
    hashes = {}
    for name in (*(q.name for q in QUANTS.values() if q.alias_of is None), "Q4_K_M imatrix.dat"):
        quant, _, form = name.partition(" ")
        out = work / f"weighted.{quant}.gguf"
        said(folder / "llama-quantize", "--imatrix", form or "imatrix.gguf", source, out, quant, "2", cwd=work)
        hashes[name] = digest(out)
    for form in ("imatrix.gguf", "imatrix.dat"):
        shutil.copy(work / form, ROOT / "tests" / "golden")
    return hashes


def said(*command: object, cwd: Path | None = None, parts: tuple[str, ...] = ()) -> str:
    """What a tool printed; the golden is not made when it fails.

    parts  what it must have said: the tools lose lines of their log now and then, so it may run again
    """
    for _ in range(5):
        print(" ".join(map(str, command)), flush=True)
        done = subprocess.run(
            list(map(str, command)), check=True, capture_output=True, text=True, errors="replace", cwd=cwd
        )
        told = done.stdout + done.stderr
        if all(part in told for part in parts):
            return told
    raise AssertionError(told[-2000:])


def final(text: str) -> dict[str, float]:
    """PPL and its error, as llama-perplexity ends."""
    match = re.search(r"(?:Final estimate: PPL =|Mean PPL\(Q\) +:) +([\d.]+) +(?:\+/-|±) +([\d.]+)", text)
    assert match, text[-2000:]
    return {"ppl": float(match[1]), "error": float(match[2])}


def number(text: str, pattern: str) -> float:
    """The number that a line gives."""
    match = re.search(pattern, text)
    assert match, text[-2000:]
    return float(match[1])


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


if __name__ == "__main__":
    main()
