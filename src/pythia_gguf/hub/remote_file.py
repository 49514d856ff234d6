"""A file on the Hub, read piece by piece with range requests; missing bytes are requested again.

Pieces are blocks of a few MB that several readers share; blocks that are likely to be next come while others are read.
"""

from __future__ import annotations

import contextlib
import threading
from collections import OrderedDict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from pythia_gguf.errors import Argument, ModelFileError, NetworkError
from pythia_gguf.files import ReadableFile
from pythia_gguf.hub.client import Hub, HubFile, Revision, errors_as_one_line

BLOCK_BYTES = 4 << 20
# 64 MB: a fused QKV matrix is read in three passes, and all but the largest fit.
_KEPT_BLOCKS = 16
_AHEAD = 2
_CONNECTIONS = 4
# How many answers in a row may bring nothing.
_MOST_FAILURES = 5


class RemoteFile(ReadableFile):
    """A file of a commit on the Hub; its path is the place of a copy that does not exist."""

    def __init__(self, hub: Hub, revision: Revision, file: HubFile, path: Path) -> None:
        """For one file of a commit; nothing is asked yet."""
        from huggingface_hub import hf_hub_url

        self.path, self.size = path, file.n_bytes
        self._repo_id, self._commit = revision.repo_id, revision.commit
        self._url = hf_hub_url(
            revision.repo_id, file.path, repo_type=revision.kind, revision=revision.commit, endpoint=hub.endpoint
        )
        self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="hub")
        self._blocks: OrderedDict[int, Future[bytearray]] = OrderedDict()
        self._lock = threading.Lock()

    def read_into(self, offset: int, buffer: bytearray | memoryview) -> None:
        """Fill `buffer` from `offset`; raises ModelFileError when the file ends before, NetworkError."""
        view = memoryview(buffer).cast("B")
        if len(view) > self.size - offset:
            raise ModelFileError("file is cut short", path=self.path, offset=offset)
        done = 0
        while done < len(view):
            index, start = divmod(offset + done, BLOCK_BYTES)
            block = self._block(index).result()
            n = min(len(view) - done, len(block) - start)
            view[done : done + n] = block[start : start + n]
            done += n

    def fetch(self, offset: int, n_bytes: int) -> bytearray:
        """These bytes and no others, in a request of their own; the caller has checked that the file has them."""
        out = bytearray(n_bytes)
        done = failures = 0
        while done < n_bytes:
            n = self._receive(offset + done, memoryview(out)[done:])
            done += n
            failures = 0 if n else failures + 1
            if failures == _MOST_FAILURES:
                raise NetworkError(f"{self._repo_id}: the connection breaks again and again. Running again goes on")
        return out

    def close(self) -> None:
        """End the connections; a second call does nothing."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _block(self, index: int) -> Future[bytearray]:
        """A block; it and the next ones are requested if they are not there."""
        with self._lock:
            # 1. Weights are read front to back: request the next blocks while this one is used.
            last = (self.size - 1) // BLOCK_BYTES
            for i in range(index, min(index + _AHEAD, last) + 1):
                if i not in self._blocks:
                    self._blocks[i] = self._pool.submit(self._fetch_block, i)
            # 2. Other readers may still want blocks that were used last, so the oldest go first.
            self._blocks.move_to_end(index)
            block = self._blocks[index]
            while len(self._blocks) > _KEPT_BLOCKS:
                self._blocks.popitem(last=False)
            return block

    def _fetch_block(self, index: int) -> bytearray:
        start = index * BLOCK_BYTES
        return self.fetch(start, min(BLOCK_BYTES, self.size - start))

    def _receive(self, offset: int, view: memoryview) -> int:
        """The bytes that came before the answer ended or broke off."""
        from huggingface_hub.errors import HfHubHTTPError, HTTPError
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status, http_stream_backoff

        headers = build_hf_headers(library_name="pythia-gguf") | {
            "Range": f"bytes={offset}-{offset + len(view) - 1}",
            "Accept-Encoding": "identity",
        }
        n = 0
        with errors_as_one_line(self._repo_id, self._commit), contextlib.ExitStack() as stack:
            answer = stack.enter_context(http_stream_backoff("GET", self._url, headers=headers))
            hf_raise_for_status(answer)
            if answer.headers.get("Content-Range", "").partition("/")[0] != headers["Range"].replace("=", " "):
                raise NetworkError(
                    f"{self._repo_id}: the server does not give parts of files",
                    (". Use ", Argument("keep_source", True)),
                )
            try:
                for chunk in answer.iter_raw():
                    if n + len(chunk) > len(view):
                        raise NetworkError(f"{self._repo_id}: the server sent more than was asked for")
                    view[n : n + len(chunk)] = chunk
                    n += len(chunk)
            except HfHubHTTPError:
                raise
            except HTTPError:
                pass  # broken off: the caller asks for the rest
        return n
