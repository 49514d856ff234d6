"""The README.md of the original model, taken apart: front matter, body, and what it says about use and limits.

The text is foreign: no README makes this raise, hang or grow. Values that the Hub would refuse are left out of the
keys, and paths of somebody's disk that stand for a model or data set are left out everywhere.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import yaml

from pythia_gguf.card.headings import Heading, find_headings
from pythia_gguf.errors import one_line
from pythia_gguf.hub.card_keys import local_paths_in, takes

# Real front matter has a few hundred characters, real bodies a few ten thousand. Parsing as much YAML as this takes a
# second; finding the headings of the worst body that is known takes two.
MAX_FRONT_CHARS = 1 << 16
MAX_BODY_CHARS = 1 << 16
_MAX_TEXTS = 100
# What stands in place of a path of a disk.
LOCAL_PATH = "a-local-path"
_MAX_TEXT_CHARS = 200

# A title is about a subject when it has one of the subject's words, and no word but these.
_USE_WORDS = frozenset({"use", "uses", "misuse"})
_LIMIT_WORDS = frozenset(
    {"limitation", "limitations", "limits", "bias", "biases", "risk", "risks", "ethics", "ethical"}
)
_OTHER_WORDS = frozenset(
    {
        "intended", "primary", "direct", "downstream", "out", "of", "scope", "malicious", "known", "considerations",
        "optional", "and", "or",
    }
)  # fmt: skip
# Titles that end a section where headings have lost their marks.
_NEXT_TITLES = frozenset(
    {
        "model description", "model details", "quickstart", "how to use", "how to get started with the model",
        "training", "training data", "training procedure", "training details", "evaluation", "evaluations",
        "evaluation results", "environmental impact", "technical specifications", "citation", "citations", "license",
        "naming convention and parameter count",
    }
)  # fmt: skip
_PLAIN_TITLE = re.compile(r"[*_]{0,3}[A-Z][^.|]{0,60}")
_PLAIN_LEVEL = 7
# What the Hub's template says where its author wrote nothing.
_EMPTY = re.compile(r"\[?more information needed\]?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """A section of the original: its title and its text as Markdown, without its subsections on use and limits."""

    title: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Original:
    """An original README, taken apart.

    front    its front matter as it stands, "" when there is none
    keys     top-level keys of the front matter -> their texts; empty when `problem` is set
    problem  why the front matter was not used, or None
    left_out "key: value" of each value that the Hub would refuse, with paths as they were
    body     everything below the front matter
    uses     passages on intended and out-of-scope use
    limits   passages on limitations, biases and risks; one that has both subjects in its title is in both
    """

    front: str
    keys: dict[str, tuple[str, ...]]
    problem: str | None
    left_out: tuple[str, ...]
    body: str
    uses: tuple[Passage, ...]
    limits: tuple[Passage, ...]


def take_apart(readme: str) -> Original:
    """Split, parse and search a README."""
    text = readme.encode("utf-8", "replace").decode("utf-8").removeprefix("\ufeff")
    # A NUL is shown as U+FFFD everywhere; text that is passed on must hold what the parser of headings saw.
    text = text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    data, problem = _parse(_split(text)[0])
    front, body = _split(_without_paths(text, local_paths_in(data)))
    keys = {key: tuple(t for t in _texts(value) if takes(key, t)) for key, value in data.items()}
    refused = [f"{key}: {one_line(t, 100)}" for key, value in data.items() for t in _texts(value) if not takes(key, t)]
    uses, limits = _find_passages(body) if len(body) <= MAX_BODY_CHARS else ((), ())
    return Original(
        front=front,
        keys={key: texts for key, texts in keys.items() if texts},
        problem=problem,
        left_out=tuple(refused),
        body=body,
        uses=uses,
        limits=limits,
    )


def _split(text: str) -> tuple[str, str]:
    """Front matter and body, by the Hub's rule: from a first line `---` to the next."""
    lines = text.strip("\n").split("\n")
    if lines[0] == "---" and "---" in lines[1:]:
        end = lines.index("---", 1)
        return "\n".join(lines[1:end]), "\n".join(lines[end + 1 :]).strip("\n")
    return "", "\n".join(lines)


def _without_paths(text: str, paths: set[str]) -> str:
    """A text without some paths, in an address too; also as YAML writes them between double quotes."""
    spelled = {spelling for path in paths for spelling in (path, path.replace("\\", "\\\\")) if len(path) > 2}
    if not spelled:
        return text
    longest_first = "|".join(map(re.escape, sorted(spelled, key=len, reverse=True)[:_MAX_TEXTS]))
    return re.sub(rf"(?<![\w.-])(?:{longest_first})(?![\w-])", LOCAL_PATH, text)


