"""Two models side by side, two quants or two training steps, and the slider over the steps of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from browser.conftest import OpenPage
from browser.visitor import PROMPT, read, step_of_divergence, step_of_logprob, tokens, wait
from serve.running import MODEL, OTHER, RunningServer

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
TEXT = 'def main(self):\n    """Return the name of the file."""\n    return self.name\n'
RUN, STEPS = "run:Q8_0", ["run@step1000:Q8_0", "run@step2000:Q8_0"]


def _logprobs(server: RunningServer, model: str) -> list[float | None]:
    found: list[float | None] = server.complete(TEXT, model=model, echo=True, logprobs=0, max_tokens=0)["choices"][0][
        "logprobs"
    ]["token_logprobs"]
    return found


def _divergence(server: RunningServer, reference: str, candidate: str) -> dict[str, Any]:
    answer: dict[str, Any] = server.post("/v1/divergence", {"models": [reference, candidate], "prompt": TEXT}).json()
    return answer


def _steps(page: Page, view: str) -> list[str | None]:
    return [token["step"] for token in tokens(page, view)]


@pytest.mark.parametrize(("entry", "reference", "candidate"), [(OTHER, MODEL, OTHER), (RUN, MODEL, STEPS[1])])
def test_both_texts_have_the_colours_of_the_divergence(
    server: RunningServer, open_page: OpenPage, entry: str, reference: str, candidate: str
):
    page = open_page(server)
    read(page, TEXT)
    page.get_by_label("Side by side with").select_option(entry)
    wait(page)
    answer = _divergence(server, reference, candidate)
    expected = [step_of_divergence(kl) for kl in answer["kl"]]
    assert _steps(page, "tokens") == _steps(page, "tokens-other") == expected
    assert len(set(expected)) >= 3
    assert [page.locator(f"#pane-name-{i}").inner_text() for i in (0, 1)] == [reference, candidate]
    same = sum(answer["is_same_top"][1:])
    n = len(expected)
    assert f"same most likely token at {same} of {n - 1}" in page.locator("#facts").inner_text()
    # Each one's own probabilities, if the visitor wants those.
    page.get_by_role("radio", name="Probability").check()
    for view, model in (("tokens", reference), ("tokens-other", candidate)):
        assert _steps(page, view) == [step_of_logprob(value) for value in _logprobs(server, model)]
    # What both would have written there, side by side, whichever text the token is chosen in.
    page.locator("#tokens-other .token").nth(4).click()
    assert page.locator("#alternatives-body .column").count() == 2
    assert "divergence" in page.locator("#alternatives-body > .here").inner_text()


def test_a_slider_goes_over_the_training_steps(server: RunningServer, open_page: OpenPage):
    """By keyboard, too; each step reads the text, and two steps are compared like any two models."""
    page = open_page(server)
    read(page, TEXT)
    picker, slider = page.get_by_label("Model", exact=True), page.locator("#picker-model-step")
    assert not slider.is_visible()
    assert page.locator("#picker-model-name option").all_inner_texts() == [MODEL, OTHER, RUN]
    picker.select_option(RUN)
    for key, step, model in (("End", 2000, STEPS[1]), ("ArrowLeft", 1000, STEPS[0])):
        slider.press(key)
        wait(page)
        assert slider.get_attribute("aria-valuetext") == f"step {step}"
        assert page.locator("#picker-model output").inner_text() == f"{step:,}"
        assert _steps(page, "tokens") == [step_of_logprob(value) for value in _logprobs(server, model)]
    page.get_by_label("Side by side with").select_option(RUN)
    wait(page)
    expected = [step_of_divergence(kl) for kl in _divergence(server, *STEPS)["kl"]]
    assert _steps(page, "tokens") == expected
    assert "d4" in expected


def test_an_alternative_is_taken_under_both_models(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    read(page, PROMPT)
    page.get_by_label("Side by side with").select_option(OTHER)
    wait(page)
    page.locator("#tokens .token").nth(2).click()
    page.locator("#alternatives-body .column").nth(1).locator(".row:enabled").first.click()
    wait(page)
    for view in ("tokens", "tokens-other"):
        shown = tokens(page, view)
        assert "chosen" in shown[2]["look"]
        assert len(shown) > 10
        assert all(token["step"] for token in shown[1:])
