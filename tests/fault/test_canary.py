"""Nothing of a request, and no key, in any log, incident, metric, state file or command line.

A fresh word stands in each place that is nobody's business; then all that an operator, a scraper
or another user of the machine can read is searched for it. An error reply to the client that sent
the word may quote it: it is that client's own.
"""

import base64
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.appliances import CHAT, CONTROL, WEB, ApplianceProcess, RunAppliance, engines_of
from tests.engines import MODEL, ROOT, wait_until
from tests.fault.blab import forms, pasted

BLABBER = ROOT / "tests" / "fault" / "blabbing_engine.py"
FORMS = list(forms('["x"]', ""))
# What each form is taken for when the engine dies over it.
DEATHS = {
    "bare": "engine_died",
    "dump": "engine_core_died",
    "template": "engine_died",
    "task": "engine_died",
}
# No death counts for long, and a silence of two seconds is a wedge whatever was asked.
SETTINGS: dict[str, Any] = {
    "restart_backoff_s": 0.1,
    "restart_max_failures": 50,
    "wedge_quiet_s": 2,
    "prefill_tokens_per_s": 1e9,
    "model_profile": "custom",
    "media_input": True,
    "media_hosts": "example.org",
}


@dataclass(frozen=True)
class Canary:
    """A word for each place. ``places`` are those of a request, ``keys`` are never shown at all."""

    places: Mapping[str, str]
    keys: Mapping[str, str]

    def request(self, *, pasting: bool, **more: Any) -> dict[str, Any]:
        """Return a request that is full of canaries; ``pasting``: a traceback is among them."""
        words = self.places
        call = {
            "id": "call_1",
            "type": "function",
            "function": {"name": "write", "arguments": json.dumps({"text": words["argument"]})},
        }
        path = f"/home/User/My Project/{words['path']}/Main.cpp"
        parts: list[dict[str, Any]] = [
            {"type": "text", "text": f"look at {path} and at {words['prompt']}"},
            *(
                {"type": "image_url", "image_url": {"url": words[place].join(around)}}
                for place, around in IMAGES.items()
            ),
        ]
        messages = [
            {"role": "system", "content": f"you are {words['system']}"},
            {"role": "user", "content": path},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "call_1", "content": f"wrote {words['result']}"},
            {"role": "user", "content": parts},
        ]
        if pasting:
            messages.append({"role": "user", "content": pasted(words["pasted"])})
        return {"model": MODEL, "messages": messages, "max_tokens": 8, **more}


IMAGES = {
    "image": ("https://example.org/a/", "/b.png?size=2"),
    "data": ("data:image/png;base64,", "AAAA"),
}


@pytest.fixture
def canary(monkeypatch: pytest.MonkeyPatch) -> Canary:
    """Fresh words; the hub's token is in the environment of all that is started."""

    def fresh() -> str:
        return base64.b32encode(secrets.token_bytes(15)).decode().lower()

    places = ("prompt", "system", "path", "argument", "result", "pasted", *IMAGES)
    keys = {"client key": fresh(), "hub token": fresh()}
    monkeypatch.setenv("HF_TOKEN", f"hf_{keys['hub token']}")
    return Canary({place: fresh() for place in places}, keys)


# ---- all that can be read


