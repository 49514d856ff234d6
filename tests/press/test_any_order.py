"""Whatever is done to a folder, in any order: after each run card, sums and manifest agree with what lies there, and
nothing is lost that somebody else has put there. Ten folders, twenty operations each, drawn with a seed.
"""

from __future__ import annotations

import json
import random
import re
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from press import tiny
from press.forks import Forks
from press.truth import TEXTS, check_true, contents
from pythia_gguf import quantize
from pythia_gguf.errors import PythiaGGUFError
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes
from pythia_gguf.plan.quants import QUANTS as ALL
from pythia_gguf.press.folder import STAGING

N_SEQUENCES, N_OPERATIONS = 10, 20
# Every alias and its original, and others.
QUANTS = ("Q2_K", "Q3_K", "Q3_K_M", "Q4_0", "Q4_K", "Q4_K_M", "Q5_K", "Q5_K_M", "Q8_0")


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("order")) as server:
        entry = Importance(sums=np.arange(1, 33, dtype=np.float32), count=16)
        entries = {"blk.0.attn_qkv.weight": entry}
        matrix = ImportanceMatrix(entries=entries, datasets=("t.txt",), n_chunks=1, chunk_tokens=16)
        (server.folder / "imatrix.gguf").write_bytes(imatrix_bytes(matrix))
        (server.folder / "t.txt").write_text("A small text about nothing. " * 20)
        tiny.write(server.folder / "m", tiny.folder_files(width=32))
        quantize(server.folder / "m", server.folder, quants=[], keep_f16=True, name="reference", threads=1)
        yield server


