"""How long one waits, what one hears meanwhile, and when one is told to come again."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.keepalive import Waits, keep_alive, retry_after_s
from appliance.sse import EventSplitter, event_data

WAITS = Waits(queue_timeout_s=240.0, admit_wait_s=1200.0)
KILO_RETRIES = 5
KILO_SILENCE_S = 300.0

moments = st.floats(0, 1e6)


# ---- how long


@given(moments, st.none() | moments)
def test_a_stream_waits_as_long_whatever_it_waits_for(began: float, held: float | None) -> None:
    assert WAITS.end(True, began, held) == began + 1200.0


@given(moments, moments)
def test_a_whole_reply_waits_never_longer_for_an_engine_than_for_a_place(
    began: float, after: float
) -> None:
    held = began + after
    assert WAITS.end(False, began, held) <= WAITS.end(False, began, None) == began + 240.0
    assert WAITS.end(False, began, held) <= held + WAITS.whole_wait_s


def test_no_wait_is_silent_for_longer_than_a_client_bears() -> None:
    assert WAITS.head_after_s <= 15.0
    assert WAITS.keepalive_s < KILO_SILENCE_S / 2
    assert WAITS.whole_wait_s + retry_after_s(math.inf) < KILO_SILENCE_S


# ---- what is heard


@pytest.mark.parametrize("anthropic", [False, True])
def test_a_keep_alive_is_one_whole_event(anthropic: bool) -> None:
    event = keep_alive(anthropic=anthropic)
    splitter = EventSplitter()
    assert splitter.feed(event) == [event]
    assert splitter.rest() == b""


def test_to_openais_clients_it_is_a_comment_and_to_anthropics_a_ping() -> None:
    comment, ping = keep_alive(), keep_alive(anthropic=True)
    assert comment.startswith(b":")
    assert event_data(comment) == b""
    assert ping.startswith(b"event: ping\n")
    assert event_data(ping) == b'{"type": "ping"}'


# ---- when to come again


@pytest.mark.parametrize(
    ("expected_s", "after_s"),
    [
        *((0.0, 5), (-3.0, 5), (5.0, 5), (5.2, 6), (20.0, 20), (239.1, 240)),
        *((240.0, 240), (900.0, 240), (math.inf, 240), (math.nan, 5)),
    ],
)
def test_retry_after_is_bounded_on_both_sides(expected_s: float, after_s: int) -> None:
    assert retry_after_s(expected_s) == after_s


@given(st.floats(0, 1200))
def test_five_retries_bridge_a_start_of_twenty_minutes(start_s: float) -> None:
    now = 0.0
    for _ in range(KILO_RETRIES):
        now += WAITS.whole_wait_s  # waited for in the queue, in vain
        now += retry_after_s(start_s - now)
    assert now + WAITS.whole_wait_s >= start_s
