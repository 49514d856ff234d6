"""A repository of GGUF files is a model by its name: every command that takes one gets one file of it, checked."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import constants

import pythia_gguf
from hub.loopback import LoopbackHub
from models.commands import MODEL_COMMANDS, NAME_COMMANDS, PATH_COMMANDS, SOURCE_COMMANDS, prepare, words
from press import tiny
from pythia_gguf.errors import NetworkError, PythiaGGUFError, UsageError
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import pull
from pythia_gguf.models.find import find_gguf

NANO = Path(__file__).parents[2] / "examples" / "nano"
REPO = "me/nano-GGUF"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `quantize` makes of the sample, as it is published."""
    folder = tmp_path_factory.mktemp("repository") / "made"
    pythia_gguf.quantize(NANO, folder, quants="Q4_0,Q4_K,Q4_K_M,Q8_0", keep_f16=True)
    return folder


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Quant -> a file of a tiny model."""
    folder = tmp_path_factory.mktemp("small")
    tiny.write(folder / "tiny", tiny.folder_files(width=32))
    files = pythia_gguf.quantize(folder / "tiny", folder / "out", quants="Q4_0,Q4_K_M,Q8_0", keep_f16=True).files
    return {file.quant: file.path.read_bytes() for file in files}


def fetched(hub: LoopbackHub) -> list[str]:
    """Files of weights that were fetched."""
    return [r.path.rpartition("/")[2] for r in hub.requests if r.method == "GET" and r.path.lower().endswith(".gguf")]


def test_every_command_takes_it_by_name_and_fetches_one_file(
    pythia, hub: LoopbackHub, own_cache: Path, tmp_path: Path, made: Path
):
    """Then without a network too, of what is here."""
    prepare(tmp_path / "work")
    hub.add(REPO, made)
    commands = MODEL_COMMANDS | PATH_COMMANDS | {"pull": ("{model}:Q8_0",)}
    commands |= {
        command: tuple(arg.replace("{model}", "{model}:F16") for arg in args)
        for command, args in SOURCE_COMMANDS.items()
    }
    for command, args in commands.items():
        code, out, err = pythia(*words(command, args, REPO, tmp_path / "work"))
        assert code == 0, (command, out, err)
        assert "pressed" not in err
    assert sorted(fetched(hub)) == ["nano.F16.gguf", "nano.Q8_0.gguf"]
    hub.close()
    for name in ("imatrix.gguf", "exported", "made"):
        place = tmp_path / "work" / name
        shutil.rmtree(place) if place.is_dir() else place.unlink()
    for command, args in commands.items():
        code, out, err = pythia(*words(command, args, REPO, tmp_path / "work"))
        assert code == 0, (command, out, err)


def test_results_are_those_of_the_file(pythia, hub: LoopbackHub, made: Path):
    """The GELU of its manifest too."""
    manifest = json.loads((made / "manifest.json").read_text("utf-8"))
    files = {p.name: p.read_bytes() for p in made.iterdir()}
    hub.add(REPO, files | {"manifest.json": json.dumps(manifest | {"hidden_act": "gelu_fast"}).encode()})
    model = pythia_gguf.load(f"{REPO}:Q8_0", threads=1)
    assert (model.gelu, model.path.name) == ("tanh", "nano.Q8_0.gguf")
    local = pythia_gguf.load(made / "nano.Q8_0.gguf", gelu="tanh", threads=1)
    ids = local.tokenizer.encode("def main(")
    assert model.logits(ids).tobytes() == local.logits(ids).tobytes()


@pytest.mark.parametrize(
    "names",
    [
        {"tiny-Q4_K_M.gguf": "Q4_K_M", "tiny-Q8_0.gguf": "Q8_0", "tiny-F16.gguf": "F16"},
        {"ggml-model-q4_k_m.gguf": "Q4_K_M", "ggml-model-q8_0.GGUF": "Q8_0", "ggml-model-fp16.gguf": "F16"},
        {"a/tiny.i1-Q4_K_M.gguf": "Q4_K_M", "a/tiny.i1-Q8_0.gguf": "Q8_0", "a/tiny.i1-f16.gguf": "F16"},
        {"Q4_K_M/t-Q4_K_M.gguf": "Q4_K_M", "Q8_0/t-Q8_0.gguf": "Q8_0", "f16/t-f16.gguf": "F16"},
    ],
)
def test_a_quant_is_found_by_its_name_however_files_are_called(names: dict[str, str], hub: LoopbackHub, small):
    others = ("README.md", "imatrix.gguf", "mmproj-F16.gguf", "x.imatrix.gguf", "x.part1of2")
    stem = re.sub("Q4_K_M", "Q6_K", next(iter(names)), flags=re.IGNORECASE).removesuffix(".gguf")
    parts = [f"{stem}-0000{i}-of-00002.gguf" for i in (1, 2)]
    clutter = dict.fromkeys([*others, *parts], b"x")
    hub.add("me/x", {name: small[quant] for name, quant in names.items()} | clutter)
    for name, quant in names.items():
        for asked in (f"me/x:{quant}", f"me/x:{quant.lower()}", f"me/x:{name}", f"https://huggingface.co/me/x/blob/main/{name}",
                      f"{hub.url}/me/x/resolve/main/{name}?download=true"):  # fmt: skip
            path = find_gguf(asked)
            assert path.read_bytes() == small[quant] and str(path).endswith(name)
    assert find_gguf("me/x", quant="Q8_0") == find_gguf("me/x:Q8_0")
    for model, said in (
        ("me/x", "me/x: which of them? Say me/x:QUANT, with Q4_K_M, Q6_K, Q8_0, F16"),
        ("me/x:Q5_0", "me/x: no Q5_0 here. Did you mean"),
        ("me/x:Q3_K_S", "There are Q4_K_M, Q6_K, Q8_0, F16"),
        ("me/x:Q6_K", "is split into 2 files.*llama-gguf-split --merge"),
        ("me/x:none.gguf", "me/x: no none.gguf here"),
    ):
        with pytest.raises(UsageError, match=said.replace("?", r"\?")) as e:
            find_gguf(model)
        assert str(e.value).isprintable()
    assert len(fetched(hub)) == 3


def test_the_only_file_needs_no_quant_and_may_be_called_anything(hub: LoopbackHub, small):
    for name in ("model.gguf", "tiny.Q8_0.gguf"):
        hub.add("me/x", {name: small["Q8_0"]})
        for asked in ("me/x", "me/x:Q8_0", f"me/x:{name}"):
            assert find_gguf(asked).read_bytes() == small["Q8_0"]
    hub.add("me/y", {"model.gguf": small["Q8_0"]})
    with pytest.raises(UsageError, match=r"me/y:Q4_0: model.gguf holds Q8_0. To take it so, give me/y:model.gguf"):
        find_gguf("me/y:Q4_0")


def test_odd_names_of_files_are_those_files(hub: LoopbackHub, small, tmp_path: Path):
    names = {"a [b]*?.Q8_0.gguf": "Q8_0", "a [b]xx.Q8_0.gguf": "Q4_0", "é ü.gguf": "Q4_K_M", "-x.gguf": "F16"}
    hub.add(
        "me/x", {name: small[quant] for name, quant in names.items()} | {"../out.gguf": b"x", "a/../../y.gguf": b"x"}
    )
    for name, quant in names.items():
        assert find_gguf(f"me/x:{name}").read_bytes() == small[quant]
    assert len(fetched(hub)) == 4
    for name in ("../out.gguf", "a/../../y.gguf", "..gguf", "/etc/x.gguf"):
        with pytest.raises(PythiaGGUFError):
            pythia_gguf.load(f"me/x:{name}")
    assert not list(tmp_path.rglob("out.gguf")) + list(tmp_path.rglob("y.gguf"))


def test_a_file_of_a_checkpoint_is_no_quant_that_is_made(hub: LoopbackHub, own_cache: Path):
    for repo in ("EleutherAI/pythia-14m", "me/x"):
        hub.add(repo, tiny.folder_files(width=32))
        with pytest.raises(UsageError, match=rf"^{repo}: no x.gguf here"):
            find_gguf(f"{repo}:x.gguf")
        hub.faults.codes = []
    with pytest.raises(UsageError, match="Did you mean"):
        find_gguf("pythia-14m:Q4_9")


def test_a_name_that_lies_is_found_out(hub: LoopbackHub, small):
    hub.add("me/x", {"t.Q4_0.gguf": small["Q8_0"], "t.Q8_0.gguf": small["Q4_0"]})
    with pytest.raises(UsageError, match=r"me/x:Q4_0: t.Q4_0.gguf holds Q8_0. To take it so, give me/x:t.Q4_0.gguf"):
        find_gguf("me/x:Q4_0")
    assert find_gguf("me/x:t.Q4_0.gguf").read_bytes() == small["Q8_0"]


def test_several_models_in_a_repository_are_never_one_of_them(hub: LoopbackHub, small):
    hub.add("me/x", {"a.Q8_0.gguf": small["Q8_0"], "b.Q4_0.gguf": small["Q4_0"]})
    for asked in ("me/x", "me/x:Q8_0", "me/x:Q5_0"):
        with pytest.raises(UsageError, match=r"several models. Give one: me/x:a.Q8_0.gguf, me/x:b.Q4_0.gguf"):
            find_gguf(asked)
    assert find_gguf("me/x:b.Q4_0.gguf").read_bytes() == small["Q4_0"]


def test_a_repository_of_both_kinds(pythia, hub: LoopbackHub, own_cache: Path, small):
    """Without a quant the checkpoint; with one its file where there is one, else what is made of the checkpoint."""
    hub.add("me/x", tiny.folder_files(width=32) | {"x.Q8_0.gguf": small["Q8_0"]})
    assert find_gguf("me/x:Q8_0").read_bytes() == small["Q8_0"]
    assert find_gguf("me/x:Q4_0").is_relative_to(own_cache)
    assert find_gguf("me/x").name == "x.F16.gguf"
    assert (pull(parse_model_name("me/x")) / "model.safetensors").is_file()
    code, out, _ = pythia("pull", "me/x:Q8_0")
    assert code == 0 and out.strip().endswith("x.Q8_0.gguf")
    code, _, err = pythia("pull", "me/x:Q5_0")
    assert code == 2 and "a checkpoint has no quant" in err
    hub.close()
    assert find_gguf("me/x:Q8_0").read_bytes() == small["Q8_0"]
    assert find_gguf("me/x:Q4_0").is_relative_to(own_cache)
    assert find_gguf("me/x").name == "x.F16.gguf"


def test_branches_and_commits(hub: LoopbackHub, small, monkeypatch: pytest.MonkeyPatch):
    old = hub.add("me/x", {"x.Q8_0.gguf": small["Q4_0"]}, branch="v1")
    hub.add("me/x", {"x.Q8_0.gguf": small["Q8_0"]})
    assert find_gguf("me/x@v1").read_bytes() == small["Q4_0"]
    assert find_gguf("me/x", revision="v1").read_bytes() == small["Q4_0"]
    assert find_gguf("https://huggingface.co/me/x/blob/v1/x.Q8_0.gguf").read_bytes() == small["Q4_0"]
    assert find_gguf("me/x:x.Q8_0.gguf").read_bytes() == small["Q8_0"]
    before = len(hub.requests)
    assert find_gguf(f"me/x@{old}:x.Q8_0.gguf").read_bytes() == small["Q4_0"]
    assert len(hub.requests) == before  # what a commit holds does not change
    hub.add("me/x", {"x.Q8_0.gguf": small["F16"]}, branch="v1")
    assert find_gguf("me/x@v1").read_bytes() == small["F16"]


def test_without_a_network_it_is_said_what_is_here(hub: LoopbackHub, small, monkeypatch: pytest.MonkeyPatch):
    commit = hub.add("me/x", {f"x.{quant}.gguf": content for quant, content in small.items()})
    find_gguf("me/x:Q8_0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    told: list[str] = []
    for asked in ("me/x:Q8_0", "me/x", "me/x:x.Q8_0.gguf"):
        assert find_gguf(asked, tell=told.append).name == "x.Q8_0.gguf"
    assert told == [f"the Hub cannot be reached: me/x: x.Q8_0.gguf is taken as it was at commit {commit[:7]}"] * 3
    for asked in ("me/x:Q4_0", "me/x:x.Q4_0.gguf"):
        with pytest.raises(NetworkError, match=f"^{asked}: not in the cache, which holds Q8_0"):
            find_gguf(asked)
    with pytest.raises(NetworkError, match="me/y: not in the cache"):
        find_gguf("me/y:Q8_0")


def test_a_wrong_hash_is_refused_deleted_and_fetched_again(hub: LoopbackHub, small):
    hub.add("me/x", {"x.Q8_0.gguf": small["Q8_0"]})
    hub.faults.altered = {"x.Q8_0.gguf": small["Q8_0"][:-1] + b"?"}
    with pytest.raises(PythiaGGUFError, match="its hash differs"):
        find_gguf("me/x")
    hub.faults.altered = {}
    assert find_gguf("me/x").read_bytes() == small["Q8_0"]


@pytest.mark.parametrize("listed", ["manifest.json", "SHA256SUMS", None])
def test_it_is_verified_against_what_lies_beside_it(listed: str | None, pythia, hub: LoopbackHub, made: Path):
    name = "nano.Q8_0.gguf"
    good = made / name
    beside = {listed: (made / listed).read_bytes()} if listed else {}
    files = {name: good.read_bytes()} | beside
    hub.add("me/x", files)
    hub.add("me/deep", {f"deep/{path}": content for path, content in files.items()})
    hub.add("me/damaged", files | {name: files[name][:-1] + bytes([files[name][-1] ^ 1])})
    for model in ("me/x:Q8_0", "me/deep"):
        code, out, err = pythia("verify", model)
        assert code == 0 and ("every byte" if listed else "header and sizes") in out, err
        assert out.split()[1] == name
    code, out, err = pythia("verify", "me/damaged:Q8_0")
    assert code == (65 if listed else 0)


def test_sources_are_unquantized_files(
    pythia, hub: LoopbackHub, small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    hub.add("me/x", {f"x.{quant}.gguf": content for quant, content in small.items()})
    hub.add("me/y", {"y.F16.gguf": small["F16"]})
    for source, name in (("me/x:F16", "x"), ("me/x:x.F16.gguf", "x"), ("me/y", "y")):
        code, _, err = pythia("quantize", source, "--quants", "Q8_0", "--quiet", "--force")
        assert code == 0, err
        made = tmp_path / f"{name}-GGUF" / f"{name}.Q8_0.gguf"
        assert made.read_bytes() == small["Q8_0"]
    for source, code, said in (
        ("me/x", 2, "which of them"),
        ("me/x:Q8_0", 2, "Say --quants Q8_0"),
        ("me/x:x.Q8_0.gguf", 65, "is already quantized"),
        ("me/x:BF16", 2, "no BF16 here"),
    ):
        got, _, err = pythia("quants", source)
        assert got == code and said in err, (source, err)


def test_addresses_of_files_that_are_no_models_say_so(hub: LoopbackHub, small):
    part = tiny.gguf_bytes(width=32, keys={"split.count": np.uint16(2), "split.no": np.uint16(0)})
    hub.add("me/x", {"x-Q8_0-00001-of-00002.gguf": part, "model.Q8_0.gguf": part})
    with pytest.raises(UsageError, match="split into 2 files"):
        find_gguf("https://huggingface.co/me/x/blob/main/x-Q8_0-00001-of-00002.gguf")
    with pytest.raises(PythiaGGUFError, match="one of 2 files"):
        pythia_gguf.load("me/x:model.Q8_0.gguf")


def test_every_name_command_is_looked_at():
    assert set(NAME_COMMANDS) == {"pull"}
