"""When training sees places of PREFIX.bin: in which rows, and where in them, once in every epoch.

A row shows a text whole, or the text crosses its end: then no row shows it whole, and each one shows what it has of it.
The last token of a row is the first of the next one in the stream, so one that stands there is seen in two rows.
"""

from __future__ import annotations

import os
from typing import NamedTuple

import numpy as np

from pythia_gguf.data.order import order_files, read_part
from pythia_gguf.data.pulled import PulledRows, rows_path
from pythia_gguf.errors import ModelFileError
from pythia_gguf.machine import require_memory
from pythia_gguf.progress import Progress

# Of memory at most, while an order is turned round.
_BYTES_A_PLACE = 36


class SightTable(NamedTuple):
    """Rows that show texts, in the order of training, each array i64 [n].

    texts     which of the texts that were asked for
    rows      the row, counted from the beginning of training
    starts    where in the row the text begins, or goes on
    n_tokens  of the text that are in the row
    """

    texts: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    n_tokens: np.ndarray

    def in_order(self) -> SightTable:
        """The same, sorted by row and place in it."""
        order = np.lexsort((self.starts, self.rows))
        return SightTable(*(column[order] for column in self))


class PulledSights:
    """Rows that were pulled: each place is seen once."""

    n_epochs = 1

    def __init__(self, prefix: str | os.PathLike[str], sizes: np.ndarray) -> None:
        """Read which rows they are; `sizes` are those of PREFIX.idx. Raises StorageError, ModelFileError."""
        rows = PulledRows(prefix)
        rows.close()
        if (sizes != rows.row_tokens).any():
            raise ModelFileError(f"not all rows beside it have {rows.row_tokens} tokens", path=rows_path(prefix))
        self._first_row = rows.first_row

    def look(self, sequences: np.ndarray, offsets: np.ndarray, n_tokens: int) -> SightTable:
        """The rows of texts of so many tokens, which begin in some sequences, i64 [n], at some offsets."""
        texts = np.arange(len(sequences))
        return SightTable(texts, self._first_row + sequences, offsets, np.full_like(texts, n_tokens)).in_order()


class OrderedSights:
    """Documents with an order.

    n_epochs  how often each document is read
    """

    def __init__(
        self, prefix: str | os.PathLike[str], sizes: np.ndarray, order: tuple[int, int, int], progress: Progress
    ) -> None:
        """Read an order and turn it round: where documents begin in the stream, when its rows are seen.

        sizes     of all documents, i32
        order     (n_samples, context, seed)
        progress  hears of arrays
        Raises    StorageError; ModelFileError where the order is damaged or of other documents
        """
        files = order_files(prefix, *order)
        progress.stage("reading the order", 2, "arrays")
        self._context = order[1]
        documents = read_part("doc_idx", files["doc_idx"])
        require_memory(_BYTES_A_PLACE * len(documents), f"an order of {len(documents)} documents")
        self.n_epochs = len(documents) // len(sizes)
        begins = _stream_begins(sizes, documents, self.n_epochs)
        progress.advance("doc_idx", 1)
        shuffle = read_part("shuffle_idx", files["shuffle_idx"])
        n_tokens = int(sizes.sum(dtype=np.int64)) * self.n_epochs
        if begins is None or len(shuffle) != (n_tokens - 1) // self._context:
            raise ModelFileError("the order is of other documents. Make it again", path=files["doc_idx"])
        row_of = _inverse(shuffle)
        if row_of is None:
            raise ModelFileError("damaged: a row is there twice. Make it again", path=files["shuffle_idx"])
        progress.advance("shuffle_idx", 1)
        self._begins, self._row_of = begins, row_of

    def look(self, sequences: np.ndarray, offsets: np.ndarray, n_tokens: int) -> SightTable:
        """The rows of texts of so many tokens, which begin in some documents, i64 [n], at some offsets."""
        context = self._context
        # 1. The first and the last token of each text in the stream, once for each epoch.
        first = (self._begins[sequences] + offsets[:, None]).ravel()
        last = first + n_tokens - 1
        texts = np.repeat(np.arange(len(sequences)), self.n_epochs)
        # 2. Row k has tokens k context to (k + 1) context. The last row that has the first token, the first row that
        #    has the last one: where that does not come later, every row from it to the other shows all. The order has
        #    no rows for the end of the stream; of a text that begins with their first token, the last row shows that.
        last_of_first, first_of_last = first // context, np.maximum(-(-last // context) - 1, 0)
        low = np.minimum(np.minimum(last_of_first, first_of_last), len(self._row_of) - 1)
        n_rows = np.maximum(last_of_first, first_of_last) - low + 1
        # 3. A line for each row.
        texts, first, last = (np.repeat(column, n_rows) for column in (texts, first, last))
        rows = np.repeat(low - np.cumsum(n_rows) + n_rows, n_rows) + np.arange(int(n_rows.sum()))
        is_seen = (rows < len(self._row_of)) & (first <= (rows + 1) * context)
        texts, first, last, rows = (column[is_seen] for column in (texts, first, last, rows))
        starts = np.maximum(first - rows * context, 0)
        n_inside = np.minimum(last - rows * context, context) - starts + 1
        return SightTable(texts, self._row_of[rows].astype(np.int64), starts, n_inside).in_order()


def _stream_begins(sizes: np.ndarray, documents: np.ndarray, n_epochs: int) -> np.ndarray | None:
    """Where each document begins in the stream, i64 [documents, epochs]; None where one is not there in every epoch."""
    lengths = sizes[documents] if documents.size and 0 <= documents.min() <= documents.max() < len(sizes) else None
    if lengths is None or len(documents) != len(sizes) * n_epochs:
        return None
    begins = np.cumsum(lengths, dtype=np.int64) - lengths
    # Numbers of documents above, places in the stream below, so that one sort gives the places of each document.
    keys = documents.astype(np.int64)
    keys <<= 32
    keys |= np.arange(len(documents))
    keys.sort()
    if not ((keys >> 32).reshape(-1, n_epochs) == np.arange(len(sizes))[:, None]).all():
        return None
    keys &= (1 << 32) - 1
    return begins[keys].reshape(-1, n_epochs)


def _inverse(shuffle: np.ndarray) -> np.ndarray | None:
    """Where each number is; None where one is missing."""
    n = len(shuffle)
    places = np.full(n, n, shuffle.dtype)
    if n and not 0 <= shuffle.min() <= shuffle.max() < n:
        return None
    places[shuffle] = np.arange(n, dtype=shuffle.dtype)
    return None if (places == n).any() else places
