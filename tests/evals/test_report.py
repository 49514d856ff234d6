"""`pythia measure` on the sample: llama-perplexity's numbers, links listed, killed runs and wrong inputs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from engine.nano import HELDOUT, ROOT, nano_files

GOLDEN = json.loads((ROOT / "tests" / "golden" / "tools.json").read_text("utf-8"))
WINDOWS = ("--context", "256", "--chunks", "32", "--gelu", "tanh")


def test_numbers_are_llama_perplexitys(pythia, tmp_path: Path):
    files = nano_files()
    out = tmp_path / "report.json"
    quants = ("Q2_K", "Q4_K_M", "Q8_0")
    code, table, err = pythia(
        "measure", *(files[q] for q in quants), "--reference", files["F16"], "--text", HELDOUT, *WINDOWS, "-o", out
    )
    assert code == 0, err
    report = json.loads(out.read_text("utf-8"))
    assert report["schema_version"] == 1
    assert report["text"]["scored_tokens"] == 32 * 127
    assert {f["quant"] for f in report["files"]} == set(quants)
    assert report["reference"]["ppl"] == pytest.approx(GOLDEN["perplexity"]["F16"]["ppl"], rel=0.005)
    for f in report["files"]:
        theirs, divergence = GOLDEN["perplexity"][f["quant"]], GOLDEN["divergence"][f["quant"]]
        # llama.cpp rounds activations to int8 another way: see tests/engine/test_perplexity.py.
        assert f["ppl"] == pytest.approx(theirs["ppl"], rel=0.005)
        assert f["ppl_error"] == pytest.approx(theirs["error"], rel=0.01)
        # What int8 costs is at most llama.cpp's (tests/engine/test_divergence.py), the weights' share is the same.
        assert 0.5 < f["kl_mean"] / divergence["mean"] < 1.05
        assert f["same_top1"] * 100 == pytest.approx(divergence["same_top1"], abs=1.5)
        assert f["prefill_tokens_per_s"] > 0
        assert f["decode_tokens_per_s"] > 0
        assert f["quant"] in table
    assert not list(tmp_path.glob(".report*"))


def test_both_activations_are_measured_and_links_listed(pythia, tmp_path: Path):
    from pythia_gguf import quantize

    quantize(ROOT / "examples" / "nano", tmp_path / "out", quants="Q4_K,Q4_K_M", keep_f16=True)
    code, out, err = pythia(
        "measure", tmp_path / "out", "--text", HELDOUT, "--context", "64", "--chunks", "8",
        "--activations", "both", "--output-format", "json",
    )  # fmt: skip
    assert code == 0, err
    report = json.loads(out)
    found = {(f["quant"], f["activations"]): f for f in report["files"]}
    assert set(found) == {
        ("Q4_K_M", "int8"), ("Q4_K_M", "float32"), ("Q4_K", "int8"), ("Q4_K", "float32"), ("F16", "float32"),
    }  # fmt: skip
    assert found["Q4_K", "int8"]["alias_of"] == "Q4_K_M"
    assert found["Q4_K", "int8"]["kl_mean"] == found["Q4_K_M", "int8"]["kl_mean"]
    # Of four bits a weight nearly all is the weights' share; on 248 tokens the two kinds may be 5 % apart either way.
    int8, float32 = (found["Q4_K_M", kind]["kl_mean"] for kind in ("int8", "float32"))
    assert float32 != int8
    assert float32 == pytest.approx(int8, rel=0.05)
    assert found["F16", "float32"]["kl_mean"] == pytest.approx(0, abs=1e-7)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("nowhere", "--text", "T"), 74, "no such file or folder"),
        (("docs", "--text", "T"), 2, "no .gguf file"),
        (("NANO", "--text", "T", "--context", "5"), 2, "even"),
        (("NANO", "--text", "T", "--chunks", "0"), 2, "--chunks"),
        (("NANO", "--text", "nothing.txt"), 74, "cannot open"),
        (("NANO", "--text", "T", "--reference", "pythia-71m"), 74, "Did you mean"),
        (("README.md", "--text", "T", "--reference", "NANO"), 65, "bad magic"),
        (("NANO",), 2, "--text"),
        ((), 2, "DIR|FILE"),
        (("NANO", "--text", "T", "--activations", "int4"), 2, "int4"),
    ],
)
def test_wrong_inputs_are_one_line(arguments: tuple[str, ...], code: int, said: str, pythia, monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {"NANO": str(nano_files()["F16"]), "T": str(HELDOUT)}
    got, _, err = pythia("measure", *(names.get(a, a) for a in arguments))
    assert got == code, err
    assert said in err
    assert "Traceback" not in err
