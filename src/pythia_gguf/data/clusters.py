"""Which documents are near-duplicates: keys find pairs, their shingles decide, and what hangs together is one cluster.

Memory is 42 bytes for each document of the corpus, and what `_MOST_KEYS` entries take; all else is on the disk.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np

from pythia_gguf.data.documents import chosen_lines, is_lines
from pythia_gguf.data.processes import Workers
from pythia_gguf.data.signatures import SignedFile, band_name
from pythia_gguf.files import RegularFile, write_all, write_beside
from pythia_gguf.progress import Progress

# Keys that are sorted at once, 16 bytes each and as much again for the sorting. More of them are taken in parts.
_MOST_KEYS = 1 << 24


class Clusters:
    """The documents of a corpus, by their numbers, in sets that are joined; the first document stands for a set."""

    def __init__(self, n: int) -> None:
        self._parents = np.arange(n)

    def root(self, document: int) -> int:
        """The first document of a cluster."""
        parents = self._parents
        while (parent := parents[document]) != document:
            parents[document] = document = parents[parent]
        return int(document)

    def roots(self, documents: np.ndarray) -> np.ndarray:
        """The first document of the cluster of each."""
        roots = self._parents[documents]
        while np.any((above := self._parents[roots]) != roots):
            roots = above
        return roots

    def join(self, one: int, other: int) -> None:
        """Make one cluster of two."""
        one, other = self.root(one), self.root(other)
        self._parents[max(one, other)] = min(one, other)


class ShingleSets:
    """Sets of shingles on the disk, of some documents."""

    def __init__(self, path: Path, documents: np.ndarray, sizes: np.ndarray) -> None:
        self._file = RegularFile(path)
        self._documents, self._ends = documents, np.cumsum(sizes)

    def similarity(self, one: int, other: int, least: float = 0.0) -> float:
        """The Jaccard similarity of two documents, or 0 where their sizes alone say that it is below `least`."""
        (a, n_a), (b, n_b) = self._place(one), self._place(other)
        if min(n_a, n_b) < least * max(n_a, n_b):
            return 0.0
        both = np.intersect1d(self._read(a, n_a), self._read(b, n_b), assume_unique=True).size
        return float(both / (n_a + n_b - both))

    def close(self) -> None:
        """No more reads."""
        self._file.close()

    def _place(self, document: int) -> tuple[int, int]:
        i = np.searchsorted(self._documents, document)
        start = int(self._ends[i - 1]) if i else 0
        return start, int(self._ends[i]) - start

    def _read(self, start: int, n: int) -> np.ndarray:
        return np.frombuffer(self._file.read(8 * start, 8 * n), "<u8")


class Duplicates:
    """The near-duplicates of a corpus, for use in a `with`.

    roots  [documents] the first document of the cluster of each; a document that stays is its own
    """

    def __init__(self, files: list[SignedFile], n_bands: int, threshold: float) -> None:
        """Take the files in the order of the corpus, all signed."""
        self._files, self._columns, self._threshold = files, [*map(band_name, range(n_bands))], threshold
        self._starts = np.concatenate(([0], np.cumsum([file.n for file in files])))
        self._n = int(self._starts[-1])
        self._sets: ShingleSets | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._sets is not None:
            self._sets.close()

    def find(self, folder: Path, workers: Workers, progress: Progress) -> None:
        """Find them; `folder` is for sets of shingles."""
        progress.stage("finding duplicates", self._n * (1 + len(self._columns)), "keys")
        # 1. Documents of the same words need no comparison; the first of them stands for all.
        self._same = np.arange(self._n)
        for documents, sizes in self._buckets("words", np.ones(self._n, bool), progress):
            self._same[documents] = np.repeat(documents[np.cumsum(sizes) - sizes], sizes)
        is_first = self._same == np.arange(self._n)
        # 2. The others that share a key need their shingles.
        is_compared = np.zeros(self._n, bool)
        for column in self._columns:
            for documents, _ in self._buckets(column, is_first, progress):
                is_compared[documents] = True
        self._sets = self._write_sets(folder / "sets", is_compared, workers, progress)
        # 3. In each bucket, documents that are similar enough come together.
        clusters = Clusters(self._n)
        progress.stage("comparing documents", self._n * len(self._columns), "keys")
        for column in self._columns:
            for documents, sizes in self._buckets(column, is_first, progress):
                self._compare(clusters, documents, sizes)
        self.roots = clusters.roots(self._same)

    def similarity_to_root(self, document: int) -> float:
        """How similar a document is to the one that stays; below the threshold where others stand between them."""
        same, root = int(self._same[document]), int(self.roots[document])
        return 1.0 if same == root else self._similarity(same, root)

    def of_file(self, i: int) -> slice:
        """The documents of a file."""
        return slice(int(self._starts[i]), int(self._starts[i + 1]))

    def file_and_line(self, document: int) -> tuple[SignedFile, int]:
        """Where a document stands."""
        i = int(np.searchsorted(self._starts, document, side="right")) - 1
        return self._files[i], self._files[i].line(document - int(self._starts[i]))

    def _similarity(self, one: int, other: int, least: float = 0.0) -> float:
        assert self._sets is not None
        return self._sets.similarity(one, other, least)

    def _buckets(self, column: str, among: np.ndarray, progress: Progress) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(documents, bucket after bucket and each in order; sizes of the buckets), without buckets of one."""
        n_parts = -(-self._n // _MOST_KEYS)
        for part in range(n_parts):
            keys, documents = self._keys(column, among, part, n_parts)
            order = np.argsort(keys, kind="stable")
            keys, documents = keys[order], documents[order]
            begins = np.flatnonzero(np.concatenate(([True], keys[1:] != keys[:-1]))) if keys.size else keys
            sizes = np.diff(np.append(begins, keys.size)).astype(np.int64)
            progress.advance(column, self._n // n_parts)
            yield documents[np.repeat(sizes > 1, sizes)], sizes[sizes > 1]

    def _keys(self, column: str, among: np.ndarray, part: int, n_parts: int) -> tuple[np.ndarray, np.ndarray]:
        """The keys of one part of all, and whose they are."""
        found, at = [(np.zeros(0, np.uint64), np.zeros(0, np.int64))], 0
        for file in self._files:
            for keys in file.blocks(column):
                chosen = np.flatnonzero(among[at : at + len(keys)] & (keys % np.uint64(n_parts) == part))
                found.append((keys[chosen], chosen + at))
                at += len(keys)
        return np.concatenate([k for k, _ in found]), np.concatenate([d for _, d in found])

    def _compare(self, clusters: Clusters, documents: np.ndarray, sizes: np.ndarray) -> None:
        """Join what is similar in some buckets."""
        ends = np.cumsum(sizes)
        starts = ends - sizes
        roots = clusters.roots(documents)
        is_other = roots != np.repeat(roots[starts], sizes)
        # Most buckets hold what an earlier band has joined already.
        for i in np.unique(np.searchsorted(ends, np.flatnonzero(is_other), side="right")):
            groups: list[list[int]] = []
            for document in documents[starts[i] : ends[i]].tolist():
                groups = self._joined(clusters, groups, document)

    def _joined(self, clusters: Clusters, groups: list[list[int]], document: int) -> list[list[int]]:
        """Groups of a bucket after one more document, which may bring some of them together."""
        own, others = [document], []
        for group in groups:
            if clusters.root(group[0]) == clusters.root(document) or any(
                self._similarity(each, document, self._threshold) >= self._threshold for each in group
            ):
                clusters.join(group[0], document)
                group.extend(own)
                own = group
            else:
                others.append(group)
        return [*others, own]

    def _write_sets(self, path: Path, is_chosen: np.ndarray, workers: Workers, progress: Progress) -> ShingleSets:
        """Read the corpus again, for the shingles of some documents."""
        sizes = []
        progress.stage("reading documents again", int(is_chosen.sum()), "documents")
        with write_beside(path) as out:
            for i, file in enumerate(self._files):
                lines = file.column("lines")[is_chosen[self.of_file(i)]]
                items = ((file, (some, is_lines(file.path))) for some in chosen_lines(file.path, lines))
                for _, sets in workers.each("sets", items):
                    for each in sets:
                        write_all(out, each.astype("<u8").tobytes())
                        sizes.append(each.size)
                    progress.advance(file.path.name, len(sets))
        return ShingleSets(path, np.flatnonzero(is_chosen), np.array(sizes, np.int64))
