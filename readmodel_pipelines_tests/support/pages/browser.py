"""A headless Chromium of the machine's, for pages that people look at."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_STILL = """
addEventListener("DOMContentLoaded", () => {
    const style = document.createElement("style");
    style.textContent = "*, *::before, *::after { animation: none !important; transition: none !important; }";
    document.head.append(style);
});
"""
# Read now: the tests take every setting out of the environment.
_SCREENSHOTS = os.environ.get("READMODEL_SCREENSHOTS")


@contextmanager
def browser_page(**options: Any) -> Iterator[Any]:
    """A page; skips, saying so, where no browser is installed."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        pytest.skip("no Chromium here; Debian's package `chromium` has one")
    with sync_api.sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=program, headless=True, args=arguments)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 900}, reduced_motion="reduce", **options)
            # What turns or fades is drawn anew for every frame, without a graphics card to draw it.
            page.add_init_script(_STILL)
            yield page
        finally:
            browser.close()


def keep_screenshot(page: Any, name: str, **clip: int) -> None:
    """Save what is seen, or a part of it, as a PNG in the folder READMODEL_SCREENSHOTS, if that is set."""
    if _SCREENSHOTS:
        page.wait_for_timeout(500)  # until what moves has come to rest
        page.screenshot(path=Path(_SCREENSHOTS) / f"{name}.png", clip=clip or None, animations="disabled")
