"""Special tokens, from the checkpoint's folder and from its GGUF, are those of transformers, lm_eval and llama.cpp.

Oracles: AutoTokenizer of transformers 5, and of 4.57.6 in its own environment; lm_eval's `hf`; llama.cpp's
`llama_vocab_is_eog`.
"""

from __future__ import annotations

import json
import os
import subprocess
import unicodedata
from pathlib import Path
from typing import Any

import llama_cpp
import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from transformers import AutoModelForCausalLM, AutoTokenizer

from patience import HANGS_S
from press.test_conversion import described
from press.toy_gguf import widened
from pythia_gguf import load, quantize
from pythia_gguf.engine.scoring import request_of
from pythia_gguf.evals.harness import PythiaLM
from pythia_gguf.export.folder import export
from pythia_gguf.gguf.reader import open_gguf
from pythia_gguf.press.conversion import read_hf_model
from pythia_gguf.tokenizer import TextTokenizer, special_tokens
from tokenizer.adversarial_texts import TEXTS
from tokenizer.special_folders import FOLDERS, write_folder

pytestmark = pytest.mark.slow

PYTHON_4 = (
    Path(__file__).parents[2] / ".venv-transformers4" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
)
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "conversion_special.json").read_text("utf-8"))["cases"]
CONTEXTS = ("def main(", "import os\n\n\nclass A:\n    ", "x", "for i in range(")
# Nats, of sums over up to 900 tokens; our logits are float32, `hf` runs in float64. The nearest wrong reading, another
# token before an empty context, is 0.1 and more away.
NEAR = 2e-4
# The cache of `hf` takes the logits of another request where one continuation begins as another context ends.
EXACT: dict[str, Any] = {"batch_size": 1, "softmax_dtype": torch.float64, "logits_cache": False}
IDS = """
import json, sys
from transformers import AutoTokenizer
found = {}
for folder, texts in json.load(open(sys.argv[1], encoding="utf-8")).items():
    tokenizer = AutoTokenizer.from_pretrained(folder)
    found[folder] = [tokenizer.encode(text) for text in texts]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("special")
    return {name: write_folder(root / name, name) for name in FOLDERS}


@pytest.fixture(scope="module")
def ggufs(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each folder as an F16 file, with its manifest beside."""
    root = tmp_path_factory.mktemp("ggufs")
    made = {name: quantize(folder, root / name, quants=[], keep_f16=True) for name, folder in folders.items()}
    return {name: result.files[0].path for name, result in made.items()}


def texts_of(folder: Path) -> list[str]:
    """Texts with every added token of a folder in them, and texts that begin with one."""
    names = AutoTokenizer.from_pretrained(folder).get_added_vocab()
    with_names = [f"a {name}b{name} c" for name in names] + [f"{name}import os" for name in names]
    return [*TEXTS, *with_names]


@pytest.fixture(scope="module")
def ids_of_4(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[int]]]:
    """What transformers 4 makes of the texts."""
    given = tmp_path_factory.mktemp("texts") / "texts.json"
    given.write_text(json.dumps({str(folder): texts_of(folder) for folder in folders.values()}), "utf-8")
    run = [PYTHON_4, "-c", IDS, given]
    done = subprocess.run(run, capture_output=True, text=True, timeout=HANGS_S)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    return {name: found[str(folder)] for name, folder in folders.items()}


def of_file(path: Path) -> TextTokenizer:
    return TextTokenizer(open_gguf(path).metadata, path)


@pytest.mark.parametrize("name", FOLDERS)
def test_ids_and_named_tokens_are_those_of_both_transformers(
    folders: dict[str, Path], ggufs: dict[str, Path], ids_of_4: dict[str, list[list[int]]], name: str
):
    theirs, ours = AutoTokenizer.from_pretrained(folders[name]), of_file(ggufs[name])
    for text, ids in zip(texts_of(folders[name]), ids_of_4[name], strict=True):
        # The sample's tokenizer.json does not normalize; the class of transformers 5 does, which quantize tells.
        if type(theirs).__name__ == "GPTNeoXTokenizer" and not unicodedata.is_normalized("NFC", text):
            assert ours.encode(text) == ids != theirs.encode(text), text
            continue
        assert ours.encode(text, special=True) == theirs.encode(text) == ids, text
        assert ours.encode(text, special=False) == theirs.encode(text, add_special_tokens=False)
    special = ours.special
    if theirs.bos_token_id is not None or theirs.eos_token_id is not None:
        assert (special.begin, special.end) == (theirs.bos_token_id, theirs.eos_token_id)
    if special.pad is not None or type(theirs).__name__ != "GPTNeoXTokenizer":  # which has one by itself
        assert theirs.pad_token_id == special.pad
    marked = {i for i, token in theirs.added_tokens_decoder.items() if token.special}
    assert marked == set(special.control)


@pytest.mark.parametrize("name", FOLDERS)
def test_a_text_ends_where_it_ends_for_llama_cpp_and_transformers(
    folders: dict[str, Path], ggufs: dict[str, Path], name: str
):
    path, special = ggufs[name], of_file(ggufs[name]).special
    theirs = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    vocab = llama_cpp.llama_model_get_vocab(theirs.model)
    ends = {i for i in range(theirs.n_vocab()) if llama_cpp.llama_vocab_is_eog(vocab, i)}
    theirs.close()
    # Where a file has no end token llama.cpp takes 11, whatever it is (src/llama-vocab.cpp).
    if "tokenizer.ggml.eos_token_id" not in open_gguf(path).metadata:
        ends.discard(11)
    listed = AutoModelForCausalLM.from_pretrained(folders[name]).generation_config.eos_token_id
    named = {listed} if isinstance(listed, int) else set(listed or ())
    assert named <= special.named_ends
    assert ends | named == special.ends


