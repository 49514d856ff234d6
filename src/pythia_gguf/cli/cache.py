"""`pythia cache`: what is kept between runs, and what of it may go."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click

from pythia_gguf.cli.command import Command, refuse_given
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.models.cache import CacheEntry, PruneResult

SCHEMA_VERSION = 1
_HOURS = {"h": 1, "d": 24, "w": 7 * 24}
_BYTES = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


@click.command("cache", cls=Command)
@click.argument("action", type=click.Choice(["list", "prune"]), default="list")
@click.option("--older-than", metavar="TIME", help="For prune: what was of no use for 12h, 30d or 8w.")
@click.option("--to", "most", metavar="SIZE", help="For prune: the longest unused, until no more than 20G is kept.")
@click.option("--dry-run", is_flag=True, help="For prune: only tell what would go.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(action: str, older_than: str | None, most: str | None, dry_run: bool, output_format: str) -> None:
    """Show what is kept between runs, or prune it: files made of models by name or folder, and compiled kernels.

    All of it is made again when it is missed. It lies where the platform keeps caches, or in the folder that
    PYTHIA_GGUF_CACHE names. What another process is making or loading is never removed. G is 2^30 bytes. What was
    fetched from the Hub is huggingface_hub's to keep: `hf cache`.

    \b
    pythia cache
    pythia cache prune --older-than 30d --dry-run
    pythia cache prune --older-than 30d --to 20G
    """
    from pythia_gguf.models.cache import kept, prune

    if action == "list":
        refuse_given("older_than most dry_run", "with list, which removes nothing: say pythia cache prune")
        _list(kept(), output_format)
        return
    if older_than is None and most is None:
        raise UsageError("prune what? Say --older-than 30d, --to 20G, or both")
    result = prune(
        older_than_s=None if older_than is None else _number(older_than, _HOURS, "a time such as 30d") * 3600,
        most_bytes=None if most is None else int(_number(most, _BYTES, "a size such as 20G")),
        dry_run=dry_run,
    )
    _show_pruned(result, dry_run, output_format)


def _number(text: str, units: dict[str, int], what: str) -> float:
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([a-zA-Z]?)", text.strip())
    unit = {u.lower(): factor for u, factor in units.items()}.get(match[2].lower()) if match else None
    if match is None or unit is None:
        raise UsageError(f"expected {what}, got {one_line(text, 50)!r}")
    return float(match[1]) * unit


def _list(entries: tuple[CacheEntry, ...], output_format: str) -> None:
    from pythia_gguf.cli.tables import print_table
    from pythia_gguf.files import cache_root

    total = sum(entry.n_bytes for entry in entries)
    if output_format == "json":
        result = {"folder": str(cache_root()), "bytes": total, "entries": [_as_json(e) for e in entries]}
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | result))
        return
    if entries:
        rows = [(one_line(e.what, 100), e.kind, f"{e.n_bytes:,}", _time(e)) for e in reversed(entries)]
        print_table(("what", "kind", "bytes", "last used (UTC)"), rows, right=(2,))
    click.echo(f"{len(entries)} folders, {total:,} bytes, in {cache_root()}")


def _show_pruned(result: PruneResult, dry_run: bool, output_format: str) -> None:
    freed = sum(entry.n_bytes for entry in result.removed)
    stays = sum(entry.n_bytes for entry in (*result.kept, *(entry for entry, _ in result.spared)))
    if output_format == "json":
        shown = {
            "dry_run": dry_run,
            "removed": [_as_json(entry) for entry in result.removed],
            "spared": [_as_json(entry) | {"reason": reason} for entry, reason in result.spared],
            "freed_bytes": freed,
            "kept_bytes": stays,
        }
        click.echo(json_text({"schema_version": SCHEMA_VERSION} | shown))
        return
    verb = "would remove" if dry_run else "removed"
    for entry in result.removed:
        click.echo(f"{verb} {one_line(entry.what, 100)}, {entry.n_bytes:,} bytes, last used {_time(entry)}")
    for entry, reason in result.spared:
        click.echo(f"kept {one_line(entry.what, 100)}, {entry.n_bytes:,} bytes: {reason}")
    click.echo(f"{verb} {len(result.removed)} folders, {freed:,} bytes; {stays:,} bytes are kept")


def _as_json(entry: CacheEntry) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "what": entry.what,
        "folder": str(entry.path),
        "bytes": entry.n_bytes,
        "last_used": datetime.fromtimestamp(entry.last_used, UTC).isoformat(timespec="seconds"),
    }


def _time(entry: CacheEntry) -> str:
    return datetime.fromtimestamp(entry.last_used, UTC).strftime("%Y-%m-%d %H:%M")
