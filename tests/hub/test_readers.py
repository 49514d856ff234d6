"""What readers take for a model in a repository, by the names that they are known to look for."""

from __future__ import annotations

import pytest

from pythia_gguf.hub.readers import READERS, is_gguf_model

CHECKPOINT = (
    "model.safetensors", "model.safetensors.index.json", "model-00001-of-00002.safetensors", "model.fp16.safetensors",
    "pytorch_model.bin", "pytorch_model.bin.index.json", "pytorch_model-00001-of-00002.bin", "tf_model.h5",
    "flax_model.msgpack", "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "config.json",
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "additional_chat_templates/tool.jinja",
    "model.safetensors.index.fp16.json", "model.fp16-00001-of-00002.safetensors",
)  # fmt: skip
GGUF = ("x.Q8_0.gguf", "X.GGUF", "deep/x-F16.gguf", "x-00001-of-00002.gguf", "pythia-lora-merged.Q8_0.gguf",
        "imatrix-test.Q4_0.gguf", "manifest.json", "SHA256SUMS")  # fmt: skip
NEITHER = ("README.md", "LICENSE", "notes.json", "optimizer.pt", "training_args.bin", "imatrix.gguf", "x.imatrix.gguf",
           "mmproj-F16.gguf", "x-mmproj-f16.gguf", "../x.gguf", "/x.gguf", "a/../../x.gguf", "gguf", "report.json",
           "logs/config.json", "onnx/model.onnx", "trainer_state.json")  # fmt: skip


@pytest.mark.parametrize("name", [*CHECKPOINT, *GGUF, *NEITHER])
def test_each_file_is_of_one_reader_or_none(name: str):
    assert READERS["checkpoint"](name) == (name in CHECKPOINT)
    assert READERS["gguf"](name) == (name in GGUF)
    assert is_gguf_model(name) == (name in GGUF and name.lower().endswith(".gguf"))


def test_transformers_own_names_are_known():
    """Constants of the library, so that a new one is noticed."""
    from transformers import utils

    names = [getattr(utils, key) for key in dir(utils) if key.endswith(("WEIGHTS_NAME", "WEIGHTS_INDEX_NAME"))]
    assert "model.safetensors" in names
    assert [name for name in names if not READERS["checkpoint"](name)] == []
