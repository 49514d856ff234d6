"""Addresses that people paste are names; what has an address and is no model is refused by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf.errors import UsageError
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.models.publish import publish
from pythia_gguf.press.find_source import LocalModel, resolve

ENDPOINT = "https://mirror.example/hf"
HOSTS = (
    "https://huggingface.co/", "http://huggingface.co/", "HTTPS://HuggingFace.co/", "https://www.huggingface.co/",
    "https://hf.co/", "huggingface.co/", "hf.co/", "www.huggingface.co/", "hf://", "hf://models/",
    "https://huggingface.co/models/", f"{ENDPOINT}/", "https://me:hf_secret@huggingface.co/",
)  # fmt: skip


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("rest", "name"),
    [
        ("me/x", "me/x"),
        ("me/x/", "me/x"),
        ("me/x.git", "me/x"),
        ("me/x?library=transformers", "me/x"),
        ("me/x#how-to-use", "me/x"),
        ("EleutherAI/pythia-70m", "EleutherAI/pythia-70m"),
        ("eleutherai/Pythia-70M/tree/main", "EleutherAI/pythia-70m"),
        ("EleutherAI/pythia-70m/tree/step3000", "EleutherAI/pythia-70m@step3000"),
        ("EleutherAI/pythia-70m/tree/step3000/", "EleutherAI/pythia-70m@step3000"),
        ("EleutherAI/pythia-70m/commits/step3000", "EleutherAI/pythia-70m@step3000"),
        ("EleutherAI/pythia-70m@step3000", "EleutherAI/pythia-70m@step3000"),
        ("EleutherAI/pythia-70m@3000:Q4_K_M", "EleutherAI/pythia-70m@step3000:Q4_K_M"),
        ("EleutherAI/pythia-70m/tree/step3000:Q4_K_M", "EleutherAI/pythia-70m@step3000:Q4_K_M"),
        ("me/x:Q8_0", "me/x:Q8_0"),
        ("me/x/tree/refs%2Fpr%2F1", "me/x@refs/pr/1"),
        (f"me/x/commit/{'0a' * 20}", f"me/x@{'0a' * 20}"),
        ("me/x/blob/main/x.Q4_K_M.gguf", "me/x:x.Q4_K_M.gguf"),
        ("me/x/resolve/main/x.Q4_K_M.gguf?download=true", "me/x:x.Q4_K_M.gguf"),
        ("me/x/resolve/v1/deep/er/a%20b.GGUF", "me/x@v1:deep/er/a b.GGUF"),
        ("me/x:x.Q4_K_M.gguf", "me/x:x.Q4_K_M.gguf"),
        ("me/x?show_file_info=x.Q4_K_M.gguf", "me/x:x.Q4_K_M.gguf"),
        ("me/x/tree/v1?show_file_info=deep%2Fx.gguf", "me/x@v1:deep/x.gguf"),
        ("me/x:UD-Q4_K_XL", "me/x:UD-Q4_K_XL"),
    ],
)
def test_addresses_are_names(host: str, rest: str, name: str):
    for text in (host + rest, f"  {host}{rest}\n"):
        assert str(parse_model_name(text, ENDPOINT)) == name


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(
    ("rest", "says"),
    [
        ("datasets/me/x", "is a data set, not a model"),
        ("spaces/me/x", "is a space, not a model"),
        ("papers/2304.01373", "is a paper, not a model"),
        ("EleutherAI", "expected OWNER/NAME"),
        ("", "expected OWNER/NAME"),
        ("me/x/discussions/3", "no page of a revision. Give me/x"),
        ("me/x/tree", "no page of a revision. Give me/x"),
        ("me/x/blob/main/config.json", "is one file of a repository. Give me/x@main"),
        ("me/x/resolve/main/model.safetensors?download=true", "is one file of a repository. Give me/x@main"),
        ("me/x/tree/main/gguf", "is one file of a repository. Give me/x@main"),
        ("me/x@step1/tree/step2", "names two revisions"),
        ("me/x/tree/step1@step2", "names two revisions"),
        ("EleutherAI/pythia-70m/tree/step3001", "step3000 and step4000"),
        ("me/..", "is no file"),
        ("me/x/blob/main/..%2F..%2Fx.gguf", "is no file"),
        ("me/x/blob/main/../../x.gguf", "is no file"),
        ("me/x/tree/..%2F..%2Fetc", "no branch"),
    ],
)
def test_other_pages_are_refused_by_name(host: str, rest: str, says: str):
    with pytest.raises(UsageError, match=says) as e:
        parse_model_name(host + rest, ENDPOINT)
    assert str(e.value).isprintable() and "hf_secret" not in str(e.value)


@pytest.mark.parametrize(
    "text",
    [
        "https://modelscope.cn/models/me/x",
        "https://huggingface.co.evil.example/me/x",
        "https://huggingface.co@evil.example/me/x",
        "https://evil.example/https://huggingface.co/me/x",
        "git@github.com:me/x",
        "https://mirror.example/me/x",
    ],
)
def test_other_hosts_are_refused(text: str):
    with pytest.raises(UsageError, match="is not at https://mirror.example/hf"):
        parse_model_name(text, ENDPOINT)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("eleutherai/Pythia-70M", "EleutherAI/pythia-70m"),
        ("pythia-70m@main", "EleutherAI/pythia-70m"),
        ("pythia-70m@143000", "EleutherAI/pythia-70m@step143000"),
        ("pythia-70m@step_3000", "EleutherAI/pythia-70m@step3000"),
        ("pythia-70m@Step-3000", "EleutherAI/pythia-70m@step3000"),
        ("pythia-70m@global_step3000", "EleutherAI/pythia-70m@step3000"),
        ("pythia-70m-deduped:q4_k_m", "EleutherAI/pythia-70m-deduped:q4_k_m"),
        (" pythia-70m\n", "EleutherAI/pythia-70m"),
        ("me/x@step_3000", "me/x@step_3000"),  # a branch of somebody may be called so
    ],
)
def test_odd_spellings_of_names_are_read(text: str, name: str):
    assert str(parse_model_name(text)) == name


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("pythia_70m", "pythia-70m"),
        ("pythia70m", "pythia-70m"),
        ("70m", "pythia-70m"),
        ("pythia-70m-step3000", "pythia-70m@step3000?"),
        ("pythia-70m/step3000", "pythia-70m@step3000?"),
        ("EleutherAI/pythia-70m/step3000", "EleutherAI/pythia-70m@step3000?"),
        ("EleutherAI/pythia-70m-step3000", "EleutherAI/pythia-70m@step3000?"),
        ("pythia-70m:step3000", "pythia-70m@step3000?"),
        ("pythia-70m-Q4_K_M", "pythia-70m:Q4_K_M?"),
        ("pythia-70m.IQ4_XS", "pythia-70m:IQ4_XS?"),
        ("pythia-70m:Q4_K_M@step3000", "pythia-70m@step3000:Q4_K_M?"),
    ],
)
def test_wrong_spellings_are_answered_with_the_right_one(text: str, meant: str):
    with pytest.raises(UsageError) as e:
        parse_model_name(text)
    assert f"Did you mean {meant}" in str(e.value)


# Commands that take a name, called so that they make nothing; those that run a model ask `resolve`, as `quants` does.
NAMED = {
    "models": (["models", "NAME"], 0),
    "pull": (["pull", "NAME"], 0),
    "check-revisions": (["check-revisions", "NAME"], 1),  # most of the suite's branches are missing here
    "quantize": (["quantize", "NAME", "--dry-run", "--quants", "Q8_0"], 0),
    "quants": (["quants", "NAME", "--quants", "Q8_0"], 0),
}


def test_commands_take_an_address_of_the_configured_hub(pythia, hub: LoopbackHub):
    for branch in ("main", "step3000"):
        hub.add("EleutherAI/pythia-14m", tiny.folder_files(32), branch=branch)
    for command, (args, expected) in NAMED.items():
        branch = "" if command == "check-revisions" else "/tree/step3000"
        address = f"{hub.url}/EleutherAI/pythia-14m{branch}"
        code, out, err = pythia(*(address if a == "NAME" else a for a in args))
        assert code == expected, (command, out, err)


@pytest.mark.parametrize("rest", ["me/x/x.gguf", "me/x/deep/x.gguf", "me/x@v1/x.gguf", "models/me/x/x.gguf"])
def test_a_file_as_huggingface_hub_writes_it_is_a_name(rest: str):
    name, _, file = rest.removeprefix("models/").partition("/x")[2].partition("/")
    assert str(parse_model_name(f"hf://{rest}")) == f"me/x{name}:{file}"


def test_what_is_here_wins_over_an_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert str(resolve("huggingface.co/me/x")) == "me/x"
    (tmp_path / "huggingface.co" / "me" / "x").mkdir(parents=True)
    assert resolve("huggingface.co/me/x") == LocalModel(path=Path("huggingface.co/me/x"))


def test_publish_takes_an_address(hub: LoopbackHub, tmp_path: Path):
    folder = tiny.write(tmp_path / "model", tiny.folder_files(32) | {"README.md": b"# Tiny"})
    sent = publish(folder, f"{hub.url}/me/x", dry_run=True)
    assert sent and {s.state for s in sent} == {"new"}
