"""MinHash signatures of the documents in a file, as keys: documents that share one may be near-duplicates.

A signature has 128 numbers; each is equal in two documents with the probability that is their Jaccard similarity. It is
cut into bands of a few rows, and a band is one key of 64 bits: documents are compared where all rows of a band agree.

    FOLDER/.00003.unfinished/lines    u64 [documents], the number of the line of each
    FOLDER/.00003.unfinished/sources  u16 [documents], where each comes from: a place in a list of the state
    FOLDER/.00003.unfinished/words    u64 [documents], equal for documents of the same words
    FOLDER/.00003.unfinished/band00   u64 [documents], the key of the first band; and so on

for file 3 of a corpus. Any machine that has the corpus can make the signatures of a file, by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pythia_gguf.data.documents import (
    Piece,
    Place,
    broken_line,
    document_of,
    documents_of,
    is_lines,
    n_before,
    read_pieces,
    size_of,
)
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.processes import Workers
from pythia_gguf.data.shingles import mixed, shingles_of
from pythia_gguf.errors import ModelFileError, UsageError
from pythia_gguf.files import CHUNK_BYTES, RegularFile
from pythia_gguf.progress import Progress

PERMUTATIONS = 128
_SEED = 1
# Of pairs that are exactly as similar as the threshold, the share that must be compared.
_RECALL = 0.99
_SAVE_BYTES = 64 << 20
# Columns of another type than u64.
_TYPES = {"sources": "<u2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Banding:
    """How a signature is cut into keys.

    bands  keys of a document
    rows   numbers of the signature in each key
    """

    bands: int
    rows: int

    def recall(self, similarity: float) -> float:
        """The probability that two documents of this similarity share a key."""
        return float(1 - (1 - similarity**self.rows) ** self.bands)


def banding_for(threshold: float) -> Banding:
    """The most rows, so the fewest comparisons, with which 99 % of the pairs at the threshold are compared."""
    cuts = (Banding(bands=PERMUTATIONS // rows, rows=rows) for rows in range(PERMUTATIONS, 0, -1))
    return next(cut for cut in cuts if cut.recall(threshold) >= _RECALL or cut.rows == 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedPiece:
    """What a process makes of a piece.

    lines    number of the line of each document
    sources  of each document
    columns  bytes of u64 for each document: of its words, and of each band
    broken   (number of the line, what is wrong with it)
    """

    lines: list[int]
    sources: list[str]
    columns: list[bytes]
    broken: list[tuple[int, str]]


class Signer:
    """Makes signatures and sets of shingles of pieces, in the process that has it."""

    def __init__(self, banding: Banding) -> None:
        """Raises UsageError where the library that makes signatures is missing."""
        try:
            import rensa  # noqa: F401
        except ImportError:
            raise UsageError("finding duplicates needs rensa. Run: pip install 'pythia-gguf[data]'") from None
        self.banding = banding

    def sign(self, piece: Piece, is_json: bool) -> SignedPiece:
        """The signatures of a piece."""
        from rensa import RMinHash

        documents, broken = documents_of(piece, is_json=is_json)
        shingles = shingles_of([document.text for _, document in documents])
        starts = shingles.starts.astype(np.uint64)
        rows = RMinHash.digest_matrix_from_flat_token_hashes(shingles.hashes, starts, PERMUTATIONS, _SEED).to_rows()
        signatures = np.array(rows, np.uint64).reshape(len(documents), PERMUTATIONS)
        return SignedPiece(
            lines=[line for line, _ in documents],
            sources=[document.source for _, document in documents],
            columns=[column.astype("<u8").tobytes() for column in (shingles.words, *self._keys(signatures))],
            broken=broken,
        )

    def sets(self, lines: list[bytes], is_json: bool) -> list[np.ndarray]:
        """For each line, which holds a document, its different shingles, sorted."""
        return shingles_of([document_of(line, is_json=is_json).text for line in lines]).sets()

    def _keys(self, signatures: np.ndarray) -> Iterator[np.ndarray]:
        for band in range(self.banding.bands):
            key = np.zeros(len(signatures), np.uint64)
            for row in range(self.banding.rows):
                key = mixed(key + signatures[:, band * self.banding.rows + row])
            yield key


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedFile:
    """A file whose signatures are there.

    path       of the file
    folder     with the signatures
    n          documents
    sources    the list that the column "sources" points into
    broken     (number of the line, what is wrong with it)
    """

    path: Path
    folder: Path
    n: int
    sources: list[str]
    broken: list[tuple[int, str]]

    def blocks(self, column: str) -> Iterator[np.ndarray]:
        """A column in blocks."""
        if not self.n:
            return
        width = np.dtype(_TYPES.get(column, "<u8"))
        with RegularFile(self.folder / column) as file:
            end = self.n * width.itemsize
            for at in range(0, end, CHUNK_BYTES):
                yield np.frombuffer(bytes(file.read(at, min(CHUNK_BYTES, end - at))), width)

    def column(self, column: str) -> np.ndarray:
        """All of a column."""
        return np.concatenate([*self.blocks(column), np.zeros(0, _TYPES.get(column, "<u8"))])

    def line(self, document: int) -> int:
        """The number of the line of a document."""
        with RegularFile(self.folder / "lines") as file:
            return int.from_bytes(file.read(8 * document, 8), "little")


def band_name(band: int) -> str:
    """The column with the keys of a band."""
    return f"band{band:02}"


def sign_file(
    path: Path, place: Path, *, banding: Banding, broken: str, workers: Workers, progress: Progress
) -> SignedFile:
    """Have a file signed, unless it is already; a run that was ended goes on.

    place     FOLDER/NUMBER, for the names of what is made
    broken    what a line does that is no document: "stop" or "skip"
    progress  hears of bytes
    Raises    StorageError, LockedError, ModelFileError
    """
    names = ("lines", "sources", "words", *map(band_name, range(banding.bands)))
    with GrowingFiles(place, names, _plan(path, banding, broken)) as files:
        at = files.position or {"place": asdict(Place()), "n": 0, "sources": [], "broken": [], "is_done": False}
        if not at["is_done"]:
            _sign(path, files, at, names, skip=broken == "skip", workers=workers, progress=progress)
        else:
            progress.advance("there already", size_of(path))
        return SignedFile(path=path, folder=files.folder, n=at["n"], sources=at["sources"], broken=at["broken"])


def _plan(path: Path, banding: Banding, broken: str) -> dict[str, Any]:
    from rensa import RMinHash

    with RegularFile(path) as file:
        plan = {"file": path.name, "bytes": file.size, "time": path.stat().st_mtime_ns, "broken_lines": broken}
    return plan | {"bands": banding.bands, "rows": banding.rows, "algorithm": RMinHash.ALGORITHM_VERSION}


def _sign(
    path: Path,
    files: GrowingFiles,
    at: dict[str, Any],
    names: tuple[str, ...],
    *,
    skip: bool,
    workers: Workers,
    progress: Progress,
) -> None:
    """Append the signatures of what is left of a file; `at` is where it is, and says so all the time."""
    number_of, unsaved = {name: i for i, name in enumerate(at["sources"])}, 0
    start = Place.restored(at["place"])
    progress.advance(path.name, n_before(path, start))
    items = ((piece, (piece, is_lines(path))) for piece in read_pieces(path, start))
    for piece, signed in workers.each("sign", items):
        if signed.broken and not skip:
            raise broken_line(path, signed.broken)
        numbers = [number_of.setdefault(name, len(number_of)) for name in signed.sources]
        if len(number_of) > 1 << 16:
            raise ModelFileError("documents of more than 65,536 sources", path=path)
        columns = [np.array(signed.lines, "<u8").tobytes(), np.array(numbers, "<u2").tobytes(), *signed.columns]
        for name, column in zip(names, columns, strict=True):
            files.append(name, column)
        at |= {"place": asdict(piece.end), "n": at["n"] + len(signed.lines)}
        at["sources"] = list(number_of)
        at["broken"] += signed.broken
        progress.advance(path.name, piece.n_read)
        unsaved += sum(map(len, piece.lines))
        if unsaved > _SAVE_BYTES:
            files.save(at)
            unsaved = 0
    files.save(at | {"is_done": True})
