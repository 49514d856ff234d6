"""Published rows: a hub on loopback holds three shards that cut rows in two, as the 21 of the real ones do."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

import numpy as np
import pytest

from hub.loopback import LoopbackHub
from pythia_gguf.data.growing import GrowingFiles
from pythia_gguf.data.order import make_order
from pythia_gguf.data.published import PublishedRows
from pythia_gguf.data.pulled import PulledRows, pull_rows
from pythia_gguf.data.rows import open_rows, read_step
from pythia_gguf.data.token_file import TokenFile
from pythia_gguf.errors import LockedError, ModelFileError, NetworkError, PythiaGGUFError, StorageError, UsageError

NANO = Path(__file__).parents[2] / "examples" / "nano"
REPO = "datasets:EleutherAI/pile-deduped-pythia-preshuffled"
TOKENIZER = "EleutherAI/pythia-14m"
N_ROWS = 23


@pytest.fixture
def rows(hub: LoopbackHub) -> np.ndarray:
    """What is published: rows of ids of nano's tokenizer, in shards that end inside rows."""
    data = np.random.default_rng(11).integers(0, 300, (N_ROWS, 2049)).astype("<u2")
    content = data.tobytes()
    cuts = [0, 4098 * 7 + 1000, 4098 * 15 + 4097, len(content)]
    hub.add(REPO, {f"document-{i:05}-of-00002.bin": content[cuts[i] : cuts[i + 1]] for i in range(3)})
    hub.add(TOKENIZER, {"tokenizer.json": (NANO / "tokenizer.json").read_bytes()})
    return data


def fetched(hub: LoopbackHub) -> list[tuple[str, str]]:
    """(file, range) of every request for a part of a file."""
    asked = [(r.path.rsplit("/", 1)[1], {k.lower(): v for k, v in r.headers.items()}) for r in hub.requests]
    return [(name, headers["range"]) for name, headers in asked if "range" in headers and name.endswith(".bin")]


def test_only_the_bytes_of_a_row_are_fetched(hub: LoopbackHub, rows: np.ndarray):
    published = open_rows("pile-deduped")
    assert (published.n_rows, published.first_row, published.row_tokens) == (N_ROWS, 0, 2049)
    assert fetched(hub) == []
    assert published.read_rows(3, 1).tolist() == rows[3:4].tolist()
    assert fetched(hub) == [("document-00000-of-00002.bin", f"bytes={4098 * 3}-{4098 * 4 - 1}")]
    published.close()


@pytest.mark.parametrize("i", [0, 6, 7, 8, 14, 15, 16, 22])
def test_a_row_may_lie_in_two_files(hub: LoopbackHub, rows: np.ndarray, i: int):
    published = open_rows("pile-deduped")
    assert published.read_rows(i, 1).tolist() == rows[i : i + 1].tolist()
    assert len(fetched(hub)) == (2 if i in (7, 15) else 1)
    assert published.read_rows(i, N_ROWS - i).tolist() == rows[i:].tolist()
    published.close()


@pytest.mark.parametrize("what", ["shard", "tail", "none"])
def test_an_incomplete_data_set_is_refused(hub: LoopbackHub, rows: np.ndarray, what: str):
    files = dict(hub.repos[REPO]["main"])
    if what == "none":
        files = {"README.md": b"x"}
    elif what == "shard":
        del files["document-00001-of-00002.bin"]
    else:
        files["document-00002-of-00002.bin"] += b"x"
    hub.add(REPO, files)
    with pytest.raises(NetworkError, match="no whole number of rows" if what == "tail" else "expected files document"):
        PublishedRows("pile-deduped")


def test_a_server_without_ranges_is_one_line_that_advises_nothing(hub: LoopbackHub, rows: np.ndarray, pythia, tmp_path):
    """Only who quantizes can keep a copy of the source instead."""
    hub.faults.no_ranges = True
    says = "EleutherAI/pile-deduped-pythia-preshuffled: the server does not give parts of files"
    with pytest.raises(NetworkError) as e:
        pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=1, batch=4)
    assert str(e.value) == says
    for line in (
        ["pull", "pile-deduped", "--steps", "1:1", "-o", tmp_path / "y"],
        ["view", "pile-deduped", "--step", "1"],
    ):
        code, out, err = pythia("data", *line, "--batch", "4")
        assert (code, out, err.splitlines()[-1]) == (69, "", f"Error: {says}")


def test_dropped_connections_change_nothing(hub: LoopbackHub, rows: np.ndarray, tmp_path: Path):
    hub.faults.drops = {10, 5000, 5001, 20000, 30000}
    pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=5, batch=4)
    assert not hub.faults.drops
    assert (tmp_path / "x.bin").read_bytes() == rows[:20].tobytes()


