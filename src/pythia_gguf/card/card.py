"""The model card of a folder of GGUF files: facts that others measured, as a README.md for the Hub.

It formats what it is given, so the same facts give the same text. Names, hashes and the original card are foreign text,
which is shown and never obeyed. The front matter has the keys of huggingface_hub 2.4.0 (repocard_data.py
`ModelCardData`), and `base_model_relation` and `quantized_by`, which the Hub reads too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import yaml

from pythia_gguf.card.headings import demoted
from pythia_gguf.card.inert import code, command_block, fenced, inert
from pythia_gguf.card.listing import (
    ORIGINAL,
    CardFile,
    about_table,
    commands,
    file_table,
    is_example,
    n_files,
    repository,
)
from pythia_gguf.card.measured import NOT_ASSESSED, NOT_CHOSEN, NOT_MEASURED
from pythia_gguf.card.original import LOCAL_PATH, MAX_BODY_CHARS, MAX_FRONT_CHARS, Original, Passage, take_apart
from pythia_gguf.hub.card_keys import is_repo_id

_HUB = "https://huggingface.co/"
_FOREIGN_MARKER = re.compile(r"<(?=!--\s*README_GGUF)", re.IGNORECASE)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_MIXES = {
    "2026": "the rules of llama.cpp commit 0c1e57098 decide which tensor gets which format, and every format is encoded"
    " as that commit encodes it, {imatrix}.",
    "2024": "the rules behind the files published in 2024 decide which tensor gets which format, so sizes are those"
    " published then; every format is encoded as llama.cpp commit 0c1e57098 encodes it, {imatrix}."
    " That the bytes equal those of a file published in 2024 is not claimed.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CardSource:
    """What the files were made from.

    name      of the model, with which the file names begin
    kind      tag of its architecture on the Hub: "gpt_neox"
    repo_id   "EleutherAI/pythia-70m" when it came from the Hub, else None
    revision  branch, tag or step that was asked for, or None
    commit    the commit that it was at the time, or None
    files     (name, bytes, sha256) of each file that was read
    readme    the original README.md, untouched, or None
    """

    name: str
    kind: str
    repo_id: str | None
    revision: str | None
    commit: str | None
    files: tuple[tuple[str, int, str], ...]
    readme: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class CardRun:
    """How they were made.

    tool_version  of this package
    command       exact command line
    mix           edition of the quants, "2026" or "2024"
    quantized_by  who did it, or None
    imatrix       the importance matrix: its file and what it was computed on; None: without
    """

    tool_version: str
    command: str
    mix: str
    quantized_by: str | None
    imatrix: str | None = None


def write_card(files: Sequence[CardFile], source: CardSource, run: CardRun) -> str:
    """The whole README.md; raises ValueError for no files or a mix that does not exist.

    files  in the order of the table
    """
    if not files:
        raise ValueError("a card needs at least one file")
    if run.mix not in _MIXES:
        raise ValueError(f"mix {run.mix!r} is none of {', '.join(_MIXES)}")
    url = _repo_url(source)
    original = take_apart(source.readme) if source.readme is not None else None
    table = file_table(files)
    parts = [
        _front_matter(source, run, url, original),
        _head(files, source, run, url),
        table,
        about_table(files),
        _how_to_run(files, source),
        _provenance(source, run, url, original),
        _how_to_verify(),
        _intended_use(original),
        _limits(original),
        _original_card(original, url),
    ]
    return "\n\n".join(part if part is table else _FOREIGN_MARKER.sub("&lt;", part) for part in parts) + "\n"


def _repo_url(source: CardSource) -> str | None:
    """Address of the original model, without a slash at the end."""
    return _HUB + source.repo_id if source.repo_id and "/" in source.repo_id and is_repo_id(source.repo_id) else None


def _front_matter(source: CardSource, run: CardRun, url: str | None, original: Original | None) -> str:
    keys = original.keys if original else {}
    data: dict[str, str | list[str]] = {}
    if url:
        data["base_model"] = url.removeprefix(_HUB)
    data["base_model_relation"] = "quantized"
    if run.quantized_by and run.quantized_by.isprintable():
        data["quantized_by"] = run.quantized_by
    for key in ("license", "license_name", "license_link"):
        if found := keys.get(key):
            data[key] = found[0] if len(found) == 1 else list(found)
    for key in ("language", "datasets"):
        if found := keys.get(key):
            data[key] = list(found)
    ours = ["gguf", *(["pythia"] if "pythia" in source.name.lower() else []), source.kind]
    data["tags"] = list(dict.fromkeys([*ours, *keys.get("tags", ())]))
    data["pipeline_tag"] = keys.get("pipeline_tag", ("text-generation",))[0]
    data["library_name"] = "gguf"
    # Each value gets one line: YAML folds a long text, and a line could begin with the `---` that ends the front
    # matter.
    return f"---\n{yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=float('inf'))}---"


def _head(files: Sequence[CardFile], source: CardSource, run: CardRun, url: str | None) -> str:
    parts = [f"# {inert(source.name)} - GGUF"]
    if run.quantized_by:
        parts.append(f"Quantization made by {inert(run.quantized_by)}.")
    if url:
        parts.append(f"- Model creator: {url.rpartition('/')[0]}/\n- Original model: {url}/")
    revision = f", revision {code(source.revision)}" if source.revision else ""
    parts.append(
        f"{n_files(files)} made from {inert(source.name)}{revision}, for"
        " [llama.cpp](https://github.com/ggml-org/llama.cpp) and programs built on it. Below: the files and their"
        " checksums, how to run them, what exactly they were made from and how, and the original model card."
    )
    return "\n\n".join(parts)


def _how_to_run(files: Sequence[CardFile], source: CardSource) -> str:
    return (
        "## How to run\n\n"
        f"Each file is complete; larger ones take more memory. {NOT_CHOSEN}: {is_example(files)}"
        f" {inert(repository(source.name))} stands for the repository that you found this card in.\n\n"
        f"{commands(files, source.name)}"
    )


def _provenance(source: CardSource, run: CardRun, url: str | None, original: Original | None) -> str:
    if url:
        origin = f"[{inert(url.removeprefix(_HUB))}]({url})"
    else:
        origin = f"a local folder or file, {inert(source.name)}; its place on the Hub was not recorded"
    commit = code(source.commit) if source.commit else "not recorded"
    if url and source.commit and _COMMIT.fullmatch(source.commit):
        commit = f"[{commit}]({url}/tree/{source.commit})"
    weighted = f"with the importance matrix {inert(run.imatrix)}" if run.imatrix else "without an importance matrix"
    facts = [
        f"- Source: {origin}",
        f"- Revision: {code(source.revision) if source.revision else 'not recorded'}",
        f"- Commit: {commit}",
        *_training(original),
        f"- Made with: pythia-gguf {inert(run.tool_version)}",
        f"- Mix {run.mix}: {_MIXES[run.mix].format(imatrix=weighted)}",
    ]
    rows = ["| Source file | Bytes | sha256 |", "|---|---|---|"]
    rows += [f"| {inert(name)} | {n_bytes:,} | {inert(sha256)} |" for name, n_bytes, sha256 in source.files]
    return "\n\n".join(
        [
            "## Provenance",
            "\n".join(facts),
            "The command:",
            command_block(run.command),
            "The files it read:",
            "\n".join(rows),
            "The same source files and the same version of pythia-gguf make the same bytes again.",
        ]
    )


def _training(original: Original | None) -> list[str]:
    """What the original's front matter says about how the model was made."""
    known = original.keys if original else {}
    named = (("base_model", "Base model of the original"), ("datasets", "Training data of the original"))
    return [f"- {title}: {', '.join(map(inert, known[key]))}" for key, title in named if known.get(key)]


