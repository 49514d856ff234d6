"""Which quant a file is, from what it holds: its key `general.file_type`, and the formats of its tensors.

File names do not count, because makers call files as they like and people rename copies.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from numbers import Integral

from pythia_gguf.formats import FORMATS
from pythia_gguf.plan.quants import FALLBACKS, QUANTS, canonical, quant_of_file_type


def quant_of(metadata: Mapping[str, object], formats: Mapping[str, str]) -> str:
    """The quant of the menu, F16, BF16 or F32; where key and tensors contradict each other, the most common format.

    metadata  keys of the file
    formats   GGUF name -> format, of all tensors
    """
    matrices = [name for tensor, name in formats.items() if _is_matrix(tensor)] or list(formats.values())
    found, most = set(matrices), Counter(matrices).most_common(1)[0][0] if matrices else "F32"
    said = _said(metadata)
    if said in QUANTS:
        base = QUANTS[said].base
        return said if found & {base, *(instead.get(base) for instead in FALLBACKS.values())} else most
    return said if said in found and is_unquantized(found) else most


def quants_of(metadata: Mapping[str, object], formats: Mapping[str, str]) -> tuple[str, str]:
    """That quant, never by a second name; and what the key says where nothing could be quantized, else ""."""
    return canonical(quant_of(metadata, formats)), _said(metadata) or ""


def is_unquantized(formats: set[str]) -> bool:
    """Whether all of some formats store weights one by one, without blocks."""
    return all(FORMATS[name].block_weights == 1 for name in formats)


def _said(metadata: Mapping[str, object]) -> str | None:
    file_type = metadata.get("general.file_type")
    return quant_of_file_type(int(file_type)) if isinstance(file_type, Integral) else None


def _is_matrix(tensor: str) -> bool:
    return tensor.endswith(".weight") and "norm" not in tensor
