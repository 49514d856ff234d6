"""Importance matrices of the sample are llama-imatrix's; killed runs go on, matrices add up, wrong inputs are one line.

What quantizing with them gives is in tests/press/test_imatrix.py; the files by themselves are in tests/gguf.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.nano import HELDOUT, NANO, ROOT, nano_files
from evals.trained import trained_further
from gguf.llama_view import view
from pythia_gguf import quantize
from pythia_gguf.errors import UsageError
from pythia_gguf.evals.importance import TextToRead, collect
from pythia_gguf.gguf.imatrix import ImportanceMatrix, MatrixRun, TextRead, imatrix_bytes, read_imatrix
from pythia_gguf.progress import Silence

GOLDEN = ROOT / "tests" / "golden"
WINDOWS = ("--context", "256", "--chunks", "32")


def largest_difference(ours: ImportanceMatrix) -> float:
    """Of any value from llama-imatrix's, as a part of it."""
    theirs = read_imatrix(GOLDEN / "imatrix.gguf")
    assert list(ours.entries) == list(theirs.entries)
    assert (ours.datasets, ours.n_chunks, ours.chunk_tokens) == (theirs.datasets, theirs.n_chunks, theirs.chunk_tokens)
    assert all(ours.entries[name].count == e.count for name, e in theirs.entries.items())
    return max(float(np.abs(ours.entries[n].means / e.means - 1).max()) for n, e in theirs.entries.items())


def test_values_are_llama_imatrixs(pythia, tmp_path: Path):
    """Within 0.3 %: 0.08 % was seen; llama.cpp rounds to float16 what goes into a product and takes GELU from a table.

    The other form of GELU is 1.4 % away.
    """
    for gelu in ("tanh", "erf"):
        out = tmp_path / f"{gelu}.gguf"
        options = ("--text", HELDOUT, *WINDOWS, "--gelu", gelu, "-o", out)
        code, said, err = pythia("imatrix", nano_files()["F16"], *options)
        assert code == 0, err
        assert "24 matrices, 32 windows of 256 tokens" in said
    assert largest_difference(read_imatrix(tmp_path / "tanh.gguf")) < 0.003
    assert largest_difference(read_imatrix(tmp_path / "erf.gguf")) > 0.01
    assert not list(tmp_path.glob(".*"))


def test_two_texts_are_one_and_the_other_added(pythia, tmp_path: Path):
    text = HELDOUT.read_text()
    (tmp_path / "a.txt").write_text(text[:4000])
    (tmp_path / "b.txt").write_text(text[4000:9000])
    (run,) = {("imatrix", str(nano_files()["Q8_0"]), "--context", "64")}
    for arguments in (
        (*run, "--text", tmp_path / "a.txt", "-o", tmp_path / "a"),
        (*run, "--text", tmp_path / "b.txt", "-o", tmp_path / "b"),
        (*run, "--text", tmp_path / "a.txt", "--text", tmp_path / "b.txt", "-o", tmp_path / "both"),
        (*run, "--text", tmp_path / "b.txt", "--in-file", tmp_path / "a", "-o", tmp_path / "later"),
        ("imatrix", "--in-file", tmp_path / "a", "--in-file", tmp_path / "b", "-o", tmp_path / "merged"),
    ):
        code, _, err = pythia(*arguments)
        assert code == 0, err
    both, later = read_imatrix(tmp_path / "both"), read_imatrix(tmp_path / "later")
    assert both.datasets == ("a.txt", "b.txt") and both.n_chunks > 20
    assert (later.n_chunks, later.datasets) == (both.n_chunks, both.datasets)
    for name, entry in both.entries.items():
        # Two sums were rounded to float32 before they were added.
        np.testing.assert_allclose(later.entries[name].sums, entry.sums, rtol=3e-7)
    assert (tmp_path / "later").read_bytes() == (tmp_path / "merged").read_bytes()


RUN = MatrixRun(
    tool_version="0", file="m", sha256="0", model="0", activations="int8", gelu="erf", kv="f16", context=0, windows=0,
    texts=(),
)  # fmt: skip


def text(file: str, ids: Sequence[int]) -> TextToRead:
    return TextToRead(file=file, sha256=f"hash of {file}", ids=ids)