def _how_to_verify() -> str:
    commands = command_block(
        "# add --ignore-missing when you have only some of the files; on macOS: shasum -a 256 -c SHA256SUMS",
        "sha256sum -c SHA256SUMS",
        "",
        "# the same from manifest.json, and which tensor it is that differs (pip install pythia-gguf)",
        "pythia verify .",
    )
    return f"## How to verify\n\n{commands}"


def _intended_use(original: Original | None) -> str:
    parts = ["## Intended use"]
    if original and original.uses:
        parts += ["The original model card says:", *map(_quoted, original.uses)]
    else:
        parts.append(_silence(original, "intended use"))
    return "\n\n".join(parts)


def _limits(original: Original | None) -> str:
    parts = ["## Limits and biases"]
    if original and original.limits:
        new = [passage for passage in original.limits if passage not in original.uses]
        if len(new) < len(original.limits):
            parts.append("The original model card treats these together with the intended use, quoted above.")
        if new:
            parts += ["The original model card says:", *map(_quoted, new)]
    else:
        parts.append(_silence(original, "limits or biases"))
    parts.append(f"Quantization changes weights. {NOT_MEASURED} {NOT_ASSESSED}")
    return "\n\n".join(parts)


def _silence(original: Original | None, subject: str) -> str:
    if original is None:
        return f"No original model card came with the source, so nothing is known here about {subject}."
    if len(original.body) > MAX_BODY_CHARS:
        return f"The original model card is too long to look in it for {subject}."
    return f"The original model card has no section on {subject}."


def _quoted(passage: Passage) -> str:
    """A passage as a quote that ends where it should: HTML left open would reach into what follows."""
    text = re.sub(r"<(?=[A-Za-z/!?])(?!https?://)", "&lt;", demoted(passage.text, 4))
    lines = [f"**{inert(passage.title)}**", "", *text.split("\n")]
    return "\n".join(f"> {line}".rstrip() for line in lines)


def _original_card(original: Original | None, url: str | None) -> str:
    parts = [ORIGINAL]
    if original is None:
        parts.append("No README.md came with the source.")
        return "\n\n".join(parts)
    if original.problem:
        parts.append(f"The original's front matter {inert(original.problem)}; nothing was taken from it.")
    if LOCAL_PATH in original.front + original.body:
        parts.append(f"Paths of somebody's disk are called {LOCAL_PATH} here.")
    if original.front.strip() and len(original.front) <= MAX_FRONT_CHARS:
        parts.append(fenced(original.front, "yaml"))
    if len(original.body) > MAX_BODY_CHARS:
        where = f" It is at {url}" if url else ""
        parts.append(f"The original has {len(original.body):,} characters, too many to repeat here.{where}")
    elif original.body:
        parts.append("What follows is the original text, its headings moved down. Its code loads the original model.")
        parts.append(demoted(original.body, 3))
    else:
        parts.append("The original README.md has no text.")
    return "\n\n".join(parts)
