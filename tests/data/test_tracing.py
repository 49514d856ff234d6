"""Spans of a trace are those of the quadratic definition, and its page says the same with nothing from elsewhere."""

from __future__ import annotations

import io
import json
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import neox
from pythia_gguf.data.finding import Finder
from pythia_gguf.data.index import make_index
from pythia_gguf.data.tracing import trace
from pythia_gguf.errors import UsageError

TOKENIZER = Path(__file__).parents[2] / "examples" / "nano" / "tokenizer.json"
TEXT = 'the first line & <b>the second</b>\n  the third "line" \N{SNOWMAN}'


def quadratic(documents: list[list[int]], ids: list[int], least: int) -> list[tuple[int, int]]:
    """Every pair of ends is tried; of spans that stand somewhere, those that no other one holds."""

    def stands(span: list[int]) -> bool:
        return any(d[o : o + len(span)] == span for d in documents for o in range(len(d) - len(span) + 1))

    pairs = [(a, b) for a in range(len(ids)) for b in range(a + 1, len(ids) + 1) if stands(ids[a:b])]
    inside = {p for p in pairs for q in pairs if p != q and q[0] <= p[0] and p[1] <= q[1]}
    return sorted((p for p in pairs if p not in inside and p[1] - p[0] >= least), key=lambda p: (p[0] - p[1], p[0]))


@given(data=st.data(), n_letters=st.integers(1, 4), least=st.integers(1, 5), part=st.sampled_from([None, 12]))
@settings(max_examples=60, deadline=None)
def test_spans_are_those_of_the_definition(tmp_path_factory, data, n_letters, least, part):
    letters = st.lists(st.integers(0, n_letters), max_size=15)
    documents = data.draw(st.lists(letters, min_size=1, max_size=6).filter(any))
    ids = data.draw(st.lists(st.integers(0, n_letters), min_size=1, max_size=25))
    prefix = neox.write_corpus(tmp_path_factory.mktemp("trace") / "x", documents)
    make_index(prefix, part_tokens=part)
    with Finder(prefix) as finder:
        spans = trace(finder, ids, min_tokens=least, limit=1000)
        assert [(s.start, s.end) for s in spans] == quadratic(documents, ids, least)
        assert all(s.occurrences == finder.occurrences(ids[s.start : s.end], 1000) for s in spans)


def test_a_text_that_stands_there_whole_is_one_span(tmp_path: Path):
    """Longer than what is compared at once."""
    rng = np.random.default_rng(4)
    ids = rng.integers(0, 3, 1000).tolist()
    prefix = neox.write_corpus(tmp_path / "x", [ids[:500], ids, ids[400:]])
    make_index(prefix)
    with Finder(prefix) as finder:
        (span,) = trace(finder, ids, min_tokens=40)
        assert (span.start, span.end, span.occurrences.n_hits) == (0, 1000, 1)
        with pytest.raises(UsageError, match="min_tokens must be at least 1"):
            trace(finder, ids, min_tokens=0)


class Page(HTMLParser):
    """What a browser would make of a page: its ids, its links, the text of the first paragraph that has one."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.attributes: list[tuple[str, str, str]] = []
        self.text, self.open = "", []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.open.append((tag, dict(attrs).get("class")))

    def handle_endtag(self, tag: str) -> None:
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data: str) -> None:
        if ("p", "text") in self.open:
            self.text += data


@pytest.fixture
def prefix(pythia, tmp_path: Path) -> Path:
    """Documents in which the text stands in parts, with sources, an index and an order."""
    documents = [("Pile-CC", TEXT[:30]), ("ArXiv", TEXT[14:]), ("ArXiv", "nothing of it")]
    lines = [json.dumps({"text": text, "meta": {"pile_set_name": name}}) for name, text in documents]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    prefix = tmp_path / "x"
    for line in (
        ("tokenize", tmp_path / "a.jsonl", "--tokenizer", TOKENIZER, "-o", prefix, "--processes", "1"),
        ("order", prefix, "--steps", "4", "--batch", "2", "--context", "16"),
        ("index", prefix),
    ):
        code, _, err = pythia("data", *line)
        assert code == 0, err
    return prefix


def test_a_page_stands_alone_and_shows_the_text_as_it_is(pythia, prefix: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode() + b"\n")))
    line = ("data", "trace", prefix, "-", "--min-tokens", "4", "--batch", "2", "-o", prefix.parent / "t.html")
    code, out, err = pythia(*line, "--output-format", "json")
    assert code == 0, err
    told = json.loads(out)
    html = (prefix.parent / "t.html").read_text("utf-8")
    page = Page(html)
    assert page.text == told["text"] == TEXT
    links = [value for _, name, value in page.attributes if name in ("href", "src", "srcset", "action", "data")]
    ids = [value for _, name, value in page.attributes if name == "id"]
    assert links and {link.removeprefix("#") for link in links} <= set(ids)
    assert len(ids) == len(set(ids))
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, *_ in page.attributes}
    assert "url(" not in html and "@import" not in html and "default-src 'none'" in html
    assert [f"span-{i + 1}" in ids for i in range(len(told["spans"]))] == [True] * len(told["spans"])
    for span in told["spans"]:
        assert span["text"] in TEXT and span["sight"]["step"] == span["sight"]["row"] // 2 + 1
    assert {span["sight"]["source"] for span in told["spans"]} == {"Pile-CC", "ArXiv"}
    assert sum(span["end"] - span["start"] for span in told["spans"]) >= len(told["ids"])
    sizes = [span["start"] - span["end"] for span in told["spans"]]
    assert sizes == sorted(sizes)


def test_a_text_that_stands_nowhere(pythia, prefix: Path):
    page = prefix.parent / "t.html"
    code, out, err = pythia("data", "trace", prefix, "QQQQ", "--batch", "2", "-o", page)
    assert (code, out.splitlines()[-1]) == (0, str(page)), err
    assert Page(page.read_text("utf-8")).text == "QQQQ"
    code, _, err = pythia("data", "trace", prefix, "")
    assert (code, err) == (2, "Error: TEXT holds no token\n")
