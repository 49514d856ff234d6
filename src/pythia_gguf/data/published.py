"""The tokens that Pythia was trained on, as EleutherAI published them: rows in the order of training, on the Hub.

Row i is the 4,098 bytes from byte 4098 i of 21 files, taken as one; a row may lie in two of them. Nothing is fetched
but the rows that are asked for.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from pythia_gguf.errors import NetworkError
from pythia_gguf.hub.client import Hub
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import fetch
from pythia_gguf.hub.remote_file import RemoteFile

REPOSITORY_OF = {
    "pile": "EleutherAI/pile-standard-pythia-preshuffled",
    "pile-deduped": "EleutherAI/pile-deduped-pythia-preshuffled",
}
ROW_TOKENS = 2049
ROW_BYTES = 2 * ROW_TOKENS
# The last number stands in all names: "document-00000-of-00020.bin" is the first of 21.
_SHARD = re.compile(r"document-(\d{5})-of-(\d{5})\.bin")
# All models of the suite have the same tokenizer; this repository is the smallest.
_TOKENIZER_OF = "pythia-14m"


class PublishedRows:
    """Rows on the Hub.

    n_rows      that there are
    first_row   0
    row_tokens  2,049
    repo_id, commit  where they are
    """

    first_row = 0
    row_tokens = ROW_TOKENS

    def __init__(self, name: str, endpoint: str | None = None) -> None:
        """For a name of `REPOSITORY_OF`; asks the Hub for the sizes of the files.

        Raises NetworkError, also where files are missing.
        """
        hub = Hub(endpoint)
        revision = hub.revision(REPOSITORY_OF[name], "main", "dataset")
        self.repo_id, self.commit = revision.repo_id, revision.commit
        matches = sorted((m for m in map(_SHARD.fullmatch, revision.files) if m), key=lambda m: m[0])
        numbers = [int(match[1]) for match in matches]
        if not matches or numbers != list(range(int(matches[0][2]) + 1)):
            raise NetworkError(f"{self.repo_id}: expected files document-NNNNN-of-NNNNN.bin from 0 on, got {numbers}")
        files = [revision.files[match[0]] for match in matches]
        self._shards = [RemoteFile(hub, revision, file, Path(name) / file.path) for file in files]
        n_bytes = sum(shard.size for shard in self._shards)
        if n_bytes % ROW_BYTES:
            raise NetworkError(f"{self.repo_id}: {n_bytes} bytes are no whole number of rows of {ROW_BYTES} bytes")
        self.n_rows = n_bytes // ROW_BYTES

    def close(self) -> None:
        """End the connections; a second call does nothing."""
        for shard in self._shards:
            shard.close()

    def read_rows(self, first: int, n: int) -> np.ndarray:
        """Some rows, u16 [n, 2049]; one request for each file that they lie in. Raises NetworkError."""
        if not 0 <= first <= first + n <= self.n_rows:
            raise IndexError(f"rows {first}..{first + n} of {self.n_rows}")
        out = bytearray()
        start, stop, at = first * ROW_BYTES, (first + n) * ROW_BYTES, 0
        for shard in self._shards:
            begin, end = max(start, at), min(stop, at + shard.size)
            if begin < end:
                out += shard.fetch(begin - at, end - begin)
            at += shard.size
        return np.frombuffer(out, "<u2").reshape(n, ROW_TOKENS)


def published_tokenizer(endpoint: str | None = None) -> Path:
    """The tokenizer.json of these tokens, fetched into the cache of huggingface_hub; raises NetworkError."""
    name, hub = parse_model_name(_TOKENIZER_OF, endpoint), Hub(endpoint)
    return fetch(name, hub.revision(name.repo_id, name.revision), ["tokenizer.json"], hub) / "tokenizer.json"
