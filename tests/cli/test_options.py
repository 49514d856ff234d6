"""Nothing is accepted and ignored: every option of every command, and where it could change nothing.

Each of them must be refused in one line that names the option, or a reason says that there is none. An option without
a row here fails.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from cli.command_lines import RECIPE, write_task
from data.neox import write_corpus
from engine.nano import HELDOUT, NANO, nano_files
from hub.loopback import LoopbackHub
from pythia_gguf.cli.command import Command
from pythia_gguf.cli.main import COMMANDS, find_command
from pythia_gguf.data.index import make_index
from pythia_gguf.json_file import json_text

ALWAYS = "never: it says what is done, and something always is"
DISK = "never: whether it matters depends on what is on the disk or on the Hub"
MODEL = "never: whether it matters depends on the model, the text or the task"
SHOWN = "never: results are shown in both forms"
SPEED = "never: it changes how fast results come"
# A forecast takes the command line of the run that it is a forecast of.
FORECAST = "never: a dry run takes the options of the run that it is a forecast of"

IMATRIX = "imatrix --in-file {matrix} -o {new}"
GREEDY = "generate {q4} x --max-tokens 1 --temperature 0"
BEST = "generate {q4} x --max-tokens 1 --top-k 1"
# Command -> option -> command lines in which it means nothing, or why there is none.
TABLE: dict[str, dict[str, list[str] | str]] = {
    "models": {"--output-format": SHOWN},
    "pull": {"--endpoint": ALWAYS, "--output-format": SHOWN},
    "check-revisions": {"--endpoint": ALWAYS, "--output-format": SHOWN},
    "quantize": {
        "--out": ALWAYS,
        "--quants": ALWAYS,
        "--mix": MODEL,
        "--threads": FORECAST,
        "--name": ALWAYS,
        "--quantized-by": FORECAST,
        "--dry-run": ALWAYS,
        "--force": DISK,
        "--imatrix": ALWAYS,
        "--keep-f16": ALWAYS,
        "--cache": ["quantize {nano} --cache --out {new}", "quantize {f16} --cache --dry-run"],
        "--output-format": SHOWN,
        "--quiet": FORECAST,
    },
    "imatrix": {
        "--text": [f"{IMATRIX} --text {{text}}"],
        "--context": [f"{IMATRIX} --context 512"],
        "--chunks": [f"{IMATRIX} --chunks 3"],
        "--in-file": ALWAYS,
        "--out": ALWAYS,
        "--force": DISK,
        "--threads": [f"{IMATRIX} --threads 2", f"{IMATRIX} --threads -5"],
        "--gelu": [f"{IMATRIX} --gelu auto"],
        "--activations": [f"{IMATRIX} --activations int8"],
        "--kv": [f"{IMATRIX} --kv f32"],
        "--output-format": SHOWN,
    },
    "quants": {
        "--mix": ["quants --mix 2024", "quants --mix 2026 --output-format json"],
        "--quants": ALWAYS,
        "--tensors": ["quants --tensors", "quants --tensors --output-format json"],
        "--output-format": SHOWN,
    },
    "inspect": {"--tensors": "never: JSON holds them anyway", "--output-format": SHOWN},
    "verify": {
        "--against": ALWAYS,
        "--imatrix": ["verify {q4} --imatrix {matrix}"],
        "--threads": ["verify {q4} --threads 2"],
        "--ignore-missing": ["verify {q4} --ignore-missing"],
        "--output-format": SHOWN,
        "--quiet": ["verify {made} --quiet --output-format json"],
    },
    "generate": {
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": ["generate {f16} x --max-tokens 1 --activations int8"],
        "--kv": ALWAYS,
        "--output-format": SHOWN,
        "--max-tokens": ALWAYS,
        "--temperature": [f"{BEST} --temperature 0.5"],
        "--top-k": [f"{GREEDY} --top-k 40"],
        "--top-p": [f"{GREEDY} --top-p 0.5", f"{BEST} --top-p 0.5"],
        "--min-p": [f"{GREEDY} --min-p 0", f"{BEST} --min-p 0.5"],
        "--repeat-penalty": ALWAYS,
        "--seed": [f"{GREEDY} --seed 1", f"{BEST} --seed 1"],
        "--stop": ALWAYS,
        "--logprobs": ALWAYS,
        "--lookup": SPEED,
        "--shift": MODEL,
        "--no-echo": ["generate {q4} x --max-tokens 1 --no-echo --output-format json"],
        "--quiet": ALWAYS,
    },
    "serve": {
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": ["serve {f16} --port 0 --check --activations int8"],
        "--kv": ALWAYS,
        "--host": ALWAYS,
        "--port": ALWAYS,
        "--api-key-file": ALWAYS,
        "--allowed-host": ALWAYS,
        "--parallel": SPEED,
        "--context": MODEL,
        "--memory": MODEL,
        "--chat-format": ALWAYS,
        "--no-prefix-cache": SPEED,
        "--check": ALWAYS,
        "--open": ["serve {q4} --port 0 --check --open"],
    },
    "score": {
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": ["score {f16} --prompt x --continuation y --activations int8"],
        "--kv": ALWAYS,
        "--output-format": SHOWN,
        "--prompt": ALWAYS,
        "--continuation": ALWAYS,
        "--encoding": MODEL,
    },
    "measure": {
        "--reference": ALWAYS,
        "--text": ALWAYS,
        "--context": ALWAYS,
        "--chunks": MODEL,
        "--gelu": ALWAYS,
        "--activations": MODEL,
        "--threads": SPEED,
        "--out": ALWAYS,
        "--force": ["measure {f16} --text none --force"],
        "--output-format": SHOWN,
    },
    "eval": {
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": ["eval {f16} --tasks two_words --include-path {tasks} --activations int8"],
        "--kv": ALWAYS,
        "--output-format": SHOWN,
        "--tasks": ALWAYS,
        "--num-fewshot": MODEL,
        "--limit": MODEL,
        "--encoding": MODEL,
        "--include-path": MODEL,
        "--out": ALWAYS,
        "--force": ["eval {q4} --tasks none --force"],
        "--layout": ["eval {q4} --tasks none --layout pythia", "eval {q4} --tasks none --layout harness"],
    },
    "plot": {
        "--against": ALWAYS,
        "--model": [
            "plot {report} --model pythia-70m -o {new}",
            "plot {report} --against published --model pythia-70m -o {new}",
            "plot --against published --model pythia-70m -o {new}",
        ],
        "--out": ALWAYS,
    },
    "card": {"--report": ALWAYS, "--results": ALWAYS},
    "bench": {
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": ["bench {f16} --activations int8"],
        "--kv": ALWAYS,
        "--output-format": SHOWN,
        "--prompt": ["bench {q4} --prompt 9999"],
        "--tokens": ALWAYS,
        "--depth": ALWAYS,
        "--batch": ALWAYS,
        "--repeats": ALWAYS,
    },
    "export": {"--to": ALWAYS, "--dtype": ALWAYS, "--gelu": ALWAYS},
    "publish": {
        "--repo": ALWAYS,
        "--private": ["publish {made} --repo me/there --private"],
        "--branches": ALWAYS,
        "--dry-run": ALWAYS,
        "--endpoint": ALWAYS,
    },
    "train": {
        "--data": ["train pythia-14m --print-recipe --data x"],
        "--out": ["train pythia-14m --print-recipe -o {new}"],
        "--resume": ["train pythia-14m --print-recipe --resume auto"],
        "--device": ["train pythia-14m --print-recipe --device cpu"],
        "--micro-batch": ["train pythia-14m --print-recipe --micro-batch 1"],
        "--threads": ["train pythia-14m --print-recipe --threads 1"],
        "--dtype": ["train pythia-14m --print-recipe --dtype float16"],
        "--keep-states": ["train pythia-14m --print-recipe --keep-states 2"],
        "--save-every": ["train pythia-14m --print-recipe --save-every 9"],
        "--recompute": ["train pythia-14m --print-recipe --recompute"],
        "--sample": ["train {recipe} --data {corpus} -o {new} --sample a --no-sample"],
        "--no-sample": ["train pythia-14m --print-recipe --no-sample"],
        "--watch-quants": ["train {recipe} --data {corpus} -o {new} --watch-quants Q4_0"],
        "--watch-text": ["train {recipe} --data {corpus} -o {new} --watch-text {text}"],
        "--no-tensorboard": ["train pythia-14m --print-recipe --no-tensorboard"],
        "--print-recipe": ALWAYS,
    },
    "replay": {
        "--step": ALWAYS,
        "--data": DISK,
        "--device": ALWAYS,
        "--micro-batch": ALWAYS,
        "--threads": SPEED,
        "--output-format": SHOWN,
    },
    "data tokenize": {
        "--tokenizer": ALWAYS,
        "--out": ALWAYS,
        "--eod": ALWAYS,
        "--broken": "never: whether it matters depends on the text",
        "--processes": SPEED,
        "--force": DISK,
        "--output-format": SHOWN,
    },
    "data dedup": {
        "--out": ALWAYS,
        "--threshold": ALWAYS,
        "--shard": ["data dedup {text} -o {new} --shard 1/2 --ray local"],
        "--ray": SPEED,
        "--broken": "never: whether it matters depends on the text",
        "--processes": ["data dedup {text} -o {new} --processes 2 --ray local"],
        "--force": DISK,
        "--output-format": SHOWN,
    },
    "data order": {
        "--steps": ALWAYS,
        "--batch": ALWAYS,
        "--seed": ALWAYS,
        "--context": ALWAYS,
        "--force": DISK,
        "--output-format": SHOWN,
    },
    "data view": {
        "--step": ALWAYS,
        "--row": ALWAYS,
        "--batch": ALWAYS,
        "--seed": ["data view pile --step 1 --seed 3"],
        "--tokenizer": ["data view pile --step 1 --ids --tokenizer {text}"],
        "--ids": "never: JSON then has no text",
        "--endpoint": ["data view {new} --step 1 --endpoint http://x"],
        "--output-format": SHOWN,
    },
    "data pull": {
        "--steps": ALWAYS,
        "--out": ALWAYS,
        "--batch": ALWAYS,
        "--force": DISK,
        "--endpoint": ALWAYS,
        "--output-format": SHOWN,
    },
    "data index": {"--part-tokens": DISK, "--force": DISK, "--output-format": SHOWN},
    "data find": {
        "--batch": ["data find {corpus} --ids 3 --batch 2"],
        "--seed": DISK,
        "--max-hits": ALWAYS,
        "--ids": ALWAYS,
        "--tokenizer": ["data find {corpus} --ids 3 --tokenizer {text}"],
        "--output-format": SHOWN,
    },
    "data effect": {
        "--model": ALWAYS,
        "--batch": DISK,
        "--seed": DISK,
        "--max-sights": ALWAYS,
        "--prompt": MODEL,
        "--tokenizer": ALWAYS,
        "--out": ALWAYS,
        "--threads": SPEED,
        "--gelu": ALWAYS,
        "--activations": MODEL,
        "--kv": ALWAYS,
        "--output-format": SHOWN,
    },
    "data trace": {
        "--out": ALWAYS,
        "--min-tokens": ALWAYS,
        "--batch": ["data trace {corpus} a --tokenizer {nano}/tokenizer.json --batch 2"],
        "--seed": DISK,
        "--tokenizer": ALWAYS,
        "--output-format": SHOWN,
    },
    "data corpus": {
        "--out": ["data corpus --list --out {new}"],
        "--sources": ["data corpus --list --sources python"],
        "--list": ALWAYS,
        "--force": ["data corpus --list --force"],
        "--output-format": SHOWN,
    },
    "data stats": {"--output-format": SHOWN},
    "cache": {
        "--older-than": ["cache --older-than 30d", "cache list --older-than 30d"],
        "--to": ["cache --to 20G"],
        "--dry-run": ["cache --dry-run", "cache list --dry-run --output-format json"],
        "--output-format": SHOWN,
    },
    "warmup": {"--output-format": SHOWN},
    "doctor": {"--output-format": SHOWN},
}
# Parts of a name that a command has no use for.
PARTS = [
    ("models pythia-70m@step3000:Q4_K_M", "Q4_K_M"),
    ("models pythia-70m:Q4_K_M", "Q4_K_M"),
    ("check-revisions me/there@step3", "step3"),
    ("check-revisions me/there:Q8_0", "Q8_0"),
    ("pull me/there:Q8_0", "Q8_0"),
    ("quantize me/there:Q8_0", "Q8_0"),
    ("publish {made} --repo me/there@step3", "me/there@step3"),
    ("publish {made} --repo me/there:Q8_0", "me/there:Q8_0"),
]


def options_of(name: str) -> Iterator[click.Option]:
    yield from (p for p in find_command(name).params if isinstance(p, click.Option))


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What the command lines speak of."""
    from pythia_gguf import quantize

    folder = tmp_path_factory.mktemp("options")
    files = nano_files()
    made = folder / "made"
    (folder / "small.yaml").write_text(RECIPE)
    quantize(NANO, made, quants="Q4_0", quantized_by="me")
    card = made / "README.md"
    front = "---\nlanguage: en\nlicense: apache-2.0\nbase_model: me/there\n"
    card.write_text(card.read_text("utf-8").replace("---\n", front, 1), "utf-8")
    row = {"file": "a", "quant": "Q4_0", "activations": "int8", "bytes": 9, "bits_per_weight": 4.5, "ppl": 9.5}
    row |= {"ppl_error": 0.1, "ln_ratio": 0.05, "ln_ratio_error": 0.01, "same_top1": 0.9, "same_top1_error": 0.01}
    row |= {f"kl_{figure}": 0.1 for figure in ("mean", "error", "median", "p99", "p999", "max")}
    text = {"file": "t", "sha256": "0" * 64, "tokens": 9, "windows": 2, "context": 512, "scored_tokens": 512}
    base = {"file": "b", "quant": "F16", "activations": "float32", "ppl": 9.0, "ppl_error": 0.1, "bytes": 18}
    report = {"schema_version": 1, "gelu": "erf", "reference": base, "text": text, "files": [row]}
    (folder / "report.json").write_text(json_text(report))
    write_task(folder / "tasks")
    make_index(write_corpus(folder / "corpus", [[1, 2, 3]]))
    named = {"nano": NANO, "q4": files["Q4_0"], "f16": files["F16"], "made": made, "text": HELDOUT}
    named |= {name: folder / name for name in ("new", "matrix", "tasks", "corpus")} | {"report": folder / "report.json"}
    named |= {"recipe": folder / "small.yaml"}
    return {name: str(path) for name, path in named.items()}


