"""A checkpoint is read from a server that fails in every way: right, or with a clear error."""

import hashlib
import os
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.faults import (
    FileChanged,
    NoRanges,
    NotAllowed,
    NotThere,
    RemoteError,
    Unreachable,
)
from appliance.checkpoint.patience import Patience
from appliance.checkpoint.remote import STEP_BYTES, WHOLE_BYTES, RemoteFile, RemoteSource
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import parse_url
from tests.fakes.rangeserver import Fault, RangeServer

NAME = "model.safetensors"
PATH = f"/{NAME}"
CONTENT = random.Random(1).randbytes(3 * STEP_BYTES + 12_345)  # noqa: S311 - only content
LARGE = bytes(WHOLE_BYTES + 1)
AT_ONCE = Patience(tries=4, first_s=0.0)
SOON = {"Retry-After": "0"}


@pytest.fixture
def server() -> Iterator[RangeServer]:
    with RangeServer() as server:
        server.put(PATH, CONTENT)
        yield server


@pytest.fixture
def web() -> Iterator[Web]:
    web = Web(patience=AT_ONCE, timeout_s=20)
    yield web
    web.close()


@pytest.fixture
def file(server: RangeServer, web: Web) -> RemoteFile:
    return RemoteFile(web, parse_url(server.url + PATH), len(CONTENT))


@pytest.fixture
def source(file: RemoteFile, web: Web) -> RemoteSource:
    return RemoteSource("the server", web, {NAME: file})


def read(file: RemoteFile, start: int = 0, stop: int = len(CONTENT)) -> bytes:
    return b"".join(file.pieces(start, stop))


# ---- as it should be


@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(CONTENT)), (0, 1), (7, 7), (5, 70_000), (len(CONTENT) - 1, None)]
)
def test_a_range_is_its_bytes_and_no_more_is_sent(
    server: RangeServer, file: RemoteFile, start: int, stop: int | None
) -> None:
    stop = len(CONTENT) if stop is None else stop
    assert read(file, start, stop) == CONTENT[start:stop]
    assert server.sent_bytes == stop - start


def test_a_connection_is_used_again(server: RangeServer, file: RemoteFile) -> None:
    server.always[PATH] = Fault(headers={"X-Any": "1"})
    for start in range(5):
        read(file, start, start + 10)
    assert len(server.requests(PATH)) == 5
    assert server.connections == 1


def test_a_kept_connection_that_the_server_closed_is_made_anew(
    server: RangeServer, web: Web
) -> None:
    patient_with_none = Web(patience=Patience(tries=1))
    file = RemoteFile(patient_with_none, parse_url(server.url + PATH), len(CONTENT))
    assert read(file, 0, 10) == CONTENT[:10]
    server.hang_up()
    assert read(file, 0, 10) == CONTENT[:10]
    patient_with_none.close()


def test_many_threads_read_one_file(file: RemoteFile) -> None:
    starts = range(0, 2_000_000, 50_000)
    with ThreadPoolExecutor(8) as pool:
        parts = list(pool.map(lambda start: read(file, start, start + 50_000), starts))
    assert parts == [CONTENT[start : start + 50_000] for start in starts]


def test_an_unknown_size_is_asked_for_with_one_byte(server: RangeServer, web: Web) -> None:
    file = RemoteFile(web, parse_url(server.url + PATH))
    assert file.size() == len(CONTENT)
    assert server.sent_bytes <= 1
    assert file.stamp() == f"{len(CONTENT)}-{server.etags[PATH]}"
    server.put("/empty", b"")
    assert RemoteFile(web, parse_url(f"{server.url}/empty")).size() == 0


def test_a_copy_is_written_where_it_belongs(source: RemoteSource, tmp_path: Path) -> None:
    told: list[int] = []
    with (tmp_path / "out").open("wb") as out:
        out.write(b"head")
        out.flush()
        source.copy(NAME, 10, 2 * STEP_BYTES, out.fileno(), 4, told.append)
        source.copy(NAME, 0, 3, out.fileno(), 1, told.append)
    wanted = CONTENT[10 : 10 + 2 * STEP_BYTES]
    assert (tmp_path / "out").read_bytes() == b"h" + CONTENT[:3] + wanted
    assert sum(told) == len(wanted) + 3


def test_a_full_disk_is_told_as_it_is(source: RemoteSource) -> None:
    with pytest.raises(OSError, match="No space left"), open("/dev/full", "wb") as full:
        source.copy(NAME, 0, 10, full.fileno(), 0, lambda _: None)


# ---- faults that pass

