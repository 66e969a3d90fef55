"""Which addresses are asked, and where a redirect may lead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.faults import Hostile, RemoteError
from appliance.checkpoint.web import Token
from appliance.checkpoint.weburl import parse_url, redirected

HUB = "https://huggingface.co"


@pytest.mark.parametrize(
    ("text", "origin", "target"),
    [
        ("https://Hub.example/a/b", ("https", "hub.example", 443), "/a/b"),
        ("https://hub.example", ("https", "hub.example", 443), "/"),
        ("https://hub.example.:8443/a?b=c#d", ("https", "hub.example", 8443), "/a?b=c"),
        ("http://127.0.0.1:8000/a", ("http", "127.0.0.1", 8000), "/a"),
        ("http://localhost/a", ("http", "localhost", 80), "/a"),
        ("http://[::1]:8000/a", ("http", "::1", 8000), "/a"),
    ],
)
def test_an_address_is_its_origin_and_its_target(
    text: str, origin: tuple[str, str, int], target: str
) -> None:
    url = parse_url(text)
    assert url.origin == origin
    assert url.target == target
    assert parse_url(url.full()) == url


@pytest.mark.parametrize(
    "text",
    [
        "http://hub.example/a",
        "http://127.0.0.1.hub.example/a",
        "http://localhost.hub.example/",
        "ftp://hub.example/a",
        "file:///etc/passwd",
        "hub.example/a",
        "https:///a",
        "https://hub.example:99999/a",
        "https://hub.example:x/a",
        "https://[::1/a",
        "https://hub.example/a b",
        "https://hub.example/a\r\nX-Evil: 1",
        "https://hub.example/\u202ea",
        "",
    ],
)
def test_what_is_no_https_address_is_not_asked(text: str) -> None:
    with pytest.raises(RemoteError):
        parse_url(text)


@pytest.mark.parametrize(
    "text", ["https://me:hunter2@hub.example/a", "https://hunter2@hub.example:x/", "x://hunter2@ü"]
)
def test_a_password_in_an_address_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(RemoteError) as caught:
        parse_url(text)
    assert "hunter2" not in str(caught.value)


def test_a_query_is_sent_and_never_shown() -> None:
    url = parse_url("https://storage.example/a?X-Signature=secret")
    assert url.full().endswith("?X-Signature=secret")
    assert "secret" not in f"{url} {url!r} {[url]}"


@pytest.mark.parametrize(
    ("asked", "location", "leads"),
    [
        (f"{HUB}/a/b", "https://cdn.example/x?s=1", "https://cdn.example/x?s=1"),
        (f"{HUB}/a/b", "/c", f"{HUB}/c"),
        (f"{HUB}/a/b", "c", f"{HUB}/a/c"),
        ("http://127.0.0.1:1/a", "http://127.0.0.1:2/b", "http://127.0.0.1:2/b"),
        ("http://127.0.0.1:1/a", f"{HUB}/b", f"{HUB}/b"),
    ],
)
def test_a_redirect_leads_to_https(asked: str, location: str, leads: str) -> None:
    assert redirected(parse_url(asked), location).full() == leads


@pytest.mark.parametrize(
    "location",
    [
        "http://huggingface.co/a",
        "http://127.0.0.1/a",
        "http://localhost:9000/control",
        "https://127.0.0.1:9000/control",
        "https://[::1]/a",
        "file:///etc/passwd",
        "ftp://cdn.example/a",
        "https://me:pw@cdn.example/a",
        "",
    ],
)
def test_a_redirect_to_plain_http_or_to_this_machine_is_not_followed(location: str) -> None:
    if not location:
        assert redirected(parse_url(f"{HUB}/a"), location).full() == f"{HUB}/a"  # counted as a hop
        return
    with pytest.raises(Hostile):
        redirected(parse_url(f"{HUB}/a"), location)


@given(st.lists(st.text(min_size=1, max_size=20), min_size=1, max_size=4))
def test_no_name_leads_to_another_place_than_below_the_base(names: list[str]) -> None:
    base = parse_url(f"{HUB}/owner")
    url = base.below(*names)
    assert url.origin == base.origin
    assert url.target.startswith("/owner/")
    assert url.target.count("/") == len(names) + 1
    assert "?" not in url.target
    assert "#" not in url.target
    assert url.target.isascii()


def test_the_token_goes_to_its_own_origin_alone() -> None:
    token = Token("hf_secret", parse_url(HUB).origin)
    assert token.header_for(parse_url(f"{HUB}/any")) == {"Authorization": "Bearer hf_secret"}
    for other in (
        "https://huggingface.co:8443/",
        "https://cdn.huggingface.co/",
        "https://huggingface.co.evil.example/",
        "https://hf.co/",
        "http://localhost/",
    ):
        assert token.header_for(parse_url(other)) == {}
    assert "hf_secret" not in f"{token} {token!r}"


@pytest.mark.parametrize("secret", ["hf_a\nb", "hf a", "hf_\u00fc", "hf_\x7f"])
def test_a_token_that_would_break_a_header_is_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(RemoteError) as caught:
        Token(secret, parse_url(HUB).origin)
    assert secret not in str(caught.value)
