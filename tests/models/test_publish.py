"""Publishing: what the Hub would refuse is refused before anything is made there; a branch is what its folder is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants, snapshot_download

import pythia_gguf
from conftest import TOKEN
from hub.loopback import FIRST, LoopbackHub
from press import tiny
from pythia_gguf.errors import ModelFileError, NetworkError, PythiaGGUFError, UsageError
from pythia_gguf.hub.client import Hub
from pythia_gguf.models.publish import CARD_KEYS, WHOLE_BRANCH, publish

REPO = "me/x"
FRONT = "---\nlanguage: en\nbase_model: me/tiny\n"


@pytest.fixture(scope="module")
def files_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `quantize`, from a folder without a name on the Hub."""
    folder = tmp_path_factory.mktemp("publish")
    tiny.write(folder / "tiny", tiny.folder_files(width=32))
    pythia_gguf.quantize(folder / "tiny", folder / "made", quants="Q4_0,Q4_K,Q4_K_M,Q8_0", quantized_by="me")
    return folder / "made"


@pytest.fixture
def made(files_made: Path, tmp_path: Path) -> Path:
    """The same, fit to be published."""
    folder = shutil.copytree(files_made, tmp_path / "made")
    with_front(folder, FRONT)
    return folder


def with_front(folder: Path, front: str) -> None:
    """Put lines at the beginning of the card's front matter."""
    card = folder / "README.md"
    card.write_text(card.read_text("utf-8").replace("---\n", front, 1), "utf-8")


def checkpoint(folder: Path, readme: str = "# Tiny\n") -> Path:
    return write(folder, files_of() | {"README.md": readme.encode()})


def write(folder: Path, files: dict[str, bytes]) -> Path:
    folder.parent.mkdir(exist_ok=True)
    return tiny.write(folder, files)


def files_of(width: int = 32) -> dict[str, bytes]:
    return tiny.folder_files(width=width) | {"README.md": b"# Tiny\n"}


# What makes a card one that the Hub refuses; the last two only the Hub knows.
REFUSED = {
    "base_model: /home/me/out": "base_model: '/home/me/out' is not an id of the Hub",
    "datasets:\n- /data/train.jsonl": "datasets: '/data/train.jsonl' is not an id of the Hub",
    "license: Apache 2.0": "license: 'Apache 2.0' is not an id such as apache-2.0",
    "language: English": "language: 'English' is not a code of ISO 639",
    "new_version: C:\\x": "new_version: ",
    "model-index:\n- name: /home/me/runs": "model-index: '/home/me/runs' is a path",
    "license: apache-2.1": 'the Hub refuses it: "license" must be one of',
    "language: jp": 'the Hub refuses it: "language" with value "jp" is not valid',
}


@pytest.mark.parametrize("lines", REFUSED)
@pytest.mark.parametrize("kind", ["quantize", "checkpoint", "branches"])
def test_what_the_hub_would_refuse_makes_nothing_there(
    kind: str, lines: str, hub: LoopbackHub, pythia, tmp_path: Path, files_made: Path
):
    """In a dry run and in a run, of a folder of either kind, in any of several branches."""
    folder = tmp_path / "folder"
    if kind == "quantize":
        shutil.copytree(files_made, folder)
        key = lines.partition(":")[0]
        others = "".join(f"{k}: {v}\n" for k, v in (("language", "en"), ("base_model", "me/tiny")) if k != key)
        card = (
            (folder / "README.md")
            .read_text("utf-8")
            .replace("license: apache-2.0\n", "" if key == "license" else "license: mit\n")
        )
        (folder / "README.md").write_text(card.replace("---\n", f"---\n{lines}\n{others}", 1), "utf-8")
    else:
        checkpoint(folder / "step2" if kind == "branches" else folder, f"---\n{lines}\n---\n# X\n")
        if kind == "branches":
            checkpoint(folder / "step1")
    options = ["--branches"] if kind == "branches" else []
    for more in (["--dry-run"], []):
        code, out, err = pythia("publish", folder, "--repo", REPO, *options, *more)
        assert code == 65, (out, err)
        assert REFUSED[lines] in err and "README.md: front matter: " in err
        assert err.strip().count("\n") == 0 and TOKEN not in err
    assert REPO not in hub.repos


