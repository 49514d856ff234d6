"""The files that a run will write: each with its plan, its header and its exact size, before any weight is read."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_gguf.arguments import texts
from pythia_gguf.gguf.container import Metadata, TensorInfo, alignment_of
from pythia_gguf.gguf.writer import KeyBytes, file_bytes, header_bytes, layout
from pythia_gguf.plan.planner import PlanEntry, keep_plan, make_plan
from pythia_gguf.plan.quants import Quant, select_quants
from pythia_gguf.press.conversion import QUANTIZATION_VERSION
from pythia_gguf.press.file_names import file_name
from pythia_gguf.press.output import OutputFile
from pythia_gguf.press.source import Source, UsedMatrix

_RENEWED = ("general.quantization_version", "general.file_type")
_SPLIT = ("split.no", "split.count", "split.tensors.count")

MIX_NOTE = (
    "mix 2026 follows llama.cpp 0c1e57098, which gives the fused attn_qkv more bits than the files of 2024 did"
    " (pull request 19770): Q2_K and Q3_K_L are larger than in older tables. Mix 2024 gives the older sizes."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MenuItem:
    """One file of the folder.

    quant     its name in the menu, or the plain format of an unquantized file
    file      file name
    alias_of  the item of this menu whose bytes it shares, or None
    entries   the plan of each tensor, in file order
    metadata  keys, in file order
    n_bytes   exact size
    keys_made  bytes of the keys, which items of one source share
    """

    quant: str
    file: str
    alias_of: str | None
    entries: tuple[PlanEntry, ...]
    metadata: Metadata
    n_bytes: int
    keys_made: KeyBytes

    @property
    def bits_per_weight(self) -> float:
        """Storage of one weight in bits, over all tensors, without the header."""
        n_weights = sum(math.prod(e.shape) for e in self.entries)
        return 8 * sum(e.n_bytes for e in self.entries) / n_weights

    @property
    def infos(self) -> tuple[TensorInfo, ...]:
        """The place of each tensor in the file."""
        return _infos(self.entries, self.metadata)

    @property
    def header(self) -> bytes:
        """Everything before the data."""
        return header_bytes(self.metadata, self.infos, self.keys_made)

    def output(self, folder: Path) -> OutputFile:
        """The file in the form that the pass takes."""
        return OutputFile(
            path=folder / self.file,
            header=self.header,
            formats={e.tensor: e.format for e in self.entries},
            alignment=alignment_of(self.metadata),
        )


def quants_asked(quants: str | Iterable[str], *, with_plain: bool) -> tuple[Quant, ...]:
    """The quants that a caller names, as a list or separated by commas; none are needed beside the unquantized file.

    Raises UsageError for an unknown quant, TypeError for anything but texts
    """
    names = ",".join(texts("quants", quants))
    return select_quants(names) if names or not with_plain else ()


def make_menu(source: Source, quants: Sequence[Quant], mix: str, *, with_plain: bool = False) -> tuple[MenuItem, ...]:
    """The items of some quants, in the order given, and with `with_plain` the unquantized file behind them."""
    tensors = source.tensors
    names = {quant.name for quant in quants}
    items = []
    for quant in quants:
        entries = make_plan(quant, mix, tensors, has_imatrix=source.imatrix is not None).entries
        alias_of = quant.alias_of if quant.alias_of in names else None
        metadata = quantized_metadata(source.metadata, quant) | _imatrix_metadata(source.imatrix)
        items.append(_item(source, quant.name, entries, metadata, alias_of))
    return (*items, *([plain_item(source)] if with_plain else []))


def plain_item(source: Source) -> MenuItem:
    """The unquantized file as llama.cpp's converter writes it: its tensor order, no file type."""
    by_name = {t.name: t for t in source.tensors}
    entries = keep_plan(by_name[name] for name in source.file_order)
    return _item(source, plain_format(source), entries, source.metadata, None)


def plain_format(source: Source) -> str:
    """Format of the weights that are not quantized yet: F16, BF16 or F32."""
    return next(t.format for t in source.tensors if len(t.shape) == 2)


def quantized_metadata(metadata: Metadata, quant: Quant) -> Metadata:
    """Keys of a quantized file: the source's keys, with version and file type moved to the end.

    Source llama.cpp 0c1e57098 src/llama-quant.cpp, `llama_model_quantize_impl`.
    """
    kept = {k: v for k, v in metadata.items() if k not in _RENEWED + _SPLIT}
    return kept | dict(zip(_RENEWED, (QUANTIZATION_VERSION, np.uint32(quant.file_type)), strict=True))


def _imatrix_metadata(used: UsedMatrix | None) -> Metadata:
    """Keys that say which importance matrix was used.

    Source llama.cpp 0c1e57098 tools/quantize/quantize.cpp: the file as given, the first text, both cut to 127 bytes.
    """
    if used is None:
        return {}
    matrix = used.matrix
    metadata: Metadata = {"quantize.imatrix.file": _cut(str(used.path))}
    if matrix.datasets:
        metadata["quantize.imatrix.dataset"] = _cut(matrix.datasets[0])
    metadata["quantize.imatrix.entries_count"] = np.uint32(len(matrix.entries))
    if matrix.n_chunks:
        metadata["quantize.imatrix.chunks_count"] = np.uint32(matrix.n_chunks)
    return metadata


def _cut(text: str) -> str:
    """Cut a text to at most 127 bytes of UTF-8, in whole characters."""
    return text.encode("utf-8", "replace")[:127].decode("utf-8", "ignore")


def _item(
    source: Source, quant: str, entries: tuple[PlanEntry, ...], metadata: Metadata, alias_of: str | None
) -> MenuItem:
    return MenuItem(
        quant=quant,
        file=file_name(source.name, quant),
        alias_of=alias_of,
        entries=entries,
        metadata=metadata,
        n_bytes=file_bytes(metadata, _infos(entries, metadata), source.keys_made),
        keys_made=source.keys_made,
    )


def _infos(entries: tuple[PlanEntry, ...], metadata: Metadata) -> tuple[TensorInfo, ...]:
    return layout(((e.tensor, e.format, e.shape) for e in entries), alignment_of(metadata))
