"""Whatever a name, a hash or an original card holds, the card stays the card we wrote, and is written in no time."""

from __future__ import annotations

import dataclasses
import time
import tracemalloc

import pytest
import yaml
from huggingface_hub import ModelCard
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from card.facts import FILES, README, body_of, card, headings, parsed, section, tables
from card.test_card import OUR_TITLES
from pythia_gguf.card.headings import demoted
from pythia_gguf.card.original import MAX_BODY_CHARS, MAX_FRONT_CHARS, take_apart

START = "<!-- README_GGUF.md-provided-files start -->"
END = "<!-- README_GGUF.md-provided-files end -->"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "\n".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)
FOREIGN = (
    "a|b",
    "a\nb\n\n# c",
    "`a`` b```",
    f"x {END} y",
    "<!-- open",
    "--> <script>alert(1)</script> <h1>x</h1>",
    "[a](javascript:b) ![c](d)",
    "*a* **b** _c_ ~~d~~ $e$",
    "&lt;b&gt;&#124;",
    "\\",
    "a\u202eb\u2028c\x00\x1b[31m\udcff",
    "---\n- x",
    "x" * 100_000,
)  # fmt: skip

BROKEN_FRONT = {
    "a list": ("- a\n- b", "holds no keys"),
    "a text": ("just words", "holds no keys"),
    "not closed": ("tags: [a, b", r"is not valid YAML: expected ',' or '\]', but got '&lt;stream end&gt;'"),
    "two values": ("a: b: c", "is not valid YAML: mapping values are not allowed here in line 2"),
    "unknown alias": ("a: *b", "is not valid YAML: found undefined alias 'b' in line 2"),
    "inside itself": ("a: &a\n- *a", "is not valid YAML: found unconstructable recursive node in line 2"),
    "list as a key": ("? [a]\n: b", "is not valid YAML: found unhashable key in line 2"),
    "control character": ("a: b\x07", "is not valid YAML"),
    "far escape": ('a: "\\UFFFFFFFF"', "is not valid YAML"),
    "farther escape": ('a: "\\U7FFFFFFF"', "is not valid YAML"),
    "deep": ("a: " + "[" * 30_000, "is not valid YAML"),
    "long version": ("%YAML " + "9" * 5000 + ".1", "is not valid YAML"),
    "second document": ("a: b\n--- \nc: d", "is not valid YAML: but found another document in line 3"),
    "1 MB": ("a: " + "x" * (1 << 20), f"has 1048579 characters, more than {MAX_FRONT_CHARS}"),
}


def text_of(markup: str) -> str:
    """What a reader sees of one line of markup; raises unless it is text and code alone."""
    (inline,) = [t for t in MarkdownIt("commonmark").enable("strikethrough").parse(markup) if t.type == "inline"]
    kinds = {t.type for t in inline.children or []}
    assert kinds <= {"text", "code_inline", "text_special"}, kinds
    return "".join(t.content for t in inline.children or [])


@pytest.mark.parametrize("text", FOREIGN)
def test_foreign_text_changes_nothing_but_itself(text: str) -> None:
    file = dataclasses.replace(FILES[0], name=text, quant=text, sha256=text, alias_of=text)
    sources = ((text, 1, text),)
    changes = {"name": text, "revision": text, "commit": text, "quantized_by": text, "tool_version": text}
    out = card([file], repo_id=text, files=sources, command=text, **changes)
    found = headings(body_of(out))
    assert [title for level, title in found if level <= 2][1:] == OUR_TITLES[1:]
    assert [(len(table), {len(row) for row in table}) for table in tables(body_of(out))[:2]] == [(2, {5}), (2, {3})]
    assert (out.count(START), out.count(END)) == (1, 1)
    assert not [t for t in parsed(body_of(out)[: body_of(out).index("## Intended use")])
                if t.type == "html_block" and t.content.strip() not in (START, END)]  # fmt: skip
    ModelCard(out)
    out.encode("utf-8")


@pytest.mark.parametrize("text", [t for t in FOREIGN if t.isprintable() and len(t) < 300 and END not in t])
def test_foreign_text_is_shown_as_it_is(text: str) -> None:
    (_, row) = tables(body_of(card([dataclasses.replace(FILES[0], name=text)])))[0]
    assert text_of(row[0]) == text
    (_, title) = headings(body_of(card(name=text)))[0]
    assert text_of(title) == f"{text} - GGUF"
    line = next(line for line in section(card(revision=text), "Provenance").splitlines() if "Revision" in line)
    assert text_of(line.removeprefix("- ")) == f"Revision: {text}"


@pytest.mark.parametrize("name", BROKEN_FRONT)
def test_broken_front_matter_is_left_out_with_a_note(name: str) -> None:
    front, note = BROKEN_FRONT[name]
    started = time.process_time()
    text = card(readme=f"---\n{front}\n---\nthe body\n")
    # 64 KB of YAML parse in under a second; ten leave room for a busy machine and catch a hang.
    assert time.process_time() - started < 10
    assert f"The original's front matter {note}" in text and "nothing was taken from it." in text
    data = ModelCard(text).data.to_dict()
    assert data["tags"] == ["gguf", "pythia", "gpt_neox"] and "license" not in data
    assert text.rstrip().endswith("the body") and len(text) < 100_000