def _parse(front: str) -> tuple[dict[str, object], str | None]:
    """Keys of the front matter, and what is wrong with it."""
    if len(front) > MAX_FRONT_CHARS:
        return {}, f"has {len(front)} characters, more than {MAX_FRONT_CHARS}"
    try:
        # The base loader makes texts, lists and mappings, nothing else: `no` stays Norwegian, a date stays a text.
        # Tabs are no YAML, but model cards have them.
        data = yaml.load(front.replace("\t", "  "), Loader=yaml.BaseLoader) if front.strip() else {}
    except yaml.MarkedYAMLError as e:
        line = f" in line {e.problem_mark.line + 2}" if e.problem_mark else ""
        return {}, f"is not valid YAML: {one_line(str(e.problem))}{line}"
    except yaml.YAMLError as e:
        return {}, f"is not valid YAML: {one_line(str(e), 100)}"
    except (RecursionError, ValueError, OverflowError):
        # Nested too deep; or an escape or a version number that PyYAML reads without a check.
        return {}, "is not valid YAML"
    if not isinstance(data, dict):
        return {}, "holds no keys"
    return {str(key): value for key, value in data.items()}, None


def _texts(value: object) -> tuple[str, ...]:
    """A text, or those of a list; what could not stand in a card's own front matter is dropped."""
    entries = value if isinstance(value, list) else [value]
    texts = dict.fromkeys(entry.strip() for entry in entries[:_MAX_TEXTS] if isinstance(entry, str))
    return tuple(t for t in texts if t not in ("", "null", "~") and len(t) <= _MAX_TEXT_CHARS and t.isprintable())


def _find_passages(body: str) -> tuple[tuple[Passage, ...], tuple[Passage, ...]]:
    lines = _without_comments(body).split("\n")
    titles = _titles(lines)
    uses, limits = [], []
    for i, title in enumerate(titles):
        words = _words(title.title)
        if not _has_subject(words):
            continue
        passage = Passage(title=title.title.strip("*_: "), text=_text_of(titles, i, lines))
        if passage.text and words & _USE_WORDS:
            uses.append(passage)
        if passage.text and words & _LIMIT_WORDS:
            limits.append(passage)
    return tuple(uses), tuple(limits)


def _without_comments(text: str) -> str:
    """The text without its complete HTML comments."""
    kept = []
    at = 0
    while (start := text.find("<!--", at)) >= 0 and (stop := text.find("-->", start)) >= 0:
        kept.append(text[at:start])
        at = stop + 3
    return "".join(kept) + text[at:]


def _titles(lines: list[str]) -> list[Heading]:
    """Headings, and lines that read like one of those we look for, in order."""
    headings, is_code = find_headings(lines)
    real = [heading for heading in headings if not heading.is_inside]
    taken = {i for heading in real for i in range(heading.first, heading.stop)}
    plain = [
        Heading(first=i, stop=i + 1, level=_PLAIN_LEVEL, is_inside=False, title=line.strip())
        for i, line in enumerate(lines)
        if i not in taken and not is_code[i] and _PLAIN_TITLE.fullmatch(line.strip()) and _is_known(line)
    ]
    return sorted(real + plain, key=lambda heading: heading.first)


def _text_of(titles: list[Heading], i: int, lines: list[str]) -> str:
    """The text under title `i`, up to the next title that is not below it or has a subject of its own."""
    later = (titles[j] for j in range(i + 1, len(titles)))
    ends = (t.first for t in later if t.level <= titles[i].level or _has_subject(_words(t.title)))
    text = "\n".join(lines[titles[i].stop : next(ends, len(lines))]).strip()
    return "" if _EMPTY.fullmatch(text) else text


def _words(title: str) -> frozenset[str]:
    return frozenset(re.findall("[a-z]+", title.lower().replace("&", " and "))) if len(title) <= 100 else frozenset()


def _has_subject(words: frozenset[str]) -> bool:
    return bool(words & (_USE_WORDS | _LIMIT_WORDS)) and words <= _USE_WORDS | _LIMIT_WORDS | _OTHER_WORDS


def _is_known(line: str) -> bool:
    return _has_subject(_words(line)) or " ".join(re.findall("[a-z]+", line.lower())) in _NEXT_TITLES
