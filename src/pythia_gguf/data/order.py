"""The order of training: which documents are read, where rows begin in them, and when each row is seen.

GPT-NeoX builds three arrays from sizes of documents and a seed, and keeps them beside the data under these names:

    ..._doc_idx.npy      i32 [epochs N]  all documents of all epochs, shuffled together
    ..._sample_idx.npy   i32 [n + 1, 2]  place in doc_idx, and offset there, of token k `context` of the stream
    ..._shuffle_idx.npy  u32 [n]         row j of training is the row k = shuffle_idx[j] of the stream

A row has `context` + 1 tokens; its last one is the first of the next row in the stream.
"""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pythia_gguf.arguments import checked, whole_number
from pythia_gguf.data.array_file import ArrayFile, write_array
from pythia_gguf.data.token_file import TokenFile
from pythia_gguf.errors import Argument, ModelFileError, UsageError
from pythia_gguf.machine import require_memory
from pythia_gguf.progress import Progress, Silence

PARTS = ("doc_idx", "sample_idx", "shuffle_idx")
_KINDS = {"doc_idx": (("<i4",), 1), "sample_idx": (("<i4", "<i8"), 2), "shuffle_idx": (("<u4", "<i8"), 1)}
# GPT-NeoX makes so many more rows than it trains on; a product of floats, rounded up.
_SPARE = 1.005
_MOST_DOCUMENTS = 2**31 - 1
_ASK_FOR_LESS = (". Ask for fewer ", Argument("steps"), " or less ", Argument("context"))
# As many are in the processor's cache while rows are looked for in them.
_DOCUMENTS_AT_ONCE = 1 << 18


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """An order on disk.

    n_samples  rows that were asked for, which the names of the files tell
    n_rows     rows that there are
    files      by part
    is_new     whether this run made them
    """

    prefix: Path
    n_samples: int
    context: int
    seed: int
    n_epochs: int
    n_rows: int
    files: dict[str, Path]
    is_new: bool


def samples_for(steps: int, batch: int) -> int:
    """Rows that GPT-NeoX asks for to train so many steps."""
    return math.ceil(steps * batch * _SPARE)


def order_files(prefix: str | os.PathLike[str], n_samples: int, context: int, seed: int) -> dict[str, Path]:
    """Where an order lies, by part."""
    stem = f"{os.fspath(prefix)}_train_0_indexmap_{n_samples}ns_{context}sl_{seed}s"
    return {part: Path(f"{stem}_{part}.npy") for part in PARTS}


def index_type(n_tokens: int, context: int) -> type[np.int32] | type[np.int64]:
    """Type of sample_idx for a stream of so many tokens."""
    return np.int32 if 2 * ((n_tokens - 1) / context + 1) < np.iinfo(np.int32).max else np.int64


