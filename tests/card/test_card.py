"""A card says what it was given, in the form that readers and the Hub expect."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard

from card.facts import ALIASES, FILES, NAME, README, SIZES, SOURCE, body_of, card, headings, section, tables
from pythia_gguf.card.listing import CardFile, size_text

OUR_TITLES = [
    f"{NAME} - GGUF",
    "Provided files",
    "How to run",
    "Provenance",
    "How to verify",
    "Intended use",
    "Limits and biases",
    "Original model description:",
]


@pytest.mark.parametrize(("file", "expected"), [(f, size) for f, (_, _, size) in zip(FILES, SIZES, strict=True)])
def test_sizes_are_those_of_the_published_card(file: CardFile, expected: str) -> None:
    assert size_text(file.n_bytes) == expected


@pytest.mark.parametrize(
    ("n_bytes", "expected"),
    [(2**30, "1GB"), (10 * 2**30, "10GB"), (int(12.5 * 2**30), "12.5GB"), (11 * 2**20, "0.01GB"), (2**20, "<0.01GB")],
)
def test_sizes_drop_zeros_only_behind_the_point(n_bytes: int, expected: str) -> None:
    assert size_text(n_bytes) == expected


def test_table_has_a_row_per_file_with_the_published_columns_first() -> None:
    header, *rows = tables(body_of(card()))[0]
    assert header == ["Name", "Quant method", "Size", "Bits per weight", "sha256"]
    assert [row[:3] for row in rows] == [[f"{NAME}.{quant}.gguf", quant, size] for quant, _, size in SIZES]
    assert len(rows) == 19 and {len(row) for row in rows} == {5}
    # By hand: 172313600 * 8 / 405334016 = 3.401 bits.
    assert rows[0][3] == "3.40"
    assert [row[4][:64] for row in rows] == [f.sha256 for f in FILES]


def test_table_stands_between_the_markers_that_programs_look_for() -> None:
    text = card()
    inside = text.split("<!-- README_GGUF.md-provided-files start -->")[1]
    inside = inside.split("<!-- README_GGUF.md-provided-files end -->")[0]
    assert len(tables(inside)[0]) == 20
    assert text.count("README_GGUF.md-provided-files") == 2


def test_other_names_of_the_same_bytes_are_marked() -> None:
    text = card()
    marked = {row[1]: row[4] for row in tables(body_of(text))[0][1:] if "same bytes" in row[4]}
    assert {quant: cell.split()[-1] for quant, cell in marked.items()} == ALIASES
    assert "Q3_K is another name of Q3_K_M, Q4_K is another name of Q4_K_M, Q5_K is another name of Q5_K_M" in text
    assert "another name" not in card([f for f in FILES if f.alias_of is None])


def test_the_hub_library_reads_the_front_matter() -> None:
    data = ModelCard(card()).data.to_dict()
    assert data == {
        "base_model": f"EleutherAI/{NAME}",
        "base_model_relation": "quantized",
        "quantized_by": "Ada Lovelace",
        "license": "apache-2.0",
        "language": ["en"],
        "datasets": ["EleutherAI/the_pile_deduplicated"],
        "tags": ["gguf", "pythia", "gpt_neox", "pytorch", "causal-lm", "pythia_v0"],
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
    }


def test_the_hub_library_writes_back_what_it_read() -> None:
    text = card()
    again = ModelCard(str(ModelCard(text)))
    assert again.data.to_dict() == ModelCard(text).data.to_dict()
    assert again.text.strip() == body_of(text).strip()


def test_front_matter_claims_nothing_that_is_not_known() -> None:
    data = ModelCard(card(repo_id=None, readme=None, quantized_by=None, name="my-neox")).data.to_dict()
    assert data == {
        "base_model_relation": "quantized",
        "tags": ["gguf", "gpt_neox"],
        "pipeline_tag": "text-generation",
        "library_name": "gguf",
    }


def test_special_licences_keep_their_name_and_link() -> None:
    readme = "---\nlicense: other\nlicense_name: house rules\nlicense_link: LICENSE\nlanguage: no\n---\ntext\n"
    data = ModelCard(card(readme=readme)).data.to_dict()
    assert (data["license"], data["license_name"], data["license_link"]) == ("other", "house rules", "LICENSE")
    assert data["language"] == ["no"]  # Norwegian, not false


def test_what_the_original_says_of_its_training_is_told() -> None:
    readme = "---\nbase_model: EleutherAI/pythia-70m\ndatasets:\n- my/letters\n- my/diaries\n---\ntext\n"
    told = section(card(readme=readme), "Provenance")
    assert "- Base model of the original: EleutherAI/pythia-70m\n" in told
    assert "- Training data of the original: my/letters, my/diaries\n" in told
    assert "of the original" not in section(card(readme=None), "Provenance")


def test_headings_nest_and_ours_stay_on_top() -> None:
    found = headings(body_of(card()))
    levels = [level for level, _ in found]
    assert [title for level, title in found if level <= 2] == OUR_TITLES
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(below - above <= 1 for above, below in zip(levels, levels[1:], strict=False))
    assert (3, "Pythia-410M-deduped") in found and (4, "Uses and Limitations") in found and (5, "Intended Use") in found


def test_head_names_who_made_what_from_what() -> None:
    head = body_of(card()).split("## Provided files")[0].splitlines()
    assert "Quantization made by Ada Lovelace." in head
    assert "- Model creator: https://huggingface.co/EleutherAI/" in head
    assert f"- Original model: https://huggingface.co/EleutherAI/{NAME}/" in head
    unknown = body_of(card(repo_id=None, quantized_by=None)).split("## Provided files")[0]
    assert "made by" not in unknown and "https://huggingface.co" not in unknown


def test_provenance_is_complete() -> None:
    text = section(card(), "Provenance")
    for fact in (
        f"EleutherAI/{NAME}",
        "step143000",
        SOURCE.commit,
        "pythia-gguf 0.1.0",
        "Mix 2026",
        "commit 0c1e57098",
    ):
        assert fact in text, fact
    assert "pythia quantize pythia-410m-deduped-v0 --mix 2026 --quantized-by 'Ada Lovelace'" in text.splitlines()
    assert f"(https://huggingface.co/EleutherAI/{NAME}/tree/{SOURCE.commit})" in text
    assert tables(text)[0][1:] == [[name, f"{n_bytes:,}", sha256] for name, n_bytes, sha256 in SOURCE.files]


def test_what_was_not_recorded_is_said_so() -> None:
    text = section(card(repo_id=None, revision=None, commit=None), "Provenance")
    assert "- Revision: not recorded" in text and "- Commit: not recorded" in text
    assert "its place on the Hub was not recorded" in text


def test_mix_2024_claims_sizes_and_no_bytes() -> None:
    text = section(card(mix="2024"), "Provenance")
    assert "published in 2024" in text and "is not claimed" in text


def test_commands_use_a_file_of_the_folder() -> None:
    text = section(card(), "How to run")
    assert f"llama-completion -m {NAME}.Q4_K_M.gguf -no-cnv" in text
    assert f"llama-server -hf OWNER/{NAME}-GGUF:Q4_K_M" in text
    assert f"pythia generate OWNER/{NAME}-GGUF:Q4_K_M" in text
    assert f"pythia inspect {NAME}.Q4_K_M.gguf" in text
    assert "No quality was measured for this folder" in text
    only = section(card([FILES[0]]), "How to run")
    assert f"{NAME}.Q2_K.gguf" in only and "Q4_K_M" not in only


def test_commands_survive_a_name_with_spaces() -> None:
    file = dataclasses.replace(FILES[0], name="my model.Q2_K.gguf")
    text = section(card([file], name="my model"), "How to run")
    assert "llama-server -m 'my model.Q2_K.gguf'" in text and "-hf 'OWNER/my model-GGUF:Q2_K'" in text


def test_checks_are_named() -> None:
    lines = section(card(), "How to verify").splitlines()
    assert "sha256sum -c SHA256SUMS" in lines and "pythia verify ." in lines


def test_same_facts_give_the_same_text() -> None:
    assert card() == card()
    # Nothing like a date gets in by itself.
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", card(readme=None))


def test_misuse_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="at least one file"):
        card([])
    with pytest.raises(ValueError, match="2026, 2024"):
        card(mix="2023")


def test_importing_the_card_loads_no_heavy_module() -> None:
    code = "import sys, pythia_gguf.card.card; print({'numpy', 'numba', 'huggingface_hub', 'rich'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "set()"


def test_original_card_is_kept_line_by_line() -> None:
    original = section(card(), "Original model description:").splitlines()
    at = 0
    for line in README.replace("---\n", "").splitlines():
        kept = [i for i in range(at, len(original)) if original[i].lstrip("#") == line.lstrip("#")]
        assert kept, line
        at = kept[0] + 1