class Folder:
    """A folder, and what somebody else has put there: files, and lines of the card."""

    def __init__(self, forks: Forks, home: Path, rng: random.Random, pythia: Callable[..., tuple[int, str, str]]):
        self.forks, self.home, self.rng, self.pythia = forks, home, rng, pythia
        self.out, self.card, self.source = home / "out", home / "out" / "README.md", forks.folder / "m"
        self.reference = forks.folder / "reference.F16.gguf"
        self.theirs: dict[str, bytes] = {}
        self.lines: list[bytes] = []
        self.tally: Counter[str] = Counter()
        home.mkdir()
        self.out.mkdir()

    def tell(self, what: str, more: str = "") -> None:
        """Note what happens: beside the folder, as stdout is what the command says."""
        self.tally[what] += 1
        with open(self.home / "told.txt", "a") as file:
            file.write(f"{what}  {more.rstrip()}\n")

    def our_files(self) -> list[Path]:
        return sorted(p for p in self.out.glob("m.*.gguf"))

    def manifest(self) -> dict[str, Any]:
        path = self.out / "manifest.json"
        return json.loads(path.read_bytes()) if path.exists() else {"name": None, "files": [], "source": None}

    # Runs

    def quantize(self, force: bool = False) -> None:
        draw = self.rng.random
        options = {
            "quants": self.rng.sample(QUANTS, self.rng.randint(1, 4)),
            "keep_f16": draw() < 0.2,
            "imatrix": self.forks.folder / "imatrix.gguf" if draw() < 0.05 else None,
            "quantized_by": "Ada" if draw() < 0.2 else None,
            "name": "n" if draw() < 0.04 else "m",
        }
        self.run(options, force)

    def force(self) -> None:
        self.quantize(force=True)

    def run(self, options: dict[str, Any], force: bool) -> None:
        """A run: the folder is true after it, or as it was before; then one with force will do."""
        before, earlier = self.before(), self.manifest()
        try:
            result = quantize(self.source, self.out, threads=1, force=force, **options)
        except PythiaGGUFError as e:
            assert not force
            self.tell("refused", str(e))
            self.check_untouched(before)
            if self.rng.random() < 0.6:
                self.run(options, force=True)
            return
        self.tell("forced" if force else "made")
        manifest = self.manifest()
        listed = {entry["file"] for entry in manifest["files"]}
        wanted = {f"{options['name']}.{quant}.gguf" for quant in options["quants"]}
        if earlier["name"] == options["name"]:
            wanted |= {entry["file"] for entry in earlier["files"] if (self.out / entry["file"]).exists()}
        assert wanted <= listed
        strangers = {path.name for path in self.out.glob("*.gguf")} - listed
        assert all(any(name in note for note in result.notes) for name in strangers)
        is_same = all(manifest[key] == earlier[key] for key in ("name", "source"))
        self.check(before, keeps_lines=is_same or not force)

    def put_into_card(self) -> None:
        before = self.before()
        code, _, err = self.pythia("card", self.out)
        if code:
            self.tell("refused", err)
            assert re.search(
                "no such file|no manifest|no file that|is not what|other files than|none of the files", err
            )
            self.check_untouched(before)
        else:
            self.tell("told by card")
            self.check(before)

    def measure(self) -> None:
        some = self.rng.sample(self.our_files(), min(2, len(self.our_files())))
        options = ("--text", self.forks.folder / "t.txt", "--context", "16", "--chunks", "2", "--threads", "1")
        out = self.out / "report.json"
        code, _, err = self.pythia("measure", *some, "--reference", self.reference, *options, "-o", out, "--force")
        self.tell("refused" if code else "measured", err)
        if code == 0:
            self.theirs["report.json"] = out.read_bytes()
            if self.rng.random() < 0.5:
                self.put_into_card()

    def kill(self) -> None:
        """At any step; the next run finishes this one, or clears it away."""
        quants = ",".join(self.rng.sample(QUANTS, 2))
        args = ("quantize", str(self.source), "--out", "out", "--quants", quants, "--threads", "1")
        n_steps = len(self.forks.run(self.home, (*args[:3], "whole", *args[4:], "--force")).steps)
        run = self.forks.run(self.home, args, at=self.rng.randint(1, n_steps))
        self.tell({-signal.SIGKILL: "killed", 0: "ended", 2: "refused"}[run.code], run.err)

    # What others do

    def delete(self) -> None:
        self.any_of_ours().unlink(missing_ok=True)

    def delete_text(self) -> None:
        (self.out / self.rng.choice(TEXTS)).unlink(missing_ok=True)

    def damage(self) -> None:
        """Cut short or changed, through both names of a file or one."""
        path = self.any_of_ours()
        if path.exists():
            data = bytearray(path.read_bytes())
            data[-1] ^= 1
            if self.rng.random() < 0.5:
                path.unlink()
            path.write_bytes(data[: self.rng.choice([len(data), 100])])

    def rename(self) -> None:
        path = self.any_of_ours()
        if path.exists():
            path.rename(self.out / f"renamed-{len(self.theirs)}.gguf")
            self.theirs[f"renamed-{len(self.theirs)}.gguf"] = (
                self.out / f"renamed-{len(self.theirs)}.gguf"
            ).read_bytes()

    def copy(self) -> None:
        path = self.any_of_ours()
        if path.exists():
            data = path.read_bytes()
            path.unlink()
            path.write_bytes(data)

    def squat(self) -> None:
        """A file where one of ours would be."""
        path = self.out / f"m.{self.rng.choice(QUANTS)}.gguf"
        if not path.exists():
            path.write_bytes(b"mine")

    def add(self) -> None:
        name = self.rng.choice(["notes.txt", "config.json", "curve.png", ".hidden"])
        self.theirs[name] = self.rng.randbytes(20)
        (self.out / name).write_bytes(self.theirs[name])

    def leave_behind(self) -> None:
        """What a killed program of ours can leave."""
        (self.out / STAGING).mkdir(exist_ok=True)
        for name in (
            f"{STAGING}/m.Q8_0.gguf",
            f"{STAGING}/.m.Q8_0.gguf.7.0123abcd.partial",
            ".README.md.7.0123abcd.partial",
        ):
            (self.out / name).write_bytes(b"x")

    def edit(self) -> None:
        """A line outside of the table, or in it: a row more, a row less, columns padded, marks lost, all lost."""
        line = f"Mine, {len(self.lines)}.".encode()
        text = self.read_card()
        rows = [row for row in text.splitlines(keepends=True) if row.startswith(b"| m.")]
        head = b"|---|---|---|---|---|"
        edited = self.rng.choice(
            [
                text + b"\n" + line + b"\n",
                text.replace(b"## Provenance", line + b"\n\n## Provenance"),
                text.replace(head, head + b"\n| mine.gguf | " + line + b" | 1 | 2 | 3 |", 1),
                text.replace(self.rng.choice(rows), b"") if rows else text,
                text.replace(b"| Name | Quant method |", b"| Name         | Quant method |"),
                text.replace(b"provided-files end -->", line + b" -->"),
                text.replace(b"<!-- README_GGUF.md-provided-files", b"<!-- " + line),
                b"# " + line + b"\n",
            ]
        )
        self.write_card(edited)
        self.lines = [x for x in [*self.lines, line] if x in edited]

    def change_line_ends(self) -> None:
        for path in (self.card, self.out / "SHA256SUMS"):
            if path.exists():
                path.write_bytes(path.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))

    # What must hold

    def check(self, before: dict[str, bytes], keeps_lines: bool = True) -> None:
        listed = {entry["file"] for entry in self.manifest()["files"]}
        strangers = {path.name for path in self.out.glob("*.gguf")} - listed
        check_true(self.out, strangers=frozenset(strangers), hidden={".hidden"} & self.theirs.keys())
        assert self.theirs.items() <= contents(self.out).items()
        kept = [line for line in self.lines if line in self.read_card()]
        if keeps_lines and "README.md" in before:
            assert kept == self.lines
        self.lines = kept

    def check_untouched(self, before: dict[str, bytes]) -> None:
        """After a run that was refused, though it may have finished or cleared away one that was killed."""
        after = contents(self.out)
        assert self.theirs.items() <= after.items()
        if not any(name.startswith(STAGING) for name in before):
            assert after == {
                name: data for name, data in before.items() if not name.endswith((".lock", ".pid", ".partial"))
            }

    def before(self) -> dict[str, bytes]:
        self.lines = [line for line in self.lines if line in self.read_card()]
        return contents(self.out)

    def read_card(self) -> bytes:
        return self.card.read_bytes() if self.card.exists() else b""

    def write_card(self, text: bytes) -> None:
        self.card.write_bytes(text)

    def any_of_ours(self) -> Path:
        return self.rng.choice(self.our_files() or [self.out / "none"])