PASSING = {
    "dropped at once": [Fault(drop_after=0)],
    "dropped in mid-way": [Fault(drop_after=STEP_BYTES + 17)],
    "dropped again and again": [Fault(drop_after=100_000)] * 9,
    "a few bytes at a time": [Fault(dribble=333)],
    "fewer bytes than asked": [Fault(at_most=1000)],
    "429": [Fault(status=429, headers=SOON)],
    "429 with a window": [Fault(status=429, headers={"RateLimit": '"resolvers";r=0;t=0'})],
    "503 three times": [Fault(status=503, headers=SOON)] * 3,
    "500 without a word": [Fault(status=500)],
    "no HTTP": [Fault(noise=b"\x00\xffhello\r\n\r\n")],
    "nothing": [Fault(noise=b"\r\n")],
    "429, then dropped, then 502": [
        Fault(status=429, headers=SOON),
        Fault(drop_after=5),
        Fault(status=502),
    ],
    "date in the past": [
        Fault(status=503, headers={"Retry-After": "Tue, 14 Nov 2023 22:13:50 GMT"})
    ],
}


@pytest.mark.parametrize("name", PASSING)
def test_a_fault_that_passes_costs_no_byte_twice(
    server: RangeServer, file: RemoteFile, name: str
) -> None:
    server.fail(PATH, *PASSING[name])
    digest = hashlib.sha256(read(file)).digest()
    assert digest == hashlib.sha256(CONTENT).digest()
    assert server.sent_bytes == len(CONTENT)
    assert not server.faults[PATH], "all of them happened"


def test_silence_ends_at_the_timeout_and_is_gone_on_from(server: RangeServer) -> None:
    released = threading.Event()
    server.fail(PATH, Fault(hold=released, hold_after=1000))
    hasty = Web(patience=AT_ONCE, timeout_s=0.3)
    file = RemoteFile(hasty, parse_url(server.url + PATH), len(CONTENT))
    assert read(file) == CONTENT
    assert server.requests(PATH)[1].headers["Range"] == f"bytes=1000-{len(CONTENT) - 1}"
    released.set()
    hasty.close()


def test_who_gets_on_has_all_tries_again(server: RangeServer, file: RemoteFile) -> None:
    each = [Fault(status=503, headers=SOON)] * (AT_ONCE.tries - 2) + [Fault(drop_after=300_000)]
    server.fail(PATH, *each * 5)
    assert read(file) == CONTENT


def test_patience_ends_with_what_it_was_and_what_to_type(
    server: RangeServer, file: RemoteFile
) -> None:
    server.always[PATH] = Fault(status=503, headers=SOON)
    with pytest.raises(Unreachable) as caught:
        read(file)
    assert "answers 503 (4 times in a row)" in caught.value.what
    assert "type the same again" in caught.value.hint
    assert caught.value.exit_code == 75
    assert len(server.requests(PATH)) == AT_ONCE.tries


def test_nobody_waits_an_hour_because_a_server_says_so(
    server: RangeServer, file: RemoteFile
) -> None:
    server.fail(PATH, Fault(status=429, headers={"Retry-After": "3600"}))
    with pytest.raises(Unreachable, match="429"):
        read(file)


def test_nobody_listening_is_unreachable(web: Web) -> None:
    with RangeServer() as gone:
        url = parse_url(gone.url + PATH)
    with pytest.raises(Unreachable, match="does not answer: Connection refused"):
        read(RemoteFile(web, url, 5), 0, 5)


def test_who_stops_waits_no_longer(server: RangeServer) -> None:
    web = Web(patience=Patience(first_s=600))
    server.always[PATH] = Fault(status=503)
    file = RemoteFile(web, parse_url(server.url + PATH), len(CONTENT))
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(read, file)
        web.close()
        with pytest.raises(Unreachable):
            reading.result(timeout=20)


# ---- faults that do not pass

