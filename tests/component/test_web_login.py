"""The console's log-in over real sockets: what opens, what ends it, and what no other site can."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from typing import Any

import httpx
import pytest

from tests.appliance_tasks import Appliance, StartAppliance, eventually
from tests.appliances import ASKED, CHAT, CONTROL, ApplianceProcess, web
from tests.component.test_control_api import events, until

LOGIN = f"{CONTROL}/login"
LOGOUT = f"{CONTROL}/logout"
HTML = "text/html; charset=utf-8"


def log_in(client: httpx.Client, key: str, **headers: str) -> httpx.Response:
    """Show a key as the page does."""
    return client.post(LOGIN, json={"key": key}, headers={"origin": _url(client), **headers})


def _url(client: httpx.Client) -> str:
    return str(client.base_url).rstrip("/")


def code(reply: httpx.Response) -> str:
    return str(reply.json()["error"]["code"])


@pytest.fixture
def page(box: ApplianceProcess) -> Iterator[httpx.Client]:
    """A browser that is logged in, and sends all that the page sends."""
    with web(box.base_url) as client:
        told = log_in(client, box.key("operator")).json()
        client.headers.update({"origin": box.base_url, "x-csrf-token": told["csrf"]})
        yield client


# ---- in and out


def test_the_operator_key_gets_a_cookie_that_no_script_and_no_other_site_sees(
    box: ApplianceProcess,
) -> None:
    with web(box.base_url) as client:
        reply = log_in(client, box.key("operator"))
        assert reply.status_code == 200
        (cookie,) = reply.headers.get_list("set-cookie")
        port = box.base_url.rpartition(":")[2]
        assert cookie.startswith(f"unglitched-login-{port}=")
        parts = {part.strip().lower() for part in cookie.split(";")[1:]}
        assert parts == {"httponly", "samesite=strict", "path=/", "max-age=43200"}
        assert box.key("operator") not in cookie
        again = client.get(LOGIN)
        assert again.json()["csrf"] == reply.json()["csrf"]
        assert client.get(f"{CONTROL}/status").json()["state"] == "ready"


@pytest.mark.parametrize(
    ("body", "status", "word"),
    [
        ({"key": "wrong"}, 401, "invalid_api_key"),
        ({"key": ""}, 401, "invalid_api_key"),
        ({"key": 5}, 400, "invalid_body"),
        ({}, 400, "invalid_body"),
        ({"key": "x" * 5000}, 413, "body_too_large"),
    ],
)
def test_anything_else_gets_none(
    box: ApplianceProcess, body: dict[str, Any], status: int, word: str
) -> None:
    with web(box.base_url) as client:
        reply = client.post(LOGIN, json=body, headers={"origin": box.base_url})
    assert (reply.status_code, code(reply)) == (status, word)
    assert "set-cookie" not in reply.headers


def test_a_client_key_is_told_which_one_is_needed(box: ApplianceProcess) -> None:
    with web(box.base_url) as client:
        reply = log_in(client, box.key("client"))
        assert (reply.status_code, code(reply)) == (403, "operator_key_needed")
        assert client.get(LOGIN).status_code == 401


def test_a_log_out_ends_the_cookie_wherever_it_has_gone(page: httpx.Client) -> None:
    stolen = dict(page.cookies)
    out = page.post(LOGOUT, headers={"content-type": "application/json"})
    assert (out.status_code, out.content) == (204, b"")
    assert "max-age=0" in out.headers["set-cookie"].lower()
    assert not page.cookies
    with web(_url(page)) as thief:
        thief.cookies.update(stolen)
        assert thief.get(f"{CONTROL}/status").status_code == 401
        assert code(thief.get(LOGIN)) == "not_logged_in"


# ---- what it opens


def test_it_opens_the_control_api_and_the_chat_and_nothing_else(page: httpx.Client) -> None:
    for path in ("status", "plan", "logs", "incidents", "figures", "budget", "kilo"):
        assert page.get(f"{CONTROL}/{path}").status_code == 200, path
    assert page.get("/v1/models").status_code == 200
    assert page.get("/kilo.json").status_code == 200
    answer = page.post(CHAT, json=ASKED)
    assert answer.json()["choices"][0]["message"]["content"] == "I am Nikola."
    assert page.get("/metrics").status_code == 401
    for path in ("/v1/completions", "/v1/messages", "/v1/responses", "/tokenize"):
        assert page.post(path, json=ASKED).status_code == 401, path
    assert "last_lines" not in page.get("/health").json()


def test_a_wrong_key_beside_a_cookie_is_a_wrong_key(page: httpx.Client) -> None:
    reply = page.get(f"{CONTROL}/status", headers={"authorization": "Bearer wrong"})
    assert (reply.status_code, code(reply)) == (401, "invalid_api_key")


# ---- other sites


@pytest.mark.parametrize("path", [f"{CONTROL}/stop", LOGOUT, CHAT])
@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "text/plain", "multipart/form-data; boundary=x"]
)
def test_what_a_form_of_another_site_can_send_is_refused(
    page: httpx.Client, path: str, kind: str
) -> None:
    del page.headers["x-csrf-token"]
    headers = {"content-type": kind, "origin": "https://evil.example"}
    reply = page.post(path, content=b'{"key": "=1"}', headers=headers)
    assert (reply.status_code, code(reply)) == (415, "json_needed")
    assert page.get(f"{CONTROL}/status").json()["state"] == "ready"


@pytest.mark.parametrize(
    "origin", ["https://evil.example", "null", "", "http://127.0.0.1", "http://127.0.0.1:1"]
)
def test_another_origin_is_refused_even_with_the_token(page: httpx.Client, origin: str) -> None:
    for path in (f"{CONTROL}/stop", LOGOUT, LOGIN, CHAT):
        reply = page.post(path, json={}, headers={"origin": origin})
        assert (reply.status_code, code(reply)) == (403, "cross_origin")


@pytest.mark.parametrize(
    ("site", "status"), [("same-origin", 400), ("same-site", 403), ("cross-site", 403), ("", 403)]
)
def test_without_an_origin_the_browsers_word_on_the_site_counts(
    page: httpx.Client, site: str, status: int
) -> None:
    del page.headers["origin"]
    reply = page.post(LOGIN, json={}, headers={"sec-fetch-site": site})
    assert reply.status_code == status


@pytest.mark.parametrize("token", [None, "", "0" * 64, "schlüssel"])
def test_a_missing_or_a_wrong_token_changes_nothing(page: httpx.Client, token: str | None) -> None:
    del page.headers["x-csrf-token"]
    more = {} if token is None else {"x-csrf-token": token.encode("latin-1")}
    for path in (f"{CONTROL}/stop", LOGOUT, CHAT):
        reply = page.post(path, json={}, headers=more)  # type: ignore[arg-type]
        assert (reply.status_code, code(reply)) == (403, "csrf_token_missing")
    assert page.get(f"{CONTROL}/status").json()["state"] == "ready"


def test_a_key_needs_none_of_that(box: ApplianceProcess) -> None:
    foreign = {"origin": "https://evil.example", "content-type": "text/plain"}
    with box.http("operator") as client:
        assert client.post(f"{CONTROL}/start", headers=foreign).status_code == 202


@pytest.mark.parametrize("method", ["OPTIONS", "GET", "POST"])
def test_no_answer_lets_another_origin_read_it(page: httpx.Client, method: str) -> None:
    asked = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    for path in ("/", LOGIN, f"{CONTROL}/status", CHAT, "/health"):
        reply = page.request(method, path, headers=asked)
        assert not [name for name in reply.headers if name.startswith("access-control")]


@pytest.mark.parametrize("path", ["/", "/health", "/health/live", LOGIN, f"{CONTROL}/status"])
def test_a_name_that_is_not_ours_gets_nothing(page: httpx.Client, path: str) -> None:
    for host in ("evil.example", "evil.example:9000", "127.0.0.1.nip.io", "a@b", "a b"):
        reply = page.get(path, headers={"host": host})
        if reply.status_code == 400:  # the server itself takes it for no header
            continue
        assert (reply.status_code, code(reply)) == (421, "misdirected_host")
        assert "Unglitched" not in reply.text
    told = page.get(path, headers={"host": "box.evil.example:80"}).text
    assert "APPLIANCE_ALLOWED_HOSTS=box.evil.example" in told


def test_who_shows_a_key_may_come_by_any_name(box: ApplianceProcess) -> None:
    odd = {"host": "some.proxy.example"}
    with box.http() as client:
        assert client.get("/v1/models", headers=odd).status_code == 200
        assert client.get("/health", headers=odd).status_code == 200


@pytest.mark.parametrize("path", ["/health/live", "/health", "/"])
def test_a_probe_by_a_near_name_or_by_none_is_answered(box: ApplianceProcess, path: str) -> None:
    with web(box.base_url) as client:
        for host in ("localhost", "appliance:9000", "10.0.0.7", "spark.local"):
            assert client.get(path, headers={"host": host}).status_code == 200, host
    address = httpx.URL(box.base_url)
    with closing(socket.create_connection((address.host, address.port or 0), timeout=10)) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        assert sock.recv(64).startswith(b"HTTP/1.1 200")


# ---- the pages


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/console/",
            "/console",
            "/console/index.html",
            "/console/../keys.py",
            "//",
            "/index.html",
        ),
        *("/console/%2e%2e/keys.py", "/console/..%2fkeys.py", "/console//etc/passwd", "/keys.py"),
    ],
)
def test_there_is_nothing_beside_the_table(box: ApplianceProcess, path: str) -> None:
    address = httpx.URL(box.base_url)
    with closing(socket.create_connection((address.host, address.port or 0), timeout=10)) as sock:
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())  # as it stands
        assert sock.recv(64).startswith(b"HTTP/1.1 404")


def test_over_tls_the_page_stands_alone(box: ApplianceProcess) -> None:
    with web(box.base_url) as client:
        headers = client.get("/", headers={"x-forwarded-proto": "https"}).headers
        assert headers["cross-origin-opener-policy"] == "same-origin"


def test_a_page_is_fetched_once_and_then_asked_for(box: ApplianceProcess) -> None:
    with web(box.base_url) as client:
        first = client.get("/")
        assert (first.status_code, first.headers["content-type"]) == (200, HTML)
        assert first.headers["cache-control"] == "no-cache"
        second = client.get("/", headers={"if-none-match": first.headers["etag"]})
        assert (second.status_code, second.content) == (304, b"")
        assert client.head("/").content == b""
        assert client.post("/").status_code == 405


@pytest.mark.parametrize(
    "path", ["/", f"{CONTROL}/status", f"{CONTROL}/nothing", LOGIN, "/health", "/nothing"]
)
@pytest.mark.parametrize("is_in", [True, False])
def test_every_answer_bears_the_guards(page: httpx.Client, path: str, is_in: bool) -> None:
    if not is_in:
        page.cookies.clear()
    headers = page.get(path).headers
    policy = dict(part.strip().split(" ", 1) for part in
                  headers["content-security-policy"].split(";"))  # fmt: skip
    assert policy.pop("img-src") == "'self' data:"
    assert {policy.pop(name) for name in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert policy == dict.fromkeys(
        ("default-src", "base-uri", "form-action", "frame-ancestors"), "'none'"
    )
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert "cross-origin-opener-policy" not in headers  # over plain HTTP browsers complain of it
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert headers["cache-control"] == ("no-cache" if path == "/" else "no-store")


# ---- its end


@asynccontextmanager
async def at_page(box: Appliance) -> AsyncIterator[httpx.AsyncClient]:
    """Give a browser that is logged in."""
    url = box.running.base_url
    async with httpx.AsyncClient(base_url=url, trust_env=False, timeout=30) as client:
        key = {"key": box.running.keys.operator}
        reply = await client.post(LOGIN, json=key, headers={"origin": url})
        client.headers.update({"origin": url, "x-csrf-token": reply.json()["csrf"]})
        yield client


async def streams_until_ended(client: httpx.AsyncClient) -> asyncio.Task[None]:
    """Begin to read the events; the task is done when the appliance ends the stream."""
    began = asyncio.Event()

    async def read() -> None:
        async with client.stream("GET", f"{CONTROL}/events") as reply:
            stream = events(reply)
            await until(stream, "ready")
            began.set()
            async for _ in stream:
                pass

    task = asyncio.create_task(read())
    await asyncio.wait_for(began.wait(), 20)
    return task


@pytest.mark.parametrize("revoked", [True, False])
async def test_another_operator_key_ends_every_log_in_and_its_open_stream(
    start: StartAppliance, revoked: bool
) -> None:
    box = await start()
    async with at_page(box) as page:
        listening = await streams_until_ended(page)
        by_key = await streams_until_ended(box.operator)
        path = box.running.settings.state_dir / "operator_key"
        path.unlink() if revoked else path.write_text("another-key\n")
        await asyncio.wait_for(listening, 20)
        await asyncio.wait_for(by_key, 20)
        assert (await page.get(f"{CONTROL}/status")).status_code == 401
        assert (await box.operator.get(f"{CONTROL}/status")).status_code == 401
        assert (await box.client.get("/v1/models")).status_code == 200
        if not revoked:
            fresh = {"authorization": "Bearer another-key"}
            assert (await page.get(f"{CONTROL}/status", headers=fresh)).status_code == 200


async def test_a_log_out_ends_its_own_stream_and_no_others(start: StartAppliance) -> None:
    box = await start()
    async with at_page(box) as one, at_page(box) as other:
        mine, others = await streams_until_ended(one), await streams_until_ended(other)
        await one.post(LOGOUT, json={})
        await asyncio.wait_for(mine, 20)
        assert not others.done()
        others.cancel()
        await asyncio.wait([others])


async def test_a_log_in_ends_by_itself(start: StartAppliance) -> None:
    box = await start(login_s=1.5)
    async with at_page(box) as page:
        assert (await page.get(LOGIN)).status_code == 200
        await asyncio.wait_for(await streams_until_ended(page), 20)

        async def over() -> bool:
            return (await page.get(f"{CONTROL}/status")).status_code == 401

        await eventually(over, "the log-in to end")
