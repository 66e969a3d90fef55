"""What goes wrong is told on the page, with what to do; over the fake engine, which can be ill."""

from pathlib import Path

from playwright.sync_api import expect

from tests.appliances import ApplianceProcess, RunAppliance
from tests.browser.conftest import OpenConsole
from tests.browser.page import Console
from tests.browser.shots import shoot

OUT_OF_MEMORY = "E torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 3.28 GiB\n"


def test_an_engine_that_gave_up_is_shown_with_its_cause_and_a_reset_tries_again(
    console: OpenConsole, run: RunAppliance, tmp_path: Path
) -> None:
    lives, said = tmp_path / "lives", tmp_path / "said"
    said.write_text(OUT_OF_MEMORY)
    lives.write_text(f"--log-lines {said} --exit-code 1\n")
    appliance = run("--lives", str(lives), restart_max_failures=1)
    appliance.until("failed")
    tab = console(appliance, viewport={"width": 1200, "height": 820})
    tab.log_in(appliance.key("operator"))
    tab.until_state("Failed")
    tab.until_live()
    expect(tab.page.locator("#state-why")).to_contain_text("memory ran out")
    expect(tab.page.locator("#state-hint")).to_contain_text("What to do")
    incident = tab.page.locator("#incidents summary").first
    expect(incident).to_contain_text("Out of memory")
    incident.click()
    expect(tab.page.locator(".incident-body").first).to_contain_text("exit code 1")
    expect(tab.page.locator(".incident-body pre").first).to_contain_text("CUDA out of memory")
    expect(tab.page.locator("#log")).to_contain_text("CUDA out of memory")
    shoot(tab, "failed")
    tab.press("reset")
    tab.until_state("Ready")
    expect(tab.page.locator("#state-hint")).not_to_be_visible()


def test_an_answer_is_stopped_by_click_and_the_engine_is_free(
    tab: Console, shared_box: ApplianceProcess
) -> None:
    fake = shared_box.fake
    fake.be(chunk_delay=0.5)
    fake.forget()
    tab.ask("who are you?")
    expect(tab.page.locator("#chat-thinking")).to_be_visible()
    tab.page.get_by_role("button", name="Stop", exact=True).last.click()
    expect(tab.page.locator("#chat-aside")).to_contain_text("stopped")
    expect(tab.page.locator("#tile-load b")).to_have_text("0")
    fake.be()
    assert [aborted["path"] for aborted in fake.seen()["aborted"]] == ["/v1/chat/completions"]


def test_an_answer_that_breaks_off_is_told(tab: Console, shared_box: ApplianceProcess) -> None:
    shared_box.fake.be(tear_after=3)
    tab.ask("who are you?")
    expect(tab.page.locator("#chat-trouble")).to_contain_text("broke off")
    shared_box.fake.be()
    tab.complaints[:] = [text for text in tab.complaints if "INCOMPLETE_CHUNKED" not in text]
    tab.ask("who are you?")
    expect(tab.page.locator("#chat-answer")).to_be_visible()
    expect(tab.page.locator("#chat-trouble")).not_to_be_visible()


def test_what_is_pressed_is_asked_first_and_nothing_happens_without_a_yes(
    tab: Console, shared_box: ApplianceProcess
) -> None:
    for verb, word in (("stop", "ended at once"), ("drain", "let in"), ("restart", "comes up")):
        tab.page.locator(f"#verbs [data-verb={verb}]").click()
        expect(tab.page.locator("#confirm-what")).to_contain_text(word)
        tab.page.get_by_role("button", name="Cancel").click()
        expect(tab.page.locator("#confirm")).not_to_be_visible()
    assert shared_box.status()["state"] == "ready"