def test_pulled_rows_are_where_they_were_in_training(hub: LoopbackHub, rows: np.ndarray, tmp_path: Path):
    """Steps 2 to 5 of 4 rows are rows 4 to 19: as GPT-NeoX's files, with a hash for each step."""
    told = pull_rows("pile-deduped", tmp_path / "x", first_step=2, last_step=5, batch=4)
    assert told["sha256_of_steps"] == [
        hashlib.sha256(rows[4 * n - 4 : 4 * n].tobytes()).hexdigest() for n in range(2, 6)
    ]
    assert json.loads((tmp_path / "x.rows.json").read_text()) == told
    with TokenFile(tmp_path / "x") as tokens:
        assert (tokens.n_sequences, tokens.starts) == (16, 1)
        assert tokens.read(5).tolist() == rows[9].tolist()
    pulled = open_rows(tmp_path / "x")
    assert (pulled.first_row, pulled.n_rows) == (4, 16)
    for step in range(2, 6):
        first, shown = read_step(pulled, step, 4)
        assert (first, shown.tolist()) == (4 * step - 4, rows[4 * step - 4 : 4 * step].tolist())
    # The same rows as steps of another size: 8 rows a step, of which the second is whole.
    assert read_step(pulled, 2, 8)[1].tolist() == rows[8:16].tolist()
    for step, batch, there in ((1, 4, "steps 2 to 5 of 4"), (6, 4, "steps 2 to 5 of 4"), (1, 8, "steps 2 to 2 of 8")):
        with pytest.raises(UsageError, match=f"step: {there} rows are there, got {step}"):
            read_step(pulled, step, batch)
    pulled.close()
    with pytest.raises(UsageError, match="in the order of training, not documents"):
        make_order(tmp_path / "x", steps=1)


def test_a_run_that_was_ended_goes_on(hub: LoopbackHub, rows: np.ndarray, tmp_path: Path, monkeypatch):
    """After two steps the Hub is gone; then only the other steps are fetched, whatever stands behind what was saved."""
    whole = PublishedRows.read_rows

    def until_third(self: PublishedRows, first: int, n: int) -> np.ndarray:
        if first == 8:
            raise NetworkError("gone")
        return whole(self, first, n)

    monkeypatch.setattr(PublishedRows, "read_rows", until_third)
    with pytest.raises(NetworkError, match="gone"):
        pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=5, batch=4)
    assert sorted(p.name for p in tmp_path.glob("x*")) == []
    unfinished = tmp_path / ".x.unfinished" / "tokens"
    assert unfinished.read_bytes() == rows[:8].tobytes()
    with open(unfinished, "ab") as file:
        file.write(b"half a step")
    monkeypatch.setattr(PublishedRows, "read_rows", whole)
    before = len(fetched(hub))
    pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=5, batch=4)
    assert sum(1 for _ in fetched(hub)[before:]) == 4  # steps 3, 4 and 5, and step 4 lies in two files
    assert (tmp_path / "x.bin").read_bytes() == rows[:20].tobytes()
    assert not (tmp_path / ".x.unfinished").exists()