@checked
def make_order(
    prefix: str | os.PathLike[str],
    *,
    steps: int,
    batch: int = 1024,
    seed: int = 1234,
    context: int = 2048,
    force: bool = False,
    progress: Progress | None = None,
) -> Order:
    """Build the order of PREFIX.bin as GPT-NeoX does, or find it where it lies already.

    steps    updates of the run; rows for a few more are made
    force    build it anew
    Raises   UsageError, StorageError; ModelFileError for damaged files, or an order that was made of other documents
    """
    for name, value, least, most in (
        ("steps", steps, 1, 2**40),
        ("batch", batch, 1, 2**20),
        ("context", context, 1, 2**30),
        ("seed", seed, 0, 2**32 - 1),
    ):
        whole_number(least, most)(name, value)
    with TokenFile(prefix) as tokens:
        n_documents, n_tokens, sizes = tokens.n_sequences, tokens.n_tokens, tokens.sizes()
        if tokens.starts != n_documents + 1:
            raise UsageError(f"{tokens.prefix} holds rows in the order of training, not documents")
    if not n_tokens:
        raise UsageError(f"{os.fspath(prefix)} holds no token")
    n_samples = samples_for(steps, batch)
    # The least number of epochs whose stream has a token behind every row.
    n_epochs = -(-(n_samples * context + 1) // n_tokens)
    if n_epochs * n_documents > _MOST_DOCUMENTS:
        n_read = f"{n_documents} documents {n_epochs} times over"
        raise UsageError(f"{n_read} are more than GPT-NeoX can number", *_ASK_FOR_LESS)
    order = Order(
        prefix=Path(prefix),
        n_samples=n_samples,
        context=context,
        seed=seed,
        n_epochs=n_epochs,
        n_rows=(n_epochs * n_tokens - 1) // context,
        files=order_files(prefix, n_samples, context, seed),
        is_new=force or not all(path.is_file() for path in order_files(prefix, n_samples, context, seed).values()),
    )
    if order.is_new:
        entry = 2 * np.dtype(index_type(n_epochs * n_tokens, context)).itemsize
        n_bytes = 4 * n_documents * (1 + n_epochs) + entry * (order.n_rows + 1)
        require_memory(n_bytes, f"an order of {order.n_rows} rows", hints=_ASK_FOR_LESS)
        _build(order, sizes, n_tokens, progress or Silence())
    else:
        _check_lengths(order, n_documents)
    return order


def _build(order: Order, sizes: np.ndarray, n_tokens: int, progress: Progress) -> None:
    progress.stage("ordering", len(PARTS), "arrays")
    # One generator makes both shuffles, this one first. Its old interface is part of the format: numpy keeps its bits.
    generator = np.random.RandomState(order.seed)  # noqa: NPY002
    documents = np.tile(np.arange(len(sizes), dtype=np.int32), order.n_epochs)
    generator.shuffle(documents)
    write_array(order.files["doc_idx"], documents)
    progress.advance("doc_idx", 1)
    samples = np.zeros((order.n_rows + 1, 2), index_type(order.n_epochs * n_tokens, order.context))
    _fill_samples(sizes, documents, order.context, samples)
    del documents
    write_array(order.files["sample_idx"], samples)
    del samples
    progress.advance("sample_idx", 1)
    is_small = order.n_rows < np.iinfo(np.uint32).max - 1
    shuffle = np.arange(order.n_rows, dtype=np.uint32 if is_small else np.int64)
    generator.shuffle(shuffle)
    write_array(order.files["shuffle_idx"], shuffle)
    progress.advance("shuffle_idx", 1)


def _fill_samples(sizes: np.ndarray, documents: np.ndarray, context: int, samples: np.ndarray) -> None:
    """Find the place and the offset of each row's first token, for some documents at a time.

    The first row begins with the first document, even if that is empty; the others begin in none that is.
    """
    end, k = 0, 1
    for first in range(0, len(documents), _DOCUMENTS_AT_ONCE):
        lengths = sizes[documents[first : first + _DOCUMENTS_AT_ONCE]].astype(np.int64)
        ends = end + np.cumsum(lengths)
        end = int(ends[-1])
        last = min((end - 1) // context, len(samples) - 1)
        starts = np.arange(k, last + 1, dtype=np.int64) * context
        places = np.searchsorted(ends, starts, side="right")
        samples[k : last + 1, 0] = first + places
        samples[k : last + 1, 1] = starts - (ends - lengths)[places]
        k = max(k, last + 1)


def _check_lengths(order: Order, n_documents: int) -> None:
    lengths = (order.n_epochs * n_documents, order.n_rows + 1, order.n_rows)
    for part, expected in zip(PARTS, lengths, strict=True):
        with ArrayFile(order.files[part], *_KINDS[part]) as array:
            if len(array) != expected:
                message = f"expected {expected} entries, got {len(array)}: it was made of other documents. Use "
                raise ModelFileError(message, Argument("force", True), path=array.path)


def find_orders(prefix: str | os.PathLike[str]) -> list[tuple[int, int, int]]:
    """(n_samples, context, seed) of every order beside PREFIX.bin, sorted; it needs all its files."""
    place = Path(prefix)
    name = re.compile(re.escape(place.name) + r"_train_0_indexmap_(\d{1,19})ns_(\d{1,10})sl_(\d{1,10})s_doc_idx\.npy")
    try:
        names = os.listdir(place.parent)
    except OSError:  # the caller finds no file of documents there either, and says so
        return []
    found = [tuple(map(int, match.groups())) for match in map(name.fullmatch, names) if match]
    return sorted((n, c, s) for n, c, s in found if all(p.is_file() for p in order_files(prefix, n, c, s).values()))


def read_part(part: str, path: Path) -> np.ndarray:
    """A whole array of an order; raises StorageError, ModelFileError."""
    with ArrayFile(path, *_KINDS[part]) as array:
        return array.read(0, len(array))


class OrderedRows:
    """Rows of training, read through an order.

    n_rows      that there are
    first_row   0: an order begins with the first row of training
    row_tokens  tokens of a row
    """

    first_row = 0

    def __init__(self, prefix: str | os.PathLike[str], n_samples: int, context: int, seed: int) -> None:
        """Open the documents and their order; raises StorageError, ModelFileError."""
        self._open: list[TokenFile | ArrayFile] = []
        try:
            self._tokens = TokenFile(prefix)
            self._open.append(self._tokens)
            arrays = {}
            for part, path in order_files(prefix, n_samples, context, seed).items():
                arrays[part] = ArrayFile(path, *_KINDS[part])
                self._open.append(arrays[part])
        except BaseException:
            self.close()
            raise
        self._documents, self._samples, self._shuffle = (arrays[part] for part in PARTS)
        if self._samples.shape[1] != 2 or len(self._samples) != len(self._shuffle) + 1:
            self.close()
            raise ModelFileError("does not fit to the shuffle beside it. Make both again", path=self._samples.path)
        self.n_rows, self.row_tokens = len(self._shuffle), context + 1

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        for file in self._open:
            file.close()

    def read_rows(self, first: int, n: int) -> np.ndarray:
        """Some rows, [n, row_tokens]; raises ModelFileError where the order is not of these documents."""
        if not 0 <= first <= first + n <= self.n_rows:
            raise IndexError(f"rows {first}..{first + n} of {self.n_rows}")
        return np.stack([self._row(i) for i in range(first, first + n)])

    def documents_of(self, i: int) -> list[tuple[int, int, int]]:
        """(document, first of its tokens there, how many) of what a row shows, in its order; raises as `read_rows`."""
        return [(document, begin, len(ids)) for document, begin, ids in self._parts(i) if len(ids)]

    def _row(self, i: int) -> np.ndarray:
        return np.concatenate([ids for _, _, ids in self._parts(i)])

    def _parts(self, i: int) -> list[tuple[int, int, np.ndarray]]:
        """(document, first of its tokens there, ids) of what a row shows."""
        k = int(self._shuffle.read(i, i + 1)[0])
        if not 0 <= k < self.n_rows:
            raise ModelFileError(f"entry {i} is {k}, of {self.n_rows} rows", path=self._shuffle.path)
        (first, start), (last, end) = self._samples.read(k, k + 2).tolist()
        if not 0 <= first <= last < len(self._documents):
            raise ModelFileError(f"row {k} goes from document {first} to {last}", path=self._samples.path)
        parts: list[tuple[int, int, np.ndarray]] = []
        left = self.row_tokens
        for place in range(first, last + 1):
            document = int(self._documents.read(place, place + 1)[0])
            begin = start if place == first else 0
            try:
                ids = self._tokens.read(document, begin, end + 1 - begin if place == last else None)
            except IndexError as e:
                message = f"row {k}: {e}: the order is of other documents"
                raise ModelFileError(message, path=self._samples.path) from None
            parts.append((document, begin, ids))
            left -= len(ids)
            if left < 0:
                break
        if left:
            message = f"row {k} has not {self.row_tokens} tokens: the order is of other documents"
            raise ModelFileError(message, path=self._samples.path)
        return parts
