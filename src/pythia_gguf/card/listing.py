"""The files of a folder in its card: their table, and the sentences and commands that name them.

All of this can be renewed in a card that somebody has edited: rows of files that are gone disappear, rows of new files
are added, and everything that somebody else has written stays.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from pythia_gguf.card.inert import command_block, inert
from pythia_gguf.card.line_ends import in_unix_lines

# Everything below this is foreign text.
ORIGINAL = "## Original model description:"
# Programs find the table of a quantized model's card by these two comments.
_MARKER = "<!-- README_GGUF.md-provided-files {} -->"
_HEAD = ["| Name | Quant method | Size | Bits per weight | sha256 |", "|---|---|---|---|---|"]
# The text below the table begins with it.
SIZES = "Sizes are in GiB, printed as GB. Bits per weight are those of all tensors; the vocabulary is not counted."
_IS_EXAMPLE = "is only an example here."
_EXAMPLE = "Q4_K_M"
# The same in a card, with columns that an editor has padded or a person has added.
_TABLE = re.compile(r"^\| *Name *\| *Quant method *\|.*\n\|[-:| ]+\n(?P<rows>(?:\|.*(?:\n|\Z))*)", re.MULTILINE)
_CELL_END = re.compile(r"(?<!\\)\|")
_N_FILES = re.compile(r"^(?:\d+ GGUF files|One GGUF file)(?= made from )", re.MULTILINE)
_ABOUT = re.compile(rf"^{re.escape(SIZES)}(?: [^.\n]* is another name of [^.\n]*\.)?", re.MULTILINE)
_COMMANDS = re.compile(
    r"^llama-completion -m (?P<file>\S.*\.(?P<quant>\w+)\.gguf'?) -no-cnv (?:.*\n){1,20}?(?=```$)", re.MULTILINE
)
_NAMED = re.compile(rf"\S+(?= {re.escape(_IS_EXAMPLE)})")


@dataclass(frozen=True, slots=True, kw_only=True)
class CardFile:
    """One file of the folder.

    name       file name
    quant      its name in the menu, or the format of an unquantized file
    n_bytes    size of the whole file
    bits_per_weight  storage of one weight over all tensors, without the header
    sha256     of its bytes, 64 hexadecimal digits
    alias_of   the quant whose bytes it shares, or None
    """

    name: str
    quant: str
    n_bytes: int
    bits_per_weight: float
    sha256: str
    alias_of: str | None


def size_text(n_bytes: int) -> str:
    """A size as older tables of quantized Pythia models print it: GiB of two decimals at most, called GB."""
    text = f"{n_bytes / 2**30:.2f}".rstrip("0").rstrip(".")
    return "<0.01GB" if text == "0" else f"{text}GB"


def file_table(files: Sequence[CardFile]) -> str:
    """The table with its heading, between the two comments."""
    table = "\n".join([*_HEAD, *map(_row, files)])
    return "\n\n".join([_MARKER.format("start"), "## Provided files", table, _MARKER.format("end")])


def about_table(files: Sequence[CardFile]) -> str:
    """What a reader of the table should know."""
    aliases = [f"{inert(f.quant)} is another name of {inert(f.alias_of)}" for f in files if f.alias_of]
    return f"{SIZES} {', '.join(aliases)}: the same bytes under two names." if aliases else SIZES


def n_files(files: Sequence[CardFile]) -> str:
    """How many files there are, as the beginning of a sentence."""
    return f"{len(files)} GGUF files" if len(files) > 1 else "One GGUF file"


def is_example(files: Sequence[CardFile]) -> str:
    """A sentence that says that the file of `commands` is only an example."""
    return f"{inert(_example(files).quant)} {_IS_EXAMPLE}"


def repository(name: str) -> str:
    """A placeholder for the repository in which a reader has found the card."""
    return f"OWNER/{name}-GGUF"


def commands(files: Sequence[CardFile], name: str) -> str:
    """How to run one of the files."""
    example = _example(files)
    file = shlex.quote(example.name)
    return command_block(
        "# continue a text (older releases of llama.cpp call this program llama-cli)",
        f'llama-completion -m {file} -no-cnv -n 64 -p "Once upon a time"',
        "",
        "# serve a file that is here, or fetch it from the Hub first",
        f"llama-server -m {file}",
        f"llama-server -hf {shlex.quote(f'{repository(name)}:{example.quant}')}",
        "",
        "# the same on a CPU, and what is in a file (pip install pythia-gguf)",
        f'pythia generate {shlex.quote(f"{repository(name)}:{example.quant}")} "Once upon a time"',
        f"pythia inspect {file}",
    )


def relisted(card: str, name: str, files: Sequence[CardFile]) -> str | None:
    """The card with these files of a model listed and no others of it; None where it has no table of files.

    name  of the model, with which names of its files begin
    """

    def edit(text: str) -> str:
        text, title, theirs = text.partition(f"\n{ORIGINAL}\n")
        text = _TABLE.sub(lambda table: _with_rows(table, name, files), text, count=1)
        text = _N_FILES.sub(n_files(files), text, count=1)
        text = _ABOUT.sub(lambda _: about_table(files), text, count=1)
        return _with_example(text, files) + title + theirs

    ours = card.replace("\r\n", "\n").partition(f"\n{ORIGINAL}\n")[0]
    return in_unix_lines(card, edit) if _TABLE.search(ours) else None


def _with_example(card: str, files: Sequence[CardFile]) -> str:
    """The commands with another file where theirs is gone."""
    shown = _COMMANDS.search(card)
    if shown is None or shown["file"] in {shlex.quote(f.name) for f in files}:
        return card
    example = _example(files)
    block = shown[0].replace(shown["file"], shlex.quote(example.name))
    block = block.replace(f":{shown['quant']}", f":{example.quant}")
    return _NAMED.sub(lambda _: inert(example.quant), card.replace(shown[0], block, 1), count=1)


def _row(f: CardFile) -> str:
    columns = (inert(f.name), inert(f.quant), size_text(f.n_bytes), f"{f.bits_per_weight:.2f}", _hash_cell(f))
    return f"| {' | '.join(columns)} |"


def _hash_cell(f: CardFile) -> str:
    return inert(f.sha256) + (f", same bytes as {inert(f.alias_of)}" if f.alias_of else "")


def _example(files: Sequence[CardFile]) -> CardFile:
    return next((f for f in files if f.quant == _EXAMPLE), files[0])


def _with_rows(table: re.Match[str], name: str, files: Sequence[CardFile]) -> str:
    """A table in which each file has a row: its old one, in its place, while that is true; else a new one.

    A new row follows the row of the file before. Rows of other files of the model go; all other rows stay.
    """
    # 1. Rows of files that are gone or have other bytes go.
    rows = [row for row in table["rows"].splitlines() if _is_true(row, name, files)]
    # 2. `at` follows the files through the table, so that a new row comes after the file before it, wherever a hand has
    #    moved that one.
    at = 0
    for f in files:
        place = next((i for i, row in enumerate(rows) if _names(row, f)), None)
        if place is None:
            rows.insert(at, _row(f))
        at = at + 1 if place is None else place + 1
    head = table[0].removesuffix(table["rows"])
    return head + "".join(f"{row}\n" for row in rows)


def _is_true(row: str, name: str, files: Sequence[CardFile]) -> bool:
    f = next((f for f in files if _names(row, f)), None)
    if f is None:
        return not re.search(rf"(?<![\w.-]){re.escape(inert(name))}\.\w+\.gguf", _cells(row)[0])
    return _hash_cell(f) in _cells(row)


def _names(row: str, f: CardFile) -> bool:
    """Whether the first cell of a row has the name of a file, as a link too."""
    return re.search(rf"(?<![\w.-]){re.escape(inert(f.name))}", _cells(row)[0]) is not None


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in _CELL_END.split(row.strip())[1:]]