class Fixed:
    """One matrix that multiplies each token's id and a value, one that does not count; dies after so many windows."""

    n_context = 8

    def __init__(self, dies_after: int = 10**9, value: float = 1) -> None:
        self.n_calls, self._dies_after, self._value = 0, dies_after, value

    def watch(self, ids: Sequence[int], watch: Callable[[str, np.ndarray], None]) -> None:
        if self.n_calls == self._dies_after:
            raise KeyboardInterrupt
        self.n_calls += 1
        x = np.array([[i, self._value] for i in ids], np.float32)
        watch("blk.0.ffn_up.weight", x)
        watch("output.weight", x)


def run(
    model: Fixed, ids: Sequence[int] = tuple(range(1, 19)), state: Path | None = None, **options
) -> ImportanceMatrix:
    settings = {"of": RUN, "context": 4, "n_windows": None, "progress": Silence()} | options
    return collect(model, [text("t", ids)], state=state, **settings)


def test_sums_are_squares_of_whole_windows():
    matrix = run(Fixed())
    assert list(matrix.entries) == ["blk.0.ffn_up.weight"]
    # 18 tokens are four windows of 4.
    assert matrix.entries["blk.0.ffn_up.weight"].sums.tolist() == [sum(i * i for i in range(1, 17)), 16]
    assert (matrix.n_chunks, matrix.entries["blk.0.ffn_up.weight"].count) == (4, 16)


def test_a_killed_run_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from pythia_gguf.evals import state as module

    monkeypatch.setattr(module, "_SAVED_EVERY_S", 0.0)
    with pytest.raises(KeyboardInterrupt):
        run(Fixed(dies_after=3), state=tmp_path / "s.npz")
    rest = Fixed()
    assert imatrix_bytes(run(rest, state=tmp_path / "s.npz")) == imatrix_bytes(run(Fixed()))
    assert rest.n_calls == 1
    other = Fixed()
    run(other, state=tmp_path / "s.npz", of=replace(RUN, sha256="another model"))
    assert other.n_calls == 4


def test_texts_of_one_name_are_all_read():
    settings = {"of": RUN, "context": 4, "n_windows": None, "progress": Silence(), "state": None}
    matrix = collect(Fixed(), [text("t", [1, 2, 3, 4]), text("t", [5, 6, 7, 8])], **settings)
    assert (matrix.n_chunks, matrix.datasets) == (2, ("t", "t"))


def test_only_texts_that_were_read_are_named():
    """One is shorter than a window, one comes after the last that was asked for."""
    told: list[str] = []
    settings = {"of": RUN, "context": 4, "n_windows": 2, "progress": Silence(), "state": None, "tell": told.append}
    texts = [text("a", [1] * 4), text("short", [1] * 3), text("b", [2] * 8), text("late", [3] * 4)]
    matrix = collect(Fixed(), texts, **settings)
    assert (matrix.n_chunks, matrix.datasets) == (2, ("a", "b"))
    assert [line.split(":")[0] for line in told] == ["short", "late"]
    (of,) = matrix.runs
    assert of.texts == tuple(TextRead(file=name, sha256=f"hash of {name}") for name in ("a", "b"))
    assert (of.context, of.windows) == (4, 2)


def test_the_file_and_the_card_name_what_was_read_and_of_which_model(pythia, tmp_path: Path):
    """Through both commands: hashes are those of the files, a text that was not read is nowhere."""
    words = HELDOUT.read_text("utf-8")
    for name, content in (("a.txt", words[:2000]), ("short.txt", "a b"), ("late.txt", words[2000:4000])):
        (tmp_path / name).write_text(content, "utf-8")
    texts = [word for name in ("a.txt", "short.txt", "late.txt") for word in ("--text", tmp_path / name)]
    model, out = nano_files()["Q8_0"], tmp_path / "m.gguf"
    options = ("--context", "64", "--chunks", "2", "--kv", "f32", "--gelu", "tanh")
    code, _, err = pythia("imatrix", model, *texts, *options, "-o", out)
    assert code == 0, err
    assert [line.split(":")[0] for line in err.splitlines() if "not read" in line] == ["short.txt", "late.txt"]
    (of,) = read_imatrix(out).runs
    told = [(model.name, model.read_bytes(), of.sha256)]
    told += [(t.file, (tmp_path / t.file).read_bytes(), t.sha256) for t in of.texts]
    assert all(hashlib.sha256(data).hexdigest() == sha256 for _, data, sha256 in told)
    assert [t.file for t in of.texts] == ["a.txt"]
    assert (of.file, of.activations, of.gelu, of.kv, of.context, of.windows) == (
        model.name, "int8", "tanh", "f32", 64, 2,
    )  # fmt: skip
    quantize(NANO, tmp_path / "made", quants="Q4_0", imatrix=out)
    card = (tmp_path / "made" / "README.md").read_text("utf-8")
    assert "computed on a.txt, 2 pieces of 64 tokens" in card
    assert "short.txt" not in card and "late.txt" not in card


