"""What people give in place of a model is told by its name, in one line with the way out, by every command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from cli.command_lines import write_task
from hub.loopback import LoopbackHub
from press import tiny
from pythia_gguf.cli.main import COMMANDS
from pythia_gguf.gguf.container import Metadata, padded
from pythia_gguf.gguf.imatrix import Importance, ImportanceMatrix, imatrix_bytes
from pythia_gguf.gguf.writer import header_bytes, layout

HF = tiny.folder_files()
TEXTS = {name: data for name, data in HF.items() if name != "model.safetensors"}
LORA = {
    "adapter_config.json": json.dumps(
        {"peft_type": "LORA", "base_model_name_or_path": "EleutherAI/pythia-70m", "r": 8}
    ).encode(),
    "adapter_model.safetensors": b"x",
    "tokenizer.json": HF["tokenizer.json"],
}
STEP = "global_step500/"
ZERO = {f"{STEP}bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt": b"x", f"{STEP}mp_rank_00_model_states.pt": b"x"}

NORM = "gpt_neox.final_layer_norm"

# What a folder holds, what is said of it, and the way out.
FOLDERS: dict[str, tuple[dict[str, bytes], str, str]] = {
    "LoRA": (LORA, "an adapter (LORA) of EleutherAI/pythia-70m, not a model", "merge_and_unload"),
    "LoRA in .bin": (
        {"adapter_config.json": b"{}", "adapter_model.bin": b"x"},
        "is an adapter, not",
        "merge_and_unload",
    ),
    "LoRA, config damaged": ({"adapter_config.json": b"{"}, "is an adapter, not a model", "merge_and_unload"),
    "prefix": (
        {"adapter_config.json": b'{"peft_type": "PREFIX_TUNING", "base_model_name_or_path": "a/b"}'},
        "an adapter (PREFIX_TUNING) of a/b, not a model",
        "Give that model",
    ),
    "LoRA with config.json": (TEXTS | LORA, "an adapter (LORA)", "merge_and_unload"),
    "LoRA of a path of escapes": (
        {"adapter_config.json": b'{"base_model_name_or_path": "\\u001b[2J\\n"}'},
        "an adapter of \\x1b[2J\\n",
        "merge_and_unload",
    ),
    "GPTQ of AutoGPTQ": (
        TEXTS | {"quantize_config.json": b"{}", "gptq_model-4bit-128g.safetensors": b"x"},
        "GPTQ",
        "original",
    ),
    "GPTQ": (
        HF | {"config.json": json.dumps(tiny.config() | {"quantization_config": {"quant_method": "gptq"}}).encode()},
        "quantized already by gptq",
        "original",
    ),
    "bitsandbytes": (
        HF | {"config.json": json.dumps(tiny.config() | {"quantization_config": {"load_in_4bit": True}}).encode()},
        "quantized already",
        "original",
    ),
    "ONNX": (TEXTS | {"onnx/model.onnx": b"x"}, "weights of ONNX only (onnx)", "original"),
    "Flax": (TEXTS | {"flax_model.msgpack": b"x"}, "weights of Flax only (flax_model.msgpack)", "from_flax=True"),
    "TensorFlow": (TEXTS | {"tf_model.h5": b"x"}, "weights of TensorFlow only (tf_model.h5)", "from_tf=True"),
    "CTranslate2": (TEXTS | {"model.bin": b"x"}, "CTranslate2", "original"),
    "sentence-transformers": (TEXTS | {"modules.json": b"[]"}, "sentence-transformers", "language model"),
    "embeddings alone": (
        HF | {"config.json": json.dumps(tiny.config() | {"architectures": ["GPTNeoXModel"]}).encode()},
        "no model that writes text",
        "GPTNeoXForCausalLM",
    ),
    "data set": ({"dataset_info.json": b"{}", "data-00000-of-00001.arrow": b"x"}, "a data set", "Give a model"),
    "data set of a Hub": ({"README.md": b"# x\n", "train.parquet": b"x"}, "a data set (train.parquet)", "Give a model"),
    "DeepSpeed": ({"zero_to_fp32.py": b"", "latest": b"global_step500", **ZERO}, "DeepSpeed", "zero_to_fp32.py FOLDER"),
    "DeepSpeed, its inner folder": (
        {name.removeprefix(STEP): data for name, data in ZERO.items()},
        "DeepSpeed",
        "zero_to",
    ),
    "DeepSpeed, a file for a folder": (TEXTS | {"global_step500": b"x"}, "DeepSpeed", "zero_to_fp32.py FOLDER"),
    "DeepSpeed with config": (TEXTS | ZERO, "DeepSpeed", "zero_to_fp32.py FOLDER"),
    "FSDP": (TEXTS | {"pytorch_model_fsdp_0/__0_0.distcp": b"x"}, "FSDP", "merge-weights"),
    "optimizer alone": (
        {"optimizer.pt": b"x", "scheduler.pt": b"x", "rng_state.pth": b"x"},
        "without the weights",
        "save_",
    ),
    "trainer state": (TEXTS | {"trainer_state.json": b"{}", "optimizer.pt": b"x"}, "without the weights", "save_"),
    "run of checkpoints": (
        {f"checkpoint-{n}/{name}": data for n in (9, 10) for name, data in HF.items()} | {"training_args.bin": b"x"},
        "holds checkpoints",
        "checkpoint-10",
    ),
    "cache of the Hub": (
        {"refs/main": b"0123", **{f"snapshots/0123/{name}": data for name, data in HF.items()}},
        "holds checkpoints",
        "snapshots/0123",
    ),
    "Lightning": (TEXTS | {"last.ckpt": b"x"}, "a layout that is not read (last.ckpt)", "save_pretrained"),
    "a module": (TEXTS | {"model.pth": b"x"}, "a layout that is not read (model.pth)", "save_pretrained"),
    **{
        f"tensors: {prefix or suffix}": (
            HF | {"model.safetensors": tiny.safetensors([(f"{prefix}{NORM}{suffix}", (2,))])},
            what,
            way_out,
        )
        for prefix, suffix, what, way_out in (
            ("module.", ".weight", "the wrapper around the model", "save the model inside"),
            ("_orig_mod.", ".weight", "the wrapper around the model", "save the model inside"),
            ("base_model.model.", ".weight", "the wrapper around the model", "save the model inside"),
            ("base_model.model.", ".lora_A.weight", "an adapter that is not merged", "merge_and_unload"),
            ("", ".qweight", "quantized weights", "original"),
            ("", ".weight.absmax", "quantized weights", "original"),
            ("v_head.", ".weight", "a head that writes no text", "the language model itself"),
        )
    },
    "diffusers": ({"model_index.json": b"{}"}, "diffusers", "language model"),
}


def bare_gguf(metadata: Metadata) -> bytes:
    infos = layout([("a", "F32", (2, 2))])
    return header_bytes(metadata, infos) + bytes(padded(16, 32))


MATRIX = imatrix_bytes(
    ImportanceMatrix(
        entries={"blk.0.ffn_up.weight": Importance(sums=np.ones(2, np.float32), count=4)},
        datasets=("x.txt",),
        n_chunks=1,
        chunk_tokens=4,
    )
)
FILES: dict[str, tuple[str, bytes, str, str]] = {
    "LoRA": (
        "lora.gguf",
        bare_gguf({"general.architecture": "gptneox", "general.type": "adapter", "adapter.type": "lora"}),
        "a LoRA adapter, not a model",
        "llama-export-lora",
    ),
    "importance matrix": ("imatrix.gguf", MATRIX, "an importance matrix, not a model", "quantize takes it"),
    "projector": ("mmproj.gguf", bare_gguf({"general.architecture": "clip"}), "a projector", "language model"),
    "projector by its type": ("p.gguf", bare_gguf({"general.type": "mmproj"}), "a projector", "language model"),
    "vocabulary": ("v.gguf", bare_gguf({"general.type": "vocab"}), "a vocabulary without weights", "Give the model"),
    "another architecture": ("l.gguf", bare_gguf({"general.architecture": "llama"}), "expected 'gptneox'", "'llama'"),
    "part": ("m-00001-of-00002.gguf", tiny.gguf_bytes(keys={"split.count": np.uint16(2)}), "one of 2 files", "--merge"),
    "old importance matrix": (
        "nano.imatrix.dat",
        b"\1\0\0\0" * 9,
        "an importance matrix, not a model",
        "quantize takes",
    ),
    "weights": ("model.safetensors", HF["model.safetensors"], "one file of a model", "Give the folder"),
    "config": ("config.json", HF["config.json"], "one file of a model", "Give the folder"),
    "adapter's weights": ("adapter_model.safetensors", b"x" * 64, "part of an adapter", "Give its folder"),
    "ONNX": ("model.onnx", b"x" * 64, "for another program", "original"),
    "archive": ("model.tar.gz", b"x" * 64, "an archive", "Unpack"),
}

TEXT = Path(__file__)
# Every command, and how it is given a model; None: it takes none, or only what others of these have made.
TAKES: dict[str, list[str] | None] = {
    "models": None,
    "pull": None,
    "check-revisions": None,
    "quantize": ["quantize", "MODEL", "--dry-run"],
    "imatrix": ["imatrix", "MODEL", "--text", str(TEXT), "-o", "OUT"],
    "quants": ["quants", "MODEL"],
    "inspect": ["inspect", "MODEL"],
    "verify": None,
    "generate": ["generate", "MODEL", "a"],
    "score": ["score", "MODEL", "--prompt", "a", "--continuation", "b"],
    "measure": ["measure", "MODEL", "--reference", "MODEL", "--text", str(TEXT)],
    "eval": ["eval", "MODEL", "--tasks", "two_words", "--include-path", "TASKS"],
    "plot": None,
    "card": None,
    "bench": ["bench", "MODEL"],
    "serve": ["serve", "MODEL", "--check", "--port", "0"],
    "export": ["export", "MODEL", "--to", "OUT"],
    "publish": ["publish", "MODEL", "--repo", "me/x", "--dry-run"],
    "train": None,
    "replay": None,
    "data tokenize": None,
    "data dedup": None,
    "data order": None,
    "data view": None,
    "data pull": None,
    "data index": None,
    "data find": None,
    "data trace": None,
    "data effect": None,
    "data corpus": None,
    "data stats": None,
    "warmup": None,
    "cache": None,
    "doctor": None,
}


def test_every_command_is_in_the_table():
    assert set(COMMANDS) <= set(TAKES)


@pytest.fixture
def tasks(tmp_path: Path) -> Path:
    write_task(tmp_path / "tasks")
    return tmp_path / "tasks"


def test_folders_are_told_by_every_command(pythia, tasks: Path, tmp_path: Path):
    for i, (files, what, way_out) in enumerate(FOLDERS.values()):
        folder = tmp_path / f"folder-{i}"
        for file, data in files.items():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(data)
        check_commands(pythia, folder, what, way_out, tmp_path / "out")


def test_files_are_told_by_every_command(pythia, tasks: Path, tmp_path: Path):
    for i, (file, data, what, way_out) in enumerate(FILES.values()):
        path = tmp_path / f"folder-{i}" / file
        path.parent.mkdir()
        path.write_bytes(data)
        check_commands(pythia, path, what, way_out, tmp_path / "out")


def check_commands(pythia, path: Path, what: str, way_out: str, out: Path) -> None:
    places = {"MODEL": str(path), "OUT": str(out), "TASKS": str(out.parent / "tasks")}
    left_out = {"publish"} if path.is_file() else set()  # it takes folders
    if path.suffix == ".gguf":
        left_out.add("inspect")  # it shows any
    if (path / "config.json").exists() and (path / "model.safetensors").exists():
        left_out |= {"inspect", "measure"}  # they take folders of GGUF files, not the weights of a model
    for command, args in TAKES.items():
        if args is not None and command not in left_out:
            code, shown, err = pythia(*(places.get(a, a) for a in args))
            line = err.splitlines()[-1] if err else ""
            assert (code, shown) == (65, ""), (path, command, code, err)
            assert line.startswith(f"Error: {path}") and line.isprintable(), (command, err)
            assert what in line and way_out in line, (command, line)
    assert not out.exists()


def test_inspect_says_what_a_gguf_is_that_is_no_model(pythia, tmp_path: Path):
    for name, kind in (("LoRA", "adapter"), ("importance matrix", "imatrix"), ("vocabulary", "vocab")):
        path = tmp_path / "x.gguf"
        path.write_bytes(FILES[name][1])
        code, out, _ = pythia("inspect", path)
        assert code == 0
        assert [line for line in out.splitlines() if line.split()[:2] == ["type", kind]]
        _, out, _ = pythia("inspect", path, "--output-format", "json")
        assert json.loads(out)["type"] == kind


def test_a_model_with_an_adapter_beside_it_is_that_model(tmp_path: Path):
    from pythia_gguf import quantize

    folder = tiny.write(tmp_path / "model", tiny.folder_files(32) | LORA)
    result = quantize(folder, tmp_path / "out", quants="Q8_0")
    assert [note for note in result.notes if "adapter_config.json was left out" in note]


def test_a_checkpoint_beside_deepspeeds_own_is_read(tmp_path: Path):
    from pythia_gguf import quantize

    folder = tiny.write(tmp_path / "model", tiny.folder_files(32))
    for name, data in ZERO.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    assert quantize(folder, dry_run=True, quants="Q8_0").files


def test_repositories_are_told_as_folders_are(pythia, hub: LoopbackHub, tmp_path: Path):
    for name in ("LoRA", "LoRA in .bin", "ONNX", "Flax", "data set of a Hub", "DeepSpeed", "trainer state"):
        files, what, way_out = FOLDERS[name]
        hub.add("me/x", files)
        for args in (
            ["quants", "me/x"],
            ["generate", "me/x:Q4_K_M", "a"],
            ["pull", "me/x"],
            ["quants", f"{hub.url}/me/x"],
        ):
            code, out, err = pythia(*args)
            assert (code, out) == (65, ""), err
            line = err.splitlines()[-1]
            assert line.startswith("Error: me/x") and what in line and way_out in line
