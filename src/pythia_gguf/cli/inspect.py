"""`pythia inspect`: what a GGUF file is and holds, from its header alone.

It judges nothing: a missing value shows as "-". Everything that a file holds is made safe to print.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING

import click

from pythia_gguf.cli.command import Command
from pythia_gguf.cli.tables import print_columns, print_table
from pythia_gguf.errors import UsageError, one_line
from pythia_gguf.json_file import json_text

if TYPE_CHECKING:
    from pythia_gguf.gguf.container import Value
    from pythia_gguf.gguf.reader import GGUFFile

_SCHEMA_VERSION = 1
_LONG_ARRAY = 6
_LONG_TEXT = 90


@click.command("inspect", cls=Command)
@click.argument("place", metavar="FILE|NAME")
@click.option("--tensors", is_flag=True, help="List every tensor too.")
@click.option("--output-format", type=click.Choice(["text", "json"]), default="text", show_default=True)
def command(place: str, tensors: bool, output_format: str) -> None:
    """Show what a GGUF file is: quant, size, keys and tensors. Reads the header only.

    USER/NAME:QUANT of the Hub is fetched first.
    """
    from pythia_gguf.cli.progress import make_progress
    from pythia_gguf.intake.gguf_model import open_any_gguf
    from pythia_gguf.intake.mistaken import refuse_other_folder
    from pythia_gguf.press.find_source import find_path

    with make_progress() as progress:
        file = find_path(place, progress)
    if file.is_dir():
        found = sorted(p.name for p in file.glob("*.gguf"))
        if not found:
            refuse_other_folder(file)
        hint = f" Give one of its files, such as {file / found[0]}" if found else " It holds no .gguf file"
        raise UsageError(f"{one_line(str(file))}: is a folder.{one_line(hint)}")
    gguf = open_any_gguf(file)
    if output_format == "json":
        click.echo(json_text(_as_json(gguf)))
        return
    print_columns(_summary(gguf))
    click.echo()
    print_table(("key", "type", "value"), _metadata_rows(gguf))
    if tensors:
        click.echo()
        print_table(("name", "shape", "format", "bytes", "offset"), _tensor_rows(gguf))


def _summary(gguf: GGUFFile) -> list[tuple[str, str]]:
    architecture = gguf.metadata.get("general.architecture")
    n_weights = sum(t.n_weights for t in gguf.tensors.values())
    formats = Counter(t.format for t in gguf.tensors.values())
    of_formats = ", ".join(f"{n} {name}" for name, n in formats.most_common())
    bits = _bits_per_weight(gguf)
    tokens = gguf.metadata.get("tokenizer.ggml.tokens")

    def of_model(key: str) -> str:
        return shown_value(gguf.metadata.get(f"{architecture}.{key}"))

    return [
        ("name", shown_value(gguf.metadata.get("general.name"))),
        ("architecture", shown_value(architecture)),
        ("quant", _quant(gguf) or "-"),
        ("type", shown_value(gguf.metadata.get("general.type", "model"))),
        ("size", f"{gguf.n_bytes:,} bytes, {gguf.n_bytes / 2**30:.3f} GiB"),
        ("weights", f"{n_weights:,}" + (f", {bits:.2f} bits per weight" if bits else "")),
        ("tensors", f"{len(gguf.tensors)}: {of_formats}" if of_formats else "0"),
        ("layers", of_model("block_count")),
        ("width", of_model("embedding_length")),
        ("context", of_model("context_length")),
        ("vocabulary", f"{len(tokens)} tokens" if isinstance(tokens, list) else "-"),
        ("container", f"GGUF version {gguf.version}, alignment {gguf.alignment}"),
    ]


def _bits_per_weight(gguf: GGUFFile) -> float | None:
    """Bits of all tensors over their weights; None when there are no tensors."""
    n_weights = sum(t.n_weights for t in gguf.tensors.values())
    return 8 * sum(t.n_bytes for t in gguf.tensors.values()) / n_weights if n_weights else None


def _quant(gguf: GGUFFile) -> str | None:
    """The quant by key and tensors, or the key's number when we have no name for it; None without tensors."""
    import numpy as np

    from pythia_gguf.plan.quants import quant_of_file_type
    from pythia_gguf.plan.recognize import quant_of

    file_type = gguf.metadata.get("general.file_type")
    if isinstance(file_type, np.integer) and quant_of_file_type(int(file_type)) is None:
        return f"file type {file_type}"
    return quant_of(gguf.metadata, gguf.formats) if gguf.tensors else None


def _metadata_rows(gguf: GGUFFile) -> list[tuple[str, str, str]]:
    from pythia_gguf.gguf.container import type_name

    return [(one_line(key), type_name(value), shown_value(value)) for key, value in gguf.metadata.items()]


def _tensor_rows(gguf: GGUFFile) -> list[tuple[str, str, str, str, str]]:
    return [
        (t.name, " x ".join(map(str, t.shape)), t.format, str(t.n_bytes), str(t.offset)) for t in gguf.tensors.values()
    ]


def shown_value(value: Value | None) -> str:
    """A value on one line: strings are escaped, long strings and arrays cut, and the length of an array is shown."""
    import numpy as np

    if value is None:
        return "-"
    if isinstance(value, str):
        return one_line(value[: _LONG_TEXT + 1], _LONG_TEXT)
    if isinstance(value, list | np.ndarray):
        first = [one_line(repr(x[:31]) if isinstance(x, str) else str(x), 30) for x in value[:_LONG_ARRAY]]
        more = ", ..." if len(value) > _LONG_ARRAY else ""
        return f"[{', '.join(first)}{more}] {len(value)} in all"
    return str(value)


def _as_json(gguf: GGUFFile) -> dict[str, object]:
    from pythia_gguf.gguf.container import type_name

    return {
        "schema_version": _SCHEMA_VERSION,
        "path": str(gguf.path),
        "version": gguf.version,
        "alignment": gguf.alignment,
        "n_bytes": gguf.n_bytes,
        "data_offset": gguf.data_offset,
        "type": _plain(gguf.metadata.get("general.type", "model")),
        "quant": _quant(gguf),
        "bits_per_weight": _bits_per_weight(gguf),
        "metadata": {key: _plain(value) for key, value in gguf.metadata.items()},
        "metadata_types": {key: type_name(value) for key, value in gguf.metadata.items()},
        "tensors": [
            {"name": t.name, "format": t.format, "shape": t.shape, "n_bytes": t.n_bytes, "offset": t.offset}
            for t in gguf.tensors.values()
        ],
    }


def _plain(value: Value) -> object:
    """A value as JSON has it; JSON has no NaN or infinity, so these become strings."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return [_plain(x) for x in value]
    if isinstance(value, np.floating):
        # By way of text, so that the float32 1e-05 stays 1e-05 and does not become 9.999999747378752e-06.
        number = float(str(value))
        return number if math.isfinite(number) else str(number)
    return value.item() if isinstance(value, np.generic) else value
