"""Headless Chromium, and tabs of the console in it that may not complain."""

import os
import shutil
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests import engines
from tests.appliances import ApplianceProcess, RunAppliance, run, shared_box
from tests.browser.page import REFUSED, Console

__all__ = ["run", "shared_box"]
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FOREIGN = "evil.example"
DESKTOP = {"width": 1440, "height": 900}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all tests of this folder."""
    for item in items:
        if "tests/browser/" in item.path.as_posix():
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """One browser for the session; FOREIGN is a name that leads to this machine."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        lacks = "there is no Chromium (apt-get install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(lacks)
        pytest.skip(lacks)
    # without our mark: its processes come and go as they like, and end with the session
    env = {name: value for name, value in os.environ.items() if name != engines.MARK}
    arguments = [f"--host-resolver-rules=MAP {FOREIGN} 127.0.0.1", "--disable-dev-shm-usage"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=found, args=arguments, env={str(k): str(v) for k, v in env.items()}
        )
        yield browser
        browser.close()


class OpenConsole(Protocol):
    """Opens the console of an appliance in a tab."""

    def __call__(
        self, appliance: ApplianceProcess, *, may_refuse: bool = False, **looks: Any
    ) -> Console:
        """Return the tab; ``looks`` are a browser context's (``viewport``, ``color_scheme``)."""


@pytest.fixture
def console(
    chromium: Browser,
    run: RunAppliance,
) -> Iterator[OpenConsole]:
    """Open consoles, each in a browser profile of its own; none may have complained.

    It asks for ``run`` so that the pages are closed before the appliances that they look at.
    """
    opened: list[tuple[Console, bool]] = []
    contexts: list[BrowserContext] = []

    def begin(appliance: ApplianceProcess, *, may_refuse: bool = False, **looks: Any) -> Console:
        context = chromium.new_context(**({"viewport": DESKTOP} | looks))
        contexts.append(context)
        tab = Console(context.new_page(), appliance.base_url)
        opened.append((tab, may_refuse))
        return tab.open()

    yield begin
    for context in contexts:
        context.close()
    for tab, may_refuse in opened:
        said = [text for text in tab.complaints if not (may_refuse and REFUSED.search(text))]
        assert not said, said


@pytest.fixture
def tab(console: OpenConsole, shared_box: ApplianceProcess) -> Console:
    """The console of the shared appliance, logged in and live."""
    opened = console(shared_box).log_in(shared_box.key("operator"))
    opened.until_live()
    return opened


@pytest.fixture
def other_tab() -> Callable[[Console], Console]:
    """Open one more tab beside a console, in the same browser profile."""

    def beside(first: Console) -> Console:
        page: Page = first.page.context.new_page()
        opened = Console(page, first.base_url, first.complaints)
        return opened.open()

    return beside
