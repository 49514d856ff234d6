"""What a folder tells of itself, held against what lies there: card, sums, manifest, links, and nothing left over.

Reads with code of its own; `verify` is asked too.
"""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Collection
from pathlib import Path

from pythia_gguf import verify
from pythia_gguf.plan.quants import QUANTS
from pythia_gguf.press.quantize import PressResult

ALIASES = {quant.name: quant.alias_of for quant in QUANTS.values()}
TEXTS = ("README.md", "SHA256SUMS", "manifest.json")


def contents(folder: Path) -> dict[str, bytes]:
    """Name -> bytes of everything under a folder, hidden or not."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def told(result: PressResult) -> list[str]:
    """Notes on the folder."""
    return [note for note in result.notes if "listed" in note or "edited" in note]


def rows_of(card: str) -> dict[str, list[str]] | None:
    """File name -> cells, of the table of files in a card; None without such a table."""
    lines = [line.rstrip() for line in card.split("\n")]
    start = next((i for i, line in enumerate(lines) if re.match(r"\| *Name *\| *Quant method", line)), None)
    if start is None:
        return None
    end = next(i for i in range(start, len(lines)) if not lines[i].startswith("|"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start + 2 : end]]
    assert len({row[0] for row in cells}) == len(cells)
    return {row[0]: row for row in cells}


def check_true(
    folder: Path, *, strangers: Collection[str] = (), hidden: Collection[str] = (), said: str = ""
) -> set[str]:
    """Assert that a folder is true; the names of its files.

    strangers, hidden  files of somebody else
    said       what somebody has written into the card, in which anything may stand
    """
    names = {p.name for p in folder.iterdir()}
    assert {name for name in names if name.startswith(".")} == set(hidden)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    entries = {entry["file"]: entry for entry in manifest["files"]}
    sums = {}
    for name, entry in entries.items():
        data = (folder / name).read_bytes()
        sums[name] = hashlib.sha256(data).hexdigest()
        assert (entry["sha256"], entry["bytes"]) == (sums[name], len(data)), name
    lines = (folder / "SHA256SUMS").read_bytes().decode().split("\n")
    assert lines == [*(f"{digest}  {name}" for name, digest in sums.items()), ""]
    assert {name for name in names if name.endswith(".gguf")} - set(strangers) == entries.keys()
    check_links(folder, manifest)
    check_card((folder / "README.md").read_bytes().decode(), manifest, said)
    assert [v.fault for v in verify(folder) if v.file in entries and v.state != "ok"] == []
    return set(entries)


def check_links(folder: Path, manifest: dict) -> None:
    """Assert that both names of a quant are one file, and that the manifest says so."""
    files = {entry["quant"]: folder / entry["file"] for entry in manifest["files"]}
    for entry in manifest["files"]:
        alias = ALIASES.get(entry["quant"])
        original = alias if alias in files else None
        assert entry.get("alias_of") == original
        assert ("tensors" in entry) == (original is None)
        if original:
            assert files[entry["quant"]].samefile(files[original])


def check_card(card: str, manifest: dict, said: str = "") -> None:
    """Assert that a card names the files of a manifest, and no other of the model."""
    files = {entry["file"]: entry for entry in manifest["files"]}
    rows = rows_of(card)
    if rows is None:
        return
    ours = {name: row for name, row in rows.items() if name.startswith(f"{manifest['name']}.")}
    assert ours.keys() == files.keys()
    for name, row in ours.items():
        alias = files[name].get("alias_of")
        same = f", same bytes as {alias}" if alias else ""
        assert f"{files[name]['sha256']}{same}" in row, name
    n_files = f"{len(files)} GGUF files" if len(files) > 1 else "One GGUF file"
    assert f"\n{n_files} made from" in card
    command = shlex.split(card.replace("\r", "").split("The command:")[1].split("```")[1].removeprefix("sh\n"))
    asked = command[command.index("--quants") + 1]
    quants = [entry["quant"] for entry in manifest["files"]]
    assert (list(QUANTS) if asked == "all" else asked.split(",") if asked else []) == [q for q in quants if q in QUANTS]
    assert ("--keep-f16" in command) == ("F16" in quants)
    card = re.sub(r"^Against \S+ \(", "", card, flags=re.MULTILINE)  # what was measured is told as it was
    mentioned = set(re.findall(rf"(?<![\w.-]){re.escape(manifest['name'])}\.\w+\.gguf", card))
    assert {name for name in mentioned if name not in said} <= {
        *files,
        *(f["file"] for f in manifest["source"]["files"]),
    }
    told = re.findall(r"^\*\*(\w+)\*\* is a good default", card, re.MULTILINE)
    quants = {quant for entry in files.values() for quant in (entry["quant"], ALIASES.get(entry["quant"]))}
    assert set(told) <= quants  # reports call an alias by the name of its original
