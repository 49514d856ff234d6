"""Which files of a folder are opened, and that neither an index nor a link can lead out of it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from checkpoint import craft_safetensors, hostile_zip
from checkpoint.case import check_message
from checkpoint.craft_pickle import state_dict, tensor
from pythia_gguf.checkpoint import open_checkpoint
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError

INDEX = "model.safetensors.index.json"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"


def refused(folder: Path, kind: type[PythiaGGUFError], path: Path, says: str) -> None:
    """Open the folder; check the one line, and that it begins with `path`."""
    with pytest.raises(kind) as caught:
        open_checkpoint(folder)
    check_message(caught.value, path, says)


def sharded(folder: Path) -> dict[str, str]:
    """Two good shards with tensors a and b; returns the map their index needs."""
    folder.mkdir(exist_ok=True)
    (folder / FIRST).write_bytes(craft_safetensors.named("a"))
    (folder / SECOND).write_bytes(craft_safetensors.named("b"))
    return {"a": FIRST, "b": SECOND}


def write_index(folder: Path, weight_map: object) -> Path:
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {"total_size": 16.0, "notes": [1, {"x": None}]}, "weight_map": weight_map}))
    return path


# Which files are chosen


def test_single_files_come_before_indexes_and_safetensors_before_bin(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(hostile_zip.good_zip())
    assert open_checkpoint(tmp_path).kind == "torch"
    write_index(tmp_path, sharded(tmp_path))
    opened = open_checkpoint(str(tmp_path))
    assert (opened.kind, list(opened.tensors)) == ("safetensors", ["a", "b"])
    assert opened.files == (tmp_path / FIRST, tmp_path / SECOND, tmp_path / INDEX)
    (tmp_path / "model.safetensors").write_bytes(craft_safetensors.named("single"))
    assert list(open_checkpoint(tmp_path).tensors) == ["single"]


def test_shards_are_read_in_name_order_whatever_the_index_says(tmp_path: Path) -> None:
    sharded(tmp_path)
    write_index(tmp_path, {"b": SECOND, "a": FIRST})
    assert list(open_checkpoint(tmp_path).tensors) == ["a", "b"]


def test_shards_of_torch_are_read_too(tmp_path: Path) -> None:
    names = ["pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"]
    for name, key in zip(names, "zy", strict=True):
        (tmp_path / name).write_bytes(hostile_zip.with_pickle(state_dict(**{key: tensor()})))
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"weight_map": {"y": names[1], "z": names[0]}}))
    opened = open_checkpoint(tmp_path)
    assert (opened.kind, list(opened.tensors), opened.files[-1]) == ("torch", ["z", "y"], index)


def test_files_the_index_does_not_name_are_left_alone(tmp_path: Path) -> None:
    write_index(tmp_path, sharded(tmp_path))
    (tmp_path / "model-00003-of-00003.safetensors").write_bytes(b"left over")
    assert list(open_checkpoint(tmp_path).tensors) == ["a", "b"]


def test_missing_things_are_named_with_what_to_do(tmp_path: Path) -> None:
    refused(tmp_path / "none", StorageError, tmp_path / "none", "no such folder")
    looked_for = "looked for model.safetensors, model.safetensors.index.json, pytorch_model.bin, pytorch_model.bin."
    refused(tmp_path, StorageError, tmp_path, looked_for)
    sharded(tmp_path)
    refused(tmp_path, StorageError, tmp_path, f"found {FIRST} but no {INDEX}. Download it too")
    refused(tmp_path / FIRST, StorageError, tmp_path / FIRST, "is a file, expected the folder that holds it")
    with pytest.raises(StorageError, match="no such folder"):
        open_checkpoint("a\0b\n")


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", INDEX])
def test_folder_in_place_of_a_file_is_refused(name: str, tmp_path: Path) -> None:
    # Windows does not open folders at all; elsewhere they open and are seen to be no file.
    (tmp_path / name).mkdir()
    refused(tmp_path, (ModelFileError, StorageError), tmp_path / name, "")  # type: ignore[arg-type]


# What an index may say


def plain(value: object) -> Callable[[Path], bytes]:
    return lambda folder: json.dumps({"weight_map": value}).encode()


def shard_called(name: str) -> Callable[[Path], bytes]:
    return plain({"a": name})


PLAIN_NAME = "expected a plain file name that ends in .safetensors"
INDEX_CASES: dict[str, tuple[Callable[[Path], bytes], str]] = {
    **{
        f"shard {name[:30]!r}": (shard_called(name), PLAIN_NAME)
        for name in (
            *("../../x.safetensors", "/etc/passwd", "..\\x.safetensors", "a/../../x.safetensors", "a/b.safetensors"),
            *("x\0y.safetensors", ".", "..", "", "a" * 300 + ".safetensors", "https://example.org/x.safetensors"),
            *("C:\\x.safetensors", "C:x.safetensors", ".hidden.safetensors", "x.safetensors\n", "config.json"),
            *("pytorch_model.bin", "~/x.safetensors", "\u0430.safetensors", "-x.safetensors", "x.safetensors/"),
            *("//host/x.safetensors", "x.safetensors:stream"),
        )
    },
    "shard is a number": (plain({"a": 1}), "weight_map.a: expected a text, got 1"),
    "shard is null": (plain({"a": None}), "weight_map.a: expected a text, got None"),
    "shard is a list": (plain({"a": ["x.safetensors"]}), "weight_map.a: expected a text, got ['x.safetensors']"),
    "map is a list": (plain(["x.safetensors"]), "weight_map: expected an object, got ['x.safetensors']"),
    "map is null": (plain(None), "weight_map: expected an object, got None"),
    "map is empty": (plain({}), "index without a weight_map that names shards"),
    "no map": (lambda folder: b"{}", "not an index of shards: it lacks weight_map"),
    "map twice": (lambda folder: b'{"weight_map":{},"weight_map":{}}', "key 'weight_map' is there twice"),
    "tensor twice": (
        lambda folder: f'{{"weight_map":{{"a":"{FIRST}","a":"{SECOND}"}}}}'.encode(),
        "key 'a' is there twice",
    ),
    "tensor name climbs": (plain({"../a": FIRST}), "tensor name '../a'"),
    "empty file": (lambda folder: b"", "not an index of shards: not valid JSON"),
    "array": (lambda folder: b"[]", "expected a JSON object, got list"),
    "cut short": (lambda folder: b'{"weight_map":{"a":', "not valid JSON: Expecting value at line 1"),
    "text after it": (lambda folder: b"{}{}", "not valid JSON: Extra data"),
    "not UTF-8": (lambda folder: b'{"\xff":1}', "byte 2: not UTF-8 text"),
    "UTF-16": (lambda folder: "{}".encode("utf-16"), "not UTF-8 text"),
    "metadata nested 100000 deep": (lambda folder: b'{"metadata":' + b"[" * 100_000, "maximum recursion depth"),
    "metadata is no value": (lambda folder: b'{"metadata":NaN}', "NaN is no number"),
    "metadata 65 deep": (
        lambda folder: b'{"metadata":' + b"[" * 65 + b"]" * 65 + b',"weight_map":{}}',
        "nested deeper than 64",
    ),
    "metadata cut short": (lambda folder: b'{"metadata":', "not valid JSON: Expecting value"),
    "upper and lower case": (plain({"a": "X.safetensors", "b": "x.safetensors"}), "upper and lower case only"),
    "1025 shards": (
        plain({f"t{i}": f"x{i}.safetensors" for i in range(1025)}),
        "or 1024 shards",
    ),
    "5 MiB": (lambda folder: b" " * (5 << 20), "expected at most 4194304 bytes, got 5242880"),
}


@pytest.mark.parametrize("name", list(INDEX_CASES))
def test_hostile_index_is_refused_with_its_rule(name: str, tmp_path: Path) -> None:
    make, says = INDEX_CASES[name]
    sharded(tmp_path)
    (tmp_path / INDEX).write_bytes(make(tmp_path))
    refused(tmp_path, ModelFileError, tmp_path / INDEX, says)


def test_index_and_shards_must_list_the_same_tensors(tmp_path: Path) -> None:
    good = sharded(tmp_path)
    write_index(tmp_path, {**good, "c": SECOND, "d": SECOND})
    refused(tmp_path, ModelFileError, tmp_path / SECOND, f"lacks 2 of the tensors {INDEX} lists for it, c first")
    write_index(tmp_path, {"a": FIRST, "b": FIRST, "c": SECOND})
    refused(tmp_path, ModelFileError, tmp_path / FIRST, "lacks 1 of the tensors")
    (tmp_path / SECOND).write_bytes(craft_safetensors.spans((0, 1), (1, 2), n_bytes=2))
    write_index(tmp_path, {"c": FIRST, "b": SECOND})
    (tmp_path / FIRST).write_bytes(craft_safetensors.named("c"))
    refused(tmp_path, ModelFileError, tmp_path / SECOND, f"holds 1 tensors {INDEX} does not list for it, a first")


def test_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    good = sharded(tmp_path)
    (tmp_path / SECOND).write_bytes(craft_safetensors.spans((0, 1), (1, 2), n_bytes=2))
    write_index(tmp_path, good)
    refused(tmp_path, ModelFileError, tmp_path / SECOND, "does not list for it, a first")


def test_missing_shard_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, sharded(tmp_path))
    (tmp_path / SECOND).unlink()
    refused(tmp_path, StorageError, tmp_path / SECOND, f"missing, {INDEX} names it. Download it too")


def test_damaged_shard_is_named(tmp_path: Path) -> None:
    write_index(tmp_path, sharded(tmp_path))
    (tmp_path / SECOND).write_bytes(craft_safetensors.LFS_POINTER)
    refused(tmp_path, ModelFileError, tmp_path / SECOND, "Git LFS pointer")


# Where links may lead


def link(path: Path, target: str | Path) -> None:
    """A symbolic link, and the folder it lies in."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(target, path)