@pytest.mark.parametrize("name", FOLDERS)
def test_keys_are_the_converters(folders: dict[str, Path], name: str):
    """As frozen by scripts/golden_conversion.py; what they say wrongly is in the manifest."""
    metadata = read_hf_model(folders[name], name=name).metadata
    ours = [row for row in described(metadata) if str(row[0]).startswith("tokenizer.")]
    pre = "olmo" if name == "sequences_and_unknown" else "gpt-2"
    wanted = [[key, kind, pre if key == "tokenizer.ggml.pre" else value] for key, kind, value in GOLDEN[name]]
    assert ours == wanted


class Pair:
    """`hf` in float64 and ours, on the same weights."""

    def __init__(self, folder: Path, path: Path, wide: Path) -> None:
        wide.mkdir()
        (wide / "manifest.json").write_bytes((path.parent / "manifest.json").read_bytes())
        self.model = load(widened(path, wide / "wide.gguf"), threads=2, activations="float32")
        self.ours = PythiaLM(self.model)
        theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        self.theirs = HFLM(theirs, tokenizer=tokenizer, **EXACT)
        self.tokens = [tokenizer.decode([i]) for i in tokenizer.added_tokens_decoder]

    def asked(self, kind: str, arguments: list[tuple[Any, ...]]) -> tuple[list[Any], list[Any]]:
        requests = [Instance(kind, {}, a, i, ("task", 0, 1)) for i, a in enumerate(arguments)]  # type: ignore
        return tuple(getattr(lm, kind)(requests, disable_tqdm=True) for lm in (self.ours, self.theirs))  # type: ignore


@pytest.mark.parametrize("name", FOLDERS)
def test_the_harness_has_hfs_numbers_and_texts(
    folders: dict[str, Path], ggufs: dict[str, Path], name: str, tmp_path: Path
):
    pair = Pair(folders[name], ggufs[name], tmp_path / "wide")
    text = (folders[name].parent / "chatml" / "tokenizer.json").read_text("utf-8")[:1500]
    pairs = [("", "import os"), ("", " import"), ("def f(self", "):\n    return"), ("x ", "= 1"), (text, " a")]
    pairs += [(f"{token}import", " os") for token in pair.tokens] + [("", f"{token}import") for token in pair.tokens]
    mine, theirs = pair.asked("loglikelihood", pairs)
    assert [is_greedy for _, is_greedy in mine] == [is_greedy for _, is_greedy in theirs]
    assert [a for a, _ in mine] == pytest.approx([b for b, _ in theirs], abs=NEAR)
    fits = [(pair_, b) for pair_, (b, _) in zip(pairs, theirs, strict=True) if pair_[0] is not text]
    scored = pair.model.score([pair_ for pair_, _ in fits])
    assert [s.logprob for s in scored] == pytest.approx([b for _, b in fits], abs=NEAR)
    rolling = [(text,), ("import os",), *((f"{token}import {token}",) for token in pair.tokens)]
    mine, theirs = pair.asked("loglikelihood_rolling", rolling)
    assert mine == pytest.approx(theirs, abs=NEAR)
    options = {"until": ["\n\n", "<never>"], "max_gen_toks": 24, "do_sample": False}
    mine, theirs = pair.asked("generate_until", [(context, dict(options)) for context in CONTEXTS])
    assert mine == theirs


def test_what_stands_around_a_text_counts_once(ggufs: dict[str, Path]):
    """With continuations that are encoded by themselves too."""
    model = load(ggufs["both_in_a_sequence"], threads=1)
    encode, special = model.tokenizer.encode, model.tokenizer.special
    a, b = encode("def f", special=False), encode("(x):", special=False)
    separate = request_of(model, "def f", "(x):", "separate")
    assert separate.ids == (special.begin, *a, special.end, *b)
    assert request_of(model, "", "(x):", "separate").ids == (special.begin, *b)
    assert encode("<s>def f") == encode("<s>def f", special=False) == [special.begin, *a]


def test_the_model_of_these_tests_writes_control_tokens(ggufs: dict[str, Path]):
    """Else the last comparison would say nothing."""
    model = load(ggufs["several_ends"], threads=2)
    control = model.tokenizer.special.control - model.tokenizer.special.ends
    written = [model.generate(context, max_tokens=24, temperature=0) for context in CONTEXTS]
    assert any(control & set(w.tokens) for w in written)
    assert any(w.finish_reason == "stop" for w in written)
    assert not any("###" in w.text for w in written)


@pytest.mark.parametrize("name", FOLDERS)
def test_an_export_and_a_second_quantization_keep_them(ggufs: dict[str, Path], name: str, tmp_path: Path):
    """Export puts them into files that transformers reads, and what is made of an F16 file keeps what its keys lack."""
    first = special_tokens(open_gguf(ggufs[name]).metadata, ggufs[name])
    again = quantize(ggufs[name], tmp_path / "again", quants="Q8_0").files[0].path
    assert special_tokens(open_gguf(again).metadata, again) == first
    export(ggufs[name], tmp_path / "exported")
    theirs = AutoTokenizer.from_pretrained(tmp_path / "exported")
    assert (theirs.bos_token_id, theirs.eos_token_id) == (first.begin, first.end)
    text = "def f():<|endoftext|> x"
    assert theirs.encode(text) == of_file(ggufs[name]).encode(text, special=True)
    back = quantize(tmp_path / "exported", tmp_path / "back", quants=[], keep_f16=True).files[0].path
    assert special_tokens(open_gguf(back).metadata, back) == first
