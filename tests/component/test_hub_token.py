"""Who gets the token, and who does not: redirects, storages, proxies, strangers, messages."""

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.base import base_source
from appliance.checkpoint.faults import (
    FileChanged,
    Hostile,
    NotAllowed,
    RemoteError,
    Unreachable,
)
from appliance.checkpoint.hub import (
    hub_access,
    hub_source,
)
from appliance.checkpoint.patience import Patience
from appliance.checkpoint.remote import RemoteFile
from appliance.checkpoint.web import Token, Web
from appliance.checkpoint.weburl import WebUrl, parse_url
from appliance.selfsigned import write_cert
from tests.fakes.connectproxy import ConnectProxy
from tests.fakes.rangeserver import COMMIT, Fault, Hub, RangeServer, hub
from tests.hubs import FILES, INDEX, REPO, SECOND, SECRET, SHARD, listing, tokens


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as there:
        there.add(REPO, FILES)
        yield there


@pytest.fixture
def endpoint(there: Hub) -> WebUrl:
    return parse_url(there.api.url)


@pytest.fixture
def web(endpoint: WebUrl) -> Iterator[Web]:
    web = Web(Token(SECRET, endpoint.origin), patience=Patience(tries=3, first_s=0))
    yield web
    web.close()


# ---- the token


def test_the_token_goes_to_the_hub_and_never_to_its_storage(
    there: Hub, web: Web, endpoint: WebUrl
) -> None:
    source = hub_source(web, endpoint, listing(web, endpoint))
    assert source.read(SHARD, 5, 10) == FILES[SHARD][5:15]
    assert tokens(there.api) == {f"Bearer {SECRET}"}
    assert tokens(there.storage) == {None}


def test_an_https_base_never_sees_the_hubs_token(there: Hub, web: Web) -> None:
    for name, content in FILES.items():
        there.storage.put(f"/base/{name}", content)
    source = base_source(web, parse_url(f"{there.storage.url}/base"))
    assert source.names() == sorted(["config.json", INDEX, SHARD, SECOND])
    assert source.read(SHARD, 0, 25_600) == FILES[SHARD]
    assert tokens(there.storage) == {None}


def test_no_error_shows_the_token_or_a_signature(there: Hub, web: Web, endpoint: WebUrl) -> None:
    echo = {"X-Error-Message": f"Bearer {SECRET}", "X-Error-Code": SECRET}
    found = listing(web, endpoint)
    for server, path in ((there.api, f"/{REPO}/resolve/{COMMIT}/{SHARD}"), (there.storage, None)):
        path = path or there.large(REPO, SHARD)
        for status in (400, 401, 403, 404, 418, 500):
            server.always[path] = Fault(status, echo, body=f"{SECRET} signature=secret".encode())
            with pytest.raises(RemoteError) as caught:
                hub_source(web, endpoint, found).read(SHARD, 0, 5)
            assert SECRET not in str(caught.value)
            assert "secret" not in str(caught.value)
        del server.always[path]


def test_a_signature_that_is_too_old_is_asked_for_anew(
    there: Hub, web: Web, endpoint: WebUrl
) -> None:
    source = hub_source(web, endpoint, listing(web, endpoint))
    assert source.read(SHARD, 0, 5) == FILES[SHARD][:5]
    path = there.large(REPO, SHARD)
    there.storage.fail(path, Fault(status=403))
    assert source.read(SHARD, 5, 5) == FILES[SHARD][5:10]
    assert len(there.api.requests(f"/{REPO}/resolve/{COMMIT}/{SHARD}")) == 2
    there.storage.always[path] = Fault(status=403)
    with pytest.raises(NotAllowed):  # a new one helps no more
        source.read(SHARD, 5, 5)
    assert len(there.api.requests(f"/{REPO}/resolve/{COMMIT}/{SHARD}")) == 3


def test_the_storages_address_is_asked_for_once(there: Hub, web: Web, endpoint: WebUrl) -> None:
    source = hub_source(web, endpoint, listing(web, endpoint))
    for start in range(10):
        source.read(SHARD, start, 1)
    assert len(there.api.requests(f"/{REPO}/resolve/{COMMIT}/{SHARD}")) == 1
    assert len(there.storage.asked) == 10


