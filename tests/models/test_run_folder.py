"""RUN@STEP[:QUANT]: a step of a run of one's own is named as one of the Hub, by every command that takes a name."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import pythia_gguf
from hub.loopback import LoopbackHub
from models.commands import (
    FOLDER_COMMANDS,
    MODEL_COMMANDS,
    NAME_COMMANDS,
    NANO,
    OTHERS,
    PATH_COMMANDS,
    SOURCE_COMMANDS,
    prepare,
    words,
)
from models.test_publish import FRONT, with_front
from press import tiny
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError
from pythia_gguf.evals.files import measure_files
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.hub.model_name import ModelName
from pythia_gguf.models.cache import kept
from pythia_gguf.models.find import find_gguf
from pythia_gguf.models.publish import publish
from pythia_gguf.press.find_source import LocalModel, find_path, resolve

STEPS = (0, 1000, 3000)
THERE = "There are step0, step1000, step3000"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Three steps of a small model, and beside them what a training leaves."""
    folder = tmp_path / "my-run"
    folder.mkdir()
    for n in STEPS:
        tiny.write(folder / f"step{n}", tiny.folder_files(width=32))
    (folder / "train.log").write_text("1")
    (folder / "wandb").mkdir()
    return folder


@pytest.fixture(scope="module")
def nano_files_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of `quantize`, fit to be published, with a report."""
    folder = tmp_path_factory.mktemp("step") / "made"
    pythia_gguf.quantize(NANO, folder, quants="Q8_0", keep_f16=True, quantized_by="me")
    with_front(folder, FRONT + "license: apache-2.0\n")
    (folder.parent / "text").write_text((NANO / "heldout.txt").read_text("utf-8")[:2000], "utf-8")
    measure_files([folder], text=folder.parent / "text", context=32, out=folder.parent / "report.json", threads=1)
    return folder


@pytest.fixture
def nano_run(tmp_path: Path, nano_files_made: Path) -> Path:
    """A step that is a checkpoint, and one that is the files made of it."""
    run = tmp_path / "nano-run"
    shutil.copytree(NANO, run / "step1000", ignore=shutil.ignore_patterns("heldout*"))
    shutil.copytree(nano_files_made, run / "step2000")
    return run


def all_commands() -> list[tuple[str, str]]:
    """Each command that takes a model, with the steps that it can take: a checkpoint, or files made of one."""
    of_checkpoints = MODEL_COMMANDS | SOURCE_COMMANDS
    of_files = MODEL_COMMANDS | PATH_COMMANDS | FOLDER_COMMANDS
    return [(command, "1000") for command in of_checkpoints] + [(command, "2000") for command in of_files]


@pytest.mark.parametrize(("command", "step"), all_commands())
def test_every_command_takes_a_step_of_a_run(
    pythia, nano_run: Path, nano_files_made: Path, own_cache: Path, hub: LoopbackHub, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, command: str, step: str,
):  # fmt: skip
    """Whether what is wanted lies there or must be made; nobody asks the Hub but who sends to it."""
    monkeypatch.chdir(tmp_path)
    work = tmp_path / "work"
    prepare(work)
    shutil.copy(nano_files_made.parent / "report.json", work)
    args = (MODEL_COMMANDS | SOURCE_COMMANDS | PATH_COMMANDS | FOLDER_COMMANDS)[command]
    code, out, err = pythia(*words(command, args, f"nano-run@step{step}", work))
    assert code == 0, (out, err)
    assert command == "publish" or hub.requests == []
    made = {path.name for path in (own_cache / "models").glob("*/*.gguf")}
    if command in SOURCE_COMMANDS or step == "2000":
        assert made == set()
    else:
        assert "nano-run-step1000.Q8_0.gguf" in made


def test_a_name_of_the_hub_alone_is_one_line(pythia, run: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    """What asks the Hub, or the suite, for a model takes no folder."""
    monkeypatch.chdir(run.parent)
    for command in (*NAME_COMMANDS, *(name for name in OTHERS if name in ("models", "check-revisions"))):
        code, out, err = pythia(command, "my-run@step1000")
        assert (code, out, err.count("\n")) == (2, "", 1), (command, err)
        assert "no model 'my-run' in the Pythia suite" in err


SPELLINGS = {
    "my-run@step1000": ("step1000", None),
    "my-run@1000": ("step1000", None),
    "my-run@step_1000": ("step1000", None),
    "my-run@checkpoint-1000": ("step1000", None),
    "my-run/@step1000": ("step1000", None),
    "my-run@step1000/": ("step1000", None),
    "./my-run@step1000": ("step1000", None),
    "other/../my-run@step1000": ("step1000", None),
    "{here}/my-run@step1000": ("step1000", None),
    "my-run@main": ("step3000", None),
    "my-run@step0:Q4_K_M": ("step0", "Q4_K_M"),
    "my-run@0:q8_0": ("step0", "q8_0"),
    "my-run@main:F16": ("step3000", "F16"),
    "my-run/step1000": ("step1000", None),
    "my-run/step1000:Q8_0": ("step1000", "Q8_0"),
    "a@b:c/run@step0:Q8_0": ("../a@b:c/run/step0", "Q8_0"),
}


@pytest.mark.parametrize("text", SPELLINGS)
def test_spellings_of_a_step(run: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    monkeypatch.chdir(run.parent)
    Path("other").mkdir()
    shutil.copytree(run, "a@b:c/run")
    folder, quant = SPELLINGS[text]
    for given in (text.format(here=run.parent), Path(text.format(here=run.parent))):
        found = resolve(given)
        assert isinstance(found, LocalModel)
        assert (found.path.resolve(), found.quant) == ((run / folder).resolve(), quant)


def test_what_exists_under_a_name_wins(run: Path, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch):
    """A path with "@" or ":" in it, before a step; a step, before a name of the Hub; a name, where there is no step."""
    monkeypatch.chdir(run.parent)
    for name in ("my-run@step1000", "my-run@step1000:Q8_0", "step@1000", "x:Q8_0"):
        tiny.write(Path(name), tiny.folder_files(width=32))
        assert resolve(name) == LocalModel(path=Path(name))
    assert resolve("step@1000:Q8_0") == LocalModel(path=Path("step@1000"), quant="Q8_0")
    tiny.write(Path("pythia-70m"), tiny.folder_files(width=32))
    assert isinstance(resolve("pythia-70m@step3000"), ModelName)  # a copy of one revision has no others
    run.rename("pythia-70m-deduped")
    assert isinstance(resolve("pythia-70m-deduped@step3000"), LocalModel)
    assert isinstance(resolve("EleutherAI/pythia-70m-deduped@step3000"), ModelName)


@pytest.mark.parametrize("text", [r"C:\runs\x", r"C:\runs\x:Q8_0", r"C:\runs\x@step3000", r"\\host\x@step1", "D:x"])
def test_the_letter_of_a_drive_is_no_folder(run: Path, monkeypatch: pytest.MonkeyPatch, text: str):
    """Here such a text names nothing, and least of all a run that is called C."""
    run.rename(run.with_name("C"))
    monkeypatch.chdir(run.parent)
    with pytest.raises((StorageError, UsageError), match="no such file or folder"):
        resolve(text)


NO_NAME = "and as a name: no model"
WRONG: dict[str, tuple[type[PythiaGGUFError], str]] = {
    "my-run@step2500": (UsageError, f"my-run: no step2500 here. The nearest are step1000 and step3000. {THERE}"),
    "my-run@9": (UsageError, f"my-run: no step9 here. The nearest are step0 and step1000. {THERE}"),
    "my-run@mian": (UsageError, f"my-run: 'mian' is no step. Did you mean main? {THERE}"),
    "my-run@xyz": (UsageError, f"my-run: 'xyz' is no step. {THERE}"),
    "my-run": (ModelFileError, f"my-run: holds the steps of a run. Give one of them, as my-run@step3000. {THERE}"),
    "my-rum@step1000": (StorageError, f": no such file or folder, {NO_NAME} 'my-rum' in the Pythia suite"),
    "wandb@step1000": (StorageError, f": no folder stepN in wandb, {NO_NAME} 'wandb' in the Pythia suite"),
    "twice@step1": (UsageError, "twice: step01 and step1 are one step. Rename or move one of them"),
}
# These take no name of the Hub, and publish sends all steps too.
OWN_WORDS = {
    ("card", "my-rum@step1000"): (StorageError, "my-rum@step1000: no such folder"),
    ("publish", "my-rum@step1000"): (StorageError, "my-rum@step1000: no such folder"),
    ("card", "wandb@step1000"): (StorageError, "wandb@step1000: no such folder"),
    ("publish", "wandb@step1000"): (StorageError, "wandb@step1000: no such folder"),
    ("publish", "my-run"): (
        UsageError,
        "my-run: holds the steps of a run. Send one of them, or all of them with --branches",
    ),
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_not_there_is_told_with_what_is(
    pythia, run: Path, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
):
    """By every command in the same words, with or without a quant; nothing is made, and nobody is asked."""
    monkeypatch.chdir(tmp_path)
    for name in ("wandb", "twice/step1", "twice/step01"):
        Path(name).mkdir(parents=True)
    prepare(tmp_path / "work")
    commands = MODEL_COMMANDS | SOURCE_COMMANDS | PATH_COMMANDS | FOLDER_COMMANDS
    for command, args in commands.items():
        kind, said = OWN_WORDS.get((command, text), WRONG[text])
        code, out, err = pythia(*words(command, args, text, tmp_path / "work"))
        errors = [line for line in err.splitlines() if line.startswith("Error: ")]
        assert (code, out, len(errors)) == (kind.exit_code, "", 1), (command, err)
        assert said in errors[0], (command, errors)
    assert hub.requests == []


def test_many_steps_are_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for n in range(144):
        Path(f"long/step{n * 1000}").mkdir(parents=True)
    Path("short/step7").mkdir(parents=True)
    with pytest.raises(UsageError, match="There are 144 steps: step0, step1000, step2000 to step143000$"):
        resolve("long@step500")
    with pytest.raises(UsageError, match="no step8 here. The nearest is step7. There is step7$"):
        resolve("short@step8")


def test_files_are_called_after_run_and_step(
    pythia, run: Path, own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """As those of NAME@STEP; so are their keys. What quantize makes is what a run keeps."""
    monkeypatch.chdir(tmp_path)
    for name, base in (("my-run@3000", "my-run-step3000"), ("my-run/@main", "my-run")):
        assert pythia("quantize", name, "--quants", "Q8_0", "--quiet")[0] == 0
        made = Path(f"{base}-GGUF/{base}.Q8_0.gguf")
        assert made.is_file()
        assert f"pythia quantize {base.replace('-step', '@step')}{'' if 'step' in base else '@main'} " in (
            made.parent / "README.md"
        ).read_text("utf-8")
        told: list[str] = []
        path = find_gguf(f"{name}:Q8_0", tell=told.append)
        assert path.name == made.name and path.is_relative_to(own_cache)
        assert path.read_bytes() == made.read_bytes()
        assert len(told) == 1 and f"pressed my-run@{'step3000' if 'step' in base else 'main'} to Q8_0" in told[0]
        assert find_gguf(f"{name}:q8_0", tell=told.append) == path and len(told) == 1
    # By its place the step is called as its folder is: another name in the keys, and so another file.
    assert find_gguf("my-run/step3000:Q8_0").name == "step3000.Q8_0.gguf"
    assert open_gguf(path).metadata["general.name"] == "My Run"


def test_what_is_kept_of_a_step_is_listed_so_that_it_can_be_given_again(run: Path, own_cache: Path):
    path = find_gguf(f"{run}@1000:Q8_0")
    (entry,) = kept()
    assert entry.what == f"{run}@step1000:Q8_0"
    assert find_gguf(entry.what) == path


def test_python_takes_a_step_as_commands_do(run: Path, own_cache: Path, tmp_path: Path):
    model = pythia_gguf.load(run, revision="step1000", quant="Q8_0", threads=1)
    assert model.path == find_gguf(f"{run}@step1000:Q8_0")
    assert pythia_gguf.load(f"{run}@step1000", quant="Q8_0", threads=1).path == model.path
    assert pythia_gguf.load(f"{run}@1000:Q8_0", revision="step1000", threads=1).path == model.path
    with pytest.raises(UsageError, match="two of them: revision step1000 and step3000"):
        pythia_gguf.load(f"{run}@step1000", revision="step3000")
    with pytest.raises(UsageError, match="this is a path, not a model of the Hub"):
        pythia_gguf.load(run / "step1000", revision="step3000")
    with pytest.raises(UsageError, match="no step2 here"):
        pythia_gguf.load(run, revision="step2")
    done = pythia_gguf.quantize(f"{run}@step0", tmp_path / "out", quants="Q8_0")
    assert done.name == "my-run-step0"
    with pytest.raises(UsageError, match="a source has no quant. Say quants='Q8_0'"):
        pythia_gguf.quantize(f"{run}@step0:Q8_0")
    with pytest.raises(UsageError, match="keep_source changes nothing"):
        pythia_gguf.quantize(f"{run}@step0", keep_source=True, dry_run=True)


def test_an_unquantized_file_in_a_step_is_a_source(nano_run: Path, tmp_path: Path):
    done = pythia_gguf.quantize(f"{nano_run}@step2000:F16", tmp_path / "out", quants="Q4_0")
    assert done.name == "nano"
    assert find_path(f"{nano_run}@2000:F16", None) == nano_run / "step2000" / "nano.F16.gguf"
    with pytest.raises(UsageError, match="no BF16 here. Did you mean F16"):
        pythia_gguf.quantize(f"{nano_run}@step2000:BF16", tmp_path / "out")
    with pytest.raises(UsageError, match="no Q4_0 here"):
        find_path(f"{nano_run}@step1000:Q4_0", None)


def test_a_folder_with_a_model_of_its_own_is_that_model(run: Path, own_cache: Path):
    """As a training leaves it that writes its last model beside the steps."""
    for name, content in tiny.folder_files(width=64).items():
        (run / name).write_bytes(content)
    assert find_gguf(f"{run}:Q8_0").name == "my-run.Q8_0.gguf"
    assert find_gguf(f"{run}@step0:Q8_0").name == "my-run-step0.Q8_0.gguf"


def test_publish_says_how_all_steps_are_sent(run: Path, hub: LoopbackHub):
    for folder in run.glob("step*"):
        (folder / "README.md").write_text("# Tiny\n")
    with pytest.raises(UsageError, match="Send one of them, or all of them with branches=True"):
        publish(run, "me/x")
    assert {file.branch for file in publish(f"{run}@step0", "me/x", dry_run=True)} == {"main"}
    sent = publish(run, "me/x", dry_run=True, branches=True)
    assert {file.branch for file in sent} == {"step0", "step1000", "step3000", "main"}
