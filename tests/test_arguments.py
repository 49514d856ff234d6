"""What Python passes: each argument of a public function is of the type that is written there, or named in an error.

The list of public names is the package's own, so that a new function or argument is covered as soon as it is there.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from typing import Any

import pytest

import pythia_gguf
from engine.nano import NANO, nano_files
from pythia_gguf import arguments
from pythia_gguf.engine.writing import WritingOptions
from pythia_gguf.errors import UsageError
from pythia_gguf.export.folder import export
from pythia_gguf.tokenizer import TextTokenizer

# Arguments that are the object's own, are called, or are checked where they are used; the value says which.
ELSEWHERE = {
    "Model()": "made by load",
    "Completion()": "made by generate",
    "PressResult()": "made by quantize",
    "PythiaGGUFError()": "an exception",
    "*.progress": "called",
    "PythiaGGUFError.said.name_of": "called",
    "PythiaGGUFError.within.place": "errors.py imports nothing; only jobs of several parts call it",
    "verify.advance": "called",
    "Model.watch.watch": "called",
    "decode_tensor.gguf": "made by open_gguf or encode_model",
    "Model.logits.ids": "test_generation",
    "Model.logits.n_last": "test_generation",
    "Model.watch.ids": "test_generation",
    "Model.score.pairs": "below",
    "TextTokenizer.decode.ids": "below",
    "Model.generate.*": "test_generation",
    "Model.stream.*": "test_generation",
    "Model.begin.*": "test_generation",
}


def public_functions() -> dict[str, Callable[..., Any]]:
    """Name -> function, of the package, and methods of its classes."""
    found: dict[str, Callable[..., Any]] = {"export": export}
    for name, value in [(n, getattr(pythia_gguf, n)) for n in pythia_gguf.__all__] + [("TextTokenizer", TextTokenizer)]:
        if not inspect.isclass(value):
            found[name] = value
            continue
        methods = inspect.getmembers(value, inspect.isfunction)
        found |= {f"{name}.{n}": f for n, f in methods if not n.startswith("_") and f.__module__ == value.__module__}
    return found


def public_arguments() -> list[tuple[str, str, str]]:
    """(function, argument, annotation) of all."""
    rows = []
    for name, function in public_functions().items():
        for p in inspect.signature(function).parameters.values():
            places = (f"{name}.{p.name}", f"{name}.*", f"*.{p.name}")
            if p.name != "self" and not any(place in ELSEWHERE for place in places):
                rows.append((name, p.name, str(p.annotation)))
    return rows


@pytest.mark.parametrize(("function", "argument", "annotation"), public_arguments(), ids=str)
def test_another_type_is_refused_by_name(function: str, argument: str, annotation: str):
    """Before anything is read: the other arguments are a path that there is not."""
    wrong = 1.5 if "bool" not in annotation else "no"
    call = public_functions()[function]
    for value in (wrong, object(), *([] if "None" in annotation else [None])):
        given = {p.name: "none" for p in inspect.signature(call).parameters.values() if p.default is p.empty}
        with pytest.raises(TypeError, match=f"^{argument} must be "):
            call(**given | {argument: value})


@pytest.mark.parametrize(
    ("argument", "call"),
    [
        ("quants", lambda: pythia_gguf.quantize(NANO, dry_run=True, quants="Q4_KM")),
        ("quants", lambda: pythia_gguf.quantize(NANO, dry_run=True, quants=["Q4_0", "Q4_0"])),
        ("mix", lambda: pythia_gguf.quantize(NANO, dry_run=True, mix="2025")),
        ("name", lambda: pythia_gguf.quantize(NANO, dry_run=True, name="a/b")),
        ("threads", lambda: pythia_gguf.quantize(NANO, dry_run=True, threads=0)),
        ("threads", lambda: pythia_gguf.verify_against(nano_files()["Q8_0"], NANO, threads=0)),
        ("ignore_missing", lambda: pythia_gguf.verify_against(nano_files()["Q8_0"], NANO, ignore_missing=True)),
        ("quants", lambda: pythia_gguf.encode_model(NANO, "Q4_KM")),
        ("quants", lambda: pythia_gguf.encode_model(NANO, [])),
        ("mix", lambda: pythia_gguf.encode_model(NANO, "Q8_0", mix="2025")),
        ("name", lambda: pythia_gguf.encode_model(NANO, "Q8_0", name="a/b")),
        ("threads", lambda: pythia_gguf.encode_model(NANO, "Q8_0", threads=0)),
        ("quant", lambda: pythia_gguf.load(NANO, quant="Q4_KM")),
        ("gelu", lambda: pythia_gguf.load(nano_files()["Q8_0"], gelu="tan")),
        ("activations", lambda: pythia_gguf.load(nano_files()["Q8_0"], activations="int4")),
        ("cache", lambda: pythia_gguf.load(nano_files()["Q8_0"], cache="f8")),
        ("threads", lambda: pythia_gguf.load(nano_files()["Q8_0"], threads=-1)),
        ("quant", lambda: pythia_gguf.load(nano_files()["Q8_0"], quant="Q8_0")),
        ("revision", lambda: pythia_gguf.load(nano_files()["Q8_0"], revision="main")),
        ("ids", lambda: pythia_gguf.load(nano_files()["Q8_0"]).logits([1] * 513)),
        ("prompt", lambda: pythia_gguf.load(nano_files()["Q8_0"]).generate("\ud800")),
        ("dtype", lambda: pythia_gguf.to_transformers(nano_files()["Q8_0"], dtype="f8")),
        ("dtype", lambda: export(nano_files()["Q8_0"], "none", dtype="f8")),
        ("encoding", lambda: pythia_gguf.load(nano_files()["Q8_0"]).score([("a", " b")], encoding="both")),
        ("continuation", lambda: pythia_gguf.load(nano_files()["Q8_0"]).score([("a", "")])),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_a_wrong_value_is_an_error_that_carries_the_argument(argument: str, call: Callable[[], object]):
    with pytest.raises(UsageError) as e:
        call()
    assert e.value.argument == argument
    assert str(e.value).startswith(argument)


def takes_texts() -> set[str]:
    """Public arguments that are several texts, or pairs of them, and fields of options that are."""
    several = re.compile(r"(Iterable|Sequence|Collection|list|tuple|set)\[(str|tuple\[str)")
    functions = {**public_functions(), "Model.begin": WritingOptions}
    return {
        f"{name}.{p.name}"
        for name, function in functions.items()
        for p in inspect.signature(function).parameters.values()
        if several.search(str(p.annotation))
    }


def test_one_text_is_one_wherever_several_are_taken():
    """What becomes of "ab": never "a" and "b". A new argument of this kind needs a line here."""
    nano = pythia_gguf.load(nano_files()["Q8_0"])
    with pytest.raises(UsageError, match="unknown quant 'ab'"):
        pythia_gguf.quantize(NANO, dry_run=True, quants="ab")
    with pytest.raises(TypeError, match="pairs must be a list of pairs of texts"):
        nano.score("ab")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="pairs must be a list of pairs of texts"):
        nano.score(("ab", "cd"))  # type: ignore[arg-type]
    assert WritingOptions(stop="ab").stops == ("ab",)
    with pytest.raises(UsageError, match="unknown quant 'ab'"):
        pythia_gguf.encode_model(NANO, "ab")
    assert takes_texts() == {"quantize.quants", "encode_model.quants", "Model.score.pairs", "Model.begin.stop"}


@pytest.mark.parametrize("ids", [1, "12", [1.5], [True], ["a"]])
def test_text_is_of_whole_numbers(ids: object):
    with pytest.raises(TypeError, match="ids must be a list of whole numbers"):
        pythia_gguf.load(nano_files()["Q8_0"]).tokenizer.decode(ids)  # type: ignore[arg-type]


def test_checks_give_plain_values():
    assert arguments.number(0, 1)("p", 1) == 1.0
    assert type(arguments.number(0, 1)("p", 1)) is float
    with pytest.raises(UsageError, match="p must be between 0 and 1, got nan"):
        arguments.number(0, 1)("p", float("nan"))
    with pytest.raises(UsageError, match="n must be at least 1, got a number of 16610 bits"):
        arguments.whole_number(1)("n", -(10**5000))
