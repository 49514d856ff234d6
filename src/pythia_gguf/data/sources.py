"""Where documents come from, as `pythia data tokenize` keeps it beside PREFIX.bin."""

from __future__ import annotations

import os

import numpy as np

from pythia_gguf.data.array_file import ArrayFile
from pythia_gguf.data.tokenizing import corpus_path, sources_path
from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import read_json_object

_SHAPE = {"sources": [{"name": str}]}


class Sources:
    """The source of each document, by name; "" where that was not said.

    n_documents  whose sources are known; 0 where nothing is kept
    names        of sources
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Open what is there; raises StorageError, ModelFileError."""
        self.n_documents, self.names = 0, list[str]()
        self._array = None
        if sources_path(prefix).is_file() and corpus_path(prefix).is_file():
            told = read_json_object(corpus_path(prefix), _SHAPE, what="an account of a corpus")
            self.names = [entry["name"] for entry in told["sources"]]
            self._array = ArrayFile(sources_path(prefix), ("<u2",), 1)
            self.n_documents = len(self._array)

    def of(self, document: int) -> str | None:
        """The name of a document's source; None where nothing is kept. Raises ModelFileError."""
        if self._array is None:
            return None
        if document >= self.n_documents or (i := self._array.read_one(document)) >= len(self.names):
            raise ModelFileError(f"no source of document {document}: damaged", path=self._array.path)
        return self.names[i]

    def read(self, start: int, stop: int) -> np.ndarray:
        """For some documents the places of their sources in `names`; raises ModelFileError."""
        assert self._array is not None
        if stop > self.n_documents:
            raise ModelFileError(f"no source of document {self.n_documents}: damaged", path=self._array.path)
        places = self._array.read(start, stop)
        if (bad := np.flatnonzero(places >= len(self.names))).size:
            message = f"document {start + bad[0]} is of source {places[bad[0]]}, and there are {len(self.names)}"
            raise ModelFileError(message, path=self._array.path)
        return places

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        if self._array is not None:
            self._array.close()
