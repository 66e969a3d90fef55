"""What the appliance tells is text, whatever it holds; and what it does not tell is a dash."""

from functools import partial
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.appliances import ApplianceProcess
from tests.browser.conftest import OpenConsole
from tests.browser.page import answering

EVIL = "<img src=x data-evil onerror=\"document.title='owned'\"><script>window.owned=1</script>"
API = "**/appliance/v1/"
ANSWER = '{"choices":[{"delta":{"reasoning":"<img data-evil>","content":"<b data-evil>"}}]}'
BAD_WORDS = ("undefined", "NaN", "null", "[object", "Infinity", "Invalid Date")

NOTHING: dict[str, Any] = {}
HALF = {
    "status": {"state": "backoff", "reason": None, "since": "yesterday", "expected_s": None},
    "figures": {"ttft_s": {}, "memory": None, "glitches": {"case": None}, "exits": {"": 1}},
    "budget": {
        "total_bytes": 1 << 34,
        "parts": [{"name": "weights", "plan_bytes": None}, {}],
        "available_bytes": None,
    },
    "incidents": {"incidents": [{}, {"id": "20260101T000000-1", "at": None, "uptime_s": None}]},
}
STARTING = {
    "status": {"state": "starting", "progress": None, "since": None, "phase": None},
    "budget": {"total_bytes": None, "parts": None},
    "incidents": {"incidents": []},
}
UNKNOWN = {"status": {"state": "a_state_of_tomorrow", "degraded": ["a_new_warning"]}}


def spoilt(value: Any) -> Any:
    """Put markup into every text of a JSON value."""
    if isinstance(value, dict):
        return {name: spoilt(one) if name != "state" else one for name, one in value.items()}
    if isinstance(value, list):
        return [spoilt(one) for one in value]
    return f"{value} {EVIL}" if isinstance(value, str) else value


def test_markup_in_what_is_told_stays_text(
    console: OpenConsole, shared_box: ApplianceProcess
) -> None:
    tab = console(shared_box)
    incident = {"id": "20260101T000000-1", "code": EVIL, "what": EVIL, "lines": [EVIL]}
    lines = [{"number": 10_000, "text": f"{EVIL} in a line"}]
    tab.page.route(f"{API}status", answering(spoilt))
    tab.page.route(f"{API}budget", answering(spoilt))
    tab.page.route(f"{API}kilo", answering(spoilt))
    tab.page.route(f"{API}logs*", answering(lambda _: {"lines": lines}))
    tab.page.route(f"{API}incidents", answering(lambda _: {"incidents": [incident]}))
    tab.page.route(f"{API}events", lambda route: route.abort())
    tab.page.route(
        "**/v1/chat/completions", lambda route: route.fulfill(body=f"data: {ANSWER}\n\n")
    )
    tab.log_in(shared_box.key("operator"))
    expect(tab.page.locator("#log")).to_contain_text("<script>window.owned=1</script> in a line")
    expect(tab.page.locator("#model")).to_contain_text("onerror")
    expect(tab.page.locator("#kilo")).to_contain_text("data-evil")
    expect(tab.page.locator("#incidents")).to_contain_text("<img src=x")
    tab.ask("anything")
    expect(tab.page.locator("#chat-answer")).to_have_text("<b data-evil>")
    assert tab.page.locator("[data-evil]").count() == 0
    assert tab.page.evaluate("[document.title === 'owned', window.owned]") == [False, None]
    tab.complaints[:] = [text for text in tab.complaints if "net::ERR_FAILED" not in text]


@pytest.mark.parametrize("told", [NOTHING, HALF, STARTING, UNKNOWN])
def test_what_is_not_known_is_a_dash_and_never_a_word_of_the_language(
    console: OpenConsole, shared_box: ApplianceProcess, told: dict[str, Any]
) -> None:
    tab = console(shared_box)
    for name in ("status", "budget", "incidents"):
        tab.page.route(f"{API}{name}", answering(partial(lambda one, _: told.get(one, {}), name)))
    figures = [told.get("figures", {})]
    tab.page.route(f"{API}figures", answering(lambda _: {"figures": figures}))
    tab.page.route(f"{API}events", lambda route: route.abort())
    tab.log_in(shared_box.key("operator"))
    expect(tab.page.locator("#kilo")).to_contain_text("provider")
    page = tab.page.locator("body").inner_text() + tab.page.locator("main").inner_html()
    assert not [word for word in BAD_WORDS if word in page]
    expect(tab.page.locator("#tile-out")).to_contain_text("\N{EN DASH}")
    tab.complaints[:] = [text for text in tab.complaints if "net::ERR_FAILED" not in text]
