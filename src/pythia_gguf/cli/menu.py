"""The table of a menu, as text and as JSON."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.tables import print_table

if TYPE_CHECKING:
    from pythia_gguf.press.quantize import PressResult

SCHEMA_VERSION = 1


def menu_json(result: PressResult) -> dict[str, Any]:
    """One object: the files that were made, or would be made."""
    from pythia_gguf.card.listing import size_text

    files = []
    for f in result.files:
        entry: dict[str, Any] = {
            "quant": f.quant,
            "file": f.path.name,
            "bytes": f.n_bytes,
            "size": size_text(f.n_bytes),
            "bits_per_weight": round(f.bits_per_weight, 4),
            "alias_of": f.alias_of,
            "kept": f.kept,
        }
        files.append(entry | ({"sha256": f.sha256} if f.sha256 else {}))
    return {
        "schema_version": SCHEMA_VERSION,
        "name": result.name,
        "folder": str(result.folder),
        "mix": result.mix,
        "n_weights": result.n_weights,
        "files": files,
        "notes": list(result.notes),
        "seconds": round(result.seconds, 3),
    }


def print_menu(result: PressResult) -> None:
    """Print the files with their sizes, the notes, and the folder."""
    from pythia_gguf.card.listing import size_text

    rows = [
        (
            f.path.name,
            size_text(f.n_bytes),
            f"{f.n_bytes:,}",
            f"{f.bits_per_weight:.2f}",
            f"same file as {f.alias_of}" if f.alias_of else formats_text(f.plan),
        )
        for f in result.files
    ]
    print_table(("name", "size", "bytes", "bits/w", "formats"), rows, right=(2, 3))
    click.echo()
    for note in result.notes:
        click.echo(f"Note: {note}")
    if kept := [f.path.name for f in result.files if f.kept]:
        which = "all files" if len(kept) == len(result.files) else ", ".join(kept)
        click.echo(f"Kept: {which}, made from this source before; every byte was checked.")
    distinct = sum(f.n_bytes for f in result.files if f.alias_of is None)
    made = all(f.sha256 for f in result.files)
    where = f"in {result.folder} after {result.seconds:.1f} s" if made else "would be written"
    click.echo(f"{len(result.files)} files, {distinct:,} bytes on disk, {where}.")


def formats_text(plan: dict[str, tuple[str, str]]) -> str:
    """Tensors per format of a plan, most first, without those that stay: "17 Q4_K, 8 Q6_K"."""
    counts: dict[str, int] = {}
    for name, reason in plan.values():
        if not reason.startswith("biases"):
            counts[name] = counts.get(name, 0) + 1
    return ", ".join(f"{n} {name}" for name, n in sorted(counts.items(), key=lambda item: -item[1]))
