"""A hostile Hugging Face folder: text that is no JSON or YAML, things that are no files, links that lead out."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from press import tiny
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, StorageError, UsageError
from pythia_gguf.press.conversion import text_files
from pythia_gguf.press.quantize import quantize
from pythia_gguf.press.source import open_source

FILES = tiny.folder_files()
TEXTS = [name for name in FILES if name != "model.safetensors"]
JSONS = [name for name in TEXTS if name.endswith(".json")]
MUST_BE_READ = [name for name in JSONS if name != "generation_config.json"]


def refusal(folder: Path) -> PythiaGGUFError:
    """The one line that `quantize` answers with."""
    with pytest.raises(PythiaGGUFError) as caught:
        quantize(folder, folder.parent / "out", name="model", dry_run=True)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 1000
    return caught.value


def folder_with(tmp_path: Path, name: str, data: bytes) -> Path:
    return tiny.write(tmp_path / "model", FILES | {name: data})


def with_member(data: bytes, member: bytes) -> bytes:
    """A JSON object with one more member, written as JSON."""
    return data[:-1] + b", " + member + b"}"


def test_the_folder_that_is_broken_here_is_good(tmp_path: Path) -> None:
    source = open_source(tiny.write(tmp_path / "model", FILES), "model")
    assert (source.kind, len(source.tensors), source.readme) == ("safetensors", 16, FILES["README.md"].decode())
    for kind, files in {"safetensors": tiny.sharded(FILES), "torch": tiny.sharded_bins(FILES)}.items():
        assert open_source(tiny.write(tmp_path / kind, files), "model").kind == kind


# Text

DEEP = b"[" * 65 + b"]" * 65
BAD_JSON = {
    "cut short": (lambda good: good[:-1], "not valid JSON"),
    "empty": (lambda good: b"", "not valid JSON"),
    "UTF-8 byte order mark": (lambda good: b"\xef\xbb\xbf" + good, "not valid JSON: Unexpected UTF-8 BOM"),
    "UTF-16": (lambda good: good.decode().encode("utf-16"), "not UTF-8 text"),
    "UTF-16 without a mark": (lambda good: good.decode().encode("utf-16-le"), "not valid JSON"),
    "Latin-1": (lambda good: with_member(good, b'"x": "\xe9"'), "not UTF-8 text"),
    "surrogate in UTF-8": (lambda good: with_member(good, b'"x": "\xed\xa0\x80"'), "not UTF-8 text"),
    "half of a pair": (lambda good: with_member(good, b'"x": ["\\uD800"]'), "half of a surrogate pair"),
    "half of a pair as a key": (lambda good: with_member(good, b'"\\udfff": 1'), "half of a surrogate pair"),
    "zero byte": (lambda good: with_member(good, b'"x": "\0"'), "not valid JSON"),
    "65 deep": (lambda good: with_member(good, b'"x": ' + DEEP), "nested deeper than 64"),
    "65 deep with a half pair": (lambda good: with_member(good, b'"x": [' + DEEP + b', "\\ud800"]'), "nested deeper"),
    "100000 deep": (lambda good: with_member(good, b'"x": ' + b"[" * 100_000), "not usable JSON"),
    "100000 objects deep": (lambda good: with_member(good, b'"x": ' + b'{"a":' * 100_000), "not usable JSON"),
    "key twice": (lambda good: with_member(good, b'"x": 1, "x": 1'), "key 'x' is there twice"),
    "key twice, escaped": (lambda good: with_member(good, b'"x": 1, "\\u0078": 1'), "key 'x' is there twice"),
    "inner key twice": (lambda good: with_member(good, b'"x": {"y": 1, "y": 2}'), "key 'y' is there twice"),
    "number of 5000 digits": (lambda good: with_member(good, b'"x": ' + b"9" * 5000), "not usable JSON"),
    "two objects": (lambda good: good + good, "not valid JSON"),
    "list": (lambda good: b"[" + good + b"]", "expected a JSON object, got list"),
    "NaN alone": (lambda good: b"NaN", "expected a JSON object, got float"),
    "text": (lambda good: b'"x"', "expected a JSON object, got str"),
    "LFS pointer": (lambda good: b"version https://git-lfs.github.com/spec/v1\n", "not valid JSON"),
}


@pytest.mark.parametrize("name", MUST_BE_READ)
@pytest.mark.parametrize("case", list(BAD_JSON))
def test_text_that_is_no_usable_json_is_refused(name: str, case: str, tmp_path: Path) -> None:
    make, says = BAD_JSON[case]
    error = refusal(folder_with(tmp_path, name, make(FILES[name])))
    assert says in str(error)
    assert str(error).startswith(str(tmp_path / "model" / name))
    assert error.exit_code == 65


@pytest.mark.parametrize(("name", "n_keys"), [(name, 10**6 if name == "config.json" else 10**5) for name in JSONS])
def test_very_many_keys_are_read_or_refused(name: str, n_keys: int, tmp_path: Path) -> None:
    keys = b", ".join(b'"k%d": 1' % i for i in range(n_keys))
    folder = folder_with(tmp_path, name, with_member(FILES[name], keys))
    if name == "tokenizer.json":
        assert "k0: unknown field" in str(refusal(folder))
    else:
        assert len(open_source(folder, "model").tensors) == 16


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "1e999", "-0.0", "9" * 400, "true", '"1"', "[]", "{}"]
)
@pytest.mark.parametrize("key", ["hidden_size", "layer_norm_eps", "rotary_pct", "rotary_emb_base", "vocab_size"])
def test_numbers_that_are_none_are_refused_by_key(key: str, value: str, tmp_path: Path) -> None:
    good = json.dumps(json.loads(FILES["config.json"]) | {key: "@"})
    error = refusal(folder_with(tmp_path, "config.json", good.replace('"@"', value).encode()))
    if len(value) > 100:  # refused while it is read, before anyone computes with it
        assert "config.json: not usable JSON: 9999999999... is a number of 400 digits" in str(error)
    else:
        assert f"{key}: expected" in str(error) or "rotated dimensions" in str(error)


END_OF_TEXT = json.loads(FILES["tokenizer.json"])["added_tokens"][0]
LONG = "x" * ((16 << 20) + 1)  # a GGUF may hold texts of 16 MiB
BAD_TEXTS = {
    "name of 17 MB": ("config.json", {"_name_or_path": LONG}, "general.name: a text for the GGUF is longer"),
    "template of 17 MB": (
        "tokenizer_config.json",
        {"chat_template": LONG},
        "chat_template: a text for the GGUF is longer",
    ),
    "template in upper case": (
        "tokenizer_config.json",
        {"chat_template": [{"name": "RAG", "template": "x"}]},
        "template 'RAG': expected a name of at most 255 lower-case letters",
    ),
    "template with a name of 70000": (
        "tokenizer_config.json",
        {"chat_template": [{"name": "a" * 70_000, "template": "x"}]},
        "expected a name of at most 255",
    ),
    "token called like an unused row": (
        "tokenizer.json",
        {"added_tokens": [END_OF_TEXT, END_OF_TEXT | {"id": 258, "content": "[PAD259]"}]},
        "tokenizer.ggml.tokens: token '[PAD259]' has two ids",
    ),
}


@pytest.mark.parametrize("case", list(BAD_TEXTS))
def test_texts_that_no_gguf_can_hold_are_refused(case: str, tmp_path: Path) -> None:
    name, change, says = BAD_TEXTS[case]
    data = json.dumps(json.loads(FILES[name]) | change).encode()
    assert says in str(refusal(folder_with(tmp_path, name, data)))


BAD_CARDS = {
    "hexadecimal number of 10000 digits": "version: 0x" + "f" * 10_000,
    "the same in a list": "datasets: [0x" + "f" * 10_000 + "]",
    "binary number of 20000 digits": "tags: [0b" + "1" * 20_000 + "]",
    "float of 300 parts": "version: " + "9:" * 300 + "9.5",
    "whole number of 5000 parts": "license: " + "9:" * 5000 + "9",
    "nested": "a: " + "[" * 5000,
    "aliases that double": "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]",
    "runs code": "name: !!python/object/apply:os.system [id]",
    "a date that is none": "version: 2023-13-45",
    "zero byte": "name: \0",
}


@pytest.mark.parametrize("case", list(BAD_CARDS))
def test_hostile_front_matter_is_refused(case: str, tmp_path: Path) -> None:
    error = refusal(folder_with(tmp_path, "README.md", f"---\n{BAD_CARDS[case]}\n---\n".encode()))
    assert isinstance(error, ModelFileError) and "README.md: front matter: " in str(error)


# Things that are no files, and links

CASES_OF_PLACES = [*FILES, "chat_template.jinja", "chat_template.json"]


def place_of(tmp_path: Path, name: str) -> Path:
    """A folder without the file `name`, and where it would be."""
    return tiny.write(tmp_path / "model", {k: v for k, v in FILES.items() if k != name}) / name


@pytest.mark.parametrize("name", CASES_OF_PLACES)
def test_folder_in_place_of_any_file_is_refused(name: str, tmp_path: Path) -> None:
    path = place_of(tmp_path, name)
    path.mkdir()
    assert str(refusal(path.parent)).startswith(str(path))  # Windows cannot open it, elsewhere it is no regular file


@pytest.mark.parametrize("name", CASES_OF_PLACES)
@pytest.mark.parametrize(
    ("target", "code", "says"),
    [
        ("../secret", 65, "outside of the model"),
        ("inner", 65, "outside of the model"),  # a link to a link
        ("../model-evil/secret", 65, "outside of the model"),
        ("@", 74, "cannot open"),  # itself
        ("gone", 74, "cannot open"),
    ],
)
def test_link_that_leads_out_or_nowhere_is_refused(
    name: str, target: str, code: int, says: str, tmp_path: Path
) -> None:
    path = place_of(tmp_path, name)
    (tmp_path / "model-evil").mkdir()
    for secret in (tmp_path / "secret", tmp_path / "model-evil" / "secret"):
        secret.write_bytes(FILES.get(name, b"secret"))
    os.symlink("../secret", path.parent / "inner")
    os.symlink(name if target == "@" else target, path)
    error = refusal(path.parent)
    assert (error.exit_code, str(error).startswith(str(path))) == (code, True)
    assert says in str(error)


def test_folder_of_templates_that_lies_elsewhere_is_refused(tmp_path: Path) -> None:
    folder = tiny.write(tmp_path / "model", FILES)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.jinja").write_text("secret")
    os.symlink("../elsewhere", folder / "additional_chat_templates")
    assert "outside of the model" in str(refusal(folder))


def test_links_inside_the_folder_and_into_the_cache_are_read(tmp_path: Path) -> None:
    repository = tmp_path / "models--x--y"
    (repository / "snapshots").mkdir(parents=True)
    blobs = tiny.write(repository / "blobs", FILES)
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir()
    for name in FILES:
        os.symlink(Path("../../blobs") / name, snapshot / name)
    assert len(open_source(snapshot, "y").tensors) == 16
    inside = tiny.write(tmp_path / "model", FILES)
    (inside / "config.json").rename(inside / "step3000.json")
    os.symlink("step3000.json", inside / "config.json")
    assert [p.name for p in text_files(inside)] == TEXTS_IN_ORDER
    assert len(open_source(inside, "model").tensors) == 16
    assert blobs.is_dir()


TEXTS_IN_ORDER = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "README.md",
]

if os.name == "posix":  # Windows has neither devices nor pipes in its file system

    @pytest.mark.parametrize("name", CASES_OF_PLACES)
    def test_pipe_in_place_of_any_file_is_refused_without_waiting(name: str, tmp_path: Path) -> None:
        path = place_of(tmp_path, name)
        os.mkfifo(path)
        error = refusal(path.parent)
        assert str(error).startswith(f"{path}: not a regular file") and error.exit_code == 65

    @pytest.mark.parametrize("name", CASES_OF_PLACES)
    @pytest.mark.parametrize("device", ["/dev/zero", "/dev/stdin"])
    def test_device_in_place_of_any_file_is_refused(name: str, device: str, tmp_path: Path) -> None:
        path = place_of(tmp_path, name)
        os.symlink(device, path)
        assert str(refusal(path.parent)).startswith(str(path))


@pytest.mark.parametrize("name", ["a" * 5000, "a" * 5000 + ".gguf", "a\0b", "a\nb", "a\ud800b", "\x1b[31m"])
def test_names_that_no_file_can_have_are_answered_in_one_line(name: str, tmp_path: Path) -> None:
    with pytest.raises((StorageError, UsageError)) as caught:
        quantize(tmp_path / name, name="model", dry_run=True)
    assert str(caught.value).isprintable() and len(str(caught.value)) < 600
