"""Whatever a server sends: the right bytes, or one of our errors; never anything else."""

from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.hub import HubName, read_listing
from appliance.checkpoint.patience import Patience
from appliance.checkpoint.remote import RemoteFile
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import parse_url
from tests.fakes.rangeserver import Fault, RangeServer

PATH = "/a"
CONTENT = bytes(range(256)) * 40
SOON = {"Retry-After": "0"}
PASSING = (
    Fault(drop_after=0),
    Fault(drop_after=1),
    Fault(drop_after=777),
    Fault(at_most=1),
    Fault(at_most=500),
    Fault(status=429, headers=SOON),
    Fault(status=500),
    Fault(noise=b"\xff"),
    Fault(whole=True),
    Fault(dribble=100),
)
HEAD = b"HTTP/1.1 206 OK\r\n"
slow = settings(
    deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60
)


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        server.put(PATH, CONTENT)
        yield server


def asked(server: RangeServer, start: int, stop: int, tries: int) -> bytes:
    web = Web(patience=Patience(tries=tries, first_s=0), timeout_s=20)
    try:
        file = RemoteFile(web, parse_url(server.url + PATH), len(CONTENT))
        return b"".join(file.pieces(start, stop))
    finally:
        web.close()


@slow
@given(
    st.lists(st.sampled_from(PASSING), max_size=6),
    st.integers(0, len(CONTENT)),
    st.integers(0, len(CONTENT)),
)
def test_no_sequence_of_passing_faults_changes_a_byte(
    server: RangeServer, faults: list[Fault], one: int, other: int
) -> None:
    start, stop = min(one, other), max(one, other)
    server.faults[PATH].clear()
    server.fail(PATH, *faults)
    assert asked(server, start, stop, tries=8) == CONTENT[start:stop]


lines = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(
        [
            b"Content-Length: 9",
            b"Content-Length: -9",
            b"Content-Length: 99999999999999999999",
            b"Content-Length: x",
            b"Content-Range: bytes 5-9/10240",
            b"Content-Range: bytes 5-14/10240",
            b"Content-Range: bytes 5-4/0",
            b"Content-Range: bytes */*",
            b"Content-Range: items 1-2/3",
            b"Content-Range: bytes \xb2-9/10",
            b"Transfer-Encoding: chunked",
            b"Content-Encoding: br",
            b"Location: //",
            b"Location: https://[",
            b"Location: \xff",
            b"Retry-After: soon",
            b"Retry-After: 0",
            b"ETag: \xff\xfe",
            b'ETag: "\x1b[2J"',
            b"Connection: close",
            b"X: " + b"y" * 70_000,
        ]
    ),
)
status_lines = st.one_of(
    st.binary(max_size=30),
    st.sampled_from(
        [
            *(b"HTTP/1.1 200 OK", b"HTTP/1.1 206 OK", b"HTTP/1.0 206", b"HTTP/1.1 302 There"),
            *(b"HTTP/1.1 100 Go on", b"HTTP/1.1 99999 Eh", b"HTTP/9.9 200 OK", b"HTTP/1.1 204 No"),
            *(b"HTTP/1.1 416 No", b"HTTP/1.1 503 No", b"ICY 200 OK", b"HTTP/1.1 -1 OK"),
        ]
    ),
)


@slow
@example(b"HTTP/1.1 206 OK", [b"Content-Range: bytes 5-9/10240", b"Content-Length: 5"], b"wrong")
@example(b"HTTP/1.1 206 OK", [b"Transfer-Encoding: chunked"] * 2, b"zz\r\n")
@example(b"HTTP/1.1 206 OK", [b"ETag: \x1b[2J", b"Content-Range: bytes 5-9/10240"], b"short")
@given(status_lines, st.lists(lines, max_size=5), st.binary(max_size=80))
def test_no_answer_is_too_strange(
    server: RangeServer, status: bytes, headers: list[bytes], body: bytes
) -> None:
    noise = b"\r\n".join([status, *headers, b"", body])
    server.always[PATH] = Fault(noise=noise)
    told = ""
    try:
        # a server that says that these are the bytes is believed: only a hash could tell
        assert len(asked(server, 5, 10, tries=2)) == 5
    except SourceError as cause:
        told = f"{cause.what}{cause.hint}"
    assert not told or told.isprintable(), "nobody's terminal is a server's to write on"


@slow
@given(st.binary(max_size=200))
@example(b'{"sha": "' + b"0" * 40 + b'"}')
@example(b"[" * 100_000)
@example(b'{"sha": 1e999999}')
@example(b"9" * 5000)
def test_no_listing_is_too_strange(server: RangeServer, body: bytes) -> None:
    server.put("/api/models/o/n/revision/main", body)
    server.put("/api/models/o/n/tree/" + "0" * 40, body)
    web = Web(patience=Patience(tries=2, first_s=0))
    with pytest.raises(SourceError):
        read_listing(web, parse_url(server.url), HubName("o", "n"))
    with pytest.raises(SourceError):
        read_listing(web, parse_url(server.url), HubName("o", "n", "0" * 40))
    web.close()