def cached(root: Path, repository: str = "models--EleutherAI--pythia-14m") -> tuple[Path, Path]:
    """Snapshot and blobs folders of a repository in a Hugging Face cache."""
    snapshot, blobs = root / repository / "snapshots" / "abc123", root / repository / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    return snapshot, blobs


OUTSIDE = "outside of the model. Copy the file into the folder"


def test_snapshot_of_the_hugging_face_cache_is_read(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path)
    (blobs / "0a1b").write_bytes(craft_safetensors.GOOD)
    link(snapshot / "model.safetensors", Path("../../blobs/0a1b"))
    opened = open_checkpoint(snapshot)
    assert opened.files == (snapshot / "model.safetensors",)
    assert opened.tensors["a"].path == snapshot / "model.safetensors"
    # The cache itself, and a folder a user links to it, may lie anywhere.
    link(tmp_path / "mine", snapshot)
    assert list(open_checkpoint(tmp_path / "mine").tensors) == ["a"]


def test_sharded_snapshot_of_the_cache_is_read(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path)
    weight_map = sharded(blobs)
    write_index(blobs, weight_map)
    for name in (FIRST, SECOND, INDEX):
        link(snapshot / name, Path("../../blobs") / name)
    assert list(open_checkpoint(snapshot).tensors) == ["a", "b"]