def test_a_hub_that_hands_out_another_content_is_refused(
    there: Hub, web: Web, endpoint: WebUrl
) -> None:
    found = listing(web, endpoint)
    path = f"/{REPO}/resolve/{COMMIT}/{SHARD}"
    there.api.extra[path]["X-Linked-ETag"] = '"' + "0" * 64 + '"'
    with pytest.raises(FileChanged, match="another content"):
        hub_source(web, endpoint, found).read(SHARD, 0, 5)


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """A server with a certificate that is trusted here."""
    write_cert(["127.0.0.1"], tmp_path, 30, replace=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with RangeServer(tls) as server:
        server.put("/a", b"hello")
        yield server


def test_https_does_not_fall_back_to_http(there: Hub, secure: RangeServer) -> None:
    url = parse_url(f"{secure.url}/a")
    web = Web(Token(SECRET, url.origin))
    assert b"".join(RemoteFile(web, url).pieces(0, 5)) == b"hello"
    secure.moved["/b"] = f"{there.storage.url}/b"
    with pytest.raises(Hostile, match="from https to http://127"):
        RemoteFile(web, parse_url(f"{secure.url}/b")).size()
    web.close()
    assert there.storage.asked == []


def test_nothing_is_sent_to_who_cannot_prove_its_name(
    secure: RangeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SSL_CERT_FILE")
    url = parse_url(f"{secure.url}/a")
    web = Web(Token(SECRET, url.origin))
    with pytest.raises(RemoteError, match="not trusted") as caught:
        RemoteFile(web, url).size()
    assert "SSL_CERT_FILE" in caught.value.hint
    assert secure.asked == []
    web.close()


def test_a_proxy_tunnels_and_sees_neither_token_nor_path(secure: RangeServer) -> None:
    url = parse_url(f"{secure.url}/a")
    with ConnectProxy("Basic bWU6cHc=") as proxy:
        web = Web(
            Token(SECRET, url.origin), proxies={"https": f"http://me:pw@127.0.0.1:{proxy.port}"}
        )
        assert b"".join(RemoteFile(web, url).pieces(0, 5)) == b"hello"
        web.close()
    assert proxy.asked[0].startswith(f"CONNECT 127.0.0.1:{secure.port} ")
    assert SECRET not in "".join(proxy.asked)
    assert proxy.seen
    assert SECRET.encode() not in proxy.seen
    assert tokens(secure) == {f"Bearer {SECRET}"}


def test_a_proxy_that_wants_a_password_is_told(secure: RangeServer) -> None:
    with ConnectProxy("Basic bWU6cHc=") as proxy:
        web = Web(
            patience=Patience(tries=2, first_s=0),
            proxies={"https": f"http://me:hunter2@127.0.0.1:{proxy.port}"},
        )
        with pytest.raises(Unreachable, match="407") as caught:
            RemoteFile(web, parse_url(f"{secure.url}/a")).size()
        web.close()
    assert "hunter2" not in str(caught.value)


# ---- the Hub's own variables


def test_the_token_comes_from_the_variable_or_the_file(tmp_path: Path) -> None:
    endpoint = parse_url("https://huggingface.co/api")
    kept = tmp_path / ".cache" / "huggingface" / "token"
    kept.parent.mkdir(parents=True)
    kept.write_text(f"{SECRET}\n")
    named = tmp_path / "named"
    named.write_text("hf_named")
    home = {"HOME": str(tmp_path)}
    for environ, secret in (
        (home, SECRET),
        ({**home, "HF_TOKEN": " hf_given "}, "hf_given"),
        ({**home, "HF_TOKEN": "", "HF_TOKEN_PATH": str(named)}, "hf_named"),
        ({"XDG_CACHE_HOME": str(tmp_path / ".cache")}, SECRET),
        ({"HF_HOME": str(kept.parent)}, SECRET),
    ):
        token = hub_access(environ).token
        assert token is not None
        assert token.header_for(endpoint) == {"Authorization": f"Bearer {secret}"}
    for environ in (
        {"HOME": str(tmp_path / "none")},
        {**home, "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1"},
    ):
        assert hub_access(environ).token is None  # fmt: skip


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE"),
        ({"HF_ENDPOINT": "http://mirror.example"}, "in the clear"),
        ({"HF_TOKEN_PATH": "/nowhere/token"}, "is not there"),
        ({"HF_TOKEN_PATH": "/proc/self"}, "cannot be read"),
        ({"HF_TOKEN": "hf a\u00fc"}, "no token has"),
    ],
)
def test_a_setting_that_cannot_be_is_told(environ: dict[str, str], says: str) -> None:
    with pytest.raises(RemoteError, match=says):
        hub_access({"HOME": "/nowhere", **environ})
