"""Light and dark, narrow and wide, by keyboard and by screen reader."""

from functools import cache
from importlib.resources import files
from typing import Any

import pytest
from playwright.sync_api import expect

from tests.appliances import ApplianceProcess
from tests.browser.conftest import OpenConsole
from tests.browser.page import Console
from tests.browser.shots import shoot

NARROW = {"width": 360, "height": 740}
BLACK_BELOW = 60  # the mean of red, green and blue


@cache
def axe() -> str:
    """Return axe-core's source, as the package brings it."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text()


def violations(tab: Console) -> list[str]:
    """Return what axe finds wrong that matters: by rule, with the places."""
    tab.page.evaluate(axe())
    found: list[dict[str, Any]] = tab.page.evaluate("axe.run().then((done) => done.violations)")
    return [
        f"{one['id']}: {one['help']}: {[node['html'][:120] for node in one['nodes']]}"
        for one in found
        if one["impact"] in ("serious", "critical")
    ]


def ground(tab: Console) -> int:
    """Return how light the page's ground is, 0 to 255."""
    light: int = tab.page.evaluate(
        "getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)"
        ".map(Number).reduce((sum, one) => sum + one) / 3"
    )
    return light


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(
    "viewport", [{"width": 1280, "height": 800}, NARROW], ids=["wide", "narrow"]
)
def test_axe_finds_nothing_serious(
    console: OpenConsole, shared_box: ApplianceProcess, scheme: str, viewport: dict[str, int]
) -> None:
    tab = console(shared_box, color_scheme=scheme, viewport=viewport)
    expect(tab.page.locator("#login")).to_be_visible()
    assert violations(tab) == []
    tab.log_in(shared_box.key("operator"))
    tab.until_live()
    expect(tab.page.locator("#kilo")).to_contain_text("provider")
    assert violations(tab) == []
    tab.page.locator("#verbs button").last.click()
    expect(tab.page.locator("#confirm")).to_be_visible()
    assert violations(tab) == []


def test_axe_would_find_what_is_wrong(tab: Console) -> None:
    tab.page.evaluate("document.querySelector('label[for=chat-prompt]').remove()")
    tab.page.evaluate("document.getElementById('chat-prompt').removeAttribute('placeholder')")
    assert [rule.split(":")[0] for rule in violations(tab)] == ["label"]


@pytest.mark.parametrize("width", [360, 390, 768, 1024, 1440])
def test_no_window_scrolls_sideways(
    console: OpenConsole, shared_box: ApplianceProcess, width: int
) -> None:
    tab = console(shared_box, viewport={"width": width, "height": 740})
    assert tab.has_no_sideways_scroll()
    tab.log_in(shared_box.key("operator"))
    tab.until_live()
    expect(tab.page.locator("#kilo")).to_contain_text("provider")
    assert tab.has_no_sideways_scroll()


def test_the_log_in_has_a_picture(console: OpenConsole, shared_box: ApplianceProcess) -> None:
    tab = console(shared_box, viewport={"width": 1280, "height": 800})
    expect(tab.page.get_by_label("Operator key")).to_be_focused()
    shoot(tab, "login")


def test_it_is_dark_where_the_system_is_and_a_choice_is_kept(
    console: OpenConsole, shared_box: ApplianceProcess
) -> None:
    tab = console(shared_box, color_scheme="dark").log_in(shared_box.key("operator"))
    assert ground(tab) < BLACK_BELOW
    tab.page.get_by_role("button", name="Show it light").click()
    assert ground(tab) > 255 - BLACK_BELOW
    tab.page.reload()
    tab.until_live()
    assert ground(tab) > 255 - BLACK_BELOW
    tab.page.get_by_role("button", name="Show it dark").click()
    assert ground(tab) < BLACK_BELOW
    tab.page.emulate_media(color_scheme="light")
    # the system's own choice is followed again
    expect(tab.page.locator("html")).to_have_attribute("data-theme", "light")
    assert ground(tab) > 255 - BLACK_BELOW


def test_all_can_be_reached_by_keyboard(tab: Console) -> None:
    tab.page.locator("body").focus()
    reached = []
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        reached.append(
            tab.page.evaluate(
                "[document.activeElement.id || document.activeElement.dataset.verb,"
                " getComputedStyle(document.activeElement).outlineStyle]"
            )
        )
    names = {name for name, _ in reached}
    assert names >= {
        "theme",
        "logout",
        "drain",
        "restart",
        "stop",
        "log",
        "chat-prompt",
        "kilo-copy",
    }
    assert all(outline != "none" for name, outline in reached if name), reached


def test_a_dialog_is_left_with_escape_and_gives_the_focus_back(tab: Console) -> None:
    stop = tab.page.locator("#verbs [data-verb=stop]")
    stop.focus()
    tab.page.keyboard.press("Enter")
    expect(tab.page.locator("#confirm-no")).to_be_focused()
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#confirm")).not_to_be_visible()
    expect(stop).to_be_focused()


def test_only_a_change_of_state_is_spoken(tab: Console) -> None:
    tab.page.evaluate(
        "window.said = []; new MutationObserver(() => said.push(spoken.textContent))"
        ".observe(spoken, { childList: true, characterData: true, subtree: true })"
    )
    before = tab.page.locator("#tile-load .stroke").get_attribute("d")
    expect(tab.page.locator("#tile-load .stroke")).not_to_have_attribute("d", before or "")
    assert tab.page.evaluate("[said, spoken.textContent]") == [[], "Ready."]


def test_the_kilo_block_is_copied(console: OpenConsole, shared_box: ApplianceProcess) -> None:
    tab = console(shared_box, permissions=["clipboard-read", "clipboard-write"])
    tab.log_in(shared_box.key("operator"))
    expect(tab.page.locator("#kilo")).to_contain_text("enabled_providers")
    tab.page.get_by_role("button", name="Copy").click()
    expect(tab.page.locator("#kilo-copy")).to_have_text("Copied")
    copied = tab.page.evaluate("navigator.clipboard.readText()")
    assert copied == tab.page.locator("#kilo").text_content()
    assert f"{shared_box.base_url}/v1" in copied
    assert shared_box.key("client") not in copied


def test_a_log_that_is_paused_holds_still(tab: Console) -> None:
    tab.page.get_by_role("button", name="Pause").click()
    expect(tab.page.locator("#log-aside")).to_contain_text("paused")
    before = tab.page.locator("#log").text_content()
    tab.ask("who are you?")
    expect(tab.page.locator("#chat-answer")).to_be_visible()
    assert tab.page.locator("#log").text_content() == before
    tab.page.get_by_role("button", name="Follow").click()
    expect(tab.page.locator("#log-aside")).to_contain_text("follows")
