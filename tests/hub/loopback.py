"""A hub on loopback that the real huggingface_hub client talks to: branches, LFS, ranges, uploads, faults on demand.

Keeps everything in memory. Routes and answers are those that huggingface_hub 2.4 asks for with Xet switched off.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hub.card_refusals import refusals

LFS = re.compile(r".*\.(safetensors|bin|gguf|pt)")
DATE = "2023-04-01T12:00:00.000Z"
# What a new repository holds.
FIRST = {".gitattributes": b"*.gguf filter=lfs diff=lfs merge=lfs -text\n"}


def blob_id(content: bytes) -> str:
    """What git names a file by."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@dataclass
class Faults:
    """What goes wrong, in answers to GET of files.

    drops    positions in a file after which the connection breaks, each once
    codes    status codes for the next requests, each once
    altered  path -> what is sent in place of its content
    no_ranges  whether Range is ignored
    elsewhere  whether files are answered with a redirect to another host, as to a CDN
    after_listing  called once, right after files were listed: what others do to a branch meanwhile
    """

    drops: set[int] = field(default_factory=set)
    codes: list[int] = field(default_factory=list)
    altered: dict[str, bytes] = field(default_factory=dict)
    no_ranges: bool = False
    elsewhere: bool = False
    after_listing: Callable[[], object] | None = None


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]


