"""Which of several files of a model is meant, by a quant or without one: it never picks one of two in silence.

The caller has found the files and says what each one is.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pythia_gguf.errors import UsageError, nearest, one_line
from pythia_gguf.plan.quants import QUANTS, canonical


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantFile:
    """A file that holds a whole model.

    name   as it can be given
    quant  of the menu, never a second name; or F16, BF16, F32; or anything else that tells it from the others
    said   another quant by which a user may ask for it, or ""
    model  anything that is the same for all files of one model
    """

    name: str
    quant: str
    said: str = ""
    model: str


File = TypeVar("File", bound=QuantFile)


def pick(
    files: Sequence[File],
    quant: str | None,
    *,
    where: str,
    call: str,
    before: str = "",
    are_equal: Callable[[Sequence[File]], bool],
) -> File | None:
    """The file of a quant, or the only one; None where there is no such file.

    where      the place of the files, for messages
    call       what a user writes before ":QUANT"
    before     what a user writes before a file's name
    are_equal  whether files hold the same bytes
    Raises     UsageError that lists the files, where it is not clear which one is meant
    """
    place = one_line(where)
    if len({file.model for file in files}) > 1:
        raise UsageError(f"{place}: holds files of several models. Give one: {_names(files, before)}")
    wanted = [file for file in files if quant is None or file.quant == canonical(quant)]
    wanted = wanted or [file for file in files if file.said == canonical(quant or "")]
    if len({file.quant for file in wanted}) > 1:
        raise UsageError(f"{place}: which of them? Say {one_line(call, 100)}:QUANT, with {quants_in(wanted)}")
    if len({_without_quant(file) for file in wanted}) > 1 or not are_equal(wanted):
        raise UsageError(f"{place}: which of them? Give the file itself: {_names(wanted, before)}")
    # Among equal files, take the one with the name that was asked for: Q4_K is another name of Q4_K_M.
    by_name = {_end(file).upper(): file for file in reversed(wanted)}
    return by_name.get((quant or "").upper()) or (wanted[0] if wanted else None)


def no_such_file(files: Sequence[QuantFile], asked: str | None, where: str) -> UsageError:
    """A sentence that says which files are there instead of the one that was asked for."""
    is_name = (asked or "").lower().endswith(".gguf")
    close = nearest(asked or "", {file.name if is_name else file.quant for file in files})
    there = f"{close or '.'} There are {quants_in(files)}" if files else ""
    return UsageError(f"{one_line(where)}: no {one_line(str(asked), 100)} here{there}")


def quants_in(files: Iterable[QuantFile]) -> str:
    """Their quants in the order of the menu, with commas."""
    return ", ".join(one_line(quant, 100) for quant in sorted({file.quant for file in files}, key=_place))


def _stem(file: QuantFile) -> str:
    return re.sub(r"\.gguf$", "", file.name, flags=re.IGNORECASE)


def _end(file: QuantFile) -> str:
    """The end of a file's name, where that is a name of its quant; else nothing."""
    names = [q.name for q in QUANTS.values() if file.quant in (q.name, q.alias_of)] or [re.escape(file.quant)]
    match = re.search(rf"[._-]({'|'.join(names)})$", _stem(file), re.IGNORECASE)
    return match[1] if match else ""


def _without_quant(file: QuantFile) -> str:
    return _stem(file).removesuffix(_end(file))


def _names(files: Iterable[QuantFile], before: str) -> str:
    return ", ".join(before + one_line(file.name, 100) for file in files)


def _place(quant: str) -> int:
    return list(QUANTS).index(quant) if quant in QUANTS else len(QUANTS)
