"""A headless Chromium of the machine's, for pages that people look at."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
            yield browser.new_page(viewport={"width": 1280, "height": 900}, **options)
        finally:
            browser.close()
