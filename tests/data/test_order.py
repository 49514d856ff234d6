"""The order of training is that of GPT-NeoX's loops, restated in tests/data/neox.py, for any documents and any seed."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import neox
from pythia_gguf.data import order as order_module
from pythia_gguf.data.order import OrderedRows, find_orders, index_type, make_order, order_files, samples_for
from pythia_gguf.errors import ModelFileError, PythiaGGUFError, UsageError

PARTS = ("doc_idx", "sample_idx", "shuffle_idx")


def corpus(folder: Path, sizes: list[int], seed: int = 0) -> tuple[Path, list[list[int]]]:
    """Documents of these sizes; every token is another, as far as there are ids."""
    rng = np.random.default_rng(seed)
    documents = [rng.integers(0, 65536, size).tolist() for size in sizes]
    return neox.write_corpus(folder / "corpus", documents), documents


@given(
    sizes=st.lists(st.integers(0, 12), min_size=1, max_size=25).filter(any),
    steps=st.integers(1, 9),
    batch=st.integers(1, 5),
    context=st.integers(1, 9),
    seed=st.integers(0, 2**32 - 1),
    at_once=st.integers(1, 30),
)
@settings(max_examples=80, deadline=None)
def test_order_is_that_of_the_published_loop(tmp_path_factory, sizes, steps, batch, context, seed, at_once):
    """Whatever the number of documents that are looked at together."""
    prefix, documents = corpus(tmp_path_factory.mktemp("order"), sizes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_module, "_DOCUMENTS_AT_ONCE", at_once)
        order = make_order(prefix, steps=steps, batch=batch, context=context, seed=seed)
    n_samples = samples_for(steps, batch)
    expected = neox.order(sizes, context, n_samples, seed)
    arrays = [np.load(order.files[part]) for part in PARTS]
    assert [a.tolist() for a in arrays[:1]] + [[tuple(s) for s in arrays[1].tolist()], arrays[2].tolist()] == list(
        expected
    )
    assert [a.dtype for a in arrays] == [np.int32, np.int32, np.uint32]
    assert order.n_rows == len(expected[2]) >= n_samples
    assert find_orders(prefix) == [(n_samples, context, seed)]
    rows = OrderedRows(prefix, n_samples, context, seed)
    assert rows.read_rows(0, rows.n_rows).tolist() == neox.rows(documents, context, n_samples, seed)
    rows.close()


def test_file_names_and_numbers_are_those_of_pythia(tmp_path: Path):
    """As they stand on the Hub, in EleutherAI/pile-preshuffled-seeds."""
    assert samples_for(143000, 1024) == samples_for(71500, 2048) == 147164160
    names = [p.name for p in order_files(tmp_path / "pile_20B_tokenizer_text_document", 147164160, 2048, 1234).values()]
    stem = "pile_20B_tokenizer_text_document_train_0_indexmap_147164160ns_2048sl_1234s"
    assert names == [f"{stem}_doc_idx.npy", f"{stem}_sample_idx.npy", f"{stem}_shuffle_idx.npy"]


def test_rows_asked_for_are_a_product_of_floats_rounded_up():
    """The next integers above the exact 0.5 % are what GPT-NeoX gets, rounding errors with them."""
    assert [samples_for(n, 1) for n in (1, 200, 1000, 1400)] == [2, 201, 1005, int(np.ceil(np.float64(1400) * 1.005))]


@pytest.mark.parametrize(("tokens", "dtype"), [(2**31 - 5, np.int32), (2**31 - 4, np.int32), (2**32, np.int64)])
def test_wide_indexes_come_where_gpt_neox_has_them(tokens: int, dtype: type):
    assert index_type(tokens, 2) is dtype
    assert index_type(2048 * (2**30 - 2) + 1, 2048) is np.int32
    assert index_type(2048 * (2**30 - 1) + 1, 2048) is np.int64


def test_bytes_of_the_files_do_not_change(tmp_path: Path):
    """Numpy keeps the bits of its old generator; these were made with 2.4."""
    prefix, _ = corpus(tmp_path, [7, 1, 30, 12, 5])
    order = make_order(prefix, steps=4, batch=2, context=8, seed=1234)
    assert (order.n_epochs, order.n_rows) == (2, 13)
    assert np.load(order.files["doc_idx"]).tolist() == neox.order([7, 1, 30, 12, 5], 8, 9, 1234)[0]
    digest = hashlib.sha256(b"".join(order.files[part].read_bytes() for part in PARTS)).hexdigest()
    assert digest == "fe30805c55e007c50c45fd6b87c66c8ed8ef6a3d888137a51f428f0643f1a9b2"


def test_an_order_that_is_there_is_kept_and_made_anew_by_force(tmp_path: Path):
    prefix, _ = corpus(tmp_path, [7, 1, 30])
    first = make_order(prefix, steps=4, batch=2, context=8)
    stamps = {part: path.stat().st_mtime_ns for part, path in first.files.items()}
    again = make_order(prefix, steps=4, batch=2, context=8)
    assert (first.is_new, again.is_new) == (True, False)
    assert {part: path.stat().st_mtime_ns for part, path in again.files.items()} == stamps
    assert make_order(prefix, steps=4, batch=2, context=8, force=True).is_new
    # A run that was killed between two files goes on.
    first.files["shuffle_idx"].unlink()
    assert find_orders(prefix) == []
    assert make_order(prefix, steps=4, batch=2, context=8).is_new


def test_an_order_of_other_documents_is_noticed(tmp_path: Path):
    prefix, _ = corpus(tmp_path, [7, 1, 30])
    make_order(prefix, steps=4, batch=2, context=8)
    corpus(tmp_path, [7, 2, 30, 1])
    with pytest.raises(
        ModelFileError, match=r"expected 8 entries, got 6: it was made of other documents. Use force=True"
    ):
        make_order(prefix, steps=4, batch=2, context=8)
    rows = OrderedRows(prefix, samples_for(4, 2), 8, 1234)
    with pytest.raises(ModelFileError, match="the order is of other documents"):
        rows.read_rows(0, rows.n_rows)
    rows.close()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"steps": 0}, "steps must be between 1 and"),
        ({"steps": 1, "batch": 0}, "batch must be between 1 and"),
        ({"steps": 1, "seed": 2**32}, "seed must be between 0 and"),
        ({"steps": 1, "context": 0}, "context must be between 1 and"),
        (
            {"steps": 2**40, "batch": 2**20},
            "3 documents .* times over are more than GPT-NeoX can number. Ask for fewer steps or less context",
        ),
    ],
)
def test_what_cannot_be_ordered(tmp_path: Path, options: dict[str, int], says: str):
    prefix, _ = corpus(tmp_path, [7, 1, 30])
    with pytest.raises(UsageError, match=says):
        make_order(prefix, **options)
    corpus(tmp_path, [0])
    with pytest.raises(UsageError, match="holds no token"):
        make_order(prefix, steps=1)
    assert not list(tmp_path.glob("*.npy"))


def test_damaged_orders_are_refused_in_one_line(tmp_path: Path):
    """Each file with bytes exchanged, cut, or another array: reading every row ends in an error of ours, or works."""
    prefix, _ = corpus(tmp_path, [7, 1, 30, 4])
    order = make_order(prefix, steps=4, batch=2, context=8)
    rng = np.random.default_rng(3)
    refused = []
    for turn in range(300):
        path = order.files[PARTS[turn % 3]]
        whole = path.read_bytes()
        data = bytearray(whole)
        at = int(rng.integers(0, len(data)))
        if turn % 5 == 0:
            del data[at:]
        else:
            data[at] = int(rng.integers(0, 256))
        path.write_bytes(data)
        try:
            rows = OrderedRows(prefix, order.n_samples, 8, 1234)
            rows.read_rows(0, rows.n_rows)
            rows.close()
        except PythiaGGUFError as e:
            refused.append(str(e))
        path.write_bytes(whole)
    assert len(refused) > 150
    assert all(message.isprintable() and len(message) < 1000 for message in refused)
