"""Every JSON file beside a model, damaged a thousand times: each command that reads it says one line, or works.

A file is damaged as bytes and as JSON, its values are exchanged for each other, and its keys are taken away.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from press import tiny
from press.damage import damaged_json
from pythia_gguf import quantize
from pythia_gguf.arch.activation import act_beside
from pythia_gguf.errors import ModelFileError
from pythia_gguf.files import sha256_of
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.models.kept import note_origin, origin_of, origin_path
from pythia_gguf.tokenizer import special_tokens

N_MUTANTS = 1000
PACKAGE = Path(__file__).parents[2] / "src" / "pythia_gguf"

HARNESS = {
    "results": {"sciq": {"alias": "sciq", "acc,none": 0.5, "acc_stderr,none": 0.01, "sample_len": 10}},
    "config": {
        "limit": None,
        "num_fewshot": 0,
        "pythia_gguf": {
            "file": "m.Q8_0.gguf",
            "activations": "int8",
            "gelu": "erf",
            "encoding": "joint",
            "quant": "Q8_0",
        },
    },
    "n-shot": {"sciq": 0},
}


def row(file: str, quant: str, **more: object) -> dict[str, Any]:
    figures = {"ppl": 9.5, "ppl_error": 0.1, "ln_ratio": 0.001, "ln_ratio_error": 0.0001, "kl_mean": 0.001}
    figures |= {"kl_error": 0.0001, "kl_p999": 0.1, "same_top1": 0.99, "prefill_tokens_per_s": 10.0, "missing": "x"}
    return {"file": file, "quant": quant, "activations": "int8", "gelu": "erf", **figures, **more}


def report(folder: Path) -> dict[str, Any]:
    facts = {p.name: {"bytes": p.stat().st_size, "sha256": sha256_of(p)} for p in folder.glob("*.gguf")}
    return {
        "schema_version": 1,
        "tool_version": "0.1.0",
        "gelu": "erf",
        "reference": {"file": "m.F16.gguf", "ppl": 9.4, "ppl_error": 0.1, **facts["m.F16.gguf"]},
        "text": {"file": "t.txt", "sha256": "0" * 64, "context": 512, "windows": 3, "scored_tokens": 700},
        "files": [row(name, name.split(".")[1], bits_per_weight=8.5, **f) for name, f in sorted(facts.items())],
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What `quantize` makes of a model of 2,000 weights, with a report and results beside."""
    source = tmp_path / "m.F16.gguf"
    source.write_bytes(tiny.gguf_bytes(width=32))
    out = tmp_path / "out"
    quantize(source, out, quants="Q8_0,Q4_0", name="m", threads=1, keep_f16=True)
    (out / "report.json").write_text(json.dumps(report(out), indent=1))
    facts = HARNESS["config"]["pythia_gguf"] | {"sha256": sha256_of(out / "m.Q8_0.gguf")}
    results = HARNESS | {"config": HARNESS["config"] | {"pythia_gguf": facts}}
    (out / "results.json").write_text(json.dumps(results, indent=1))
    (out / "config.json").write_text(json.dumps({"hidden_act": "gelu_new", "n": [1, {"a": None}]}, indent=1))
    return out


# File, and a command that reads it. None of them writes into the folder what the next one reads, but the card.
READERS: dict[str, tuple[str, Callable[[Path], tuple[str | Path, ...]]]] = {
    "card, report": ("report.json", lambda d: ("card", d)),
    "card, results": ("results.json", lambda d: ("card", d)),
    "card, manifest": ("manifest.json", lambda d: ("card", d)),
    "plot, results": (
        "results.json",
        lambda d: ("plot", d / "results.json", "--against", "published", "--model", "pythia-70m", "-o", d / "plots"),
    ),
    "plot, report": ("report.json", lambda d: ("plot", d / "report.json", "-o", d / "plots")),
    "verify, manifest": ("manifest.json", lambda d: ("verify", d)),
    "quantize, manifest": (
        "manifest.json",
        lambda d: ("quantize", d.parent / "m.F16.gguf", "-o", d, "--name", "m", "--quants", "Q8_0", "--quiet"),
    ),
}


def exchanged(data: bytes, rng: random.Random) -> bytes:
    """JSON with one value in the place of another, or a key less."""
    value = json.loads(data)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        for key, child in list(node.items() if isinstance(node, dict) else enumerate(node)):
            places.append((node, key))
            if isinstance(child, dict | list):
                walk(child)

    walk(value)
    node, key = rng.choice(places)
    if rng.randrange(3):
        other, i = rng.choice(places)
        node[key] = json.loads(json.dumps(other[i]))
    else:
        del node[key]
    return json.dumps(value, indent=1).encode()


@pytest.mark.parametrize("reader", list(READERS))
def test_a_thousand_mutants_are_one_line_or_work(pythia, folder: Path, reader: str, monkeypatch: pytest.MonkeyPatch):
    name, arguments = READERS[reader]
    path, rng = folder / name, random.Random(reader)
    good = {p: p.read_bytes() for p in folder.iterdir() if p.suffix in (".json", ".md")}
    if reader.startswith("plot"):  # a picture takes a second; tests/evals/test_plots.py holds that figures can be drawn
        monkeypatch.setattr("pythia_gguf.evals.plots.save_picture", lambda path, draw, sha256=(): path)
    codes: dict[int, int] = {}
    slowest = 0.0
    for _ in range(N_MUTANTS):
        mutant = (damaged_json if rng.randrange(2) else exchanged)(good[path], rng)
        path.write_bytes(mutant)
        started = time.process_time()
        code, _, err = pythia(*arguments(folder))
        slowest = max(slowest, time.process_time() - started)
        codes[code] = codes.get(code, 0) + 1
        assert code in (0, 2, 65, 74), mutant
        if code:
            last = err.splitlines()[-1]
            assert last.startswith("Error: ") and last.isprintable() and len(last) < 1000, mutant
        for other, content in good.items():
            other.write_bytes(content)
    assert codes[0] >= N_MUTANTS // 100 and codes.get(2, 0) + codes.get(65, 0) >= N_MUTANTS // 20, codes
    assert slowest < 5


