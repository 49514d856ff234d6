"""The Hub, spoken to through huggingface_hub: what a repository holds, and what goes wrong as one line.

No message repeats at length what the library or a server said, because that may quote a token.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pythia_gguf.errors import NetworkError, PythiaGGUFError, StorageError, UsageError, one_line
from pythia_gguf.files import storage_error

if TYPE_CHECKING:
    from huggingface_hub import HfApi


class UnreachableError(NetworkError):
    """The Hub did not answer usefully; callers may fall back to what is on this machine."""


class NoRepositoryError(NetworkError):
    """There is no repository of that name, or others alone may see it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubFile:
    """A file of a revision, as the Hub lists it.

    sha256   of its content where it is in LFS, else None
    blob_id  SHA-1 by which git names its content; for an LFS file that of the pointer
    """

    path: str
    n_bytes: int
    sha256: str | None
    blob_id: str


def git_digest(n_bytes: int) -> hashlib._Hash:
    """Begin the hash by which git names a content of so many bytes; `update` it with the content."""
    return hashlib.sha1(b"blob %d\0" % n_bytes, usedforsecurity=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revision:
    """What a branch or commit held when it was asked for.

    commit  that the branch led to
    files   by path
    kind    "model" or "dataset": the Hub keeps their repositories apart
    """

    repo_id: str
    commit: str
    files: dict[str, HubFile]
    kind: str = "model"


class Hub:
    """A hub: huggingface.co, or where HF_ENDPOINT or `endpoint` says."""

    def __init__(self, endpoint: str | None = None) -> None:
        """Nothing is asked yet."""
        from huggingface_hub import HfApi, constants

        self.endpoint: str = (endpoint or constants.ENDPOINT).rstrip("/")
        self.api: HfApi = HfApi(endpoint=self.endpoint, library_name="pythia-gguf")

    def revision(self, repo_id: str, revision: str, kind: str = "model") -> Revision:
        """Its files; raises UsageError where there is no such revision, NetworkError."""
        return self.commit(repo_id, self.commit_of(repo_id, revision, kind), kind)

    def commit_of(self, repo_id: str, revision: str, kind: str = "model") -> str:
        """The commit that a branch, tag or commit leads to now; raises as `revision`."""
        from huggingface_hub import constants

        with errors_as_one_line(repo_id, revision):
            # With a time limit, because a broken network may swallow all packets.
            timeout = constants.HF_HUB_ETAG_TIMEOUT
            return str(self.api.repo_info(repo_id, revision=revision, repo_type=kind, timeout=timeout).sha)

    def commit(self, repo_id: str, commit: str, kind: str = "model") -> Revision:
        """The files of a commit."""
        from huggingface_hub.hf_api import RepoFile

        with errors_as_one_line(repo_id, commit):
            entries = list(self.api.list_repo_tree(repo_id, revision=commit, recursive=True, repo_type=kind))
        files = {
            e.path: HubFile(path=e.path, n_bytes=e.size, sha256=e.lfs.sha256 if e.lfs else None, blob_id=e.blob_id)
            for e in entries
            if isinstance(e, RepoFile)
        }
        return Revision(repo_id=repo_id, commit=commit, files=files, kind=kind)

    @property
    def is_offline(self) -> bool:
        """Whether HF_HUB_OFFLINE forbids any request."""
        from huggingface_hub import constants

        return bool(constants.HF_HUB_OFFLINE)

    def has_token(self) -> bool:
        """Whether requests carry a token; raises StorageError where it cannot be read."""
        from huggingface_hub import get_token

        try:
            return get_token() is not None
        except OSError as e:
            raise StorageError(f"the token cannot be read: {one_line(str(e))}. Set HF_HOME to a folder of yours") from e

    def answer_s(self, timeout_s: float) -> float:
        """Seconds until it answers a small request without a token, even if it refuses; raises UnreachableError."""
        started = time.perf_counter()
        try:
            with errors_as_one_line("EleutherAI/pythia-14m"):
                self.api.model_info("EleutherAI/pythia-14m", timeout=timeout_s, token=False)
        except (NetworkError, UsageError) as e:
            if isinstance(e, UnreachableError):
                raise
        return time.perf_counter() - started

    def is_public(self, repo_id: str) -> bool:
        """Whether there is a repository of that name that anybody may see."""
        try:
            with errors_as_one_line(repo_id):
                return self.api.model_info(repo_id).private is False
        except NoRepositoryError:
            return False

    def refused_in_card(self, readme: str) -> list[str]:
        """What the Hub would refuse in the front matter of a README.md, in its own words; raises NetworkError."""
        from huggingface_hub import get_session
        from huggingface_hub.utils import build_hf_headers, hf_raise_for_status

        headers = build_hf_headers(library_name="pythia-gguf")
        body = {"content": readme, "repoType": "model"}
        with errors_as_one_line("a model card"):
            answer = get_session().post(f"{self.endpoint}/api/validate-yaml", json=body, headers=headers)
            if answer.status_code == 400 and (errors := answer.json().get("errors")):
                return [one_line(str(error.get("message")), _MOST_CHARS) for error in errors]
            hf_raise_for_status(answer)
        return []

    def commit_files(
        self,
        repo_id: str,
        branch: str,
        *,
        add: Mapping[str, Path],
        delete: Iterable[str],
        parent: str | None,
        message: str,
    ) -> None:
        """Put files onto a branch, by their paths in the repository, and delete others, all in one commit.

        parent   the commit that the branch must lead to, else nothing changes; None: any
        Raises   NetworkError, StorageError
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(path_in_repo=path) for path in delete),
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=str(file)) for path, file in add.items()),
        ]
        with errors_as_one_line(repo_id, branch):
            self.api.create_commit(repo_id, operations, commit_message=message, revision=branch, parent_commit=parent)

    def branches(self, repo_id: str) -> dict[str, str]:
        """The commit that each branch leads to."""
        with errors_as_one_line(repo_id):
            return {b.name: b.target_commit for b in self.api.list_repo_refs(repo_id).branches}

    def date(self, repo_id: str, commit: str) -> datetime:
        """When a commit was made."""
        with errors_as_one_line(repo_id, commit):
            return next(iter(self.api.list_repo_commits(repo_id, revision=commit))).created_at


# Parts of what the Hub says.
_MOST_CHARS = 200
_TOKEN = re.compile(r"hf_\w+")
_STATUS = {
    401: "the Hub asks who you are (401). Run: hf auth login",
    403: "the Hub refuses (403): your token may not do this. Run: hf auth login",
    412: "somebody has changed it meanwhile (412). Look at it, and run again",
    429: "too many requests (429). Wait a little and run again",
}


@contextlib.contextmanager
def errors_as_one_line(repo_id: str, revision: str = "", path: Path | None = None) -> Iterator[None]:
    """Turn what huggingface_hub raises into an error of ours that says what to do; `path` is where we write."""
    from huggingface_hub import errors

    name = one_line(repo_id if revision in ("", "main") else f"{repo_id}@{revision}", 150)
    try:
        yield
    except PythiaGGUFError:
        raise
    except errors.GatedRepoError:
        raise NetworkError(f"{name}: gated. Accept its terms on its page, then run: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise NoRepositoryError(f"{name}: no such repository, or it is private. If it is, run: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise UsageError(f"{name}: the repository has no such branch or commit") from None
    except errors.EntryNotFoundError as e:
        if isinstance(e, errors.LocalEntryNotFoundError):
            raise UnreachableError(f"{name}: not in the cache, and the Hub cannot be reached") from None
        raise NetworkError(f"{name}: a file that was listed is gone. Run again") from None
    except errors.OfflineModeIsEnabled:
        raise UnreachableError(f"{name}: not in the cache, and HF_HUB_OFFLINE is set") from None
    except errors.HFValidationError:
        raise UsageError(f"{one_line(repo_id, 100)!r} is no name of a repository") from None
    except errors.HfHubHTTPError as e:
        raise _of_status(name, e.response.status_code, e.server_message or "") from None
    except errors.HTTPError:
        raise UnreachableError(f"{name}: cannot reach the Hub. Is there a network? Running again goes on") from None
    except RuntimeError as e:  # how huggingface_hub says that an upload failed
        if not isinstance(e.__cause__, errors.HTTPError):
            raise
        raise UnreachableError(f"{name}: an upload broke off. Running again goes on") from None
    except ValueError as e:  # how it says that the Hub refuses a card; or what came is no JSON
        raise NetworkError(f"{name}: {_said(str(e))}") from None
    except OSError as e:
        if e.errno is None:
            raise NetworkError(f"{name}: the answer of the Hub makes no sense ({type(e).__name__})") from None
        raise storage_error(Path(os.fspath(e.filename or path or "the cache")), e) from None


def _of_status(name: str, code: int, said: str) -> NetworkError:
    """The Hub's answer as an error, with its reason where it refuses and says why."""
    if code == 429 or code >= 500:
        return UnreachableError(f"{name}: {_STATUS.get(code, f'the Hub answered {code}. Running again goes on')}")
    why = f": {_said(said)}" if said else ""
    return NetworkError(f"{name}: {_STATUS.get(code) or f'the Hub refuses ({code}){why}'}")


def _said(text: str) -> str:
    """What a library or a server says, short, in one line and without a token."""
    return one_line(_TOKEN.sub("hf_...", " ".join(text.split())), _MOST_CHARS)
