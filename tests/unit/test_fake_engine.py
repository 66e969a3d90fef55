"""Each fault of the fake engine does what its flag says."""

import socket
import time
from typing import Any

import httpx
import pytest

from appliance import probes
from tests.asking import open_request, read_all, read_head, read_until_quiet
from tests.engines import MODEL, EngineHandle, StartFake, wait_until
from tests.fakes.engine_mind import NONSENSE, pieces

CHAT = "/v1/chat/completions"
ASKED = {"model": MODEL, "messages": [probes.user(probes.GREETING)]}


def raw(engine: EngineHandle, timeout_s: float = 10.0, **more: Any) -> socket.socket:
    return open_request(engine, CHAT, timeout_s=timeout_s, **more)


def events(data: bytes) -> int:
    return data.count(b"data: ")


def content(engine: EngineHandle, **more: Any) -> str:
    with engine.client() as client:
        message = client.post(CHAT, json=ASKED | more).json()["choices"][0]["message"]
    return str(message["content"])


def runs(client: httpx.Client) -> float:
    line = next(s for s in client.get("/metrics").text.splitlines() if "requests_running{" in s)
    return float(line.rpartition(" ")[2])


def refused(engine: EngineHandle) -> bool:
    host, _, port = engine.base_url.removeprefix("http://").partition(":")
    with socket.socket() as sock:
        return sock.connect_ex((host, int(port))) != 0


# Streams


def test_stall_after_sends_that_many_chunks_and_keeps_the_socket(fake_engine: StartFake) -> None:
    engine = fake_engine("--stall-after", "2")
    with raw(engine, timeout_s=1.0, stream=True) as sock:
        read, closed = read_until_quiet(sock)
    assert not closed
    assert events(read) == 2
    assert b"0\r\n\r\n" not in read


def test_stall_s_is_one_long_step_in_which_every_counter_stands_still(
    fake_engine: StartFake,
) -> None:
    engine = fake_engine("--stall-after", "2", "--stall-s", "0.5")
    began = time.monotonic()
    with raw(engine, timeout_s=0.2, stream=True) as sock, engine.client() as client:
        read, closed = read_until_quiet(sock)
        assert (events(read), closed) == (2, False)
        before = client.get("/metrics").text
        assert client.get("/metrics").text == before
        sock.settimeout(10)
        while b"[DONE]" not in read:
            read += sock.recv(65536)
    assert time.monotonic() - began >= 0.5


def test_stall_s_holds_up_a_whole_answer_too(fake_engine: StartFake) -> None:
    engine = fake_engine("--stall-after", "0", "--stall-s", "0.5")
    began = time.monotonic()
    assert content(engine)
    assert time.monotonic() - began >= 0.5


def test_a_deaf_engine_accepts_and_answers_nothing_but_its_handle(fake_engine: StartFake) -> None:
    engine = fake_engine()
    with engine.client() as client:
        client.post("/fake", json={"deaf": True})
        for path in ("/health", "/metrics", "/v1/models"):
            with pytest.raises(httpx.ReadTimeout):
                client.get(path, timeout=0.2)
        client.post("/fake", json={})
        assert client.get("/health").status_code == 200


def test_gibberish_is_no_http_on_the_api_alone(fake_engine: StartFake) -> None:
    engine = fake_engine("--gibberish")
    with engine.client() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            client.get("/v1/models")
        assert client.get("/health").status_code == 200


def test_tear_after_closes_without_the_terminal_chunk(fake_engine: StartFake) -> None:
    engine = fake_engine("--tear-after", "2")
    with raw(engine, stream=True) as sock:
        read = read_all(sock)
    assert events(read) == 2
    assert not read.endswith(b"0\r\n\r\n")
    assert b"[DONE]" not in read


