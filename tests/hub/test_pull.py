"""Models fetched from a hub on loopback by the real client: which files, which hashes, and every fault as one line."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from huggingface_hub import constants

from conftest import TOKEN
from hub.loopback import LoopbackHub
from press.tiny import BINS, folder_files, sharded, sharded_bins
from pythia_gguf import quantize
from pythia_gguf.errors import ModelFileError, NetworkError, PythiaGGUFError, StorageError, UsageError
from pythia_gguf.hub.client import Hub, errors_as_one_line
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import kept_snapshot, pull

REPO = "EleutherAI/pythia-70m-deduped"
OTHERS = {
    "pytorch_model.bin": b"not wanted where there is safetensors",
    "optimizer.pt": b"never",
    "../outside.json": b"never",
    "sub/config.json": b"never",
    "LICENSE": b"Apache-2.0",
}


def names_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_only_the_files_of_the_model_come(hub: LoopbackHub, tmp_path: Path):
    files = folder_files()
    commit = hub.add(REPO, {**OTHERS, **files}, branch="step3000")
    folder = pull(parse_model_name("pythia-70m-deduped@step3000"))
    assert folder.name == commit
    assert names_in(folder) == {*files, "LICENSE"}
    assert not list(tmp_path.rglob("outside.json")) + list(tmp_path.rglob("optimizer.pt"))
    assert {n: (folder / n).read_bytes() for n in files} == files
    # Nothing but the listing is asked for again.
    before = [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path]
    assert pull(parse_model_name("pythia-70m-deduped@step3000")) == folder
    assert [r for r in hub.requests if r.method == "GET" and "/resolve/" in r.path] == before


@pytest.mark.parametrize("split", [sharded, sharded_bins])
def test_shards_come_with_their_index(split, hub: LoopbackHub):
    files = split(folder_files())
    hub.add("me/x", files | {"model-00009-of-00002.safetensors.tmp": b"never"})
    assert names_in(pull(parse_model_name("me/x"))) == set(files)


def test_transformers_finds_what_was_fetched(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoConfig

    hub.add(REPO, folder_files(), branch="step3000")
    pull(parse_model_name(f"{REPO}@step3000"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    config = AutoConfig.from_pretrained(REPO, revision="step3000", cache_dir=constants.HF_HUB_CACHE)
    assert config.model_type == "gpt_neox"


def test_without_a_network_what_is_there_is_used(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    hub.add("me/x", folder_files())
    folder = pull(parse_model_name("me/x"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(parse_model_name("me/x")) == folder
    with pytest.raises(NetworkError, match="me/y: not in the cache"):
        pull(parse_model_name("me/y"))


def test_texts_alone_are_no_model(hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After weights were streamed only texts are here, and of shards their index; or a shard was deleted."""
    for name, files in (("me/one", folder_files(width=32)), ("me/shards", sharded(folder_files(width=32)))):
        hub.add(name, files)
        quantize(name, tmp_path / name, quants="Q8_0")
    hub.add("me/bins", sharded_bins(folder_files(width=32)))
    (pull(parse_model_name("me/bins")) / BINS[1]).unlink()
    hub.close()
    for is_offline in (False, True):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", is_offline)
        for name in ("me/one", "me/shards", "me/bins"):
            with pytest.raises(NetworkError, match=rf"^{name}: its weights are not in the cache.*`pythia pull {name}`"):
                pull(parse_model_name(name))
            with pytest.raises(NetworkError, match="its weights are not in the cache"):
                quantize(name, tmp_path / "out", quants="Q8_0")


