"""`pythia check-revisions`: a table of findings."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.hub.revisions import Finding

SCHEMA_VERSION = 1
_MOST_NAMES = 8


@click.command("check-revisions", cls=Command)
@click.argument("name")
@click.option("--endpoint", metavar="URL", help="Another hub.  [default: HF_ENDPOINT, else huggingface.co]")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(name: str, endpoint: str | None, output_format: str) -> None:
    """Compare all branches of a model on the Hub, downloading nothing: which are missing, which hold the same files.

    Compared are the hashes that the Hub lists. The last step and main, and steps 0 and 1, are meant to be the same.
    Exit code 0: nothing found; 1: findings.

    \b
    pythia check-revisions pythia-2.8b
    pythia check-revisions USER/NAME --output-format json
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.cli.tables import print_table
    from pythia_gguf.errors import UsageError
    from pythia_gguf.hub.client import Hub
    from pythia_gguf.hub.model_name import MAIN, parse_model_name
    from pythia_gguf.hub.revisions import check_revisions

    parsed = parse_model_name(name, endpoint)
    if parsed.quant is not None or parsed.revision != MAIN:
        raise UsageError(f"{name}: all branches are compared: give {parsed.repo_id} alone")
    if parsed.notice:
        click.echo(parsed.notice, err=True)
    with make_progress() as progress:
        checked = check_revisions(parsed, Hub(endpoint), progress)
    if output_format == "json":
        findings = [
            {
                "kind": f.kind,
                "branches": [
                    {"branch": b.name, "commit": b.commit, "date": b.date.isoformat() if b.date else None}
                    for b in f.branches
                ],
                "files": list(f.files),
            }
            for f in checked.findings
        ]
        result = {"schema_version": SCHEMA_VERSION, "repo_id": checked.repo_id, "branches": checked.n_branches}
        click.echo(json_text(result | {"findings": findings}))
    else:
        rows = [row for finding in checked.findings for row in _rows(finding)]
        if rows:
            print_table(("finding", "branch", "commit", "date", "files"), rows)
        n = len(checked.findings)
        click.echo(f"{checked.repo_id}: {checked.n_branches} branches, {n or 'no'} finding{'' if n == 1 else 's'}")
    if checked.findings:
        click.get_current_context().exit(1)


def _rows(finding: Finding) -> list[tuple[str, ...]]:
    """Lines of the table: one for each branch, or one for all missing branches together."""
    branches = finding.branches
    if branches[0].commit is None:
        names = ", ".join(b.name for b in branches[:_MOST_NAMES])
        more = f" and {len(branches) - _MOST_NAMES} more" if len(branches) > _MOST_NAMES else ""
        return [(finding.kind, names + more, "", "", "")]
    rows: list[tuple[str, ...]] = []
    for i, b in enumerate(branches):
        first = i == 0
        files = ", ".join(finding.files) if first else ""
        date = f"{b.date:%Y-%m-%d}" if b.date else ""
        rows.append((finding.kind if first else "", b.name, (b.commit or "")[:12], date, files))
    return rows
