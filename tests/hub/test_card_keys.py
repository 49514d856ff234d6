"""What the Hub refuses in a front matter is refused here first; paths of a disk are known, and nothing else is one."""

from __future__ import annotations

import pytest
import yaml
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hub.card_refusals import refusals
from hub.name_cases import NAMES
from pythia_gguf.hub.card_keys import faults_of, is_local_path, is_repo_id, local_paths_in, without_local_paths
from pythia_gguf.hub.front_matter import front_matter

PATHS = (
    "/home/me/out", "/data", "~/runs/x", "./out", "../out/x", "C:\\Users\\me\\out", "D:/models/x", "\\\\server\\share",
    "file:///home/me/x", "base_model:adapter:/workspace/parent", "dataset:/data/train.jsonl", ".\\out", "~\\x",
)  # fmt: skip
NO_PATHS = (
    "EleutherAI/pythia-70m", "gpt2", "https://huggingface.co/EleutherAI/pile", "http://x.org/a/b", "LICENSE.md",
    "doi:10.57967/hf/1234", "arxiv:2304.01373", "base_model:quantized:me/x", "region:us", "text-generation", "a: b",
    "https://x.org:8080/a", "and/or", "license:apache-2.0",
)  # fmt: skip


def ids() -> list[str]:
    odd = (
        "a" * 96,
        "a" * 97,
        f"a/{'b' * 96}",
        f"a/{'b' * 97}",
        "a--b",
        "a..b",
        "x.git",
        "a/x.git",
        "-a",
        "a-",
        "_a",
        "a_",
    )
    return [*NAMES, *odd, "a/b/c", "café", "librispeech 960h", "a/b\n", "datasets/me/x", *PATHS]


@pytest.mark.parametrize("text", ids())
def test_an_id_is_what_huggingface_hub_takes_for_one(text: str):
    try:
        validate_repo_id(text)
    except HFValidationError:
        assert not is_repo_id(text)
    else:
        assert is_repo_id(text)


def test_paths_are_told_from_all_else():
    assert [text for text in PATHS if not is_local_path(text)] == []
    assert [text for text in NO_PATHS if is_local_path(text)] == []


# Lines of a front matter that the Hub has refused, and the key that ours names.
REFUSED = {
    "base_model: /home/me/out": "base_model",
    "base_model: ./out": "base_model",
    "base_model: C:\\Users\\me": "base_model",
    "base_model: runs/2024/best": "base_model",
    "base_model: Kokoro 82M": "base_model",
    "base_model: [me/x, /data/y]": "base_model",
    "base_model: {name: me/x}": "base_model",
    "new_version: /home/me/out": "new_version",
    "datasets: /data/train.jsonl": "datasets",
    "datasets: [me/x, librispeech 960h]": "datasets",
    "datasets:\n- null": "datasets",
    "license: Apache 2.0": "license",
    "license: Apache-2.0": "license",
    "license: /home/me/LICENSE": "license",
    "language: English": "language",
    "language: [en, zh-CN]": "language",
    "language: noinfo": "language",
    "language:": "language",
    "model-index: x": "model-index",
    "model-index:\n- name: /home/me/runs/x\n  results: []": "model-index",
    "model-index:\n- results: []": "model-index",
}
# What it takes.
TAKEN = (
    "base_model: EleutherAI/pythia-70m", "base_model: [a/b, c/d]", "datasets: [EleutherAI/pile, squad]", "license: mit",
    "license: [mit, apache-2.0]", "license: openrail++", "license: other\nlicense_name: mine\nlicense_link: LICENSE",
    "language: en", "language: [en, code, multilingual]", "language: no", "language:\n- no", "tags: [a, b c]", "x: /y",
    "library_name: transformers", "pipeline_tag: text-generation", "base_model_relation: quantized", "thumbnail: a.png",
    "model-index:\n- name: m\n  results:\n  - task: {type: text-generation}\n    dataset: {type: sciq, name: SciQ}\n"
    "    metrics:\n    - {type: acc, value: 0.9}",
)  # fmt: skip


def keys_of(lines: str) -> dict[str, object]:
    return front_matter(f"---\n{lines}\n---\n", "README.md")


@pytest.mark.parametrize("lines", REFUSED)
def test_what_the_hub_refuses_is_refused_by_its_key(lines: str):
    assert refusals(f"---\n{lines}\n---\n")  # the hub of the tests does too
    (fault,) = faults_of(keys_of(lines))
    assert fault.startswith(f"{REFUSED[lines]}: ") and fault.isprintable()


@pytest.mark.parametrize("lines", TAKEN)
def test_what_the_hub_takes_is_taken(lines: str):
    assert refusals(f"---\n{lines}\n---\n") == faults_of(keys_of(lines)) == []


@pytest.mark.parametrize(
    "line",
    ["pipeline_tag: /x", "library_name: /x/y", "base_model_relation: child", "tags: [a, /home/me]", "tags: [1]",
     "metrics: [~/x]", "license_link: /home/me/LICENSE", "model_name: /home/me/out", "1: x"],
)  # fmt: skip
def test_what_would_tell_of_a_disk_or_mean_nothing_is_refused_too(line: str):
    assert len(faults_of(keys_of(line))) == 1


def test_paths_are_taken_out_of_every_key_and_nothing_else_is():
    keys = {
        "name": "/home/me/out",
        "license": "mit",
        "license_link": "/home/me/LICENSE",
        "base_model": ["me/x", "/home/me/base", {"name": "Z", "repo_url": "./z"}],
        "datasets": "runs/data/train.jsonl",
        "tags": ["a/b/c", "base_model:adapter:/w/parent", 1.5],
        "empty": [],
        "none": None,
    }
    assert without_local_paths(keys) == {
        "license": "mit",
        "base_model": ["me/x", {"name": "Z"}],
        "tags": ["a/b/c", 1.5],
        "empty": [],
        "none": None,
    }
    assert local_paths_in(keys) == {
        "/home/me/out", "/home/me/LICENSE", "/home/me/base", "./z", "runs/data/train.jsonl",
        "base_model:adapter:/w/parent",
    }  # fmt: skip


def test_values_that_stand_for_billions_are_walked_once():
    laughs = "a: &a [/x/y]\n" + "".join(
        f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
    )
    assert local_paths_in(yaml.safe_load(laughs)) == {"/x/y"}