@pytest.mark.parametrize("name", ["manifest.json", "config.json"])
def test_a_thousand_mutants_beside_a_model_tell_its_activation_or_that_they_cannot(folder: Path, name: str):
    """What cannot be read is no reason to take another GELU in silence."""
    path, rng = folder / name, random.Random(name)
    good = path.read_bytes().replace(b'"schema_version": 1,', b'"schema_version": 1, "hidden_act": "gelu_new",')
    for other in {"manifest.json", "config.json"} - {name}:
        (folder / other).unlink()
    said = set()
    for _ in range(N_MUTANTS):
        path.write_bytes((damaged_json if rng.randrange(2) else exchanged)(good, rng))
        try:
            said.add(act_beside(folder / "m.Q8_0.gguf"))
        except ModelFileError as e:
            said.add(str(e))
    refusals = {s for s in said if s not in (None, "gelu_new", "gelu")}
    assert {None, "gelu_new"} <= said and len(refusals) > 5
    assert all(s.startswith(f"{path}: ") and "gelu='erf'" in s and s.isprintable() for s in refusals)


def test_a_thousand_mutants_beside_a_model_tell_its_special_tokens_or_that_they_cannot(folder: Path):
    path, rng, model = folder / "manifest.json", random.Random(26), folder / "m.Q8_0.gguf"
    told = b'"schema_version": 1, "special_tokens": {"begin": 1, "end": null, "adds_begin": true, "ends": [2, 3]},'
    good = path.read_bytes().replace(b'"schema_version": 1,', told)
    metadata, said = open_gguf(model).metadata, set()
    for _ in range(N_MUTANTS):
        path.write_bytes((damaged_json if rng.randrange(2) else exchanged)(good, rng))
        try:
            said.add(special_tokens(metadata, model))
        except ModelFileError as e:
            said.add(str(e))
    refusals = {s for s in said if isinstance(s, str)}
    assert len(said - refusals) > 1 and len(refusals) > 5
    assert all(s.startswith(f"{path}: ") and s.isprintable() for s in refusals)


def test_a_thousand_mutants_of_a_note_of_the_cache_are_a_note_or_none(pythia, own_cache: Path, folder: Path):
    entry = own_cache / "models" / "m-0123456789abcdef-Q8_0"
    entry.mkdir(parents=True)
    note_origin(entry, {"repo_id": "me/m", "commit": "0" * 40, "revisions": ["main", "step3"]})
    path, rng = origin_path(entry), random.Random(7)
    good, listed = path.read_bytes(), 0
    for i in range(N_MUTANTS):
        path.write_bytes((damaged_json if rng.randrange(2) else exchanged)(good, rng))
        listed += bool(origin_of(entry))
        if i % 20 == 0:
            code, out, err = pythia("cache", "list")
            assert (code, err) == (0, ""), path.read_bytes()
            assert all(line.isprintable() for line in out.splitlines())
    assert N_MUTANTS // 100 < listed < N_MUTANTS


def test_every_reader_of_json_is_one_of_these():
    """A file that begins to read JSON needs a row above, or a test of its own kind: here is where."""
    held = {
        "arch/activation.py": "above",
        "press/manifest.py": "above",
        "evals/report.py": "above",
        "gguf/imatrix.py": "tests/gguf/test_imatrix.py",
        "cli/plot.py": "above",
        "press/conversion.py": "tests/press/test_mutants.py",
        "tokenizer/special_tokens.py": "above",
        "tokenizer/folder.py": "tests/press/test_hostile_folder.py",
        "tokenizer/chat_template.py": "tests/press/test_hostile_folder.py",
        "tokenizer/tokenizer_json.py": "tests/press/test_mutants.py",
        "checkpoint/safetensors.py": "tests/checkpoint/test_mutants.py",
        "checkpoint/shards.py": "tests/press/test_mutants.py",
        "kernels/compiling.py": "tests/kernels/test_compiling.py",
        "models/kept.py": "above",
        "intake/mistaken.py": "tests/intake/test_mistaken.py",
        "serve/app.py": "tests/serve/test_limits.py",
        "data/dedup.py": "tests/data/test_mutants.py",
        "train/checkpoints.py": "tests/train/test_mutants.py",
        "data/growing.py": "tests/data/test_mutants.py",
        "data/pulled.py": "tests/data/test_mutants.py",
        "data/tokenizing.py": "tests/data/test_mutants.py",
        "data/suffixes.py": "tests/data/test_index.py",
        "data/sources.py": "tests/data/test_index.py",
        "data/corpus.py": "tests/data/test_mutants.py",
        "data/statistics.py": "tests/data/test_mutants.py",
    }
    calls = ("read_json_object(", "parse_json_object(", "objects_beside(")
    readers = {
        p.relative_to(PACKAGE).as_posix() for p in PACKAGE.rglob("*.py") if any(call in p.read_text() for call in calls)
    }
    assert readers - {"json_file.py"} == set(held)
    assert all(where == "above" or (PACKAGE.parents[1] / where).is_file() for where in held.values())
