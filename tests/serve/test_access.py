"""Who gets in: a key on every route but two, hosts by name, loopback alone without a key; and what the command says."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from patience import HANGS_S
from serve.running import MODEL, RunningServer, running, two_models


@pytest.fixture(scope="module")
def key_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("key") / "the key.txt"


@pytest.fixture(scope="module")
def locked(key_file: Path) -> Iterator[RunningServer]:
    with running(two_models()[0], "--api-key-file", key_file, "--allowed-host", "models.example.org") as started:
        yield started


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def test_a_key_is_made_that_only_the_user_can_read_and_is_never_said(locked: RunningServer, key_file: Path):
    key = key_file.read_text().strip()
    assert len(key) >= 40
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert not any(key in line for line in locked.said)
    assert str(key_file) in locked.said[1]
    with open(f"/proc/{locked.process.pid}/cmdline", "rb") as line:
        assert key.encode() not in line.read()


@pytest.mark.parametrize("is_locked", [True, False])
def test_the_third_line_is_a_command_that_works(locked: RunningServer, server: RunningServer, is_locked: bool):
    line = (locked if is_locked else server).said[2]
    assert shlex.split(line)[0] == "curl"
    done = subprocess.run(
        ["bash", "-c", f"{line} --silent --noproxy '*'"], capture_output=True, text=True, timeout=HANGS_S, check=True
    )
    assert '"text_completion"' in done.stdout


def test_every_route_but_two_needs_the_key(locked: RunningServer, key_file: Path):
    key = key_file.read_text().strip()
    routes = locked.http.get("/openapi.json", headers=bearer(key)).json()["paths"]
    asked = [(path, method) for path, methods in routes.items() for method in methods]
    asked += [("/openapi.json", "get"), ("/nothing", "get"), ("/", "get"), ("/health", "get")]
    wrong = [key[:-1], key + "x", key.upper(), "x" * 10_000, "\xff\xfe", f"{key} {key}"]
    for path, method in asked:
        without = locked.http.request(method, path)
        is_public = path in ("/", "/health")
        assert (path, without.status_code == 401) == (path, not is_public)
        assert is_public or without.json()["error"]["code"] == "wrong_key"
        assert is_public or without.headers["www-authenticate"] == "Bearer"
        for each in wrong:
            headers = {"authorization": f"Bearer {each}".encode("latin-1")}
            assert (locked.http.request(method, path, headers=headers).status_code == 401) is not is_public
        assert locked.http.request(method, path, headers=bearer(key)).status_code != 401
    twice = [("authorization", f"Bearer {key}"), ("authorization", "Bearer x")]
    assert locked.http.get("/v1/models", headers=twice).status_code == 401
    assert locked.http.get(f"/v1/models?api_key={key}").status_code == 401


def test_hosts_are_known_names(server: RunningServer, locked: RunningServer):
    def status(asked: RunningServer, host: str) -> int:
        return asked.http.get("/health", headers={"host": host}).status_code

    for host in ("localhost", "127.0.0.1", "LOCALHOST:1234", f"127.0.0.1:{server.port}", "[::1]:80"):
        assert (host, status(server, host)) == (host, 200)
    for host in (
        "evil.example.org",
        "",
        "localhost.evil.org",
        "127.0.0.1.evil.org:80",
        "localhost:x",
        "models.example.org",
    ):
        assert (host, status(server, host)) == (host, 403)
    assert status(locked, "models.example.org:443") == 200


def test_other_origins_get_no_leave(server: RunningServer):
    headers = {"origin": "http://evil.example.org", "access-control-request-method": "POST"}
    for response in (
        server.http.get("/v1/models", headers=headers),
        server.http.options("/v1/completions", headers=headers),
    ):
        assert not [name for name in response.headers if name.startswith("access-control")]


def test_another_host_needs_a_key(pythia):
    for host in ("0.0.0.0", "::"):
        code, out, err = pythia("serve", two_models()[0], "--host", host, "--port", "0", "--check")
        assert (code, out) == (2, "")
        assert "--host" in err and "--api-key-file" in err


def test_a_port_that_is_taken_is_one_line(pythia, server: RunningServer):
    code, out, err = pythia("serve", two_models()[0], "--port", server.port)
    assert (code, out) == (74, "")
    assert "Choose another --port" in err
    assert "Traceback" not in err


@pytest.mark.parametrize("content", ["", "two words\n", "\N{SNOWMAN}", "a\nb\n"])
def test_a_file_that_holds_no_key_is_refused(pythia, tmp_path: Path, content: str):
    path = tmp_path / "key"
    path.write_text(content, "utf-8")
    code, _, err = pythia("serve", two_models()[0], "--api-key-file", path, "--port", "0", "--check")
    assert code == 2
    assert "--api-key-file" in err


def test_check_says_the_same_and_ends(pythia, tmp_path: Path):
    code, out, err = pythia("serve", *two_models(), "--api-key-file", tmp_path / "k", "--port", "0", "--check")
    assert (code, len(out.splitlines())) == (0, 3), err
    assert (tmp_path / "k").is_file()


def test_models_must_have_names_of_their_own(pythia, tmp_path: Path):
    (tmp_path / "nano.Q8_0.gguf").write_bytes(two_models()[1].read_bytes())
    code, _, err = pythia("serve", two_models()[1], tmp_path / "nano.Q8_0.gguf", "--port", "0", "--check")
    assert code == 2
    assert "would both be called nano.Q8_0" in err


def test_a_run_is_served_step_by_step_and_its_page_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/opened"\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    for step in (1, 20):
        (tmp_path / "run" / f"step{step}").mkdir(parents=True)
        os.link(two_models()[0], tmp_path / "run" / f"step{step}" / "nano.Q4_K_M.gguf")
    with running(tmp_path / "run", "--open") as server:
        cards = server.http.get("/v1/models").json()["data"]
        told = [(card["id"], card["step"], card["quant"], card["is_loaded"]) for card in cards]
        assert told == [("run@step1:Q4_K_M", 1, "Q4_K_M", True), ("run@step20:Q4_K_M", 20, "Q4_K_M", False)]
        assert (tmp_path / "opened").read_text() == f"{server.url}\n"
        assert server.complete("a", model="run@step20:Q4_K_M", max_tokens=1)["model"] == "run@step20:Q4_K_M"
    assert MODEL not in [card["id"] for card in cards]
