"""Where documents come from, as `pythia data tokenize` keeps it beside PREFIX.bin."""

from __future__ import annotations

import os

from pythia_gguf.data.array_file import ArrayFile
from pythia_gguf.data.tokenizing import corpus_path, sources_path
from pythia_gguf.errors import ModelFileError
from pythia_gguf.json_file import read_json_object

_SHAPE = {"sources": [{"name": str}]}


class Sources:
    """The source of each document, by name; "" where that was not said.

    n_documents  whose sources are known; 0 where nothing is kept
    """

    def __init__(self, prefix: str | os.PathLike[str]) -> None:
        """Open what is there; raises StorageError, ModelFileError."""
        self.n_documents = 0
        self._array = None
        if sources_path(prefix).is_file() and corpus_path(prefix).is_file():
            told = read_json_object(corpus_path(prefix), _SHAPE, what="an account of a corpus")
            self._names = [entry["name"] for entry in told["sources"]]
            self._array = ArrayFile(sources_path(prefix), ("<u2",), 1)
            self.n_documents = len(self._array)

    def of(self, document: int) -> str | None:
        """The name of a document's source; None where nothing is kept. Raises ModelFileError."""
        if self._array is None:
            return None
        if document >= self.n_documents or (i := self._array.read_one(document)) >= len(self._names):
            raise ModelFileError(f"no source of document {document}: damaged", path=self._array.path)
        return self._names[i]

    def close(self) -> None:
        """No more reads; a second call does nothing."""
        if self._array is not None:
            self._array.close()
