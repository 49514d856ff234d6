"""Front matter is what stands between the first two `---`, and nothing in it can hang or crash us."""

from __future__ import annotations

import contextlib
import random

import pytest

from pythia_gguf.errors import ModelFileError
from pythia_gguf.hub.front_matter import front_matter
from pythia_gguf.yaml_text import MAX_CHARS


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        ("", {}),
        ("# Title\n", {}),
        ("\n---\na: 1\n---\n", {}),
        ("--- \na: 1\n---\n", {}),
        ("---\n---\n", {}),
        ("---\na: 1\n---\nb: 2\n", {"a": 1}),
        ("---\r\na: 1\r\n---\r\n", {"a": 1}),
        ("---\na: 1\n", {"a": 1}),
        ("---\n- a\n---\n", {}),
        ("---\ntext\n---\n", {}),
        ("---\nlanguage:\n- no\n- en\n---\n", {"language": ["no", "en"]}),
        ("---\na:\tb\n---\n", {"a": "b"}),
        ("---\na: x # '*' marks\n---\n", {"a": "x"}),
        ('---\na: "*b"\n---\n', {"a": "*b"}),
    ],
)
def test_keys_are_those_between_the_lines(readme, expected):
    assert front_matter(readme, "README.md") == expected


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("a: [", "not valid YAML: expected the node content"),
        ("a: b: c", "not valid YAML: mapping values are not allowed here, line 2"),
        ("a: 1\nb: {", "not valid YAML"),
        ("\x00", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("a: !!python/object:os.system x", "not valid YAML: could not determine a constructor"),
        ("{a: 1}: 2", "not valid YAML: found unhashable key"),
        ("a: 2023-13-45", "a value is not what its YAML type asks for: month must be in 1..12"),
        ("a: !!int x", "a value is not what its YAML type asks for"),
        ("a: !!bool x", "a value is not what its YAML type asks for"),
        ("a: !!timestamp x", "a value is not what its YAML type asks for"),
        (LAUGHS, "YAML aliases are not supported"),
        ("a: &a\n  b: *a", "YAML aliases are not supported"),
        ("a: " + "x" * MAX_CHARS, "expected at most 262144 characters, got 262148"),
    ],
)
def test_bad_front_matter_is_refused_in_one_line(body, message):
    with pytest.raises(ModelFileError) as caught:
        front_matter(f"---\n{body}\n---\n", "README.md")
    assert str(caught.value).startswith("README.md: front matter: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_mutated_front_matter_gives_keys_or_one_kind_of_error():
    rng = random.Random(7)
    good = "---\nlicense: apache-2.0\ntags: [a, 'b']\nbase_model: {x: 1.5}\nd: 2024-01-02\ne: !!int 3\nf: &g h\n---\n"
    pieces = [
        "!!float",
        "!!binary",
        "!!set",
        "!!omap",
        "*g",
        "&h",
        "<<",
        "? ",
        ": ",
        "[",
        "}",
        "|",
        ">",
        "0o9",
        "\u2028",
        "%",
    ]
    for _ in range(800):
        at = rng.randrange(4, len(good))
        text = good[:at] + rng.choice(pieces) + good[at + rng.randrange(4) :]
        with contextlib.suppress(ModelFileError):
            assert isinstance(front_matter(text, "README.md"), dict)
