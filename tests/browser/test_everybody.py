"""For everybody: by keyboard alone, with a screen reader, on a phone, in light and dark, with a key."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from browser.conftest import OpenPage
from browser.visitor import HANGS_MS, read, text, tokens, wait, write
from serve.running import OTHER, RunningServer, running

if TYPE_CHECKING:
    from playwright.sync_api import Page

pytestmark = pytest.mark.browser
# `make test-browser` puts axe-core of the npm registry there.
AXE = Path(sys.prefix) / "axe" / "node_modules" / "axe-core" / "axe.min.js"
KEY = "open sesame".replace(" ", "-")


def _assert_is_for_everybody(page: Page, state: str) -> None:
    """axe finds nothing, and nobody has to scroll sideways."""
    if page.evaluate("typeof axe") == "undefined":
        page.evaluate(AXE.read_text("utf-8"))
    found = page.evaluate(
        """async () => (await axe.run()).violations.map((violation) =>
             `${violation.id}: ${violation.nodes.map((node) => node.target + " " + node.failureSummary).join("; ")}`)"""
    )
    assert found == [], state
    widths = "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    wide, seen = page.evaluate(widths)
    assert wide <= seen, state


@pytest.mark.parametrize(("width", "is_dark"), [(1280, False), (1280, True), (375, False), (375, True), (320, False)])
def test_every_state_is_accessible(server: RunningServer, open_page: OpenPage, width: int, is_dark: bool):
    page = open_page(server, width=width, is_dark=is_dark)
    wait(page)
    _assert_is_for_everybody(page, "empty")
    write(page, max_tokens=30)
    _assert_is_for_everybody(page, "text and sampling")
    page.locator("#tokens .token").nth(6).click()
    _assert_is_for_everybody(page, "alternatives")
    page.locator("#alternatives-body .row:enabled").first.click()
    wait(page)
    _assert_is_for_everybody(page, "another token was taken")
    page.keyboard.press("Escape")
    assert page.locator("#branches .run").count() == 3
    _assert_is_for_everybody(page, "tree")
    page.get_by_label("Side by side with").select_option(OTHER)
    wait(page)
    _assert_is_for_everybody(page, "side by side")
    page.locator("#tokens .token").nth(6).click()
    _assert_is_for_everybody(page, "alternatives of both")
    page.keyboard.press("Escape")
    write(page, top_p=3)
    _assert_is_for_everybody(page, "error")
    page.locator("#prompt").fill("\u202e\U0001f642\t" * 40)
    page.get_by_role("button", name="Only read").click()
    wait(page)
    _assert_is_for_everybody(page, "signs")


def test_all_of_it_works_by_keyboard_alone(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    wait(page)
    press, focused = page.keyboard.press, page.locator(":focus")
    press("Tab")
    assert focused.inner_text() == "Go to the text"
    while focused.get_attribute("id") != "prompt":
        press("Tab")
    press("Control+Enter")
    page.locator("body.busy").wait_for(timeout=HANGS_MS)
    wait(page)
    # The text is one stop of the tab key.
    n = len(tokens(page))
    assert n > 3
    while focused.get_attribute("role") != "button":
        press("Tab")
    press("Home")
    press("ArrowRight")
    press("ArrowRight")
    press("ArrowRight")
    chosen = focused.get_attribute("aria-label")
    assert chosen == tokens(page)[3]["label"]
    press("Enter")
    assert page.locator("#alternatives :focus").count() == 1
    press("Escape")
    assert focused.get_attribute("aria-label") == chosen
    press("Enter")
    press("Tab")
    press("Enter")
    page.locator("#branches .run").nth(2).wait_for(timeout=HANGS_MS)
    wait(page)
    assert "chosen" in tokens(page)[3]["look"]
    assert focused.get_attribute("aria-label") == tokens(page)[3]["label"]
    before = text(page)
    page.locator("#branches .walk:not([aria-current])").focus()
    press("Enter")
    wait(page)
    assert text(page) != before
    assert page.locator("#branches .walk:focus[aria-current]").count() == 1


def test_focus_is_seen(server: RunningServer, open_page: OpenPage):
    """Whatever the tab key comes to has an outline that it has not without the focus."""
    page = open_page(server)
    write(page)
    page.locator("#tokens .token").nth(3).click()
    seen = set()
    look = """() => {
        const element = document.activeElement;
        return [element.id || element.className || element.tagName, getComputedStyle(element).outlineStyle];
    }"""
    page.locator(".skip").focus()
    while True:
        page.keyboard.press("Tab")
        name, outline = page.evaluate(look)
        if name == "BODY":
            break
        assert outline != "none", name
        seen.add(name)
    assert {"prompt", "write", "go-on", "save", "walk"} <= seen


def test_listeners_hear_what_is_done_and_not_every_token(server: RunningServer, open_page: OpenPage):
    page = open_page(server)
    write(page)
    live = page.locator("[role=status], [role=alert], [aria-live]")
    assert [live.nth(i).get_attribute("id") for i in range(live.count())] == ["error", "status"]
    assert live.locator(".token").count() == 0
    assert all(token["label"] for token in tokens(page))


def test_visitors_are_warned(server: RunningServer, open_page: OpenPage):
    page = open_page(server, width=375)
    assert page.get_by_text("A research model writes here. What it says may be wrong or offensive.").is_visible()


@pytest.mark.parametrize("is_dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("scale", ["p", "d"])
def test_scales_are_told_apart_without_colours(server: RunningServer, open_page: OpenPage, scale: str, is_dark: bool):
    """Each step is darker (in the dark lighter) than the one before, by a tenth, and text on it has 4.5 to 1."""
    page = open_page(server, is_dark=is_dark)
    wait(page)
    colours = page.evaluate(
        f"""() => ["card", 1, 2, 3, 4, 5, "ink"].map((name) => {{
              const probe = document.createElement("p");
              document.body.append(probe);
              probe.style.color = `var(--${{typeof name === "number" ? "{scale}" + name : name}})`;
              const found = getComputedStyle(probe).color.match(/\\d+/g).map(Number);
              probe.remove();
              return found;
            }})"""
    )
    *steps, ink = [_luminance(colour) for colour in colours]
    for weaker, stronger in zip(steps, steps[1:], strict=False):
        assert _contrast(weaker, stronger) >= 1.1
        assert (stronger > weaker) == is_dark
    assert min(_contrast(step, ink) for step in steps) >= 4.5


def _luminance(colour: list[int]) -> float:
    """WCAG's relative luminance."""
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in (c / 255 for c in colour)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _contrast(one: float, other: float) -> float:
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


@pytest.fixture(scope="module")
def locked(models: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("key") / "key.txt"
    path.write_text(f"{KEY}\n")
    with running(models[0], "--api-key-file", path, headers={"Authorization": f"Bearer {KEY}"}) as started:
        yield started


def test_a_key_is_asked_for_and_kept_nowhere(locked: RunningServer, open_page: OpenPage):
    page = open_page(locked, width=375)
    field, dialog = page.get_by_label("Key", exact=True), page.get_by_role("dialog")
    dialog.wait_for()
    assert field.get_attribute("type") == "password"
    _assert_is_for_everybody(page, "key")
    field.fill("wrong")
    field.press("Enter")
    page.get_by_text("The server refused this key.").wait_for()
    assert field.input_value() == ""
    field.fill(KEY)
    page.get_by_role("button", name="Use this key").click()
    assert read(page) == "3 tokens read."
    kept = "[localStorage.length, sessionStorage.length, document.cookie, location.href.includes('sesame')]"
    assert page.evaluate(kept) == [0, 0, "", False]
    assert KEY not in page.content()
    page.reload()
    dialog.wait_for()
    page.get_by_role("button", name="Cancel").click()
    page.get_by_role("alert").get_by_text("This server needs its key.").wait_for()