def test_a_hub_that_takes_a_card_and_refuses_the_commit_is_one_line(
    hub: LoopbackHub, made: Path, monkeypatch: pytest.MonkeyPatch, pythia
):
    """As when its rules change in between: what huggingface_hub raises then."""
    monkeypatch.setattr(Hub, "refused_in_card", lambda self, readme: [])
    card = made / "README.md"
    card.write_text(card.read_text("utf-8").replace("license: apache-2.0", "license: apache-2.1"), "utf-8")
    code, _, err = pythia("publish", made, "--repo", REPO)
    assert code == 69
    assert "Invalid metadata in README.md" in err and '"license" must be one of' in err
    assert "Traceback" not in err and err.strip().splitlines()[-1].startswith("Error: ") and TOKEN not in err


@pytest.mark.parametrize("repo", ["x", "a/b/c", "me/x--y", "me/x..y", "me/x.git", "me/-x", f"me/{'x' * 97}", "me/é"])
def test_a_name_that_the_hub_would_refuse_is_asked_for_nothing(repo: str, hub: LoopbackHub, made: Path):
    with pytest.raises(UsageError, match="expected USER/NAME"):
        publish(made, repo)
    assert not hub.requests


def test_without_rights_or_a_network_it_is_one_line(hub: LoopbackHub, made: Path):
    hub.is_read_only = True
    with pytest.raises(NetworkError, match="your token may not do this"):
        publish(made, REPO)
    hub.is_read_only = False
    hub.close()
    for dry_run in (True, False):
        with pytest.raises(NetworkError, match="cannot reach the Hub"):
            publish(made, REPO, dry_run=dry_run)


def test_what_the_card_lacks_is_said_with_the_lines_to_add(hub: LoopbackHub, files_made: Path, tmp_path: Path):
    """Adding those lines as they are said makes it fit."""
    folder = shutil.copytree(files_made, tmp_path / "made")
    card = folder / "README.md"
    body = card.read_text("utf-8").split("\n---\n", 1)[1]
    for lacks in (CARD_KEYS, ["base_model"], ["tags", "quantized_by"]):
        front = "".join(f"{key}: {value}\n" for key, value in CARD_KEYS.items() if key not in lacks)
        card.write_text(f"---\n{front}---\n{body}", "utf-8")
        with pytest.raises(ModelFileError) as e:
            publish(folder, REPO, dry_run=True)
        said = str(e.value)
        assert f"lacks {', '.join(lacks)}. Add what is true" in said and "\n" not in said
        lines = [line for line in said.split('"') if ": " in line and line.partition(":")[0] in CARD_KEYS]
        assert [line.partition(":")[0] for line in lines] == list(lacks)
        card.write_text("\n".join(["---", *lines, front + "---", body]), "utf-8")
        assert publish(folder, REPO, dry_run=True)


def states(plan, branch: str = "main") -> dict[str, str]:
    return {s.name: s.state for s in plan if s.branch == branch}


# What a branch holds of an older model, by what would be read instead of the new files, or beside them.
OLD = {
    "one file": {"model.safetensors": b"old"},
    "shards": {f"model-0000{i}-of-00003.safetensors": b"old" for i in (1, 2, 3)}
    | {"model.safetensors.index.json": b"{}"},
    "torch": {"pytorch_model.bin": b"old"},
    "torch shards": {"pytorch_model-00001-of-00001.bin": b"old", "pytorch_model.bin.index.json": b"{}"},
    "a variant": {"model.fp16.safetensors": b"old"},
    "flax": {"flax_model.msgpack": b"old"},
    "an adapter": {"adapter_config.json": b"{}", "adapter_model.safetensors": b"old"},
    "tokens": {
        "added_tokens.json": b"{}",
        "chat_template.jinja": b"old",
        "additional_chat_templates/tool.jinja": b"old",
    },
}
OTHERS = {"LICENSE": b"MIT", "logs/train.txt": b"x", "x.Q8_0.gguf": b"of another kind", "picture.png": b"x"}