@dataclass
class Watched:
    """An appliance, and its stream of events from the beginning."""

    box: ApplianceProcess
    canary: Canary
    heard: list[str] = field(default_factory=list)
    pasting: bool = True

    def leaks(self) -> set[str]:
        """Return each place of a canary, with where it was found."""
        words = {**self.canary.places, **self.canary.keys, **self._spawn_key()}
        found = set()
        for sink, text in self._sinks():
            found |= {f"{place} in {sink}" for place, word in words.items() if word in text}
        # the engine is started with the spawn's key, and with no other
        for sink, text in of_processes(self.box, "environ"):
            keys = self.canary.keys.items()
            found |= {f"{place} in {sink}" for place, word in keys if word in text}
        return found

    def _spawn_key(self) -> dict[str, str]:
        for _, text in of_processes(self.box, "environ"):
            for variable in text.split("\0"):
                if variable.startswith("VLLM_API_KEY="):
                    return {"spawn key": variable.partition("=")[2]}
        return {}

    def _sinks(self) -> Iterator[tuple[str, str]]:
        box = self.box
        yield "stdout", box.out
        yield "stderr", box.err
        for path in box.state_dir.rglob("*"):
            yield "a file's name", str(path)
            if path.is_file():
                yield str(path.relative_to(box.state_dir)), path.read_text(errors="replace")
        yield "events", "\n".join(self.heard)
        yield "health for nobody", WEB.get(f"{box.base_url}/health").text
        with box.http("client") as http:
            yield "health for clients", http.get("/health").text
            yield "metrics", http.get("/metrics").text
        with box.local() as http:
            yield "health for the operator", http.get("/health").text
            for route in ("status", "plan", "logs?lines=2000", "incidents"):
                reply = http.get(f"{CONTROL}/{route}")
                assert reply.status_code == 200, reply.text
                yield route, reply.text
            for incident in http.get(f"{CONTROL}/incidents").json()["incidents"]:
                yield "one incident", http.get(f"{CONTROL}/incidents/{incident['id']}").text
        yield from of_processes(box, "cmdline")

    def incidents(self) -> list[str]:
        """Return the codes of what was kept, newest first."""
        with self.box.local() as http:
            kept = http.get(f"{CONTROL}/incidents").json()["incidents"]
        return [incident["code"] for incident in kept]

    def blab(self, form: str, then: str) -> None:
        """Tell the engine how to quote the next requests, and what to do then."""
        # printed bare, a traceback within a prompt looks like the engine's own: see the last test
        self.pasting = form != "bare"
        told = {"form": form, "then": then}
        WEB.post(f"{self.box.fake.url}/blab", json=told).raise_for_status()

    def ask(self, **more: Any) -> httpx.Response:
        """Send the request that is full of canaries; a broken stream is an answer too."""
        with self.box.http() as http:
            return http.post(CHAT, json=self.canary.request(pasting=self.pasting, **more))

    def broken(self) -> None:
        """Send it as a stream that must break off."""
        with pytest.raises(httpx.RemoteProtocolError):
            self.ask(stream=True)

    def fallen(self, code: str, count: int) -> None:
        """Wait for the incident, and for the engine after it."""
        wait_until(lambda: len(self.incidents()) == count, 20, f"{count} incidents")
        assert self.incidents()[0] == code
        self.box.until("ready")


def of_processes(box: ApplianceProcess, file: str) -> Iterator[tuple[str, str]]:
    """Yield what /proc says of the engine's processes, and of the appliance's command."""
    ours = {box.process.pid} if file == "cmdline" else set()
    for pid in ours | engines_of(box.folder):
        with suppress(OSError):
            yield f"{file} of {pid}", Path(f"/proc/{pid}/{file}").read_text(errors="replace")


@contextmanager
def watched(box: ApplianceProcess, canary: Canary) -> Iterator[Watched]:
    """Listen to an appliance's events until the end of the test."""
    watch = Watched(box, canary)
    box.until("starting", "ready")

    def listen() -> None:
        with (
            suppress(httpx.HTTPError),
            box.local() as http,
            http.stream("GET", f"{CONTROL}/events", timeout=60) as reply,
        ):
            for line in reply.iter_lines():
                watch.heard.append(line)

    listener = threading.Thread(target=listen)
    listener.start()
    try:
        box.until("ready")
        yield watch
    finally:
        box.signal(signal.SIGTERM)  # ends the stream of events
        listener.join(20)
        code = box.code()
    assert code == 0
    assert any(line.startswith("event: status") for line in watch.heard)


def start(run: RunAppliance, canary: Canary, **settings: Any) -> ApplianceProcess:
    """Start an appliance over the engine that prints what it is asked."""
    engine = f"{sys.executable} {BLABBER}"
    key = canary.keys["client key"]
    return run(engine_command=engine, api_key=key, **{**SETTINGS, **settings})


# ---- the laws


def test_the_search_finds_what_a_debugging_engine_shows(run: RunAppliance, canary: Canary) -> None:
    with watched(start(run, canary, engine_debug=True), canary) as watch:
        watch.blab("tool parser", "answer")
        assert watch.ask().status_code == 200
        shown = {place for place in canary.places if f"{place} in logs?lines=2000" in watch.leaks()}
        assert shown == set(canary.places)
        watch.blab("bare", "die")
        watch.broken()
        watch.fallen("engine_died", 1)
        sinks = {leak.partition(" in ")[2] for leak in watch.leaks()}
        assert {"events", "incidents", "one incident"} <= sinks
        assert any(sink.startswith("incidents/") for sink in sinks)
        # what keys are is known, so debugging shows none
        assert not any(leak.startswith(tuple(canary.keys)) for leak in watch.leaks())


