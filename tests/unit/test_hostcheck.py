"""Which names are ours: an address, a near name, a known one, and none that a stranger owns."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.hostcheck import Hosts, misdirected

OURS = Hosts(("Spark.Example.ORG", "other.example."))


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("192.168.1.20", "http://192.168.1.20"),
        ("[::1]:9000", "http://[::1]:9000"),
        ("[fd00::1]", "http://[fd00::1]"),
        ("localhost:80", "http://localhost:80"),
        ("spark", "http://spark"),
        ("Spark.LOCAL:9000", "http://spark.local:9000"),
        ("SPARK.example.org:443", "http://spark.example.org:443"),
        ("other.example", "http://other.example"),
        ("other.example.:9000", "http://other.example.:9000"),
    ],
)
def test_an_own_name_is_kept_with_its_port(host: str, url: str) -> None:
    assert OURS.base_url("http", host) == url
    assert OURS.base_url("https", host) == url.replace("http", "https")


@pytest.mark.parametrize(
    "host",
    [
        *("", "evil.example", "evil.example:9000", "spark.evil.example", "example.org"),
        *("x.spark.example.org", "evil.local.example", "a.evil.local", ".local"),
        *("spark@evil.example", "evil.example@spark", "spark:9000@evil.example", "spark/evil"),
        *("spark?x", "spark#x", "spark:port", "spark:99999", "[::1", "spark evil", "-spark"),
        *("localhost.evil.example", "127.0.0.1.evil.example", "127.0.0.1.nip.io", ":9000"),
        *("spark\nevil", "[::1%a]:9000", "<b>spark</b>", "spark\\evil", "spärk"),
    ],
)
def test_a_foreign_or_a_crooked_name_is_not_ours(host: str) -> None:
    assert OURS.own(host) is None
    assert OURS.base_url("http", host) is None


@given(st.text(max_size=40))
def test_whatever_the_header_says_the_name_is_a_near_one_or_an_address(host: str) -> None:
    url = OURS.base_url("http", host)
    near = r"[a-z0-9_][a-z0-9_-]*(\.local)?\.?|[0-9.]+|\[[0-9a-f:.]+\]"
    assert url is None or re.fullmatch(rf"http://({near})(:[0-9]+)?", url)


@pytest.mark.parametrize(
    ("header", "shown"),
    [("evil.example:80", "evil.example"), ("a<b>.c", "that.name"), ("x@y", "that.name")],
)
def test_the_refusal_says_what_to_set_and_quotes_names_alone(header: str, shown: str) -> None:
    refused = misdirected(header)
    assert (refused.http_status, refused.code) == (421, "misdirected_host")
    assert refused.hint.endswith(f"set APPLIANCE_ALLOWED_HOSTS={shown}")