def test_a_run_that_was_ended_at_its_end_fetches_nothing_again(
    hub: LoopbackHub, rows: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Once where the place was empty, once where other tokens are replaced: until the end, none are there."""

    def end(self: GrowingFiles, name: str, place: Path) -> None:
        raise KeyboardInterrupt

    for steps in ((1, 2), (2, 3)):
        with monkeypatch.context() as patch:
            patch.setattr(GrowingFiles, "move", end)
            with pytest.raises(KeyboardInterrupt):
                pull_rows("pile-deduped", tmp_path / "x", first_step=steps[0], last_step=steps[1], batch=4, force=True)
        assert not (tmp_path / "x.bin").exists()
        before = len(fetched(hub))
        pull_rows("pile-deduped", tmp_path / "x", first_step=steps[0], last_step=steps[1], batch=4)
        assert len(fetched(hub)) == before
        assert (tmp_path / "x.bin").read_bytes() == rows[4 * steps[0] - 4 : 4 * steps[1]].tobytes()


def test_a_pull_that_is_done_asks_for_no_row_again(hub: LoopbackHub, rows: np.ndarray, tmp_path: Path):
    told = pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=2, batch=4)
    before = len(fetched(hub))
    assert pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=2, batch=4) == told
    assert len(fetched(hub)) == before
    with pytest.raises(UsageError, match="other tokens are there. Choose another out, or use force=True"):
        pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=3, batch=4)
    assert (tmp_path / "x.bin").read_bytes() == rows[:8].tobytes()
    pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=3, batch=4, force=True)
    assert (tmp_path / "x.bin").read_bytes() == rows[:12].tobytes()


def test_an_account_that_does_not_fit_is_refused(hub: LoopbackHub, rows: np.ndarray, tmp_path: Path):
    pull_rows("pile-deduped", tmp_path / "x", first_step=1, last_step=2, batch=4)
    path = tmp_path / "x.rows.json"
    told = json.loads(path.read_text())
    for change in ({"batch": 3}, {"first_step": 0}, {"row_tokens": -2049}, {"sha256_of_steps": []}, {"commit": 1}):
        path.write_text(json.dumps(told | change))
        with pytest.raises(ModelFileError, match="x.rows.json: "):
            PulledRows(tmp_path / "x")


def test_two_runs_do_not_write_to_one_prefix(tmp_path: Path):
    with (
        GrowingFiles(tmp_path / "x", ("tokens",), {}),
        pytest.raises(LockedError),
        GrowingFiles(tmp_path / "x", (), {}),
    ):
        pass
    assert list(tmp_path.iterdir()) == []


def test_work_of_another_plan_is_thrown_away(tmp_path: Path):
    for plan, there in (({"a": 1}, b""), ({"a": 1}, b"one"), ({"a": 2}, b"")):
        with GrowingFiles(tmp_path / "x", ("tokens",), plan) as files:
            assert (files.folder / "tokens").read_bytes() == there
            files.append("tokens", b"one")
            files.save({"n": 1}) if not there else None
            files.append("tokens", b"two")


def test_what_is_not_there_is_said_in_one_line(tmp_path: Path, hub: LoopbackHub, rows: np.ndarray):
    cases: list[tuple[dict[str, object], type[PythiaGGUFError], str]] = [
        ({"name": "pile-dedupd"}, StorageError, "pile-dedupd.idx: no such file. Did you mean pile-deduped or pile?"),
        ({"name": "pile-deduped", "seed": 1}, UsageError, "seed changes nothing: published rows have one order"),
        ({"name": tmp_path / "x", "endpoint": "http://x"}, UsageError, "endpoint changes nothing"),
    ]
    for options, kind, says in cases:
        with pytest.raises(kind, match=re.escape(says)):
            open_rows(**options)  # type: ignore[arg-type]


def test_commands(pythia, hub: LoopbackHub, rows: np.ndarray, tmp_path: Path):
    """Text by the tokenizer that belongs to the data, ids, and both as JSON; then from rows on this machine."""
    code, out, err = pythia("data", "view", "pile-deduped", "--step", "2", "--row", "3", "--batch", "4")
    assert (code, err) == (0, "")
    head, text = out.split("\n", 1)
    assert head == "--- step 2, row 7"
    code, out, _ = pythia("data", "view", "pile-deduped", "--step", "2", "--row", "3", "--batch", "4", "--ids")
    assert out == "--- step 2, row 7\n" + " ".join(map(str, rows[7].tolist())) + "\n"
    line = ("data", "pull", "pile-deduped", "--steps", "2:3", "--batch", "4", "-o", tmp_path / "x")
    assert pythia(*line)[:2] == (0, f"8 rows of 2,049 tokens in {tmp_path / 'x'}.bin\n")
    hub.close()
    local = ("data", "view", tmp_path / "x", "--step", "2", "--batch", "4", "--output-format", "json")
    code, out, _ = pythia(*local)
    told = json.loads(out)["rows"]
    assert [entry["row"] for entry in told] == [4, 5, 6, 7]
    assert told[3]["ids"] == rows[7].tolist() and told[3]["text"] + "\n" == text
    for words, says in (
        (("--step", "2", "--row", "4"), "Error: --row must be between 0 and 3, got 4"),
        (("--step", "1"), "Error: --step: steps 2 to 3 of 4 rows are there, got 1"),
        (("--step", "2", "--ids", "--tokenizer", "x"), "Error: --tokenizer changes nothing where ids are shown"),
    ):
        assert pythia("data", "view", tmp_path / "x", "--batch", "4", *words) == (2, "", says + "\n")
    for words, says in (
        (("--steps", "1"), "Error: --steps must be two numbers as in 1:10, got '1'"),
        (("--steps", "3:2"), "Error: --steps must go up from 1, got 3:2"),
    ):
        assert pythia("data", "pull", "pile", *words, "-o", tmp_path / "y") == (2, "", says + "\n")


def test_rows_of_documents_by_their_order(pythia, tmp_path: Path):
    from data import neox

    documents = [list(range(40)), [9, 8, 7], list(range(100, 150))]
    prefix = neox.write_corpus(tmp_path / "corpus", documents)
    view = ("data", "view", prefix, "--step", "2", "--batch", "3", "--ids")
    assert pythia(*view) == (2, "", f"Error: {prefix} has no order. Make one: pythia data order\n")
    assert pythia("data", "order", prefix, "--steps", "4", "--batch", "3", "--context", "5")[0] == 0
    expected = neox.rows(documents, 5, 13, 1234)[3:6]
    code, out, _ = pythia(*view)
    assert code == 0
    assert out == "".join(f"--- step 2, row {i}\n{' '.join(map(str, r))}\n" for i, r in enumerate(expected, 3))
    assert pythia("data", "order", prefix, "--steps", "4", "--batch", "3", "--context", "5", "--seed", "7")[0] == 0
    code, _, err = pythia(*view)
    assert (code, "has several orders: 13 rows of 6 tokens, seed 7; 13 rows of 6 tokens, seed 1234" in err) == (2, True)
    assert pythia(*view, "--seed", "1234")[1] == out
    assert "--tokenizer" in pythia(*view[:-1], "--seed", "7")[2]
