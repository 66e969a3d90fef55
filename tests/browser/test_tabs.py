"""However many tabs are open, the appliance has one stream to feed, and none when nobody looks."""

from collections.abc import Callable

from playwright.sync_api import Page

from tests.browser.page import Console, OpenStreams
from tests.engines import wait_until

OtherTab = Callable[[Console], Console]


def moments(tab: Console) -> int:
    """How many figures a tab has drawn, by the length of its curve."""
    drawn: int = tab.page.evaluate(
        "(document.querySelector('#tile-load .stroke').getAttribute('d') ?? '').split('L').length"
    )
    return drawn


def until(page: Page, law: Callable[[], bool], what: str) -> None:
    """Wait for something while the browser's events are read."""

    def there() -> bool:
        page.wait_for_timeout(20)
        return law()

    wait_until(there, 15, what)


def test_ten_tabs_have_one_stream_and_all_are_fed(tab: Console, other_tab: OtherTab) -> None:
    streams = OpenStreams(tab.page.context)
    tab.page.reload()
    tabs = [tab, *(other_tab(tab) for _ in range(9))]
    for one in tabs:
        one.until_live()
    before = [moments(one) for one in tabs]
    for one, seen in zip(tabs, before, strict=True):
        until(one.page, lambda one=one, seen=seen: moments(one) > seen, "a tab to be fed")  # type: ignore[misc]
    until(tab.page, lambda: streams.count == 1, "one stream for all")


def test_the_stream_goes_over_to_a_tab_that_is_seen(tab: Console, other_tab: OtherTab) -> None:
    streams = OpenStreams(tab.page.context)
    second = other_tab(tab)
    second.until_live()
    tab.hide()
    until(tab.page, lambda: streams.count == 1, "the second tab to have the stream")
    before = moments(second)
    until(second.page, lambda: moments(second) > before, "the second tab to be fed")


def test_nobody_streams_when_all_tabs_are_hidden(tab: Console, other_tab: OtherTab) -> None:
    streams = OpenStreams(tab.page.context)
    tab.page.reload()
    second = other_tab(tab)
    second.until_live()
    until(tab.page, lambda: streams.count == 1, "one stream for all")
    tab.hide()
    second.hide()
    until(tab.page, lambda: streams.count == 0, "the stream to be closed")
    opened = streams.opened
    second.hide(is_hidden=False)
    until(tab.page, lambda: streams.opened == opened + 1, "a new stream")
    before = moments(second)
    until(second.page, lambda: moments(second) > before, "the tab to be fed again")


def test_a_closed_tab_leaves_its_stream_to_another(tab: Console, other_tab: OtherTab) -> None:
    second = other_tab(tab)
    second.until_live()
    tab.page.close()
    before = moments(second)
    until(second.page, lambda: moments(second) > before, "the tab that is left to be fed")


def test_without_locks_a_tab_streams_by_itself(tab: Console, other_tab: OtherTab) -> None:
    # as over plain HTTP to another machine, where the browser has none
    streams = OpenStreams(tab.page.context)
    tab.page.context.add_init_script(
        "Object.defineProperty(Navigator.prototype, 'locks', { value: undefined })"
    )
    tab.page.reload()
    second = other_tab(tab)
    tab.until_live()
    second.until_live()
    until(tab.page, lambda: streams.count == 2, "a stream for each tab")