RUNS = (Folder.quantize, Folder.force, Folder.put_into_card, Folder.measure, Folder.kill)
OTHERS = (
    *(Folder.delete, Folder.delete_text, Folder.damage, Folder.rename, Folder.copy, Folder.squat),
    *(Folder.add, Folder.leave_behind, Folder.edit, Folder.change_line_ends),
)
WEIGHTS = [8, 1, 5, 3, 4, *(3, 1, 1, 1, 1, 1, 1, 1, 5, 1)]
# What must have come about for the test to mean anything.
OFTEN = {"made": 30, "forced": 10, "told by card": 15, "measured": 8, "killed": 5, "refused": 10, "edit": 15}


@pytest.mark.slow
def test_a_folder_is_true_after_every_run(forks: Forks, pythia):
    tally: Counter[str] = Counter()
    for seed in range(N_SEQUENCES):
        rng = random.Random(seed)
        folder = Folder(forks, forks.folder / str(seed), rng, pythia)
        folder.tell(f"seed {seed}")
        folder.quantize()
        folder.measure()
        for operation in rng.choices((*RUNS, *OTHERS), WEIGHTS, k=N_OPERATIONS):
            folder.tell(operation.__name__)
            operation(folder)
        folder.run({"quants": list(ALL), "keep_f16": True, "name": "m"}, force=True)
        tally += folder.tally
    assert {what: n for what, n in OFTEN.items() if tally[what] < n} == {}
