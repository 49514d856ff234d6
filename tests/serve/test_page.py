"""The page's files: whole, strict, and with nothing from elsewhere. tests/browser/ clicks through them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from pythia_gguf.serve.page_files import PAGE
from serve.running import RunningServer

FILES = sorted(PAGE.iterdir())


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_each_file_comes_without_a_key_and_under_a_strict_policy(server: RunningServer, path: Path):
    """No script but the server's own runs, no style, no form and no frame of others; types are the browser's."""
    answer = server.http.get("/" if path.name == "index.html" else f"/page/{path.name}")
    assert (answer.status_code, answer.content) == (200, path.read_bytes())
    policy = {rule.split()[0]: rule.split()[1:] for rule in answer.headers["content-security-policy"].split("; ")}
    assert policy["default-src"] == ["'self'"]
    assert all(policy[name] == ["'none'"] for name in ("object-src", "base-uri", "form-action", "frame-ancestors"))
    assert answer.headers["x-content-type-options"] == "nosniff"
    kinds = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].split(";")[0] == kinds[path.suffix]


@pytest.mark.parametrize("name", ["none.js", "%2e%2e", "%2e%2e%2fpage_files.py", ""])
def test_no_other_file_comes(server: RunningServer, name: str):
    assert server.http.get(f"/page/{name}").status_code == 404


def test_files_name_each_other_and_no_other_place():
    """Each file is one that the index or a script loads, and no address leads elsewhere."""
    loaded = {"index.html"}
    for path in FILES:
        text = path.read_text("utf-8")
        loaded |= set(re.findall(r'(?:src|href)="page/([\w.]+)"', text)) | set(re.findall(r'from "\./([\w.]+)"', text))
        assert set(re.findall(r"https?://[^\s\"']+", text)) <= {"http://www.w3.org/2000/svg"}, path.name
    assert loaded == {path.name for path in FILES}


@pytest.mark.parametrize("path", [p for p in FILES if p.suffix in (".js", ".css", ".html")], ids=lambda path: path.name)
def test_sources_keep_to_the_rules(path: Path):
    """Text of a model never becomes markup, nothing is stored, no style and no script is inline; files stay short."""
    text = path.read_text("utf-8")
    banned = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function|(?:local|session)Storage"
    assert re.findall(banned + r"|document\.cookie|indexedDB", text) == []
    if path.suffix == ".html":
        assert re.findall(r"\sstyle=|\son\w+=|<style|<script(?![^>]*\ssrc=)", text) == []
    lines = text.splitlines()
    assert len(lines) <= 400
    assert max(map(len, lines)) <= 120
    assert text.isascii()
