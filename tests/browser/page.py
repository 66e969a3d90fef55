"""The console in a real browser, as a person uses it; what the browser complains of is kept."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Route, expect

EVENTS = "/appliance/v1/events"
WITHIN_MS = 15_000
# What Chromium itself says of an answer that a test asked for; the page cannot keep it quiet.
REFUSED = re.compile(r"Failed to load resource: .*(401|403|421|net::ERR_)")


@dataclass
class Console:
    """One tab of the console."""

    page: Page
    base_url: str
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.set_default_timeout(WITHIN_MS)
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))

    def _on_console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(f"{message.type}: {message.text}")

    def open(self) -> "Console":
        """Go to the page."""
        self.page.goto(self.base_url)
        return self

    def log_in(self, key: str) -> "Console":
        """Log in; the page is there when this returns."""
        self.show_key(key)
        expect(self.page.locator("#login")).not_to_be_visible()
        expect(self.page.locator("#main")).to_be_visible()
        return self

    def show_key(self, key: str) -> None:
        """Type a key, and send it."""
        self.page.get_by_label("Operator key").fill(key)
        self.page.locator("#login-send").click()

    def until_state(self, title: str, within_s: float = 15.0) -> None:
        """Wait until the page's headline is this."""
        expect(self.page.locator("#state-title")).to_have_text(title, timeout=within_s * 1000)

    def until_live(self) -> None:
        """Wait until events come."""
        expect(self.page.locator("#link-text")).to_have_text("Live")

    def press(self, verb: str) -> None:
        """Press a button of the engine, and confirm."""
        self.page.locator(f"#verbs [data-verb={verb}]").click()
        expect(self.page.locator("#confirm")).to_be_visible()
        expect(self.page.locator("#confirm-what")).not_to_be_empty()
        self.page.locator("#confirm-yes").click()
        expect(self.page.locator("#confirm")).not_to_be_visible()

    def ask(self, prompt: str) -> None:
        """Send a prompt."""
        self.page.get_by_label("Your prompt").fill(prompt)
        self.page.get_by_label("Your prompt").press("Enter")

    def has_no_sideways_scroll(self) -> bool:
        """Whether the page is no wider than its window."""
        wide: bool = self.page.evaluate(
            "document.documentElement.scrollWidth <= document.documentElement.clientWidth"
        )
        return wide

    def hide(self, is_hidden: bool = True) -> None:
        """Do as if the tab were in the background, or in front again."""
        state = "hidden" if is_hidden else "visible"
        self.page.evaluate(
            """(state) => {
              Object.defineProperty(document, "visibilityState",
                { value: state, configurable: true });
              document.dispatchEvent(new Event("visibilitychange"));
            }""",
            state,
        )


def answering(change: Callable[[Any], Any]) -> Callable[[Route], None]:
    """Return a route's handler that lets the appliance answer, and changes its JSON."""

    def handle(route: Route) -> None:
        response = route.fetch()
        route.fulfill(response=response, json=change(response.json()))

    return handle


class OpenStreams:
    """Counts the event streams that a browser holds open."""

    def __init__(self, context: BrowserContext) -> None:
        self.opened = 0
        self._open: set[int] = set()
        context.on("request", self._begun)
        context.on("requestfailed", self._ended)
        context.on("requestfinished", self._ended)

    @property
    def count(self) -> int:
        """How many are open."""
        return len(self._open)

    def _begun(self, request: Any) -> None:
        if EVENTS in request.url:
            self.opened += 1
            self._open.add(id(request))

    def _ended(self, request: Any) -> None:
        self._open.discard(id(request))
