"""What a visitor does with the page, and what the visitor sees."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from patience import HANGS_S

if TYPE_CHECKING:
    from playwright.sync_api import Page

HANGS_MS = 1000 * HANGS_S
PROMPT = "def main("
# What requests say, and the fields of the form with the same names.
SAMPLING = {"temperature": 0.8, "top_p": 0.95, "max_tokens": 12, "seed": 7}


def set_sampling(page: Page, **fields: object) -> None:
    page.locator("#sampling:not([open]) summary").evaluate_all("found => found.forEach((summary) => summary.click())")
    for name, value in fields.items():
        page.locator(f"#sampling [name={name}]").fill(str(value))


def wait(page: Page) -> str:
    """Wait until nothing is being done; what the page says then."""
    page.locator("body:not(.busy) #picker-model-name option").first.wait_for(state="attached", timeout=HANGS_MS)
    return page.locator("#status").inner_text()


def write(page: Page, prompt: str = PROMPT, **fields: object) -> str:
    """Write on from a prompt, sampled as SAMPLING says where the fields say nothing else."""
    wait(page)
    set_sampling(page, **SAMPLING | fields)
    page.locator("#prompt").fill(prompt)
    page.get_by_role("button", name="Write", exact=True).click()
    return wait(page)


def read(page: Page, prompt: str = PROMPT) -> str:
    wait(page)
    page.locator("#prompt").fill(prompt)
    page.get_by_role("button", name="Only read").click()
    return wait(page)


def tokens(page: Page, view: str = "tokens") -> list[dict[str, Any]]:
    """Each token that is shown: text without signs, its label, the step of its colour as "p3", and its origin."""
    found = page.locator(f"#{view} .token").evaluate_all(
        """spans => spans.map((span) => ({
             text: span.textContent, label: span.getAttribute("aria-label"), look: [...span.classList]}))"""
    )
    for token in found:
        token["step"] = next((name for name in token["look"] if re.fullmatch(r"[pd]\d", name)), None)
    return found


def text(page: Page) -> str:
    """The whole text, as the page tells it to people who listen."""
    return page.locator("#plain").evaluate("plain => plain.textContent").removeprefix("The whole text: ")


def step_of_logprob(logprob: float | None) -> str | None:
    """The scale, said in another way than the page says it."""
    if logprob is None:
        return None
    share = math.exp(logprob)
    return f"p{sum(share < least for least in (0.5, 0.2, 0.05, 0.01, 0.001))}"


def step_of_divergence(kl: float | None) -> str | None:
    return None if kl is None else f"d{sum(kl >= least for least in (0.001, 0.01, 0.05, 0.2, 1))}"
