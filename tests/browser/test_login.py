"""Who may see the console, for how long, and what is left on the page when that ends."""

from typing import Any

import httpx
from playwright.sync_api import expect

from tests.appliances import CONTROL, WEB, ApplianceProcess, RunAppliance
from tests.browser.conftest import OpenConsole
from tests.engines import wait_until


def test_a_wrong_key_is_told_and_the_page_stays_shut(
    console: OpenConsole, shared_box: ApplianceProcess
) -> None:
    tab = console(shared_box, may_refuse=True)
    tab.show_key("wrong")
    expect(tab.page.get_by_role("alert").first).to_contain_text("not the operator key")
    expect(tab.page.locator("#main")).not_to_be_visible()
    tab.page.keyboard.press("Escape")
    tab.page.keyboard.press("Escape")
    expect(tab.page.locator("#login")).to_be_visible()


def test_the_client_key_does_not_open_it(
    console: OpenConsole, shared_box: ApplianceProcess
) -> None:
    tab = console(shared_box, may_refuse=True)
    tab.show_key(shared_box.key("client"))
    expect(tab.page.get_by_role("alert").first).to_contain_text("not the operator key")


def test_the_right_key_opens_it_and_is_kept_nowhere(
    console: OpenConsole, shared_box: ApplianceProcess
) -> None:
    key = shared_box.key("operator")
    tab = console(shared_box).log_in(key)
    tab.until_state("Ready")
    kept = tab.page.evaluate(
        "JSON.stringify([Object.entries(localStorage), Object.entries(sessionStorage),"
        " document.cookie, [...document.querySelectorAll('input')].map((one) => one.value)])"
    )
    assert key not in kept
    assert "cookie" not in kept
    tab.page.reload()
    tab.until_state("Ready")


def test_logging_out_shuts_every_tab(
    console: OpenConsole, other_tab: Any, shared_box: ApplianceProcess
) -> None:
    tab = console(shared_box, may_refuse=True).log_in(shared_box.key("operator"))
    second = other_tab(tab)
    second.until_state("Ready")
    tab.page.get_by_role("button", name="Log out").click()
    expect(tab.page.locator("#login")).to_be_visible()
    expect(second.page.locator("#login")).to_be_visible()
    second.log_in(shared_box.key("operator"))
    expect(tab.page.locator("#login")).not_to_be_visible()
    tab.until_state("Ready")


def test_an_appliance_that_goes_and_comes_back_finds_the_page_as_it_was(
    console: OpenConsole, run: RunAppliance
) -> None:
    first = run()
    first.until("ready")
    port, state_dir = first.base_url.rpartition(":")[2], first.state_dir
    tab = console(first, may_refuse=True).log_in(first.key("operator"))
    tab.until_live()
    tab.page.get_by_label("Your prompt").fill("half a thought")
    first.process.terminate()
    first.process.wait(timeout=20)
    expect(tab.page.locator("#away")).to_contain_text("does not answer")
    tab.until_state("Out of reach")
    expect(tab.page.locator("#verbs button").first).to_be_disabled()

    second = run(port=port, state_dir=state_dir)
    second.until("ready")
    expect(tab.page.locator("#login")).to_be_visible(timeout=30_000)  # a restart ends log-ins
    expect(tab.page.locator("#login-why")).to_contain_text("has ended")
    tab.log_in(second.key("operator"))
    tab.until_state("Ready")
    tab.until_live()
    expect(tab.page.locator("#away")).not_to_be_visible()
    assert tab.page.get_by_label("Your prompt").input_value() == "half a thought"


def test_a_stolen_cookie_is_dead_once_the_key_was_changed(
    console: OpenConsole, run: RunAppliance
) -> None:
    appliance = run()
    appliance.until("ready")
    tab = console(appliance, may_refuse=True).log_in(appliance.key("operator"))
    tab.until_live()
    stolen = {one["name"]: one["value"] for one in tab.page.context.cookies()}
    assert stolen
    assert all(
        one["httpOnly"] and one["sameSite"] == "Strict" for one in tab.page.context.cookies()
    )
    url = f"{appliance.base_url}{CONTROL}/status"

    def thief() -> int:
        header = "; ".join(f"{name}={value}" for name, value in stolen.items())
        reply: httpx.Response = WEB.get(url, headers={"cookie": header})
        return reply.status_code

    assert thief() == 200
    (appliance.state_dir / "operator_key").write_text("another-operator-key-0123456789\n")
    wait_until(lambda: thief() == 401, 10, "the stolen cookie to be refused")
    expect(tab.page.locator("#login")).to_be_visible(timeout=30_000)
    tab.log_in("another-operator-key-0123456789")
    tab.until_state("Ready")
