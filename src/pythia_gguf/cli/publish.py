"""`pythia publish`: a folder onto the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.command import Command

if TYPE_CHECKING:
    from pythia_gguf.models.publish import BranchFile


@click.command("publish", cls=Command)
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--repo", required=True, metavar="USER/NAME", help="Where it goes; made if it is not there.")
@click.option("--private", is_flag=True, help="Make a new repository private.")
@click.option("--branches", is_flag=True, help="DIR holds folders stepN: each becomes a branch, main equals the last.")
@click.option("--dry-run", is_flag=True, help="Check everything and show what would be sent.")
@click.option("--endpoint", metavar="URL", help="Another hub.  [default: HF_ENDPOINT, else huggingface.co]")
def command(folder: Path, repo: str, private: bool, branches: bool, dry_run: bool, endpoint: str | None) -> None:
    """Send a folder that `pythia quantize` made to the Hub.

    First every byte is verified, and the card's front matter checked, by the Hub too; then the plan is shown. A branch
    will hold what DIR holds: its other weights, configs and GGUF files of the same kind go in the same commit, and stay
    in its history. At the end what readers would get is compared with what is here. Log in before with: hf auth login.
    Running again sends what is missing.

    \b
    pythia publish pythia-70m-GGUF --repo me/pythia-70m-GGUF --dry-run
    pythia publish pythia-70m-GGUF --repo me/pythia-70m-GGUF --private
    pythia publish my-run --repo me/my-run --branches
    """
    from pythia_gguf.cli.progress import make_progress, quantity
    from pythia_gguf.cli.tables import print_table
    from pythia_gguf.hub.client import Hub
    from pythia_gguf.models.publish import publish

    def show(files: tuple[BranchFile, ...]) -> None:
        rows = [(f.branch, f.name, f"{f.n_bytes:,}", f.state) for f in files]
        print_table(("branch", "file", "bytes", ""), rows, right=(2,))
        to_send = sum(f.n_bytes for f in files if f.state in ("new", "changed"))
        words = {"deleted": "to delete", "stays": "to leave as they are"}
        counts = {word: sum(f.state == state for f in files) for state, word in words.items()}
        others = "".join(f", {n} {word}" for word, n in counts.items() if n)
        click.echo(f"{repo}: {quantity(to_send, 'bytes')} to send{others}")

    with make_progress() as progress:
        publish(
            folder,
            repo,
            private=private,
            dry_run=dry_run,
            branches=branches,
            hub=Hub(endpoint),
            progress=progress,
            show=show,
        )
    if not dry_run:
        click.echo(f"{repo}: all files are there, with the hashes that they have here, and no others that readers take")
