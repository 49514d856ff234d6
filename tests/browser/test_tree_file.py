"""The tree as a file: saved and loaded it is the same one; what is no such file is refused in a line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from browser.conftest import OpenPage
from browser.visitor import PROMPT, read, text, tokens, wait, write
from serve.running import RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
Tree = dict[str, Any]


def _save(page: Page, path: Path) -> Tree:
    with page.expect_download() as download:
        page.get_by_role("button", name="Save").click()
    assert download.value.suggested_filename == "pythia-tree.json"
    download.value.save_as(path)
    found: Tree = json.loads(path.read_text("utf-8"))
    return found


def _load(page: Page, path: Path) -> None:
    wait(page)
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Load").click()
    chooser.value.set_files(path)


@pytest.fixture
def tree(server: RunningServer, open_page: OpenPage, tmp_path: Path) -> Tree:
    """Two branches below a prompt, as the page saves them."""
    page = open_page(server)
    write(page, max_tokens=4)
    write(page, max_tokens=4, seed=8)
    return _save(page, tmp_path / "tree.json")


def test_a_loaded_tree_is_the_one_that_was_saved(
    server: RunningServer, open_page: OpenPage, tree: Tree, tmp_path: Path
):
    page = open_page(server)
    _load(page, tmp_path / "tree.json")
    page.locator("#branches .run").nth(2).wait_for()
    wait(page)
    assert _save(page, tmp_path / "again.json") == tree
    assert text(page).startswith(PROMPT)
    assert all(token["step"] for token in tokens(page)[1:])
    page.locator("#tokens .token").nth(4).click()
    assert page.locator("#alternatives-body .row").count() >= 20


def test_the_file_is_as_it_is_described(server: RunningServer, tree: Tree):
    assert list(tree) == ["format", "version", "fingerprints", "at", "nodes"]
    assert (tree["format"], tree["version"]) == ("pythia-gguf tree", 1)
    asked = server.complete(PROMPT, echo=True, logprobs=20, max_tokens=0)
    lists = asked["choices"][0]["logprobs"]
    assert tree["fingerprints"] == {asked["model"]: asked["system_fingerprint"]}
    for i, node in enumerate(tree["nodes"][:3]):
        top = [
            {"id": token, "text": name, "logprob": logprob}
            for (token, logprob), name in zip(lists["top_ids"][i] or (), lists["top_tokens"][i] or (), strict=True)
        ]
        likelihood = {"logprob": lists["token_logprobs"][i], "top": top}
        expected = {"parent": i - 1 if i else None, "id": lists["token_ids"][i], "text": lists["tokens"][i]}
        assert node == expected | {
            "bytes": None,
            "origin": "prompt",
            "likelihoods": {asked["model"]: likelihood},
        }


def test_numbers_of_another_version_of_a_model_are_forgotten(
    server: RunningServer, open_page: OpenPage, tree: Tree, tmp_path: Path
):
    """The file says another fingerprint: what it says of the model's numbers is asked for anew."""
    page = open_page(server)
    read(page)
    expected = [token["step"] for token in tokens(page)]
    for node in tree["nodes"]:
        for likelihood in node["likelihoods"].values():
            likelihood["logprob"] = -20.0
    tree["fingerprints"] = dict.fromkeys(tree["fingerprints"], "fp_other")
    tree["at"] = 2
    path = tmp_path / "other.json"
    path.write_text(json.dumps(tree))
    page.once("dialog", lambda dialog: dialog.accept())
    _load(page, path)
    page.locator("#branches .run").nth(2).wait_for()
    wait(page)
    assert [token["step"] for token in tokens(page)] == expected


def _without(key: str) -> Callable[[Tree], object]:
    return lambda tree: tree.pop(key)


def _with(key: str, value: object) -> Callable[[Tree], object]:
    return lambda tree: tree.update({key: value})


def _node(i: int, key: str, value: object) -> Callable[[Tree], object]:
    return lambda tree: tree["nodes"][i].update({key: value})


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (None, "it is not JSON"),
        (lambda tree: tree.clear(), '"format" must be "pythia-gguf tree"'),
        (_with("version", 2), '"version" must be 1, got 2'),
        (_without("nodes"), '"nodes" must be a list'),
        (_with("fingerprints", []), '"fingerprints" must be an object'),
        (_with("at", 99), '"at" must be the place of a node, or null'),
        (_node(1, "parent", 1), "nodes[1].parent must be an earlier node, or null"),
        (_node(1, "parent", "length"), "nodes[1].parent must be an earlier node, or null"),
        (_node(2, "id", -1), "nodes[2].id must be a whole number"),
        (_node(2, "text", None), "nodes[2].text must be a text"),
        (_node(2, "bytes", [256]), "nodes[2].bytes must be bytes, or null"),
        (_node(2, "origin", "thin air"), "nodes[2].origin must be one of prompt, written, chosen"),
        (_node(2, "likelihoods", {"nano": {"logprob": "1"}}), "nodes[2].likelihoods must hold logprob and top"),
        (lambda tree: tree["nodes"].insert(1, tree["nodes"][0]), "nodes[1] is there twice"),
    ],
)
def test_a_file_that_is_no_tree_gets_one_line(
    shared: tuple[Page, Tree], break_it: Callable[[Tree], object] | None, said: str, tmp_path: Path
):
    """And the tree that is there stays."""
    page, tree = shared
    path = tmp_path / "broken.json"
    broken = json.loads(json.dumps(tree))
    if break_it is not None:
        break_it(broken)
    path.write_text("no JSON" if break_it is None else json.dumps(broken))
    _load(page, path)
    page.get_by_role("alert").get_by_text(said).wait_for()
    assert page.get_by_role("alert").inner_text() == f"broken.json is no tree that this page has saved: {said}."
    assert text(page) == PROMPT


@pytest.fixture(scope="module")
def shared(server: RunningServer, chromium: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Page, Tree]:
    """A page that has read the prompt, and its tree."""
    page = chromium.new_page()
    page.goto(server.url)
    read(page)
    return page, _save(page, tmp_path_factory.mktemp("tree") / "tree.json")