def test_a_request_that_succeeds_leaves_no_trace(run: RunAppliance, canary: Canary) -> None:
    with watched(start(run, canary), canary) as watch:
        for form in FORMS:
            watch.blab(form, "answer")
            for stream in (False, True):
                reply = watch.ask(stream=stream)
                assert reply.status_code == 200, reply.text
            assert not watch.leaks(), form
        assert len(watch.heard) > len(FORMS)


def test_what_the_engine_gets_holds_no_key_of_ours(run: RunAppliance, canary: Canary) -> None:
    with watched(start(run, canary), canary) as watch:
        watch.ask()
        seen = json.dumps(watch.box.fake.seen())
        assert canary.places["prompt"] in seen
        assert not [name for name, key in canary.keys.items() if key in seen]


def test_a_request_that_the_engine_refuses_or_fails_leaves_no_trace(
    run: RunAppliance, canary: Canary
) -> None:
    with watched(start(run, canary), canary) as watch:
        for form in FORMS:
            for then, status in (("refuse", 400), ("fail", 500)):
                watch.blab(form, then)
                for stream in (False, True):
                    reply = watch.ask(stream=stream)
                    assert reply.status_code == status
                    # it is the client's own request, and its only clue
                    assert canary.places["prompt"] in reply.text
            assert not watch.leaks(), form


def test_a_request_that_we_refuse_leaves_no_trace(run: RunAppliance, canary: Canary) -> None:
    word = canary.places["prompt"]
    with (
        watched(start(run, canary), canary) as watch,
        watch.box.http() as http,
        watch.box.local() as local,
    ):
        replies = {
            "malformed": (400, http.post(CHAT, content=f'{{"messages": [{word}')),
            "no object": (400, http.post(CHAT, content=json.dumps([word]))),
            "unknown model": (404, watch.ask(model=word)),
            "no such model": (404, http.get(f"/v1/models/{word}")),
            "no such route": (404, http.post(f"/v1/{word}?q={word}")),
            "no such incident": (404, local.get(f"{CONTROL}/incidents/{word}")),
            "bad parameter": (400, local.get(f"{CONTROL}/logs?lines={word}")),
            "another method": (405, http.put(f"{CHAT}?q={word}", content=word)),
            "encoding": (415, http.post(CHAT, content=word, headers={"content-encoding": word})),
            "a wrong key": (
                401,
                WEB.get(f"{watch.box.base_url}/metrics", headers={"x-api-key": word}),
            ),
        }
        assert {name: reply.status_code for name, (_, reply) in replies.items()} == {
            name: status for name, (status, _) in replies.items()
        }
        assert not watch.leaks()


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_an_engine_that_dies_over_a_request_takes_it_along(
    run: RunAppliance, canary: Canary, log_format: str
) -> None:
    with watched(start(run, canary, log_format=log_format), canary) as watch:
        for count, form in enumerate(DEATHS, 1):
            watch.blab(form, "die")
            watch.broken()
            watch.fallen(DEATHS[form], count)
            assert not watch.leaks(), form


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_a_wedged_engine_is_killed_without_a_word_of_what_it_was_asked(
    run: RunAppliance, canary: Canary, log_format: str
) -> None:
    with watched(start(run, canary, log_format=log_format), canary) as watch:
        watch.blab("log requests", "answer")
        watch.box.fake.be(stall_after=2)
        watch.broken()
        watch.fallen("wedged", 1)
        assert not watch.leaks()


def test_the_environment_of_this_test_holds_the_token(canary: Canary) -> None:
    # or nothing would be shown by its absence
    assert canary.keys["hub token"] in os.environ["HF_TOKEN"]


def test_a_traceback_within_a_prompt_is_not_taken_for_the_engines_own(
    run: RunAppliance, canary: Canary
) -> None:
    with watched(start(run, canary), canary) as watch:
        watch.blab("bare", "answer")
        watch.pasting = True
        assert watch.ask().status_code == 200
        assert not watch.leaks()
