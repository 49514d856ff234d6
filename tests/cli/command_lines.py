"""A command line that works for every command of the program, on small files, for tests that go over all of them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from data.neox import write_corpus
from engine.nano import HELDOUT, NANO
from hub.loopback import LoopbackHub
from patience import HANGS_S
from pythia_gguf import quantize
from pythia_gguf.data.index import make_index
from pythia_gguf.data.order import make_order
from pythia_gguf.evals.files import measure_files
from pythia_gguf.json_file import json_text
from pythia_gguf.tokenizer.tokenizer_json import load_tokenizer
from pythia_gguf.train.options import TrainOptions
from pythia_gguf.train.training import train

REPO = "EleutherAI/pythia-14m"
RECIPE = """
model: {layers: 1, hidden: 16, heads: 2, vocabulary: 4096, context: 8}
training: {steps: 3, batch: 2, peak_rate: 1e-3}
"""
TASK = {
    "task": "two_words",
    "dataset_path": "json",
    "output_type": "multiple_choice",
    "test_split": "test",
    "doc_to_text": "{{text}}",
    "doc_to_choice": ["yes", "no"],
    "doc_to_target": 0,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """What command lines speak of.

    folder       of `pythia quantize`, with Q4_0, Q8_0 and F16, and a report.json
    corpus       prefix of some documents as ids, with an index and an order
    run_folder   steps 0 and 9 of a run, each with a file of Q4_0
    recipe       of a small model, trained for three steps
    trained_run  what came of it, over the corpus
    environment  of a process: the hub on loopback is the only one, and its cache is empty
    """

    folder: Path
    tasks: Path
    corpus: Path
    run_folder: Path
    recipe: Path
    trained_run: Path
    environment: dict[str, str]

    def lines(self, out: Path) -> dict[str, list[str | Path]]:
        """Command -> its arguments; what is written goes to `out`, a folder that is there."""
        q4 = self.folder / "nano.Q4_0.gguf"
        f16 = self.folder / "nano.F16.gguf"
        text = ["--text", HELDOUT, "--context", "128", "--chunks", "2"]
        return {
            "models": ["pythia-70m@step3000"],
            "pull": ["pythia-14m"],
            "check-revisions": ["me/run"],
            "quantize": [NANO, "--out", out, "--quants", "Q4_0"],
            "imatrix": [f16, *text, "-o", out / "imatrix.gguf"],
            "quants": [NANO, "--quants", "Q4_0"],
            "inspect": [q4],
            "verify": [self.folder],
            "generate": [q4, "def main(", "--max-tokens", "4", "--seed", "1"],
            "serve": [q4, "--port", "0", "--check"],
            "score": [q4, "--prompt", "import", "--continuation", " os"],
            "measure": [q4, *text, "-o", out / "report.json"],
            "eval": [q4, "--tasks", "two_words", "--include-path", self.tasks, "-o", out / "results.json"],
            "plot": [self.folder / "report.json", "-o", out],
            "card": [self.folder],
            "bench": [q4, "--prompt", "8", "--tokens", "2", "--repeats", "1"],
            "export": [q4, "--to", out / "hf"],
            "publish": [self.folder, "--repo", "me/nano"],
            "train": [
                *[self.recipe, "--data", self.corpus, "-o", out / "run", "--threads", "1", "--no-tensorboard"],
            ],
            "replay": [self.trained_run, "--step", "2", "--threads", "1"],
            "data tokenize": [HELDOUT, "--tokenizer", NANO / "tokenizer.json", "-o", out / "ids", "--processes", "1"],
            "data dedup": [HELDOUT, "-o", out / "clean", "--processes", "1"],
            "data order": [self.corpus, "--steps", "3", "--batch", "2", "--context", "8", "--force"],
            "data view": ["pile", "--step", "2", "--batch", "2"],
            "data pull": ["pile", "--steps", "1:2", "--batch", "2", "-o", out / "rows"],
            "data index": [self.corpus, "--force"],
            "data find": [self.corpus, "--ids", "3 2"],
            "data trace": [self.corpus, "a b", "--tokenizer", NANO / "tokenizer.json", "-o", out / "trace.html"],
            "data effect": [
                self.corpus,
                " import os",
                "--tokenizer",
                NANO / "tokenizer.json",
                "--batch",
                "2",
                "--model",
                f"{self.run_folder}:Q4_0",
                "-o",
                out / "effect.png",
            ],  # fmt: skip
            "data corpus": ["--list"],
            "data stats": [self.corpus],
            "cache": [],
            "warmup": [],
            "doctor": [],
        }

    def run(self, command: str, arguments: list[str | Path], **how: object) -> subprocess.CompletedProcess[str]:
        """The command in a process of its own; `how` as for subprocess.run."""
        program = [sys.executable, "-m", "pythia_gguf", *command.split(), *map(str, arguments)]
        return subprocess.run(program, env=self.environment, text=True, check=False, timeout=HANGS_S, **how)  # type: ignore


def write_task(folder: Path) -> None:
    """A folder with the task two_words, of one item."""
    folder.mkdir()
    (folder / "rows.jsonl").write_text('{"text": "Is this so?"}\n')
    task = TASK | {"dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}}}
    (folder / "two_words.yaml").write_text(json_text(task))


def make_material(folder: Path, hub: LoopbackHub) -> Material:
    """All of it, in a folder that is there."""
    made, tasks = folder / "made", folder / "tasks"
    quantize(NANO, made, quants="Q4_0,Q8_0", keep_f16=True, quantized_by="me")
    card = made / "README.md"
    front = "---\nlanguage: en\nlicense: apache-2.0\nbase_model: me/run\n"
    card.write_text(card.read_text("utf-8").replace("---\n", front, 1), "utf-8")
    write_task(tasks)
    hub.add(REPO, NANO)
    hub.add("me/run", NANO)
    rows = {f"document-0000{i}-of-00001.bin": bytes([i + 5, 0]) * 2049 * 2 for i in range(2)}
    hub.add("datasets:EleutherAI/pile-standard-pythia-preshuffled", rows)
    assert measure_files([made], text=HELDOUT, context=128, n_windows=2, out=made / "report.json")["files"]
    corpus, recipe = make_corpus(folder / "corpus"), folder / "small.yaml"
    recipe.write_text(RECIPE)
    train(recipe, folder / "trained", data=corpus, options=TrainOptions(threads=1))
    return Material(
        folder=made,
        tasks=tasks,
        corpus=corpus,
        recipe=recipe,
        trained_run=folder / "trained",
        run_folder=make_run(folder / "run", made / "nano.Q4_0.gguf"),
        environment=os.environ
        | {
            "HF_ENDPOINT": hub.url,
            "HF_TOKEN": "hf_loopback_secret",
            "HF_HUB_DISABLE_XET": "1",
            "HF_HOME": str(folder / "hf"),
            "HF_HUB_CACHE": str(folder / "hf-cache"),
        },
    )


def make_corpus(prefix: Path) -> Path:
    """Some documents as ids, with an index and the order of three steps; one says " import os" again and again."""
    text = load_tokenizer(NANO / "tokenizer.json").encode(" import os").ids
    write_corpus(prefix, [list(range(1, 40)) + [0], [3, 2, 1, 0], [7] * 20 + [0], [*text * 8, 0]])
    make_index(prefix)
    make_order(prefix, steps=3, batch=2, context=8)
    return prefix


def make_run(folder: Path, file: Path) -> Path:
    """Steps 0 and 9 of a run, each with a file of a quant."""
    for n in (0, 9):
        (folder / f"step{n}").mkdir(parents=True)
        shutil.copy(file, folder / f"step{n}")
    return folder