def test_billion_laughs_stay_few() -> None:
    tracemalloc.start()
    text = card(readme=f"---\n{LAUGHS}\ntags: *j\nlicense: mit\n---\nx\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20 and len(text) < 20_000
    assert ModelCard(text).data.to_dict()["tags"] == ["gguf", "pythia", "gpt_neox"]


def test_values_that_could_be_markup_or_keys_stay_values() -> None:
    front = {
        "tags": ["---", "a: b", "# c", "x\n---\nlicense: evil", "y" * 500, "", None, 1.0, ["z"], f"t {END}"],
        "license": {"a": "b"},
        "base_model": "evil/model",
        "base_model_relation": "finetune",
        "quantized_by": "someone else",
        "library_name": "transformers",
        "widget": [{"text": "x"}],
    }
    text = card(readme=f"---\n{yaml.safe_dump(front)}---\nx\n")
    data = ModelCard(text).data.to_dict()
    assert data["tags"] == ["gguf", "pythia", "gpt_neox", "---", "a: b", "# c", "1.0", f"t {END.replace('<', '&lt;')}"]
    assert data["base_model"].startswith("EleutherAI/") and data["base_model_relation"] == "quantized"
    assert data["quantized_by"] == "Ada Lovelace" and data["library_name"] == "gguf"
    assert "license" not in data and "widget" not in data


def test_tags_on_python_objects_make_none() -> None:
    original = take_apart("---\nlicense: !!python/object/apply:os.getcwd []\ntags: !!python/name:os.system\n---\n")
    assert original.keys == {} and original.problem is None


def test_a_ruler_in_the_body_is_no_front_matter() -> None:
    for readme in ("text\n\n---\nlicense: evil\n---\n", "---\nlicense: evil\n", "--- \nlicense: evil\n---\n"):
        text = card(readme=readme)
        assert "license" not in ModelCard(text).data.to_dict()
        assert "license: evil" in text


@pytest.mark.parametrize(
    "body",
    [
        f"{END}\n\n{START}",
        f"## Uses\n\n{START} x {END}\n\n<!-- README_GGUF.md-provided-files start",
        "## Limitations\n\n<!-- never closed",
        "## Limitations\n\n```\nnever closed",
        "## Limitations\n\n</blockquote><details><table><script><style><textarea><!DOCTYPE html><?php <![CDATA[",
        "## Limitations\n\n- a\n\n      b\n  > c\n\n\td",
        "~~~~\n## Limitations\n\nnever closed",
    ],
)
def test_a_body_cannot_reach_what_stands_before_it(body: str) -> None:
    text = card(readme=f"---\nlicense: mit\n---\n{body}\n")
    assert (text.count(START), text.count(END)) == (1, 1)
    ours = text[: text.index("## Original model description:")]
    assert [title for level, title in headings(body_of(ours)) if level <= 2] == OUR_TITLES[:-1]
    tokens = [child for t in parsed(body_of(ours)) for child in (t, *(t.children or []))]
    assert {t.content.strip() for t in tokens if t.type.startswith("html")} == {START, END}


def test_front_matter_cannot_leave_its_block() -> None:
    text = card(readme="---\nlicense: mit\nnote: |\n  ```\n  ````\n  # Title\n---\nx\n")
    blocks = [t for t in parsed(section(text, "Original model description:")) if t.type == "fence"]
    assert [b.content for b in blocks] == ["license: mit\nnote: |\n  ```\n  ````\n  # Title\n"]


@pytest.mark.parametrize(
    ("start", "unit", "stop"),
    [("", unit, "") for unit in ("# Uses\n", "<!--", "<!-- -->", "> ", "- ", "```\n", "<h1>", "a\n", "---\n", "[")]
    + [("# ", unit, "x") for unit in (" #", "#", " ", "\t")]
    + [("<h1>", unit, "</h1>") for unit in ("<", "</h1>", "</h1> ")]
    + [("a | b\n", unit, "x") for unit in ("|", "| ", "-", "- ", " ", "`", "~")],
)  # fmt: skip
def test_long_repetitions_take_linear_time(start: str, unit: str, stop: str) -> None:
    body = f"## Uses\n\n{start}{unit * ((MAX_BODY_CHARS - 40) // len(unit))}{stop}"
    started = time.process_time()
    text = card(readme=body)
    # 64 K characters take a second at most; what is quadratic would take minutes.
    assert time.process_time() - started < 10
    assert len(text) < 20 * MAX_BODY_CHARS


@settings(max_examples=400, deadline=None, derandomize=True, database=None)
@given(st.text("a#=->1. \t\0\r\n\n\x0b\x85\xa0\u2028`<h2/>|:[]!\udc80", max_size=60))
def test_no_body_makes_it_raise(body: str) -> None:
    original = take_apart(body)
    demoted(original.body, 3).encode("utf-8")


def test_a_readme_with_lone_surrogates_can_be_written() -> None:
    card(readme=README + "\udc80").encode("utf-8")