def test_a_client_sees_a_torn_stream_as_an_error(fake_engine: StartFake) -> None:
    engine = fake_engine("--tear-after", "2")
    with (
        engine.client() as client,
        client.stream("POST", CHAT, json=ASKED | {"stream": True}) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        response.read()


def test_a_torn_whole_answer_promises_more_than_it_sends(fake_engine: StartFake) -> None:
    engine = fake_engine("--tear-after", "0")
    with raw(engine) as sock:
        head, _, rest = read_all(sock).partition(b"\r\n\r\n")
    promised = int(head.split(b"content-length: ")[1].split(b"\r\n")[0])
    assert 0 < len(rest) < promised


def test_error_after_ends_a_chat_stream_with_an_error_event_and_done(
    fake_engine: StartFake,
) -> None:
    engine = fake_engine("--error-after", "2")
    with raw(engine, timeout_s=1.0, stream=True) as sock:
        read, closed = read_until_quiet(sock)
    assert not closed
    *_, error, done = [block for block in read.split(b"\n\n") if b"data: " in block]
    assert b'"code": 500' in error
    assert done.endswith(b"data: [DONE]")
    assert read.endswith(b"0\r\n\r\n")


def test_error_after_ends_message_streams_with_an_event_and_tears_responses(
    fake_engine: StartFake,
) -> None:
    engine = fake_engine("--error-after", "2")
    asked = {"stream": True, "max_tokens": 50} | ASKED
    with engine.client() as client:
        text = client.post("/v1/messages", json=asked).text
        assert text.split("\n\n")[-2].startswith("event: error\n")
        assert "message_stop" not in text
        with pytest.raises(httpx.RemoteProtocolError):
            client.post("/v1/responses", json={"input": "Hello", "stream": True})


def test_error_after_answers_a_whole_request_with_500(fake_engine: StartFake) -> None:
    with fake_engine("--error-after", "2").client() as client:
        response = client.post(CHAT, json=ASKED)
    assert response.status_code == 500
    assert response.json()["error"]["type"] == "InternalServerError"


def test_slow_head_delays_the_headers(fake_engine: StartFake) -> None:
    engine = fake_engine("--slow-head", "0.5")
    with raw(engine, stream=True) as sock:
        started = time.monotonic()
        read_head(sock)
        assert time.monotonic() - started >= 0.4


def test_silent_prefill_sends_the_head_at_once_and_the_chunk_later(fake_engine: StartFake) -> None:
    engine = fake_engine("--silent-prefill", "60")
    with raw(engine, timeout_s=1.0, stream=True) as sock:
        assert b"text/event-stream" in read_head(sock)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_chunk_delay_spaces_the_chunks(fake_engine: StartFake) -> None:
    engine = fake_engine("--chunk-delay", "0.1")
    with raw(engine, stream=True, max_tokens=3) as sock:
        started = time.monotonic()
        read = b""
        while b"[DONE]" not in read:
            read += sock.recv(65536)
    assert time.monotonic() - started >= 0.1 * (events(read) - 1)


def test_each_event_is_a_chunk_of_its_own(fake_engine: StartFake) -> None:
    engine = fake_engine("--chunk-delay", "0.02")
    with raw(engine, stream=True, max_tokens=2) as sock:
        read_head(sock)
        size = int(_line(sock), 16)
        data = b""
        while len(data) < size:
            data += sock.recv(size - len(data))
    assert events(data) == 1
    assert data.endswith(b"\n\n")


def _line(sock: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\r\n"):
        read += sock.recv(1)
    return read


def test_garbage_is_nonsense_with_status_200(fake_engine: StartFake) -> None:
    engine = fake_engine("--garbage")
    warm_up = [probes.user(probes.WARMUP_QUESTION)]
    assert content(engine, messages=warm_up) == NONSENSE


def test_health_status_is_told_by_health_and_ping_while_the_rest_works(
    fake_engine: StartFake,
) -> None:
    engine = fake_engine("--health-status", "503", ready=False)
    wait_until(lambda: not refused(engine), 10, "the engine to listen")
    with engine.client() as client:
        assert client.get("/health").status_code == 503
        assert client.get("/ping").status_code == 503
        assert client.get("/version").status_code == 200


# The control endpoints


def test_faults_can_be_set_and_cleared_at_run_time(fake_engine: StartFake) -> None:
    engine = fake_engine()
    with engine.client() as client:
        assert client.post("/fake", json={"garbage": True}).json()["garbage"] is True
        assert content(engine) == NONSENSE
        assert client.post("/fake", json={}).json()["garbage"] is False
        assert content(engine) != NONSENSE


def test_an_unknown_fault_is_refused(fake_engine: StartFake) -> None:
    with fake_engine().client() as client:
        response = client.post("/fake", json={"stal_after": 1})
    assert response.status_code == 400
    assert "stal_after" in response.json()["error"]["message"]


def test_an_engine_can_be_told_to_end_at_run_time(fake_engine: StartFake) -> None:
    engine = fake_engine()
    with engine.client() as client:
        client.post("/fake", json={"exit_code": 9, "exit_after": 0.05})
    assert engine.process.wait(timeout=10) == 9


def test_seen_tells_what_was_asked_and_forgets_on_delete(fake_engine: StartFake) -> None:
    engine = fake_engine()
    with engine.client() as client:
        client.delete("/fake/seen")
        client.post(CHAT, json=ASKED, headers={"X-Test": "yes"})
        (seen,) = client.get("/fake/seen").json()["requests"]
        client.delete("/fake/seen")
        assert client.get("/fake/seen").json() == {"requests": [], "aborted": []}
    assert (seen["method"], seen["path"], seen["body"]) == ("POST", CHAT, ASKED)
    assert seen["headers"]["x-test"] == "yes"


def test_seen_tells_when_a_client_left(fake_engine: StartFake) -> None:
    engine = fake_engine("--silent-prefill", "60")
    with engine.client() as client:
        with raw(engine, stream=True) as sock:
            read_head(sock)
            left = time.monotonic()
        wait_until(lambda: bool(client.get("/fake/seen").json()["aborted"]), 10, "the hang-up")
        (aborted,) = client.get("/fake/seen").json()["aborted"]
    assert aborted["path"] == CHAT
    assert aborted["chunks"] == 0
    assert aborted["at"] >= left


def test_a_complete_answer_is_not_an_abort(fake_engine: StartFake) -> None:
    engine = fake_engine()
    assert content(engine)
    with engine.client() as client:
        assert client.get("/fake/seen").json()["aborted"] == []


def test_requests_beyond_max_num_seqs_wait(fake_engine: StartFake) -> None:
    engine = fake_engine("--silent-prefill", "60", "--max-num-seqs", "1")
    with raw(engine, stream=True), raw(engine, stream=True), engine.client() as client:

        def told() -> bool:
            text = client.get("/metrics").text
            running = 'num_requests_running{engine="0",model_name="Nikola"} 1.0'
            waiting = 'num_requests_waiting{engine="0",model_name="Nikola"} 1.0'
            return running in text and waiting in text

        wait_until(told, 10, "one request to run and one to wait")


def test_pieces_join_to_the_text() -> None:
    for text in (probes.COUNT_ANSWER, probes.WARMUP_ANSWER, "  a\n\n b ", ""):
        assert "".join(pieces(text)) == text