class LoopbackHub:
    """Repositories: repo id -> branch -> files; commits that were; requests as they came; faults as they are wanted."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, dict[str, bytes]]] = {}
        self.history: dict[tuple[str, str], dict[str, bytes]] = {}
        self.starts: dict[tuple[str, str], tuple[str, dict[str, bytes]]] = {}
        self.objects: dict[str, bytes] = {}
        self.gated, self.private = set[str](), set[str]()
        self.is_read_only = False
        self.faults = Faults()
        self.requests: list[Request] = []
        self.uploaded: list[str] = []
        self.commits: list[tuple[str, str, list[dict[str, object]]]] = []
        self.lock = threading.Lock()
        self.is_closed = False
        hub = self

        class Answers(_Answer):
            owner = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self.other_url = f"http://localhost:{self._server.server_port}"

    def close(self) -> None:
        """No connection is taken any more, and open ones break."""
        self.is_closed = True
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes] | Path, branch: str = "main") -> str:
        """Make a branch of these files, or of those of a folder; its commit."""
        if isinstance(files, Path):
            files = {str(p.relative_to(files)): p.read_bytes() for p in sorted(files.rglob("*")) if p.is_file()}
        self.repos.setdefault(repo_id, {})[branch] = dict(files)
        commit = self.commit(repo_id, branch)
        self.history[repo_id, commit] = dict(files)
        return commit

    def commit(self, repo_id: str, branch: str) -> str:
        """A commit is named by what it holds, and by its branch: equal branches are different commits."""
        files = self.repos[repo_id][branch]
        start = self.starts.get((repo_id, branch))
        if start is not None and start[1] == files:
            return start[0]
        listing = repr((repo_id, branch, sorted((p, sha256(c)) for p, c in files.items())))
        return hashlib.sha1(listing.encode()).hexdigest()

    def find(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        """Commit and files of a branch or commit."""
        for branch, files in self.repos[repo_id].items():
            commit = self.commit(repo_id, branch)
            if revision in (branch, commit, f"refs/heads/{branch}"):
                return commit, files
        old = self.history.get((repo_id, revision))
        return None if old is None else (revision, old)

    def held(self, repo_id: str, branch: str = "main") -> dict[str, bytes]:
        """What a branch holds that somebody has put there."""
        return {path: content for path, content in self.repos[repo_id][branch].items() if path not in FIRST}


@contextlib.contextmanager
def loopback_hub() -> Iterator[LoopbackHub]:
    """A hub while the block runs."""
    hub = LoopbackHub()
    try:
        yield hub
    finally:
        hub.close()


class _Answer(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else a body waits 40 ms until the reader has acknowledged the headers
    owner: LoopbackHub

    def log_message(self, format: str, *args: object) -> None:
        pass

    def _handle(self) -> None:
        if self.owner.is_closed:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
            return
        url = urlsplit(self.path)
        # The Hub keeps data sets apart; here one is a repository whose name begins with "datasets:".
        path = re.sub("^/api/datasets/", "/api/models/datasets:", unquote(url.path))
        self.where = re.sub("^/datasets/", "/datasets:", path)
        self.payload = self._payload() if self.command in ("POST", "PUT") else b""
        with self.owner.lock:
            self.owner.requests.append(Request(self.command, self.where, dict(self.headers)))
        for pattern, answer in _ROUTES:
            match = re.fullmatch(pattern, self.where)
            if match:
                answer(self, *match.groups())
                return
        self.send_json({"error": f"no route {self.where}"}, 404)

    do_GET = do_POST = do_PUT = do_HEAD = do_DELETE = _handle  # noqa: N815

    def _payload(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        out = b""
        while n := int(self.rfile.readline().split(b";")[0], 16):
            out += self.rfile.read(n)
            self.rfile.readline()
        self.rfile.readline()
        return out

    def send_json(self, value: object, code: int = 200, **headers: str) -> None:
        self.send_bytes(json.dumps(value).encode(), code, {"Content-Type": "application/json"} | headers)

    def send_bytes(self, content: bytes, code: int, headers: dict[str, str], upto: int | None = None) -> None:
        self.send_response(code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content if upto is None else content[:upto])
        if upto is not None:
            self.wfile.flush()
            self.close_connection = True
            self.connection.close()

    def refused(self, repo_id: str) -> bool:
        """Answer for repositories that are gated, private or not there."""
        owner = self.owner
        if repo_id in owner.gated:
            self.send_json({"error": "gated"}, 403, X_Error_Code="GatedRepo")
        elif repo_id in owner.private or repo_id not in owner.repos:
            self.send_json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        else:
            return False
        return True

    def found(self, repo_id: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        if self.refused(repo_id):
            return None
        found = self.owner.find(repo_id, revision)
        if found is None:
            self.send_json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        return found

    def info(self, repo_id: str, revision: str | None) -> None:
        if found := self.found(repo_id, revision or "main"):
            siblings = [{"rfilename": path} for path in found[1]]
            made = {"private": f"private {repo_id}" in self.owner.uploaded, "siblings": siblings, "tags": []}
            self.send_json({"id": repo_id, "modelId": repo_id, "sha": found[0]} | made)

    def refs(self, repo_id: str) -> None:
        if not self.refused(repo_id):
            names = list(self.owner.repos[repo_id])
            branches = [
                {"name": n, "ref": f"refs/heads/{n}", "targetCommit": self.owner.commit(repo_id, n)} for n in names
            ]
            self.send_json({"branches": branches, "tags": [], "converts": []})

    def commits(self, repo_id: str, revision: str) -> None:
        if found := self.found(repo_id, revision):
            self.send_json([{"id": found[0], "title": "upload", "message": "", "authors": [], "date": DATE}])

    def tree(self, repo_id: str, revision: str) -> None:
        if found := self.found(repo_id, revision):
            self.send_json([_entry(path, content) for path, content in found[1].items()])
            move, self.owner.faults.after_listing = self.owner.faults.after_listing, None
            if move is not None:
                move()

    def validate_yaml(self) -> None:
        if errors := refusals(json.loads(self.payload)["content"]):
            self.send_json({"errors": [{"message": message} for message in errors], "warnings": []}, 400)
        else:
            self.send_json({"errors": [], "warnings": []})

    def create(self) -> None:
        wanted = json.loads(self.payload)
        repo_id = f"{wanted.get('organization') or 'me'}/{wanted['name']}"
        try:
            validate_repo_id(repo_id)
        except HFValidationError as e:
            self.send_json({"error": str(e)}, 400)
            return
        if self.owner.is_read_only:
            self.send_json({"error": "You don't have the rights to create a model under this namespace"}, 403)
            return
        if repo_id in self.owner.repos:
            self.send_json({"error": "exists", "url": f"{self.owner.url}/{repo_id}"}, 409)
            return
        self.owner.add(repo_id, FIRST)
        if wanted.get("private") or wanted.get("visibility") == "private":
            self.owner.uploaded.append(f"private {repo_id}")
        self.send_json({"url": f"{self.owner.url}/{repo_id}", "name": repo_id, "id": repo_id})

    def create_branch(self, repo_id: str, branch: str) -> None:
        if not self.refused(repo_id):
            start = json.loads(self.payload or b"{}").get("startingPoint") or "main"
            branches = self.owner.repos[repo_id]
            if branch in branches:
                self.send_json({"error": "exists"}, 409)
                return
            found = self.found(repo_id, start)
            if found is not None:  # it leads to the same commit
                branches[branch], self.owner.starts[repo_id, branch] = dict(found[1]), (found[0], dict(found[1]))
                self.send_json({})

    def preupload(self, repo_id: str, revision: str) -> None:
        files = json.loads(self.payload)["files"]
        same = {"shouldIgnore": False, "oid": None}
        modes = [{"path": f["path"], "uploadMode": "lfs" if LFS.fullmatch(f["path"]) else "regular"} for f in files]
        self.send_json({"files": [mode | same for mode in modes]})

    def lfs_batch(self, repo_id: str) -> None:
        objects = []
        for o in json.loads(self.payload)["objects"]:
            entry = {"oid": o["oid"], "size": o["size"], "authenticated": True}
            if o["oid"] not in self.owner.objects:
                upload = {"href": f"{self.owner.url}/_lfs/{o['oid']}", "header": {}}
                verify = {"href": f"{self.owner.url}/_verify", "header": {}}
                entry["actions"] = {"upload": upload, "verify": verify}
            objects.append(entry)
        self.send_json({"transfer": "basic", "objects": objects})

    def lfs_upload(self, oid: str) -> None:
        if self.owner.faults.codes:
            self.send_json({"error": "fault"}, self.owner.faults.codes.pop(0))
            return
        self.owner.objects[oid] = self.owner.faults.altered.get(oid, self.payload)
        self.owner.uploaded.append(oid)
        self.send_json({})

    def make_commit(self, repo_id: str, revision: str) -> None:
        if self.refused(repo_id):
            return
        items = [json.loads(line) for line in filter(bytes.strip, self.payload.splitlines())]
        if revision not in self.owner.repos[repo_id]:
            self.send_json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
            return
        files = dict(self.owner.repos[repo_id][revision])
        for item in items:
            value = item["value"]
            if item["key"] == "header":
                parent = value.get("parentCommit")
                if parent and parent != self.owner.commit(repo_id, revision):
                    self.send_json({"error": "A commit has happened since. Please refresh and try again."}, 412)
                    return
            elif item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                if value["oid"] not in self.owner.objects:
                    self.send_json({"error": f"LFS pointer pointed to a file that does not exist: {value}"}, 400)
                    return
                files[value["path"]] = self.owner.objects[value["oid"]]
            elif item["key"] == "deletedFile":
                if value["path"] not in files:
                    self.send_json({"error": "A file with this name doesn't exist"}, 404, X_Error_Code="EntryNotFound")
                    return
                files.pop(value["path"])
        if errors := refusals(files.get("README.md", b"").decode("utf-8", "replace")):
            self.send_json({"error": "Invalid metadata in README.md: " + errors[0]}, 400)
            return
        commit = self.owner.add(repo_id, files, revision)
        self.owner.commits.append((repo_id, revision, items))
        self.send_json({"success": True, "commitOid": commit, "commitUrl": f"{self.owner.url}/{repo_id}/commit/x"})

    def resolve(self, repo_id: str, revision: str, path: str) -> None:
        found = self.found(repo_id, revision)
        if not found:
            return
        commit, files = found
        faults = self.owner.faults
        if path not in files:
            self.send_json({"error": "Entry not found"}, 404, X_Error_Code="EntryNotFound", X_Repo_Commit=commit)
            return
        content = files[path]
        etag = sha256(content) if LFS.fullmatch(path) else blob_id(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if self.command == "GET" and faults.codes:
            self.send_json({"error": "fault"}, faults.codes.pop(0))
            return
        if faults.elsewhere and not self.headers["Host"].startswith("localhost"):
            size = {"X-Linked-Size": str(len(content)), "X-Linked-Etag": f'"{etag}"'}
            self.send_bytes(b"", 302, headers | size | {"Location": f"{self.owner.other_url}{self.path}"})
            return
        self.send_content(faults.altered.get(path, content), headers)

    def send_content(self, content: bytes, headers: dict[str, str]) -> None:
        faults, wanted = self.owner.faults, re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, code, part = 0, 200, content
        if wanted and not faults.no_ranges:
            start = int(wanted[1])
            end = min(int(wanted[2] or len(content)), len(content) - 1)
            part, code = content[start : end + 1], 206
            headers = headers | {"Content-Range": f"bytes {start}-{end}/{len(content)}"}
        upto = None
        if self.command == "GET":
            with self.owner.lock:
                here = sorted(d for d in faults.drops if start <= d < start + len(part))
                if here:
                    faults.drops.remove(here[0])
                    upto = here[0] - start
        self.send_bytes(part, code, headers | {"Content-Type": "application/octet-stream"}, upto)


def _entry(path: str, content: bytes) -> dict[str, object]:
    entry: dict[str, object] = {"type": "file", "path": path, "size": len(content), "oid": blob_id(content)}
    if LFS.fullmatch(path):
        entry["lfs"] = {"oid": sha256(content), "size": len(content), "pointerSize": 134}
    return entry


_REPO = r"([^/]+/[^/]+)"
_ROUTES: list[tuple[str, Callable[..., None]]] = [
    (r"/api/repos/create", _Answer.create),
    (r"/api/validate-yaml", _Answer.validate_yaml),
    (rf"/api/models/{_REPO}/preupload/(.+)", _Answer.preupload),
    (rf"/{_REPO}\.git/info/lfs/objects/batch", _Answer.lfs_batch),
    (r"/_lfs/(\w+)", _Answer.lfs_upload),
    (r"/_verify", lambda h: h.send_json({})),
    (rf"/api/models/{_REPO}/commit/(.+)", _Answer.make_commit),
    (rf"/api/models/{_REPO}/branch/(.+)", _Answer.create_branch),
    (rf"/api/models/{_REPO}/refs", _Answer.refs),
    (rf"/api/models/{_REPO}/commits/(.+)", _Answer.commits),
    (rf"/api/models/{_REPO}/tree/([^/]+)(?:/.*)?", _Answer.tree),
    (rf"/api/models/{_REPO}(?:/revision/(.+))?", _Answer.info),
    (rf"/{_REPO}/resolve/([^/]+)/(.+)", _Answer.resolve),
]