@pytest.mark.parametrize("new", ["one file", "shards"])
@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("branches", [False, True])
def test_no_old_weights_are_read_instead_of_new_ones(
    old: str, new: str, branches: bool, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """All in one commit of each branch; what readers of a checkpoint do not look for stays, and is told."""
    files = files_of()
    files = tiny.sharded(files) if new == "shards" else files
    folder = tmp_path / "run" / "step5" if branches else tmp_path / "run"
    write(folder, files)
    before = {"config.json": b"{}", **OLD[old], **OTHERS}
    for branch in ("main", *(["step5"] if branches else [])):
        hub.add(REPO, FIRST | before, branch=branch)
        hub.repos[REPO][branch]["note.txt"] = branch.encode()  # so that branches are of different commits
    plan = publish(tmp_path / "run", REPO, branches=branches, dry_run=True)
    gone = OLD[old].keys() - files.keys()
    for branch in hub.repos[REPO]:
        told = states(plan, branch)
        assert {name for name, state in told.items() if state == "deleted"} == gone
        assert {name for name, state in told.items() if state == "stays"} == {*OTHERS, "note.txt"}
    assert hub.held(REPO)["config.json"] == b"{}"
    publish(tmp_path / "run", REPO, branches=branches)
    for branch in hub.repos[REPO]:
        assert hub.held(REPO, branch) == files | OTHERS | {"note.txt": branch.encode()}
        assert len([c for c in hub.commits if c[1] == branch]) == 1
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "reader"))
    again = publish(tmp_path / "run", REPO, branches=branches)
    assert {s.state for s in again} == {"there", "stays"} and len(hub.commits) == len(hub.repos[REPO])