REFUSED: dict[str, tuple[type[RemoteError], str, Fault]] = {
    "compressed": (RemoteError, "compressed", Fault(zipped=True)),
    "other bytes than asked": (RemoteError, "was asked for byte 5", Fault(shift=1)),
    "a part without a place": (
        RemoteError,
        "does not say which",
        Fault(headers={"Content-Range": ""}),
    ),
    "a place beyond its end": (
        RemoteError,
        "does not say which",
        Fault(headers={"Content-Range": "bytes 5-9/7"}),
    ),
    "another size": (
        FileChanged,
        f"it had {len(CONTENT):,} bytes, and has 99",
        Fault(headers={"Content-Range": "bytes 5-9/99"}),
    ),
    "416": (FileChanged, "shorter than it was", Fault(status=416)),
    "401": (NotAllowed, "401", Fault(status=401)),
    "403": (NotAllowed, "403", Fault(status=403)),
    "gated": (NotAllowed, "is gated", Fault(status=403, headers={"X-Error-Code": "GatedRepo"})),
    "404": (NotThere, "404", Fault(status=404)),
    "418": (RemoteError, "418", Fault(status=418)),
    "redirect to itself": (
        RemoteError,
        "more than 5 times",
        Fault(status=302, headers={"Location": PATH}),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_pass_is_refused_at_once(
    server: RangeServer, file: RemoteFile, name: str
) -> None:
    kind, says, fault = REFUSED[name]
    server.always[PATH] = fault
    with pytest.raises(kind) as caught:
        read(file, 5, 10)
    assert type(caught.value) is kind
    assert says in caught.value.what
    assert len(server.requests(PATH)) <= 6


@pytest.mark.parametrize("by", ["ETag", "Last-Modified"])
def test_a_file_that_changes_in_mid_way_is_never_mixed(
    server: RangeServer, web: Web, by: str
) -> None:
    server.put(PATH, LARGE)
    name = {"ETag": ""} if by == "Last-Modified" else {}
    server.extra[PATH] = {**name, by: "first"}
    file = RemoteFile(web, parse_url(server.url + PATH), len(LARGE))
    pieces = file.pieces(0, len(LARGE))
    server.fail(PATH, Fault(drop_after=STEP_BYTES * 2))
    next(pieces)
    server.extra[PATH] = {**name, by: "second"}
    with pytest.raises(FileChanged, match="is not the file that it was") as caught:
        for _ in pieces:
            pass
    assert "begin anew" in caught.value.hint


def test_a_server_without_ranges_serves_what_is_small(server: RangeServer, web: Web) -> None:
    server.always[PATH] = Fault(whole=True)
    file = RemoteFile(web, parse_url(server.url + PATH))
    assert read(file, 70_000, 80_000) == CONTENT[70_000:80_000]
    assert read(file) == CONTENT


def test_a_length_that_is_not_told_must_be_known_from_a_listing(
    server: RangeServer, web: Web
) -> None:
    server.always[PATH] = Fault(whole=True, headers={"Content-Length": "", "Connection": "close"})
    url = parse_url(server.url + PATH)
    listed = RemoteFile(web, url, len(CONTENT))
    assert read(listed) == CONTENT
    assert read(listed, 70_000, 80_000) == CONTENT[70_000:80_000]
    with pytest.raises(RemoteError, match="does not say how long"):
        RemoteFile(web, url).size()


def test_a_server_without_ranges_does_not_send_large_files_again_and_again(
    server: RangeServer, web: Web
) -> None:
    server.put(PATH, LARGE)
    server.always[PATH] = Fault(whole=True)
    file = RemoteFile(web, parse_url(server.url + PATH), len(LARGE))
    with pytest.raises(NoRanges) as caught:
        read(file, 70_000, 80_000)
    assert "fetch the checkpoint whole" in caught.value.hint


def test_a_body_without_end_is_not_read_on(server: RangeServer, file: RemoteFile) -> None:
    server.always[PATH] = Fault(endless=True)
    assert read(file, 0, 3000) == CONTENT[:3000]


def test_a_listing_without_end_is_refused(
    server: RangeServer, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("appliance.checkpoint.web.JSON_LIMIT", 2**20)
    server.always[PATH] = Fault(endless=True)
    with pytest.raises(RemoteError, match="more than 1,048,576 bytes"):
        web.json_text(parse_url(server.url + PATH))


@pytest.mark.parametrize(("start", "stop"), [(0, len(CONTENT) + 1), (5, 4), (-1, 4)])
def test_no_byte_is_asked_for_that_is_not_there(
    server: RangeServer, file: RemoteFile, start: int, stop: int
) -> None:
    with pytest.raises(SourceError, match="no byte"):
        read(file, start, stop)
    assert server.sent_bytes == 0


def test_an_unknown_name_is_named(source: RemoteSource) -> None:
    with pytest.raises(SourceError, match=r"the server has no 'x\.safetensors'"):
        source.size("x.safetensors")


def test_no_file_stays_open(source: RemoteSource) -> None:
    source.read(NAME, 0, 10)
    before = len(os.listdir("/proc/self/fd"))
    source.close()
    assert len(os.listdir("/proc/self/fd")) < before
