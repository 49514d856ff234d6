"""The whole way through a hub on loopback: pull, quantize, publish, pull back, verify; and models by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

import pythia_gguf
from hub.loopback import LoopbackHub
from pythia_gguf.errors import ModelFileError, NetworkError, UsageError
from pythia_gguf.hub.model_name import parse_model_name
from pythia_gguf.hub.pull import pull
from pythia_gguf.models.find import find_gguf
from pythia_gguf.models.publish import publish

NANO = Path(__file__).parents[2] / "examples" / "nano"
SOURCE = "EleutherAI/pythia-14m"


@pytest.fixture
def made(hub: LoopbackHub, tmp_path: Path) -> Path:
    """A folder that is fit to be published."""
    hub.add(SOURCE, NANO)
    pull(parse_model_name(SOURCE))
    folder = tmp_path / "made"
    pythia_gguf.quantize(SOURCE, folder, quants="Q4_K_M,Q4_K,Q8_0", quantized_by="me")
    card = folder / "README.md"
    text = card.read_text("utf-8")
    card.write_text(text.replace("---\n", "---\nlanguage: en\nlicense: apache-2.0\n", 1), "utf-8")
    return folder


def test_pull_quantize_publish_pull_back_verify(hub: LoopbackHub, made: Path, tmp_path: Path):
    shown = []
    publish(made, "me/nano-GGUF", show=shown.append)
    assert {s.state for s in shown[0]} == {"new"}
    back = snapshot_download("me/nano-GGUF", local_dir=tmp_path / "back")
    verdicts = pythia_gguf.verify(Path(back))
    assert [v.file for v in verdicts if v.fault or v.checked != "every byte"] == []
    assert len(verdicts) == 3
    for path in made.iterdir():
        if path.suffix in (".gguf", ".md", ".json") or path.name == "SHA256SUMS":
            assert (Path(back) / path.name).read_bytes() == path.read_bytes()
    # Once more: nothing is sent.
    before = len(hub.uploaded)
    assert {s.state for s in publish(made, "me/nano-GGUF")} == {"there"}
    assert len(hub.uploaded) == before


def test_the_quickstart_of_the_card_finds_what_was_pulled(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    from transformers import AutoTokenizer, GPTNeoXForCausalLM

    repo = "EleutherAI/pythia-70m-deduped"
    hub.add(repo, NANO, branch="step3000")
    pull(parse_model_name("pythia-70m-deduped@step3000"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    where = {"revision": "step3000", "cache_dir": constants.HF_HUB_CACHE}
    model = GPTNeoXForCausalLM.from_pretrained(repo, **where)
    tokenizer = AutoTokenizer.from_pretrained(repo, **where)
    tokens = model.generate(**tokenizer("Hello, I am", return_tensors="pt"), max_new_tokens=4, do_sample=False)
    ours = pythia_gguf.load(repo, revision="step3000", gelu="erf", activations="float32")
    # The same four tokens from our F16 file, greedy, as from transformers.
    assert list(ours.generate("Hello, I am", max_tokens=4, temperature=0).tokens) == tokens[0][-4:].tolist()


def test_an_upload_that_breaks_off_goes_on(hub: LoopbackHub, made: Path):
    hub.faults.codes = [500] * 20
    with pytest.raises(NetworkError):
        publish(made, "me/nano-GGUF")
    hub.faults.codes = []
    publish(made, "me/nano-GGUF")
    assert {s.state for s in publish(made, "me/nano-GGUF", dry_run=True)} == {"there"}


def test_nothing_unfit_is_sent(hub: LoopbackHub, made: Path):
    card = (made / "README.md").read_text("utf-8")
    (made / "README.md").write_text(card.replace("quantized_by:", "made_by:", 1), "utf-8")
    with pytest.raises(ModelFileError, match="lacks quantized_by"):
        publish(made, "me/nano-GGUF")
    (made / "README.md").write_text(card, "utf-8")
    damaged = next(made.glob("*.Q8_0.gguf"))
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UsageError, match=r"nothing was sent.*tensor blk"):
        publish(made, "me/nano-GGUF")
    with pytest.raises(UsageError, match="USER/NAME"):
        publish(made, "nano")
    assert "me/nano-GGUF" not in hub.repos


def test_a_dry_run_sends_nothing(hub: LoopbackHub, made: Path):
    assert len(publish(made, "me/nano-GGUF", dry_run=True)) == 6
    assert "me/nano-GGUF" not in hub.repos


def test_what_arrives_otherwise_is_no_success(hub: LoopbackHub, made: Path):
    import hashlib

    file = next(made.glob("*.Q8_0.gguf")).read_bytes()
    hub.faults.altered = {hashlib.sha256(file).hexdigest(): file[:-1] + b"?"}
    with pytest.raises(NetworkError, match="not there as it was sent"):
        publish(made, "me/nano-GGUF")


def test_a_training_run_becomes_branches(hub: LoopbackHub, tmp_path: Path):
    run = tmp_path / "run"
    for n in (1, 10, 2):
        shutil.copytree(NANO, run / f"step{n}", ignore=shutil.ignore_patterns("heldout*", "LICENSE*"))
        config = json.loads((run / f"step{n}" / "generation_config.json").read_text("utf-8"))
        (run / f"step{n}" / "generation_config.json").write_text(json.dumps(config | {"step": n}), "utf-8")
    publish(run, "me/run", branches=True)
    assert set(hub.repos["me/run"]) == {"main", "step1", "step2", "step10"}
    for n in (1, 2, 10):
        sent = {p.name: p.read_bytes() for p in (run / f"step{n}").iterdir()}
        assert {k: v for k, v in hub.repos["me/run"][f"step{n}"].items() if k != ".gitattributes"} == sent
    assert hub.repos["me/run"]["main"] == hub.repos["me/run"]["step10"]


def test_models_by_name_are_fetched_pressed_and_kept(hub: LoopbackHub, own_cache: Path, tmp_path: Path):
    hub.add(SOURCE, NANO, branch="step3000")
    hub.add(SOURCE, NANO)
    told: list[str] = []
    path = find_gguf("pythia-14m@step3000:q4_k_m", tell=told.append)
    assert path.name == "pythia-14m-step3000.Q4_K_M.gguf"
    assert path.is_relative_to(own_cache)
    assert told == [f"pressed {SOURCE}@step3000 to Q4_K_M, kept in {path.parent}"]
    assert find_gguf("pythia-14m@step3000:Q4_K_M", tell=told.append) == path
    assert len(told) == 1
    model = pythia_gguf.load(SOURCE, revision="step3000", quant="Q4_K_M")
    assert model.path == path
    assert find_gguf("pythia-14m").name == "pythia-14m.F16.gguf"
    # The same ids, one from the folder itself.
    assert find_gguf(str(NANO), quant="Q8_0").name == "nano.Q8_0.gguf"


def test_without_a_network_what_was_made_is_used(hub: LoopbackHub, own_cache: Path, monkeypatch: pytest.MonkeyPatch):
    hub.add(SOURCE, NANO)
    path = find_gguf("pythia-14m:Q8_0")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert find_gguf("pythia-14m:Q8_0") == path


def test_folders_of_files_are_models_too(tmp_path: Path, own_cache: Path):
    folder = tmp_path / "nano-GGUF"
    pythia_gguf.quantize(NANO, folder, quants="Q4_0,Q8_0")
    assert find_gguf(f"{folder}:q8_0") == folder / "nano.Q8_0.gguf"
    for model, more, said in (
        (str(folder), {}, "which of them"),
        (f"{folder}:Q5_0", {}, "no Q5_0 here"),
        (f"{folder}:Q8_0", {"quant": "Q4_0"}, "two of them"),
        (str(folder / "nano.Q8_0.gguf"), {"quant": "Q8_0"}, "a file is of one quant"),
        (str(folder), {"revision": "step1"}, "this is a path"),
        (f"{NANO}:F32", {}, "stored as F16"),
    ):
        with pytest.raises(UsageError, match=said):
            find_gguf(model, **more)
