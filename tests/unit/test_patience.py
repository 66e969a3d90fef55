"""How often a server is asked again, and after how long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.faults import RemoteError
from appliance.checkpoint.patience import Patience, rate_limit_s, retry_after_s
from appliance.checkpoint.proxies import proxy_for

NOW = 1_700_000_000.0  # Tue, 14 Nov 2023 22:13:20 GMT


@given(st.floats(0, 1))
def test_pauses_grow_to_the_longest_and_then_it_is_over(chance: float) -> None:
    patience = Patience()
    pauses = [patience.pause_s(failures, None, chance) for failures in range(1, patience.tries)]
    assert None not in pauses
    known = [pause for pause in pauses if pause is not None]
    assert known == sorted(known)
    assert all(patience.first_s / 2 <= pause <= patience.longest_s for pause in known)
    assert patience.pause_s(patience.tries, None, chance) is None


def test_a_servers_own_word_counts_unless_it_asks_for_too_much() -> None:
    patience = Patience()
    assert patience.pause_s(1, 7.0, 0.5) == 7.0
    assert patience.pause_s(1, 0.0, 0.5) == 0.0
    assert patience.pause_s(1, patience.obeyed_s, 0.5) == patience.obeyed_s
    assert patience.pause_s(1, patience.obeyed_s + 1, 0.5) is None


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("", None),
        ("0", 0.0),
        ("120", 120.0),
        ("9" * 400, 999_999_999.0),
        ("Tue, 14 Nov 2023 22:13:50 GMT", 30.0),
        ("Tue, 14 Nov 2023 22:13:50 -0000", 30.0),
        ("Tue, 14 Nov 2023 22:00:00 GMT", 0.0),
        ("soon", None),
        ("-5", None),
        ("\u0663", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str | None, seconds: float | None) -> None:
    assert retry_after_s(text, NOW) == seconds


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ('"resolvers";r=0;t=172', 172.0),
        ('"api"; r=0; t=0', 0.0),
        ('"api";r=3', None),
        ('"api";t=x', None),
        ('"api";t=12345678901', None),
        (None, None),
    ],
)
def test_a_rate_limit_says_when_its_window_ends(text: str | None, seconds: float | None) -> None:
    assert rate_limit_s(text) == seconds


@given(st.text())
def test_no_retry_after_is_too_strange(text: str) -> None:
    wait = retry_after_s(text, NOW)
    assert wait is None or wait >= 0


# ---- proxies


@pytest.mark.parametrize(
    ("address", "host", "port"),
    [
        ("http://proxy.example:8080", "proxy.example", 8080),
        ("proxy.example:8080", "proxy.example", 8080),
        ("http://proxy.example", "proxy.example", 3128),
    ],
)
def test_https_goes_through_the_proxy_that_is_named(address: str, host: str, port: int) -> None:
    proxy = proxy_for("hub.example", {"https": address})
    assert proxy is not None
    assert (proxy.host, proxy.port, proxy.headers) == (host, port, {})


def test_without_a_proxy_or_with_an_exception_it_goes_straight() -> None:
    assert proxy_for("hub.example", {}) is None
    assert proxy_for("hub.example", {"http": "http://proxy.example"}) is None
    assert proxy_for("hub.example", {"https": "http://proxy.example", "no": ".example"}) is None


def test_a_proxys_password_is_sent_and_never_shown() -> None:
    proxy = proxy_for("hub.example", {"https": "http://me:hunter%402@proxy.example:1"})
    assert proxy is not None
    assert proxy.headers == {"Proxy-Authorization": "Basic bWU6aHVudGVyQDI="}
    assert "hunter" not in repr(proxy)
    with pytest.raises(RemoteError) as caught:
        proxy_for("hub.example", {"https": "socks5://me:hunter2@proxy.example:1"})
    assert "hunter2" not in str(caught.value)
