"""What a run writes, refuses and leaves alone."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from press.toy_gguf import model_metadata, write_gguf
from pythia_gguf import decode_tensor, open_gguf, quantize, verify
from pythia_gguf.errors import ModelFileError, StorageError, UsageError
from pythia_gguf.press import slabs

NANO = Path("examples/nano")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All 19 files of the sample."""
    out = tmp_path_factory.mktemp("press") / "out"
    quantize(NANO, out, threads=2)
    return out


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sample, to be damaged."""
    return Path(shutil.copytree(NANO, tmp_path / "nano"))


def change_tensor(folder: Path, name: str, index: tuple[int, ...], value: float, dtype: type = np.float16) -> None:
    tensors = {k: v.astype(dtype) for k, v in load_file(folder / "model.safetensors").items()}
    tensors[name][index] = value
    save_file(tensors, folder / "model.safetensors")


def test_folder_holds_19_files_card_sums_and_manifest(folder: Path):
    names = sorted(p.name for p in folder.iterdir())
    assert len([n for n in names if n.endswith(".gguf")]) == 19
    assert [n for n in names if not n.endswith(".gguf")] == ["README.md", "SHA256SUMS", "manifest.json"]


def test_result_tells_what_is_on_disk(tmp_path: Path):
    result = quantize(NANO, tmp_path, quants=["Q8_0", "Q4_0"])
    assert [f.quant for f in result.files] == ["Q4_0", "Q8_0"]
    for f in result.files:
        assert f.path.stat().st_size == f.n_bytes
        assert hashlib.sha256(f.path.read_bytes()).hexdigest() == f.sha256
        assert f.plan["output.weight"][0] == ("Q8_0" if f.quant == "Q8_0" else "Q6_K")
    assert result.n_weights == 6_836_224  # as examples/nano/README.md says
    assert result.seconds > 0


def test_sums_are_those_of_the_files(folder: Path):
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        digest, name = line.split("  ")
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest


def test_manifest_hashes_every_tensor_and_source(folder: Path):
    manifest = json.loads((folder / "manifest.json").read_text())
    entry = next(f for f in manifest["files"] if f["quant"] == "Q4_K_M")
    gguf = open_gguf(folder / entry["file"])
    data = (folder / entry["file"]).read_bytes()
    assert [row["tensor"] for row in entry["tensors"]] == list(gguf.tensors)
    for row in entry["tensors"]:
        info = gguf.tensors[row["tensor"]]
        start = gguf.data_offset + info.offset
        assert row["format"] == info.format
        assert row["sha256"] == hashlib.sha256(data[start : start + info.n_bytes]).hexdigest()
    for source in manifest["source"]["files"]:
        assert source["sha256"] == hashlib.sha256((NANO / source["file"]).read_bytes()).hexdigest()
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {s["file"] for s in manifest["source"]["files"]}


@pytest.mark.parametrize(("threads", "slab"), [(1, 2 << 20), (3, 1 << 14), (2, 1)])
def test_threads_and_slabs_do_not_change_a_byte(folder: Path, tmp_path: Path, monkeypatch, threads: int, slab: int):
    monkeypatch.setattr(slabs, "SLAB_WEIGHTS", slab)
    quantize(NANO, tmp_path / "again", threads=threads, quants="Q4_K_M,IQ4_XS,Q2_K,Q8_0")
    for file in (tmp_path / "again").glob("*.gguf"):
        assert file.read_bytes() == (folder / file.name).read_bytes()


def test_same_source_gives_the_same_manifest_anywhere(folder: Path, tmp_path: Path):
    quantize(NANO, tmp_path / "elsewhere", threads=1)
    assert (tmp_path / "elsewhere" / "manifest.json").read_bytes() == (folder / "manifest.json").read_bytes()


def test_unquantized_file_gives_the_same_folder(tmp_path: Path):
    """The sample by way of its own F16 file: other input, same bytes of every quant."""
    first = quantize(NANO, tmp_path / "a", keep_f16=True, quants="Q5_K_M,Q4_1")
    second = quantize(tmp_path / "a" / "nano.F16.gguf", tmp_path / "b", quants="Q5_K_M,Q4_1")
    assert [f.sha256 for f in first.files if f.quant != "F16"] == [f.sha256 for f in second.files]
    assert second.name == "nano"


def test_decoded_weights_are_near_the_source(folder: Path):
    """Rows of the fused QKV are regrouped, so a wrong order would be far off: q of head 1 is source row 3 * 64."""
    source = load_file(NANO / "model.safetensors")["gpt_neox.layers.2.attention.query_key_value.weight"]
    decoded = decode_tensor(open_gguf(folder / "nano.Q8_0.gguf"), "blk.2.attn_qkv.weight")
    # Q8_0 rounds to 1/127 of the largest weight in 32, half a step at most, and the scale to half precision
    assert np.abs(decoded[64] - source[192].astype(np.float32)).max() < np.abs(source[192]).max() / 127 * 0.51
    assert np.abs(decoded[64] - source[64].astype(np.float32)).max() > 0.05


def test_dry_run_knows_exact_sizes_and_writes_nothing(folder: Path, tmp_path: Path):
    result = quantize(NANO, tmp_path / "none", dry_run=True)
    assert {f.path.name: f.n_bytes for f in result.files} == {p.name: p.stat().st_size for p in folder.glob("*.gguf")}
    assert not (tmp_path / "none").exists()
    assert all(f.sha256 is None for f in result.files)


def test_lone_alias_is_a_file_of_its_own(folder: Path, tmp_path: Path):
    result = quantize(NANO, tmp_path / "out", quants="Q4_K")
    assert result.files[0].alias_of is None
    assert (tmp_path / "out" / "nano.Q4_K.gguf").read_bytes() == (folder / "nano.Q4_K_M.gguf").read_bytes()
    assert verify(tmp_path / "out")[0].fault is None


def test_existing_files_stay_unless_forced(tmp_path: Path):
    quantize(NANO, tmp_path, quants="Q4_0")
    file = tmp_path / "nano.Q4_0.gguf"
    file.write_bytes(b"mine")
    with pytest.raises(
        UsageError, match=r"nano.Q4_0.gguf exists and is not what manifest.json says: expected 4318688 bytes"
    ):
        quantize(NANO, tmp_path, quants="Q4_0")
    assert file.read_bytes() == b"mine"
    quantize(NANO, tmp_path, quants="Q4_0", force=True)
    assert file.stat().st_size == 4_318_688


def test_finished_files_are_kept_and_only_the_rest_is_made(tmp_path: Path):
    quantize(NANO, tmp_path, quants="Q4_0")
    before = (tmp_path / "nano.Q4_0.gguf").stat()
    result = quantize(NANO, tmp_path, quants="Q4_0,Q8_0")
    after = (tmp_path / "nano.Q4_0.gguf").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert [f.quant for f in result.files] == ["Q4_0", "Q8_0"]
    assert "nano.Q8_0.gguf" in (tmp_path / "README.md").read_text("utf-8")
    assert all(v.fault is None and v.checked == "every byte" for v in verify(tmp_path))


def test_card_that_somebody_edited_stays(tmp_path: Path):
    quantize(NANO, tmp_path, quants="Q4_0")
    card = tmp_path / "README.md"
    card.write_text(card.read_text("utf-8") + "\nMine.\n", "utf-8")
    quantize(NANO, tmp_path, quants="Q4_0")  # tells of the same files
    quantize(NANO, tmp_path, quants="Q8_0")
    text = card.read_text("utf-8")
    assert "| nano.Q8_0.gguf |" in text and text.endswith("\nMine.\n")
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(UsageError, match=r"nano\.Q4_0\.gguf exists and no manifest\.json says what it was made from"):
        quantize(NANO, tmp_path, quants="Q4_0")
    assert card.read_text("utf-8") == text


@pytest.mark.parametrize("other", [{"mix": "2024"}, {"name": "nano2"}])
def test_files_of_another_run_are_refused(tmp_path: Path, other: dict):
    quantize(NANO, tmp_path, quants="Q4_0")
    with pytest.raises(UsageError, match=r"exists and was made with .*Use force=True"):
        quantize(NANO, tmp_path, quants="Q4_0", **other)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_non_finite_weight_is_refused_by_tensor_and_index(copy: Path, tmp_path: Path, value: float):
    name = "gpt_neox.layers.3.attention.query_key_value.weight"
    change_tensor(copy, name, (200, 17), value)
    with pytest.raises(ModelFileError) as e:
        quantize(copy, tmp_path / "out")
    assert f"tensor {name}, blk.3.attn_qkv.weight" in str(e.value)
    assert f"value {value} at [200, 17] is not finite" in str(e.value)
    assert "\n" not in str(e.value)
    assert list((tmp_path / "out").iterdir()) == []


def test_non_finite_bias_is_refused_too(copy: Path, tmp_path: Path):
    change_tensor(copy, "gpt_neox.final_layer_norm.bias", (9,), np.nan)
    with pytest.raises(ModelFileError, match=r"value nan at \[9\] is not finite"):
        quantize(copy, tmp_path / "out", quants="Q8_0")


def test_float32_weight_beyond_float16_is_refused(copy: Path, tmp_path: Path):
    change_tensor(copy, "embed_out.weight", (4000, 255), 70000.0, np.float32)
    with pytest.raises(ModelFileError, match=r"value 70000.0 at \[4000, 255\] does not fit float16"):
        quantize(copy, tmp_path / "out", quants="Q8_0")


def test_scale_beyond_float16_is_refused_as_llama_cpp_does(tmp_path: Path):
    """A float32 GGUF may hold weights whose minimum no float16 expresses; llama-quantize fails on them too."""
    metadata = model_metadata(hidden=64, n_layers=1, n_heads=2, n_ffn=64)
    source = write_gguf(tmp_path / "big.gguf", metadata, stored="F32", hard=False)
    gguf = open_gguf(source)
    at = gguf.data_offset + gguf.tensors["blk.0.ffn_up.weight"].offset
    with open(source, "r+b") as f:
        f.seek(at)
        f.write(np.float32(-1e6).tobytes())
    with pytest.raises(
        ModelFileError, match=r"tensor blk.0.ffn_up.weight: weights in rows 0 to 63 are too large for Q4_1"
    ):
        quantize(source, tmp_path / "out", quants="Q4_1")
    import oracle

    with pytest.raises(AssertionError):
        oracle.quantize(source, tmp_path / "theirs.gguf", 3)


def test_quantized_source_is_refused(folder: Path, tmp_path: Path):
    with pytest.raises(ModelFileError, match=r"already quantized \(Q8_0\): quantizing again would lose quality"):
        quantize(folder / "nano.Q8_0.gguf", tmp_path / "out")


def test_missing_and_wrong_sources(tmp_path: Path):
    with pytest.raises(StorageError, match="no such file or folder. Give a Hugging Face folder"):
        quantize(tmp_path / "none", tmp_path / "out")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match=r"expected a Hugging Face folder or a .gguf file"):
        quantize(tmp_path / "notes.txt", tmp_path / "out")


def test_missing_tensor_is_named(copy: Path, tmp_path: Path):
    tensors = load_file(copy / "model.safetensors")
    del tensors["gpt_neox.layers.5.mlp.dense_4h_to_h.weight"]
    save_file(tensors, copy / "model.safetensors")
    with pytest.raises(ModelFileError, match=r"tensor blk.5.ffn_down.weight: tensor is missing"):
        quantize(copy, tmp_path / "out")


def test_buffers_of_old_checkpoints_are_dropped(copy: Path, tmp_path: Path, folder: Path):
    """Causal masks and rotation frequencies, of types and with values that no weight may have."""
    tensors = load_file(copy / "model.safetensors")
    for i in range(6):
        prefix = f"gpt_neox.layers.{i}.attention."
        tensors[prefix + "bias"] = np.tril(np.ones((1, 1, 8, 8), np.bool_))
        tensors[prefix + "masked_bias"] = np.array(-np.inf, np.float16)
        tensors[prefix + "rotary_emb.inv_freq"] = np.full(8, np.nan, np.float32)
    save_file(tensors, copy / "model.safetensors")
    result = quantize(copy, tmp_path / "out", quants="Q4_K_M")
    assert result.files[0].path.read_bytes() == (folder / "nano.Q4_K_M.gguf").read_bytes()


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "x" * 200, "new\nline", "trailing."])
def test_names_that_cannot_begin_a_file_are_refused(name: str, tmp_path: Path):
    with pytest.raises(UsageError, match="cannot name files"):
        quantize(NANO, tmp_path / "out", name=name, dry_run=True)


def test_verify_names_what_was_damaged(tmp_path: Path):
    quantize(NANO, tmp_path, quants="Q4_K_M,Q4_K,Q4_0")
    file = tmp_path / "nano.Q4_0.gguf"
    gguf = open_gguf(file)
    info = gguf.tensors["blk.4.ffn_up.weight"]
    data = bytearray(file.read_bytes())
    cases = {
        gguf.data_offset + info.offset + 1000: "tensor blk.4.ffn_up.weight: bytes differ from the manifest",
        100: "",  # somewhere in the header: whatever rule it breaks first
    }
    for at, message in cases.items():
        damaged = data.copy()
        damaged[at] ^= 1
        file.write_bytes(damaged)
        verdicts = {v.file: v for v in verify(tmp_path)}
        assert verdicts["nano.Q4_0.gguf"].fault is not None
        assert message in verdicts["nano.Q4_0.gguf"].fault
        assert verdicts["nano.Q4_K_M.gguf"].fault is None
    file.write_bytes(data[:-32])
    assert "expected 4318688 bytes, got 4318656" in str(verify(file)[0].fault)
    file.unlink()
    assert "is missing" in str({v.file: v for v in verify(tmp_path)}["nano.Q4_0.gguf"].fault)


def test_verify_of_a_lone_file_checks_its_header(folder: Path, tmp_path: Path):
    shutil.copy(folder / "nano.Q4_0.gguf", tmp_path)
    assert verify(tmp_path / "nano.Q4_0.gguf")[0].checked == "header and sizes"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not valid JSON"),
        ("[]", "expected a JSON object"),
        ('{"schema_version": 1, "files": [{"file": "../x", "bytes": 1, "sha256": ""}]}', "is not the name of a file"),
        ('{"schema_version": 1, "files": [{"file": 3, "bytes": 1, "sha256": ""}]}', "expected a text, got 3"),
        ("[" * 100_000, "not usable JSON"),
    ],
)
def test_damaged_manifest_is_one_line(tmp_path: Path, text: str, message: str):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(ModelFileError, match=message) as e:
        verify(tmp_path)
    assert "\n" not in str(e.value)
