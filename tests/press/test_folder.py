"""The one decision about a folder, as a table: what lies there, what a run says of it, and what a forced run makes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from press.truth import check_true, contents
from pythia_gguf import quantize
from pythia_gguf.errors import UsageError
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes
from pythia_gguf.press.folder import STAGING

# The folder has Q4_0, Q4_K_M, Q4_K (another name of it), Q8_0 and F16; every run asks for these two.
ASKED = {"Q5_0", "Q8_0"}
ALL = {"Q4_0", "Q4_K_M", "Q4_K", "Q5_0", "Q8_0", "F16"}


@dataclass(frozen=True, kw_only=True)
class State:
    """What was done to the folder, and what becomes of it.

    change    does it
    options   of the run
    refusal   what the run says, and to which file; None: the run makes what is missing, and all else stays
    made      quants that it makes then
    anew      quants that a forced run makes besides those that it was asked for
    """

    change: Callable[[Path], object] = lambda out: None
    options: dict[str, Any] = field(default_factory=dict)
    refusal: str | None = None
    made: frozenset[str] = frozenset({"Q5_0"})
    anew: frozenset[str] = frozenset()


def rewrite(name: str, edit: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    """A change of one file, of which other names keep what it was."""

    def change(out: Path) -> None:
        data = (out / name).read_bytes()
        (out / name).unlink()
        (out / name).write_bytes(edit(data))

    return change


def in_manifest(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    def change(out: Path) -> None:
        manifest = json.loads((out / "manifest.json").read_bytes())
        edit(manifest)
        (out / "manifest.json").write_text(json.dumps(manifest), "utf-8")

    return change


def entry_of(manifest: dict[str, Any], quant: str) -> dict[str, Any]:
    return next(entry for entry in manifest["files"] if entry["quant"] == quant)


def flip(at: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:at] + bytes([data[at] ^ 1]) + (data[at:][1:])


def other_keys(out: Path) -> None:
    """A file of the size that is listed, with another header, and a manifest that agrees with it."""
    rewrite("m.Q4_0.gguf", lambda data: data.replace(b"Tiny", b"Tidy").replace(b"general.name", b"general.nome"))(out)
    digest = hashlib.sha256((out / "m.Q4_0.gguf").read_bytes()).hexdigest()
    in_manifest(lambda manifest: entry_of(manifest, "Q4_0").update(sha256=digest))(out)


def write_matrix(out: Path) -> None:
    entries = {"blk.0.attn_qkv.weight": Importance(sums=np.arange(1, 33, dtype=np.float32), count=16)}
    matrix = ImportanceMatrix(entries=entries, datasets=("t.txt",), n_chunks=1, chunk_tokens=16)
    (out.parent / "imatrix.gguf").write_bytes(imatrix_bytes(matrix))


def only(*names: str) -> Callable[[Path], None]:
    """A folder that has lost everything else."""

    def change(out: Path) -> None:
        for path in out.iterdir():
            if path.name not in names:
                path.unlink()

    return change


def leave_partial(out: Path) -> None:
    """What a killed run can leave."""
    (out / STAGING).mkdir()
    for name in (f"{STAGING}/m.Q5_0.gguf", f"{STAGING}/README.md", ".m.Q8_0.gguf.7.0123abcd.partial"):
        (out / name).write_bytes(b"x")


OTHERS = frozenset(ALL - ASKED)
STATES = {
    "ours": State(),
    "missing": State(change=lambda out: (out / "m.Q8_0.gguf").unlink(), made=frozenset(ASKED)),
    "partial": State(change=leave_partial),
    "asked for, bytes changed": State(
        change=rewrite("m.Q8_0.gguf", flip(-1)), refusal=r"m\.Q8_0\.gguf exists and is not .* its bytes were changed"
    ),
    "another, bytes changed": State(
        change=rewrite("m.Q4_0.gguf", flip(-1)),
        refusal=r"m\.Q4_0\.gguf exists and is not .* its bytes were changed",
        anew=frozenset({"Q4_0"}),
    ),
    "cut short": State(
        change=rewrite("m.Q4_0.gguf", lambda data: data[:-32]),
        refusal=r"m\.Q4_0\.gguf exists and is not what manifest\.json says: expected \d+ bytes, got \d+",
        anew=frozenset({"Q4_0"}),
    ),
    "another name of it, bytes changed": State(
        change=rewrite("m.Q4_K.gguf", flip(-1)), refusal=r"m\.Q4_K\.gguf exists and is not", anew=frozenset({"Q4_K"})
    ),
    "other keys": State(
        change=other_keys,
        refusal=r"m\.Q4_0\.gguf exists and has other keys or another plan",
        anew=frozenset({"Q4_0"}),
    ),
    "tensors not listed": State(
        change=in_manifest(lambda manifest: entry_of(manifest, "Q4_0").update(tensors=[])),
        refusal=r"m\.Q4_0\.gguf exists and manifest\.json does not list its tensors",
        anew=frozenset({"Q4_0"}),
    ),
    "other version": State(
        change=in_manifest(lambda manifest: manifest.update(tool_version="0.0.9")),
        refusal=r"m\.Q4_0\.gguf exists and was made with tool_version '0\.0\.9', not",
        anew=OTHERS,
    ),
    "other mix": State(
        options={"mix": "2024"},
        refusal=r"m\.Q4_0\.gguf exists and was made with mix '2026', not '2024'",
        anew=OTHERS,
    ),
    "other name": State(
        options={"name": "n"}, refusal=r"m\.Q4_0\.gguf exists and was made with name 'm', not 'n'", anew=frozenset()
    ),
    "other source": State(
        change=in_manifest(lambda manifest: manifest["source"]["files"][0].update(sha256="0" * 64)),
        refusal=r"m\.Q4_0\.gguf exists and was made from another source",
        anew=OTHERS,
    ),
    "source not known": State(
        change=in_manifest(lambda manifest: manifest.pop("source")),
        refusal=r"m\.Q4_0\.gguf exists and was made from another source",
        anew=OTHERS,
    ),
    "without this imatrix": State(
        change=write_matrix,
        options={"imatrix": "imatrix.gguf"},
        refusal=r"m\.Q4_0\.gguf exists and was made without an importance matrix",
        anew=OTHERS,
    ),
    "with an imatrix": State(
        change=in_manifest(lambda manifest: manifest["source"].update(imatrix={"file": "i", "bytes": 1})),
        refusal=r"m\.Q4_0\.gguf exists and was made with an importance matrix",
        anew=OTHERS,
    ),
    "unknown, asked for": State(
        change=lambda out: (out / "m.Q5_0.gguf").write_bytes(b"mine"),
        refusal=r"m\.Q5_0\.gguf exists and no manifest\.json says what it was made from",
    ),
    "unknown, not asked for": State(change=lambda out: (out / "m.Q6_K.gguf").write_bytes(b"mine")),
    "card that is no text": State(
        change=lambda out: (out / "README.md").write_bytes(b"\xff"), refusal=r"README\.md: byte 0: not UTF-8 text"
    ),
    "no manifest": State(
        change=only("m.Q8_0.gguf"), refusal=r"m\.Q8_0\.gguf exists and no manifest\.json says", anew=frozenset()
    ),
    "no manifest that can be read": State(
        change=lambda out: (out / "manifest.json").write_bytes(b"{"), refusal=r"manifest\.json: .*not valid JSON"
    ),
    "sums alone": State(change=only("SHA256SUMS"), refusal=r"SHA256SUMS exists without a manifest\.json"),
    "card alone": State(change=only("README.md"), refusal=r"README\.md exists and tells of other files than"),
    "manifest alone": State(change=only("manifest.json"), made=frozenset(ASKED)),
    "manifest alone, other version": State(
        change=lambda out: (only("manifest.json")(out), STATES["other version"].change(out)),
        refusal=r"manifest\.json exists and was made with tool_version",
    ),
}


def run(made: Path, out: Path, state: State, *, force: bool) -> set[str]:
    """What a run has made, of all that it lists."""
    options = {"quants": sorted(ASKED), "threads": 1, **state.options}
    result = quantize(made / "m", out, force=force, **options)
    listed = {file.path.name for file in result.files}
    strangers = {path.name for path in out.glob("*.gguf")} - listed
    check_true(out, strangers=strangers)
    assert all(any(name in note for note in result.notes) for name in strangers)
    return {file.quant for file in result.files if not file.kept}


@pytest.mark.parametrize("name", STATES)
def test_what_may_stay(made: Path, out: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """A refused run changes nothing, what may stay is not written again, and each refusal says how to go on."""
    monkeypatch.chdir(out.parent)
    state = STATES[name]
    state.change(out)
    before = contents(out)
    if state.refusal is None:
        inodes = {path.name: path.stat().st_ino for path in out.glob("*.gguf")}
        assert run(made, out, state, force=False) == state.made
        made_now = {path.name for path in out.glob("*.gguf") if path.stat().st_ino != inodes.get(path.name)}
        assert made_now == {f"m.{quant}.gguf" for quant in state.made}
    else:
        with pytest.raises(UsageError, match=state.refusal) as caught:
            run(made, out, state, force=False)
        assert str(caught.value).endswith(". Use force=True to replace it, move it away, or choose another out")
        assert contents(out) == before


@pytest.mark.parametrize("name", STATES)
def test_what_a_forced_run_makes_anew(made: Path, out: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    """What it was asked for and what has a fault; the result is that of a run into an empty folder."""
    monkeypatch.chdir(out.parent)
    state = STATES[name]
    state.change(out)
    assert run(made, out, state, force=True) == ASKED | state.anew
    listed = [entry["quant"] for entry in json.loads((out / "manifest.json").read_bytes())["files"]]
    options = {"quants": [quant for quant in listed if quant != "F16"], "keep_f16": "F16" in listed, "threads": 1}
    quantize(made / "m", out.parent / "new", **options | state.options)
    files = {file: data for file, data in contents(out.parent / "new").items() if file.endswith(".gguf")}
    assert files.items() <= contents(out).items()
