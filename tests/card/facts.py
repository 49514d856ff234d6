"""Facts for cards: the 19 files of pythia-410m-deduped-v0, an original card in the headings Pythia's README uses."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Sequence
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from pythia_gguf.card.card import CardRun, CardSource, write_card
from pythia_gguf.card.listing import CardFile

NAME = "pythia-410m-deduped-v0"
N_WEIGHTS = 405_334_016
METADATA_BYTES = 1_786_000

# quant, bytes of tensor data, size in the table of the card published in 2024
SIZES = (
    ("Q2_K", 172313600, "0.16GB"),
    ("Q3_K_S", 195436544, "0.18GB"),
    ("Q3_K", 222699520, "0.21GB"),
    ("Q3_K_M", 222699520, "0.21GB"),
    ("Q3_K_L", 237903872, "0.22GB"),
    ("IQ4_XS", 233305088, "0.22GB"),
    ("Q4_0", 242385920, "0.23GB"),
    ("IQ4_NL", 243958784, "0.23GB"),
    ("Q4_K_S", 243958784, "0.23GB"),
    ("Q4_K", 264799232, "0.25GB"),
    ("Q4_K_M", 264799232, "0.25GB"),
    ("Q4_1", 264479744, "0.25GB"),
    ("Q5_0", 286573568, "0.27GB"),
    ("Q5_K_S", 286573568, "0.27GB"),
    ("Q5_K", 303285248, "0.28GB"),
    ("Q5_K_M", 303285248, "0.28GB"),
    ("Q5_1", 308667392, "0.29GB"),
    ("Q6_K", 333522944, "0.31GB"),
    ("Q8_0", 431611904, "0.4GB"),
)
ALIASES = {"Q3_K": "Q3_K_M", "Q4_K": "Q4_K_M", "Q5_K": "Q5_K_M"}

FRONT = """\
language:
- en
tags:
- pytorch
- causal-lm
- pythia
- pythia_v0
license: apache-2.0
datasets:
- EleutherAI/the_pile_deduplicated"""

BODY = """\
A suite of models for research on interpretability, in eight sizes.

<details>
  <summary style="font-weight:600">Past release</summary>
A word on renamed models.
</details>

# Pythia-410M-deduped

## Model Details

- Developed by: [EleutherAI](http://eleuther.ai)
- License: Apache 2.0

<figure>

| Model | Layers |
| ----: | :----: |
| 410M  | 24     |

<figcaption>Engineering details.</figcaption>
</figure>

## Uses and Limitations

### Intended Use

Made for research on how language models behave. Branch `step143000` is the last checkpoint.

You may also tune it further; see [the licence](LICENSE).

### Out-of-scope use

Not for deployment, **not** for text in other languages than English.

### Limitations and biases

It predicts the next token, which need not be a true one.

The Pile has offensive texts, and so may its output.

### Quickstart

```python
# a comment, not a heading
model = GPTNeoXForCausalLM.from_pretrained("EleutherAI/pythia-70m-deduped", revision="step3000")
```

## Training

### Training data

The Pile, deduplicated.

## Evaluations

| Task | Score |
| ---- | ----- |
| PIQA | 0.68  |"""

README = f"---\n{FRONT}\n---\n\n{BODY}\n"

FILES = tuple(
    CardFile(
        name=f"{NAME}.{quant}.gguf",
        quant=quant,
        n_bytes=n_bytes + METADATA_BYTES,
        bits_per_weight=8 * n_bytes / N_WEIGHTS,
        sha256=hashlib.sha256(ALIASES.get(quant, quant).encode()).hexdigest(),
        alias_of=ALIASES.get(quant),
    )
    for quant, n_bytes, _ in SIZES
)
SOURCE = CardSource(
    name=NAME,
    kind="gpt_neox",
    repo_id=f"EleutherAI/{NAME}",
    revision="step143000",
    commit="0123456789abcdef0123456789abcdef01234567",
    files=(
        ("config.json", 567, hashlib.sha256(b"config").hexdigest()),
        ("pytorch_model.bin", 911_000_000, hashlib.sha256(b"weights").hexdigest()),
    ),
    readme=README,
)
RUN = CardRun(
    tool_version="0.1.0",
    command=f"pythia quantize {NAME} --mix 2026 --quantized-by 'Ada Lovelace'",
    mix="2026",
    quantized_by="Ada Lovelace",
)


def card(table: Sequence[CardFile] = FILES, /, **changes: Any) -> str:
    """The card with some fields of source and run replaced."""
    of_source = {field.name for field in dataclasses.fields(CardSource)}
    source = dataclasses.replace(SOURCE, **{k: v for k, v in changes.items() if k in of_source})
    run = dataclasses.replace(RUN, **{k: v for k, v in changes.items() if k not in of_source})
    return write_card(table, source, run)


def body_of(text: str) -> str:
    """A card without its front matter, which the Hub does not render."""
    assert text.startswith("---\n")
    return text.split("\n---\n", 1)[1]


def parsed(text: str) -> list[Token]:
    """Markdown as blocks, with GitHub's tables."""
    return MarkdownIt("commonmark").enable("table").parse(text)


def headings(text: str) -> list[tuple[int, str]]:
    """(level, markup of the title) of each heading, in order."""
    tokens = parsed(text)
    return [
        (int(token.tag[1]), tokens[i + 1].content) for i, token in enumerate(tokens) if token.type == "heading_open"
    ]


def tables(text: str) -> list[list[list[str]]]:
    """Tables that stand on their own, as rows of the cells' markup; the first row is the header."""
    found: list[list[list[str]]] = []
    tokens = parsed(text)
    for i, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(tokens[i + 1].content)
    return found


def section(text: str, title: str) -> str:
    """What stands between one of our own headings and the next."""
    return text.split(f"\n## {title}\n", 1)[1].split("\n## ", 1)[0]
