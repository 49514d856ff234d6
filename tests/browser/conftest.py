"""A server of the sample model and a run of two steps, Chromium, and pages whose errors fail the test."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.nano import NANO
from pythia_gguf import quantize
from serve.running import RunningServer, running

if TYPE_CHECKING:  # what no other test needs is not installed for them
    from playwright.sync_api import Browser, ConsoleMessage, Page, Request

CHROMIUM = shutil.which(os.environ.get("CHROMIUM", "chromium")) or "chromium"
OpenPage = Callable[..., "Page"]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder with two quants, and a run: the sample is its step 2000, and with noise its step 1000."""
    folder = tmp_path_factory.mktemp("models")
    noised, weights = folder / "noised", load_file(NANO / "model.safetensors")
    shutil.copytree(NANO, noised)
    rng = np.random.default_rng(7)
    for name, values in weights.items():
        if values.ndim == 2:
            noise = 0.5 * values.std() * rng.standard_normal(values.shape)
            weights[name] = (values + noise).astype(values.dtype)
    save_file(weights, noised / "model.safetensors", metadata={"format": "pt"})
    quantize(NANO, folder / "nano", quants=["Q4_K_M", "Q8_0"])
    quantize(noised, folder / "run" / "step1000", quants=["Q8_0"])
    quantize(NANO, folder / "run" / "step2000", quants=["Q8_0"])
    return [folder / "nano" / "nano.Q4_K_M.gguf", folder / "nano" / "nano.Q8_0.gguf", folder / "run"]


@pytest.fixture(scope="session")
def server(models: list[Path]) -> Iterator[RunningServer]:
    with running(*models, "--threads", "2") as started:
        yield started


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM)
        yield browser
        browser.close()


@pytest.fixture
def open_page(chromium: Browser) -> Iterator[OpenPage]:
    """Opens pages, which ask no other server, whose policy is never broken, and whose scripts never fail."""
    complaints: list[str] = []
    contexts = []

    def heard(message: ConsoleMessage) -> None:
        # An answer that is an error is one that the page shows.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load resource"):
            complaints.append(message.text)

    def open_at(server: RunningServer, *, width: int = 1280, height: int = 900, is_dark: bool = False) -> Page:
        def asked(request: Request) -> None:
            if not request.url.startswith((server.url, "blob:")):
                complaints.append(f"asked for {request.url}")

        context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme="dark" if is_dark else "light"
        )
        contexts.append(context)
        page = context.new_page()
        page.on("console", heard)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", asked)
        page.goto(server.url)
        return page

    yield open_at
    for context in contexts:
        context.close()
    assert complaints == []