def test_link_inside_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "step143000.safetensors").write_bytes(craft_safetensors.GOOD)
    link(tmp_path / "model.safetensors", "step143000.safetensors")
    assert list(open_checkpoint(tmp_path).tensors) == ["a"]


def test_hard_link_is_a_file_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(craft_safetensors.GOOD)
    os.link(tmp_path / "x", tmp_path / "model.safetensors")
    assert list(open_checkpoint(tmp_path).tensors) == ["a"]


def test_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(craft_safetensors.GOOD)
    folder = tmp_path / "model"
    link(folder / "model.safetensors", "../secret")
    refused(folder, ModelFileError, folder / "model.safetensors", OUTSIDE)


def test_folder_whose_name_only_begins_alike_is_outside(tmp_path: Path) -> None:
    (tmp_path / "model-evil").mkdir()
    (tmp_path / "model-evil" / "x").write_bytes(craft_safetensors.GOOD)
    link(tmp_path / "model" / "model.safetensors", "../model-evil/x")
    refused(tmp_path / "model", ModelFileError, tmp_path / "model" / "model.safetensors", OUTSIDE)


def test_link_to_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(craft_safetensors.GOOD)
    folder = tmp_path / "model"
    link(folder / "inner", "../secret")
    link(folder / "model.safetensors", "inner")
    refused(folder, ModelFileError, folder / "model.safetensors", OUTSIDE)


def test_link_to_another_repository_of_the_cache_is_refused(tmp_path: Path) -> None:
    snapshot, _ = cached(tmp_path)
    _, blobs = cached(tmp_path, "models--someone--private")
    (blobs / "0a1b").write_bytes(craft_safetensors.GOOD)
    link(snapshot / "model.safetensors", "../../../models--someone--private/blobs/0a1b")
    refused(snapshot, ModelFileError, snapshot / "model.safetensors", OUTSIDE)


def test_blobs_folder_of_anything_but_a_cache_is_outside(tmp_path: Path) -> None:
    snapshot, blobs = cached(tmp_path, "my-models")
    (blobs / "0a1b").write_bytes(craft_safetensors.GOOD)
    link(snapshot / "model.safetensors", "../../blobs/0a1b")
    refused(snapshot, ModelFileError, snapshot / "model.safetensors", OUTSIDE)


def test_index_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_index(tmp_path, sharded(folder))
    link(folder / INDEX, f"../{INDEX}")
    refused(folder, ModelFileError, folder / INDEX, OUTSIDE)


def test_shard_that_links_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_index(folder.parent, sharded(folder))
    (tmp_path / INDEX).rename(folder / INDEX)
    (folder / SECOND).rename(tmp_path / "elsewhere")
    link(folder / SECOND, "../elsewhere")
    refused(folder, ModelFileError, folder / SECOND, OUTSIDE)


def test_link_to_nothing_is_an_error_and_not_a_reason_to_open_another_file(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(hostile_zip.good_zip())
    link(tmp_path / "model.safetensors", "gone")
    refused(tmp_path, StorageError, tmp_path / "model.safetensors", "cannot open")


def test_circle_of_links_is_refused(tmp_path: Path) -> None:
    link(tmp_path / "model.safetensors", "model.safetensors")
    refused(tmp_path, StorageError, tmp_path / "model.safetensors", "cannot open")


if os.name == "posix":  # Windows has neither devices nor pipes in its file system

    def test_device_behind_a_link_is_refused(tmp_path: Path) -> None:
        link(tmp_path / "model.safetensors", "/dev/zero")
        refused(tmp_path, ModelFileError, tmp_path / "model.safetensors", OUTSIDE)

    def test_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "model.safetensors")
        refused(tmp_path, ModelFileError, tmp_path / "model.safetensors", "not a regular file")