def test_llama_cpp_reads_the_file_with_our_key_in_it(pythia, tmp_path: Path):
    """Its reader finds the same keys and tensors with and without it."""
    out = tmp_path / "m.gguf"
    options = ("--text", HELDOUT, "--context", "64", "--chunks", "1", "-o", out)
    code, _, err = pythia("imatrix", nano_files()["Q8_0"], *options)
    assert code == 0, err
    (tmp_path / "plain.gguf").write_bytes(imatrix_bytes(replace(read_imatrix(out), runs=())))
    with_key, without = view(out), view(tmp_path / "plain.gguf")
    assert with_key is not None and without is not None
    assert with_key.keys.keys() - without.keys.keys() == {"pythia_gguf.imatrix.runs"}
    assert with_key.keys.items() >= without.keys.items()
    assert with_key.tensors == without.tensors


def test_matrices_of_two_models_are_added_up_with_a_line(pythia, tmp_path: Path):
    (tmp_path / "hf").mkdir()
    other = trained_further(NANO, tmp_path / "hf" / "nano")
    quantize(other, tmp_path / "other", quants=[], keep_f16=True)
    told = []
    for i, model in enumerate((nano_files()["F16"], nano_files()["Q8_0"], tmp_path / "other" / "nano.F16.gguf")):
        earlier = ("--in-file", tmp_path / f"{i - 1}.gguf") if i else ()
        options = ("--text", HELDOUT, "--context", "64", "--chunks", "1", *earlier, "-o", tmp_path / f"{i}.gguf")
        code, _, err = pythia("imatrix", model, *options)
        assert code == 0, err
        told.append("of several models" in err)
    assert told == [False, False, True]
    assert len(read_imatrix(tmp_path / "2.gguf").runs) == 3


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"context": 0}, "between 1 and the model's 8, got 0"),
        ({"context": 9}, "between 1 and the model's 8, got 9"),
        ({"n_windows": 0}, "n_windows"),
        ({"ids": (1, 2, 3)}, "a text of 3 tokens has no window of 4"),
        ({"value": float("nan")}, "window 1: activations of blk.0.ffn_up.weight are not finite"),
    ],
)
def test_wrong_options_are_named(options: dict, said: str):
    model = Fixed(value=options.pop("value", 1))
    with pytest.raises(UsageError, match=said):
        run(model, **options)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("NANO", "-o", "X"), 2, "MODEL and --text go together"),
        (("--text", "T", "-o", "X"), 2, "MODEL and --text go together"),
        (("-o", "X"), 2, "nothing to do"),
        (("NANO", "--text", "T"), 2, "-o"),
        (("NANO", "--text", "nothing.txt", "-o", "X"), 74, "cannot open"),
        (("NANO", "--text", "T", "-o", "README.md"), 74, "exists"),
        (("NANO", "--text", "T", "--context", "1024", "-o", "X"), 2, "between 1 and the model's 512"),
        (("NANO", "--text", "T", "--in-file", "README.md", "-o", "X"), 65, "not an importance matrix"),
        (("--in-file", "tests/golden/imatrix.dat", "-o", "X"), 2, "not known"),
        (("README.md", "--text", "T", "-o", "X"), 65, "bad magic"),
    ],
)
def test_wrong_inputs_are_one_line(arguments: tuple[str, ...], code: int, said: str, pythia, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {"NANO": str(nano_files()["F16"]), "T": str(HELDOUT), "X": str(tmp_path / "x.gguf")}
    got, _, err = pythia("imatrix", *(names.get(a, a) for a in arguments))
    assert got == code, err
    assert said in err
    assert "Traceback" not in err
    assert not list(tmp_path.iterdir())
