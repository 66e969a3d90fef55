"""The console over the real engine: loading, chats, clicks, and a death, as a person sees them."""

import contextlib
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from playwright.sync_api import Browser, ViewportSize, expect

from appliance.probes import GREETING
from tests.appliances import CHAT, LONG
from tests.browser.page import Console
from tests.browser.shots import shoot
from tests.fault.real import LOAD_S, Box, real_box

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]
WINDOW = ViewportSize(width=1200, height=820)
SHOWN_WITHIN_S = 2.0  # from a death to its diagnosis on the page
WATCH = """window.seen = []; new MutationObserver(() => {
  const now = document.getElementById("state-title").textContent;
  if (now !== seen.at(-1)) seen.push(now);
}).observe(document.getElementById("state"), {childList: true, characterData: true, subtree: true})
"""


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Box]:
    """One appliance over the real engine, for this file; a death leaves time to look at it."""
    with real_box(
        tmp_path_factory.mktemp("real"), restart_backoff_s=60, restart_backoff_cap_s=60
    ) as box:
        box.serving()
        yield box


@pytest.fixture
def tab(box: Box, chromium: Browser) -> Iterator[Console]:
    """Its console, logged in; it may not have complained."""
    context = chromium.new_context(viewport=WINDOW)
    opened = Console(context.new_page(), box.appliance.base_url).open()
    opened.log_in(box.appliance.key("operator")).until_live()
    yield opened
    context.close()
    assert not opened.complaints


@contextmanager
def busy(box: Box, clients: int) -> Iterator[None]:
    """Keep streams running."""
    over = threading.Event()

    def client() -> None:
        with box.appliance.http() as http:
            while not over.is_set():
                with (
                    contextlib.suppress(httpx.HTTPError),  # the engine may go down under it
                    http.stream("POST", CHAT, json={**LONG, "stream": True}) as answer,
                ):
                    read(answer)

    def read(answer: httpx.Response) -> None:
        for _ in answer.iter_raw():
            if over.is_set():
                return

    running = [threading.Thread(target=client) for _ in range(clients)]
    for one in running:
        one.start()
    try:
        yield
    finally:
        over.set()
        for one in running:
            one.join()


def test_a_chat_is_streamed_with_its_reasoning_folded(box: Box, tab: Console) -> None:
    tab.until_state("Ready")
    tab.ask(GREETING)
    expect(tab.page.locator("#chat-answer")).to_contain_text("Nikola", timeout=60_000)
    expect(tab.page.locator("#chat-aside")).to_contain_text("tokens", timeout=60_000)
    assert tab.page.locator("#chat-thought").text_content()
    expect(tab.page.locator("#chat-thought")).not_to_be_visible()
    tab.page.locator("#chat-thinking summary").click()
    expect(tab.page.locator("#chat-thought")).to_be_visible()


def test_figures_move_while_it_works(box: Box, tab: Console, chromium: Browser) -> None:
    with busy(box, clients=6):
        expect(tab.page.locator("#tile-load b")).to_have_text("6", timeout=60_000)
        expect(tab.page.locator("#tile-out b")).to_have_text(re.compile("[1-9]"), timeout=60_000)
        tab.ask(GREETING)
        expect(tab.page.locator("#chat-aside")).to_contain_text("tokens", timeout=60_000)
        curve = tab.page.locator("#tile-out .stroke")
        expect(curve).to_have_attribute("d", re.compile("(L[^L]*){20}"), timeout=60_000)
        shoot(tab, "desktop-light")
        tab.page.emulate_media(color_scheme="dark")
        shoot(tab, "desktop-dark")
        tab.page.emulate_media(color_scheme="light")
        tab.page.set_viewport_size({"width": 360, "height": 740})
        assert tab.has_no_sideways_scroll()
        shoot(tab, "phone")


def test_drain_and_start_by_click_and_the_loading_is_seen_live(box: Box, tab: Console) -> None:
    tab.until_state("Ready")
    tab.page.evaluate(WATCH)
    tab.press("drain")
    tab.until_state("Stopped", within_s=60)
    tab.press("start")
    tab.until_state("Starting", within_s=60)
    bar = tab.page.get_by_role("progressbar")
    expect(bar).to_be_visible()
    expect(tab.page.locator("#coming-phase")).to_contain_text("eights", timeout=LOAD_S * 1000)
    shoot(tab, "loading")
    tab.until_state("Ready", within_s=LOAD_S)
    expect(bar).not_to_be_visible()
    seen = tab.page.evaluate("seen")
    assert seen[-1] == "Ready"
    assert seen.index("Stopped") < seen.index("Starting"), seen


def test_restart_by_click(box: Box, tab: Console) -> None:
    before = box.serving()
    tab.until_state("Ready")
    tab.press("restart")
    tab.until_state("Starting", within_s=60)
    tab.until_state("Ready", within_s=LOAD_S)
    assert box.serving() == before + 1


def test_a_killed_engine_is_shown_with_its_diagnosis_within_two_seconds(
    box: Box, tab: Console
) -> None:
    box.serving()
    tab.until_state("Ready")
    victim = box.leader
    began = time.monotonic()
    os.kill(victim, signal.SIGKILL)
    expect(tab.page.locator("#state-why")).to_contain_text("killed", timeout=SHOWN_WITHIN_S * 1000)
    shown_s = time.monotonic() - began
    print(f"\na killed engine was shown with its diagnosis after {shown_s:.2f} s")
    tab.until_state("Waiting to try again")
    expect(tab.page.locator("#state-hint")).to_contain_text("who kills", ignore_case=True)
    incident = tab.page.locator("#incidents summary").first
    expect(incident).to_contain_text("Engine killed")
    incident.click()
    expect(tab.page.locator("#incidents .incident-body").first).to_contain_text("signal 9")
    tab.page.set_viewport_size({"width": 1200, "height": 600})  # lines of a log make a large file
    shoot(tab, "killed")
    tab.press("stop")
    tab.until_state("Stopped")
