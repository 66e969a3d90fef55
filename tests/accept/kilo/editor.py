"""``kilo serve``, which Kilo's editor talks to, and what the editor asks of it."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.accept.kilo.driver import Kilo
from tests.appliances import NO_TLS
from tests.engines import MODEL, wait_until

Json = dict[str, Any]
LISTENING = re.compile(r"listening on (http://[\d.]+:\d+)")
START_S, TURN_S, STOP_S = 300.0, 300.0, 20.0


class Session:
    """One conversation in the editor."""

    def __init__(self, http: httpx.Client, kilo: Kilo) -> None:
        (provider,) = kilo.config()["provider"]
        self._http = http
        self.model = {"providerID": provider, "modelID": MODEL}
        self._id: str = _told(http.post("/session", json={}))["id"]

    def ask(self, text: str) -> str:
        """Give it a prompt; return all that it showed as text when the turn ended."""
        told = _told(self._post("message", text))["parts"]
        return "".join(part["text"] for part in told if part["type"] == "text")

    def begin(self, text: str) -> None:
        """Give it a prompt, and do not wait."""
        reply = self._post("prompt_async", text)
        assert reply.status_code == 204, reply.text

    def shorten(self) -> None:
        """Compact it."""
        _told(self._http.post(f"/session/{self._id}/summarize", json=self.model))

    @property
    def title(self) -> str:
        """Its title."""
        return str(_told(self._http.get(f"/session/{self._id}"))["title"])

    @property
    def status(self) -> str:
        """``busy``, ``retry``, ``offline``, or ``idle``."""
        told = _told(self._http.get("/session/status"))
        return str(told.get(self._id, {}).get("type", "idle"))

    @property
    def turns(self) -> list[Json]:
        """What it told: each of its messages."""
        told = _told(self._http.get(f"/session/{self._id}/message"))
        return [message["info"] for message in told if message["info"]["role"] == "assistant"]

    def abort(self) -> None:
        """End the turn."""
        _told(self._http.post(f"/session/{self._id}/abort"))

    def _post(self, what: str, text: str) -> httpx.Response:
        parts = [{"type": "text", "text": text}]
        return self._http.post(
            f"/session/{self._id}/{what}", json={"model": self.model, "parts": parts}
        )


def _told(reply: httpx.Response) -> Any:
    assert reply.status_code == 200, reply.text
    return reply.json()


@contextmanager
def served(kilo: Kilo) -> Iterator[httpx.Client]:
    """Run ``kilo serve``; yield a client of it."""
    kilo.prepare()
    log = kilo.folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(kilo.binary), "serve", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=kilo.environment(),
            cwd=kilo.workspace,
            start_new_session=True,
        )
    try:
        wait_until(lambda: LISTENING.search(log.read_text()) is not None, START_S, "kilo serve")
        url = LISTENING.search(log.read_text())
        assert url is not None
        where = {"directory": str(kilo.workspace)}
        client = httpx.Client(
            base_url=url[1], params=where, timeout=TURN_S, trust_env=False, verify=NO_TLS
        )
        with kilo.told_of(), client as http:
            yield http
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=STOP_S)