@pytest.mark.slow
def test_transformers_loads_the_new_weights_of_a_step(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A step that was one file before and is shards now."""
    from transformers import GPTNeoXForCausalLM

    config = {"hidden_dropout": 0.0}
    for seed in (1, 2):
        source = write(tmp_path / f"source{seed}", files_of())
        model = GPTNeoXForCausalLM.from_pretrained(source, **config)
        for parameter in model.parameters():
            parameter.data.fill_(seed / 8)
        folder = tmp_path / f"run{seed}" / "step1"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("model.safetensors"))
        model.save_pretrained(folder, max_shard_size="1GB" if seed == 1 else "20KB")
        publish(folder.parent, REPO, branches=True)
    assert (folder / "model.safetensors.index.json").is_file()
    for branch in ("main", "step1"):
        there = snapshot_download(REPO, revision=branch, local_dir=tmp_path / branch)
        loaded = GPTNeoXForCausalLM.from_pretrained(there)
        assert {float(p.detach().min()) for p in loaded.parameters()} == {2 / 8}


def test_old_quants_go_with_the_new_files(hub: LoopbackHub, made: Path):
    others = {"imatrix.gguf": b"x", "mmproj-F16.gguf": b"x", "model.safetensors": b"x", "config.json": b"{}"}
    old = {"x.Q5_0.gguf": b"old", "deep/x.Q8_0.GGUF": b"old", "y-00001-of-00002.gguf": b"old"}
    hub.add(REPO, FIRST | old | others | {"tiny.Q8_0.gguf": b"old"})
    told = states(publish(made, REPO))
    assert {name for name, state in told.items() if state == "deleted"} == old.keys()
    assert {name for name, state in told.items() if state == "stays"} == others.keys()
    assert told["tiny.Q8_0.gguf"] == "changed"
    assert hub.held(REPO) == {p.name: p.read_bytes() for p in made.iterdir()} | others
    assert len(hub.commits) == 1


def test_a_new_branch_holds_nothing_of_main(hub: LoopbackHub, tmp_path: Path):
    """A step that is added later, after a checkpoint with other files and some GGUF files were on main."""
    run = tmp_path / "run"
    checkpoint(run / "step1")
    publish(run, REPO, branches=True)
    hub.add(REPO, FIRST | hub.held(REPO) | {"x.Q8_0.gguf": b"x", "README.md": b"# X", "pytorch_model.bin": b"old"})
    files = tiny.sharded(files_of(48))
    write(run / "step2", files)
    plan = publish(run, REPO, branches=True)
    assert hub.held(REPO, "step2") == files
    assert hub.held(REPO) == files | {"x.Q8_0.gguf": b"x"}
    assert states(plan, "step2")["x.Q8_0.gguf"] == "deleted" and states(plan)["x.Q8_0.gguf"] == "stays"


def test_steps_of_an_older_run_are_told_and_stay(hub: LoopbackHub, tmp_path: Path):
    hub.add(REPO, FIRST)
    for branch in ("step9", "notes"):
        hub.add(REPO, FIRST | {"model.safetensors": b"old"}, branch=branch)
    checkpoint(tmp_path / "run" / "step1")
    plan = publish(tmp_path / "run", REPO, branches=True)
    assert [(s.branch, s.state) for s in plan if s.name == WHOLE_BRANCH] == [("step9", "stays")]
    assert hub.held(REPO, "step9") == {"model.safetensors": b"old"}


def test_a_run_that_broke_off_between_branch_and_commit_goes_on(hub: LoopbackHub, tmp_path: Path):
    run = tmp_path / "run"
    files = files_of()
    write(run / "step1", files)
    write(run / "step2", files)
    hub.add(REPO, FIRST | {"old.Q8_0.gguf": b"x", "README.md": b"# X"})
    hub.faults.codes = [500] * 20
    with pytest.raises(NetworkError):
        publish(run, REPO, branches=True)
    assert hub.held(REPO, "step2") == hub.held(REPO)  # a copy of main so far
    hub.faults.codes = []
    publish(run, REPO, branches=True)
    assert hub.held(REPO, "step1") == hub.held(REPO, "step2") == files


def test_two_folders_of_one_step_are_refused_by_name(hub: LoopbackHub, pythia, tmp_path: Path):
    for name in ("step1", "step01", "step2"):
        checkpoint(tmp_path / "run" / name)
    code, _, err = pythia("publish", tmp_path / "run", "--repo", REPO, "--branches", "--dry-run")
    assert code == 2 and "step01 and step1 are one step" in err
    assert not hub.requests


def meddle(hub: LoopbackHub, branch: str, files: dict[str, bytes]) -> Callable[[], object]:
    return lambda: hub.add(REPO, hub.repos[REPO][branch] | files, branch=branch)


def test_a_branch_that_somebody_changes_meanwhile_is_left_as_it_is(hub: LoopbackHub, made: Path):
    hub.add(REPO, FIRST)
    hub.faults.after_listing = meddle(hub, "main", {"theirs.txt": b"x"})
    with pytest.raises(NetworkError, match="somebody has changed it meanwhile"):
        publish(made, REPO)
    assert hub.held(REPO) == {"theirs.txt": b"x"}
    publish(made, REPO)
    assert hub.held(REPO)["theirs.txt"] == b"x"


@pytest.mark.parametrize(
    ("theirs", "said"),
    [
        ({"model.safetensors.index.json": b"{}"}, "readers would take model.safetensors.index.json"),
        ({"model.safetensors": b"theirs"}, "model.safetensors is not there as it was sent"),
        ({"chat_template.jinja": b"x"}, "readers would take chat_template.jinja"),
    ],
)
def test_what_a_reader_would_get_is_compared_at_the_end(
    theirs, said: str, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Right after the commit somebody adds files."""
    checkpoint(tmp_path / "model")
    real = Hub.commit_files

    def then(self: Hub, *args, **options) -> None:
        real(self, *args, **options)
        meddle(hub, "main", theirs)()

    monkeypatch.setattr(Hub, "commit_files", then)
    with pytest.raises(PythiaGGUFError, match=said):
        publish(tmp_path / "model", REPO)


def test_what_was_published_is_pulled_and_verified_by_name(hub: LoopbackHub, made: Path, pythia):
    publish(made, REPO)
    for quant, name in (("Q8_0", "tiny.Q8_0.gguf"), ("q4_k", "tiny.Q4_K.gguf"), ("Q4_K_M", "tiny.Q4_K_M.gguf")):
        code, out, err = pythia("pull", f"{REPO}:{quant}", "--output-format", "json")
        assert code == 0, err
        folder, file = (json.loads(out)[key] for key in ("folder", "file"))
        assert file == name and (Path(folder) / file).read_bytes() == (made / name).read_bytes()
        code, out, err = pythia("verify", f"{REPO}:{quant}")
        assert (code, out.split()[:2]) == (0, ["ok", name]) and "every byte" in out
