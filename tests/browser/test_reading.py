"""Writing, reading, choosing and stopping, by clicks; the server's own answers are what the page must show."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import pytest

from browser.conftest import OpenPage
from browser.visitor import HANGS_MS, PROMPT, SAMPLING, read, set_sampling, step_of_logprob, text, tokens, wait, write
from patience import HANGS_S
from serve.running import RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser


def test_prompt_and_text_have_the_colours_of_their_probabilities(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    said = write(page)
    expected = server.complete(PROMPT, echo=True, logprobs=20, **SAMPLING)["choices"][0]
    lists = expected["logprobs"]
    assert (said, text(page)) == ("12 tokens, most tokens reached.", expected["text"])
    shown = tokens(page)
    assert [token["step"] for token in shown] == [step_of_logprob(value) for value in lists["token_logprobs"]]
    assert len({token["step"] for token in shown}) >= 4
    assert ["prompt" in token["look"] for token in shown] == [True] * 3 + [False] * 12
    assert re.fullmatch(r" main, 0\.\d+ %", shown[1]["label"])


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0, "max_tokens": 20, "repeat_penalty": 1.3},
        {"temperature": 1.5, "top_k": 3, "seed": 11},
        {"temperature": 1.5, "min_p": 0.2, "top_p": 0.7, "seed": 12},
        {"temperature": 0.8, "max_tokens": 40, "stop": ["\n", "self"]},
    ],
)
def test_sampling_by_hand_is_what_the_server_gets(
    server: RunningServer, open_page: OpenPage, fields: dict[str, object]
):
    """The text is that of a request with these fields; a stop text ends it after the tokens that have it."""
    page = open_page(server)
    typed = fields | {"stop": "\\n\nself"} if "stop" in fields else fields
    said = write(page, **typed)
    expected = server.complete(PROMPT, logprobs=0, **SAMPLING | fields)["choices"][0]
    assert len(tokens(page)) == 3 + len(expected["logprobs"]["tokens"])
    assert text(page).startswith(PROMPT + expected["text"])
    assert said.endswith("the text has ended." if expected["finish_reason"] == "stop" else "most tokens reached.")


def test_only_reading_writes_nothing(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    assert read(page) == "3 tokens read."
    assert text(page) == PROMPT
    assert tokens(page)[2]["step"] is not None


def test_another_token_is_taken_and_the_model_goes_on_from_it(server: RunningServer, open_page: OpenPage):
    """Alternatives are the server's; what was there stays as a branch, to which a click leads back."""
    page = open_page(server)
    write(page)
    before = text(page)
    asked = server.complete(PROMPT, echo=True, logprobs=20, **SAMPLING)["choices"][0]["logprobs"]
    page.locator("#tokens .token").nth(5).click()
    rows = page.locator("#alternatives-body .row")
    names = rows.evaluate_all(_NAMES_OF_ROWS)
    expected = [name.replace(" ", "\u00b7").replace("\n", "\u21b5") for name in asked["top_tokens"][5]]
    assert [name for name, _ in names[:20]] == expected
    shares = [100 * math.exp(logprob) for _, logprob in asked["top_ids"][5]]
    assert [float(share.removesuffix(" %")) for _, share in names[:20]] == pytest.approx(shares, abs=0.5, rel=0.1)
    i = next(i for i, (token, _) in enumerate(asked["top_ids"][5]) if token != asked["token_ids"][5])
    rows.nth(i).click()
    wait(page)
    ids = [*asked["token_ids"][:5], asked["top_ids"][5][i][0]]
    expected = server.complete(ids, echo=True, **SAMPLING)["choices"][0]["text"]
    assert text(page) == expected != before
    assert "chosen" in tokens(page)[5]["look"]
    page.locator("#branches .walk[aria-current]").last.wait_for(timeout=HANGS_MS)
    page.locator("#branches .walk:not([aria-current])").click()
    wait(page)
    assert text(page) == before


# What a row shows: its token without the names that are only spoken, and its share.
_NAMES_OF_ROWS = """rows => rows.map((row) => {
    const code = row.querySelector("code").cloneNode(true);
    for (const name of code.querySelectorAll(".unseen")) name.remove();
    return [code.textContent, row.querySelector(".share").textContent];
})"""


def test_going_on_and_removing_a_branch(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    write(page)
    before = text(page)
    page.get_by_role("button", name="Go on").click()
    wait(page)
    assert text(page).startswith(before)
    assert len(tokens(page)) == 3 + 2 * 12
    page.once("dialog", lambda dialog: dialog.accept())
    page.locator("#branches .remove").first.click()
    assert (tokens(page), page.locator("#branches .run").count()) == ([], 0)


def _slow_down(page: Page) -> None:
    """Let answers come at 40 kB/s, which is some 15 tokens a second."""
    limits = {"offline": False, "latency": 0, "downloadThroughput": 40_000, "uploadThroughput": -1}
    session = page.context.new_cdp_session(page)
    session.send("Network.enable")
    session.send("Network.emulateNetworkConditions", limits)


def test_a_text_appears_token_by_token_until_it_is_stopped(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    wait(page)
    set_sampling(page, max_tokens=400, seed=7)
    _slow_down(page)
    page.get_by_role("button", name="Write", exact=True).click()
    page.locator("body.busy #tokens .token").nth(5).wait_for(timeout=HANGS_MS)
    assert page.locator("#status").inner_text() == "Writing\u2026"
    page.get_by_role("button", name="Stop").click()
    assert wait(page) == "Stopped."
    assert 5 < len(tokens(page)) < 300
    server.wait_until_idle(HANGS_S)


def test_a_value_that_the_server_refuses_is_marked(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    write(page, top_p=3)
    assert "top_p" in page.get_by_role("alert").inner_text()
    assert page.locator("[aria-invalid]").get_attribute("name") == "top_p"
    write(page)
    assert not page.get_by_role("alert").is_visible()
    assert page.locator("[aria-invalid]").count() == 0


def test_a_server_that_is_gone_is_said_to_be(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    wait(page)
    page.context.set_offline(True)
    write(page)
    assert page.get_by_role("alert").inner_text().startswith("The server does not answer.")
    page.context.set_offline(False)
    assert write(page) == "12 tokens, most tokens reached."


def test_signs_that_nobody_sees_are_shown_as_signs(server: RunningServer, open_page: OpenPage):
    """White space and control characters have pictures, half characters their bytes and the whole one at the end."""
    page = open_page(server)
    said = "a\tb\n\x01\u202e\U0001f642"
    read(page, said)
    assert text(page) == said
    shown = "".join(token["text"] for token in tokens(page))
    assert shown.startswith("a\u21e5\tb\u21b5\nU+0001")
    assert "\u202e" not in shown
    assert "\x01" not in shown
    assert "\U0001f642" in shown
    assert shown.endswith("82")
    assert any(" bytes, " in token["label"] for token in tokens(page))


def test_text_never_becomes_markup(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    said = "<img src=x onerror=alert(1)><script>alert(2)</script>"
    write(page, said)
    assert text(page).startswith(said)
    assert page.locator("main img, main script, aside img, aside script").count() == 0