def test_every_option_has_its_row():
    assert {n: {max(o.opts, key=len) for o in options_of(n)} for n in COMMANDS} == {n: set(r) for n, r in TABLE.items()}
    assert all(rows.startswith("never: ") for of in TABLE.values() for rows in of.values() if isinstance(rows, str))


CASES = [
    (option, line)
    for rows in TABLE.values()
    for option, lines in rows.items()
    if isinstance(lines, list)
    for line in lines
]


@pytest.mark.parametrize(("option", "line"), CASES, ids=lambda v: v)
def test_what_could_change_nothing_is_refused(pythia, hub: LoopbackHub, places: dict[str, str], option: str, line: str):
    hub.add("me/there", NANO)
    code, out, err = pythia(*shlex.split(line.format_map(places)))
    said = [text for text in err.splitlines() if text.startswith("Error: ")]
    assert (code, out, len(said)) == (2, "", 1), err
    assert option in said[0]
    assert not Path(places["new"]).exists()


@pytest.mark.parametrize(("line", "part"), PARTS, ids=lambda v: v)
def test_a_name_has_no_part_that_is_ignored(pythia, hub: LoopbackHub, places: dict[str, str], line: str, part: str):
    hub.add("me/there", NANO)
    code, out, err = pythia(*shlex.split(line.format_map(places)))
    assert (code, out) == (2, ""), err
    assert part in err.splitlines()[-1]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_given_twice_is_refused(pythia, name: str):
    """Of two values one would be ignored. Flags may be repeated, and so may what is repeatable."""
    assert isinstance(find_command(name), Command)
    for option in options_of(name):
        if option.is_flag or option.multiple:
            continue
        flag = max(option.opts, key=len)
        value = option.type.choices[0] if isinstance(option.type, click.Choice) else "1"
        code, out, err = pythia(*name.split(), flag, value, f"{min(option.opts, key=len)}", value)
        assert (code, out) == (2, "")
        assert err == f"Error: {flag} is given 2 times, and only one can count\n"


def test_flags_may_be_repeated(pythia):
    assert pythia("quants", str(NANO), "--quants", "Q8_0", "--tensors", "--tensors")[0] == 0