def test_a_branch_that_moves_while_it_is_fetched_changes_nothing(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    old, new = folder_files(), folder_files(width=32)
    commit = hub.add("me/x", old, branch="step3000")
    hub.faults.after_listing = lambda: hub.add("me/x", new, branch="step3000")
    name = parse_model_name("me/x@step3000")
    folder = pull(name)
    assert folder.name == commit
    assert {n: (folder / n).read_bytes() for n in old} == old
    # Without a network, the branch is what it was then, as for transformers.
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert pull(name) == folder
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    folder = pull(name)
    assert {n: (folder / n).read_bytes() for n in new} == new
    assert kept_snapshot(name) == folder


def test_a_wrong_hash_is_refused_deleted_and_fetched_again(hub: LoopbackHub):
    files = folder_files()
    for i, name in enumerate(("model.safetensors", "config.json")):
        hub.add(f"me/x{i}", files)
        hub.faults.altered = {name: files[name][:-1] + bytes([files[name][-1] ^ 1])}
        with pytest.raises(ModelFileError, match=f"{name}.*hash differs"):
            pull(parse_model_name(f"me/x{i}"))
        hub.faults.altered = {}
        folder = pull(parse_model_name(f"me/x{i}"))
        assert {n: (folder / n).read_bytes() for n in files} == files


def test_faults_are_one_line_with_an_exit_code(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    hub.add("me/x", folder_files())
    hub.add("me/gated", folder_files())
    hub.gated.add("me/gated")
    hub.add("me/private", folder_files())
    hub.private.add("me/private")
    hub.add("me/empty", {"README.md": b"# nothing"})
    for name, kind, said in (
        ("me/gated", NetworkError, "gated"),
        ("me/private", NetworkError, "no such repository, or it is private"),
        ("me/none", NetworkError, "hf auth login"),
        ("me/x@nowhere", UsageError, "no such branch or commit"),
        ("me/empty", NetworkError, "no weights here"),
    ):
        with pytest.raises(kind, match=said) as e:
            pull(parse_model_name(name))
        assert "\n" not in str(e.value)
        assert "hf_loopback" not in str(e.value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", "/proc/nowhere")
    with pytest.raises(PythiaGGUFError) as e:
        pull(parse_model_name("me/x"))
    assert isinstance(e.value, StorageError)


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (400, "the Hub refuses (400): No such thing. Your token hf_... may not"),
        (401, "Run: hf auth login"),
        (403, "Run: hf auth login"),
        (409, "the Hub refuses (409): No such thing."),
        (412, "somebody has changed it meanwhile"),
        (422, "the Hub refuses (422): No such thing."),
        (429, "too many requests"),
        (500, "the Hub answered 500"),
    ],
)
def test_every_refusal_is_one_line_without_a_token(code: int, said: str):
    """As huggingface_hub raises it, a ValueError of its own too."""
    from httpx2 import Request, Response
    from huggingface_hub.utils import hf_raise_for_status

    answer = Response(
        code,
        json={"error": f"No such\nthing. Your token {TOKEN} may not"},
        request=Request("POST", "https://hub/api/x"),
    )
    with pytest.raises(NetworkError) as e, errors_as_one_line("me/x"):
        hf_raise_for_status(answer)
    assert said in str(e.value) and str(e.value).isprintable() and TOKEN not in str(e.value)
    refused = r"^me/x: Invalid metadata in README.md. - \"license\" is not one$"
    with pytest.raises(NetworkError, match=refused), errors_as_one_line("me/x"):
        raise ValueError('Invalid metadata in README.md.\n- "license" is not one')


def test_codes_of_a_busy_server_are_waited_out(hub: LoopbackHub):
    files = folder_files()
    hub.add("me/x", files)
    hub.faults.codes = [429, 500]
    folder = pull(parse_model_name("me/x"))
    assert {n: (folder / n).read_bytes() for n in files} == files


def test_no_cdn_sees_the_token(hub: LoopbackHub):
    hub.add("me/x", folder_files())
    hub.faults.elsewhere = True
    pull(parse_model_name("me/x"))
    elsewhere = [r for r in hub.requests if r.headers["Host"].startswith("localhost")]
    assert elsewhere
    assert not [r for r in elsewhere if "authorization" in map(str.lower, r.headers)]
    assert [r for r in hub.requests if r.headers.get("authorization", "").endswith("hf_loopback_secret")]


def test_a_connection_that_breaks_is_taken_up(hub: LoopbackHub):
    files = folder_files(width=32)
    hub.add("me/x", files)
    hub.faults.drops = {len(files["model.safetensors"]) // 2}
    folder = pull(parse_model_name("me/x"))
    assert not hub.faults.drops
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_body_that_is_too_short_is_one_line(hub: LoopbackHub):
    files = folder_files()
    hub.add("me/x", files)
    hub.faults.altered = {"model.safetensors": files["model.safetensors"][:-7]}
    with pytest.raises((NetworkError, ModelFileError)) as e:
        pull(parse_model_name("me/x"))
    assert "\n" not in str(e.value)
    hub.faults.altered = {}
    folder = pull(parse_model_name("me/x"))
    assert (folder / "model.safetensors").read_bytes() == files["model.safetensors"]


def test_no_network_and_a_full_disk_say_what_to_do(hub: LoopbackHub):
    with pytest.raises(NetworkError, match="cannot reach the Hub"):
        pull(parse_model_name("me/x"), Hub("http://127.0.0.1:9"))
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/blob")
    with pytest.raises(StorageError, match=r"/cache/blob.*No space left.*Free some space"), errors_as_one_line("me/x"):
        raise full
