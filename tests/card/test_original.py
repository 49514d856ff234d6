"""What the original card says is found, quoted and kept, however its headings are written."""

from __future__ import annotations

import pytest

from card.facts import BODY, README, body_of, card, headings, parsed, section
from pythia_gguf.card.original import MAX_BODY_CHARS, take_apart

USE = "Made for research on how language models behave."
OUT_OF_SCOPE = "Not for deployment, **not** for text in other languages than English."
LIMITS = ("It predicts the next token, which need not be a true one.", "The Pile has offensive texts")
# Ways in which cards on the Hub write their headings, or have lost them.
STYLES = {
    "deeper": BODY.replace("## ", "### "),
    "closed": "\n".join(f"{line} ##" if line.startswith("##") else line for line in BODY.split("\n")),
    "html": "\n".join(
        f'<h3 align="left">{line[4:]}</h3>' if line.startswith("### ") else line for line in BODY.split("\n")
    ),
    "underlined": "\n".join(f"{line[4:]}\n---" if line.startswith("### ") else line for line in BODY.split("\n")),
    "bold": "\n".join(f"**{line.lstrip('# ')}:**" if line.startswith("#") else line for line in BODY.split("\n")),
    "lost": "\n".join(line.lstrip("# ") if line.startswith("##") else line for line in BODY.split("\n")),
    "crlf": BODY.replace("\n", "\r\n"),
    "emoji": BODY.replace("### Intended", "### \N{ROCKET} Intended"),
}


def test_sections_of_the_original_are_quoted_under_ours() -> None:
    text = card()
    use, limits = section(text, "Intended use"), section(text, "Limits and biases")
    assert f"> {USE}" in use and f"> {OUT_OF_SCOPE}" in use and "> **Out-of-scope use**" in use
    assert all(f"> {line}" in limits for line in LIMITS)
    assert "offensive" not in use and "deployment" not in limits
    assert "Quickstart" not in use + limits and "from_pretrained" not in use + limits


@pytest.mark.parametrize("style", STYLES)
def test_sections_are_found_in_every_style_of_heading(style: str) -> None:
    original = take_apart(STYLES[style])
    assert [passage.title.removeprefix("\N{ROCKET} ") for passage in original.uses] == [
        "Intended Use",
        "Out-of-scope use",
    ]
    assert [passage.title for passage in original.limits] == ["Limitations and biases"]
    assert original.uses[0].text.startswith(USE) and original.uses[0].text.endswith("[the licence](LICENSE).")
    assert original.uses[1].text == OUT_OF_SCOPE
    assert original.limits[0].text.startswith(LIMITS[0]) and original.limits[0].text.endswith("so may its output.")


def test_a_section_on_both_is_quoted_once() -> None:
    text = card(readme="# M\n\n## Intended uses & limitations\n\nOnly for tests.\n\n## Other\n\nx\n")
    assert "> Only for tests." in section(text, "Intended use")
    limits = section(text, "Limits and biases")
    assert "Only for tests." not in limits and "together with the intended use" in limits


def test_subheadings_stay_in_their_section() -> None:
    readme = "## Bias, Risks, and Limitations\n\nA.\n\n### Recommendations\n\nB.\n\n## Citation\n\nC.\n"
    (passage,) = take_apart(readme).limits
    assert passage.text == "A.\n\n### Recommendations\n\nB."
    assert "> #### Recommendations" in card(readme=readme)


@pytest.mark.parametrize(
    "readme",
    [
        "",
        "# A model\n\nIts limitations\nare many.\n",
        "## Uses\n\n<!-- Say what it is for. -->\n\n[More Information Needed]\n\n## Limitations\n",
        "```\n## Uses\nnone, this is code\n## Limitations\nnone\n```\n",
        "<!--\n## Uses\nold\n## Limitations\nold\n-->\n",
        "## How to use\n\nrun it\n\n## Terms of use\n\n## Usage\n\n- Limitations\n- Uses\n",
    ],
)
def test_an_original_that_says_nothing_is_not_made_to_speak(readme: str) -> None:
    text = card(readme=readme)
    assert "The original model card has no section on intended use." in section(text, "Intended use")
    assert "The original model card has no section on limits or biases." in section(text, "Limits and biases")


def test_absent_original_is_said_so() -> None:
    text = card(readme=None)
    assert "No original model card came with the source" in section(text, "Intended use")
    assert "No original model card came with the source" in section(text, "Limits and biases")
    assert "No README.md came with the source." in section(text, "Original model description:")


@pytest.mark.parametrize("readme", ["", "\n", "---\nlicense: mit\n---\n"])
def test_an_original_without_text_is_said_so(readme: str) -> None:
    assert card(readme=readme).endswith("The original README.md has no text.\n")


def test_body_is_kept_as_it_stands_but_for_its_headings() -> None:
    plain = "\n".join(line for line in BODY.split("\n") if not line.startswith("#"))
    assert plain in card(readme=plain)
    assert body_of(card(readme=README)).rstrip().endswith(BODY.split("\n")[-1])


def test_body_renders_as_it_did() -> None:
    _, _, rest = section(card(readme=BODY), "Original model description:").partition("loads the original model.\n")
    ours = parsed(rest)
    theirs = parsed(BODY)
    assert [(t.type, t.content) for t in ours] == [(t.type, t.content) for t in theirs]


def test_front_matter_is_shown_as_text() -> None:
    blocks = [t for t in parsed(section(card(), "Original model description:")) if t.type == "fence"]
    assert blocks[0].info == "yaml"
    assert blocks[0].content == README.split("---\n")[1]


def test_bom_and_windows_line_ends_change_nothing() -> None:
    assert card(readme="\ufeff" + README.replace("\n", "\r\n")) == card()


def test_html_headings_move_with_the_others() -> None:
    text = card(readme='<h1 align="center">Title</h1>\n\n## Part\n\n`<h1>` is a tag.\n')
    assert '<h3 align="center">Title</h3>' in text and "\n#### Part\n" in text and "`<h1>` is a tag." in text


def test_an_endless_body_is_pointed_to() -> None:
    text = card(readme="x" * (MAX_BODY_CHARS + 1))
    assert len(text) < 20_000
    assert (
        f"{MAX_BODY_CHARS + 1:,} characters, too many to repeat here. It is at https://huggingface.co/EleutherAI/"
        in text
    )
    assert "too long to look in it for intended use" in text and "has no section" not in text


def test_titles_of_the_original_never_stand_beside_ours() -> None:
    readme = "Top\n===\n\ntwo\nlines\n---\n\n# One\n\n> # Quoted\n\n- # Listed\n\n###### Six\n"
    original = section(card(readme=readme), "Original model description:")
    assert headings(original) == [
        (3, "Top"), (4, "two lines"), (3, "One"), (3, "Quoted"), (3, "Listed"), (6, "Six"),
    ]  # fmt: skip
