"""A malformed file and what must be said about it, and the ways to make one from the small valid file."""

from __future__ import annotations

from dataclasses import dataclass

from gguf.craft import Draft, Key, Tensor, draft, keys, tensors, valid

MAX64 = 2**64 - 1


@dataclass(frozen=True, kw_only=True)
class Case:
    """A malformed file and what must be said about it: which byte, which field, which rule or value."""

    name: str
    data: bytes
    offset: int
    field: str
    rule: str


def patched_case(name: str, mark: str, raw: bytes, field: str, rule: str, shift: int = 0) -> Case:
    """The valid file with the bytes at a mark overwritten; the error is `shift` bytes behind the mark."""
    file = valid()
    return Case(name=name, data=file.patched(mark, raw), offset=file.marks[mark] + shift, field=field, rule=rule)


def case_at(name: str, file: Draft, mark: str, field: str, rule: str, shift: int = 0) -> Case:
    """A whole file whose error is `shift` bytes behind a mark."""
    return Case(name=name, data=bytes(file.data), offset=file.marks[mark] + shift, field=field, rule=rule)


def with_key(key: Key) -> Draft:
    """The valid file with one more key, its number 7."""
    return draft([*keys(), key], tensors())


def with_tensor(tensor: Tensor) -> Draft:
    """The valid file with its tensor number 1 replaced."""
    first, _, last = tensors()
    return draft(keys(), [first, tensor, last])
