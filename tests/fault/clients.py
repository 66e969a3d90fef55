"""What fault tests do to an appliance, what its clients hear, and when the engine fell and rose."""

import asyncio
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import msgspec

from appliance.engine import Snapshot
from appliance.incidents import KEEP, Incident, IncidentStore
from appliance.probes import WARMUP_ANSWER, WARMUP_QUESTION, user
from tests.appliance_tasks import Appliance, eventually
from tests.appliances import CHAT, LONG, WITHIN_S
from tests.engines import MODEL

# Seconds that are minutes on a box.
QUICK: dict[str, Any] = {
    "restart_backoff_s": 0.2,
    "restart_backoff_cap_s": 0.5,
    "settle_timeout_s": 0.5,
}
# A question whose true answer is known, and nothing but that answer.
ASKED: dict[str, Any] = {
    "model": MODEL,
    "messages": [user(WARMUP_QUESTION)],
    "chat_template_kwargs": {"enable_thinking": False},
}
DONE = b"data: [DONE]\n\n"


@dataclass
class Heard:
    """What one client got; status 0 is nothing at all. ``is_whole``: it ended as HTTP should."""

    status: int = 0
    headers: httpx.Headers = field(default_factory=httpx.Headers)
    body: bytes = b""
    is_whole: bool = False

    @property
    def is_done(self) -> bool:
        """Whether a stream ended as if nothing had happened."""
        return self.is_whole and self.body.endswith(DONE)

    @property
    def is_true(self) -> bool:
        """Whether this is the whole true answer."""
        return self.status == 200 and self.is_whole and self.content == WARMUP_ANSWER

    @property
    def is_cut(self) -> bool:
        """Whether the connection broke before the end, as a client retries it."""
        return not self.is_whole and DONE not in self.body

    @property
    def is_turned_away(self) -> bool:
        """Whether it was told in so many words to come again later."""
        return self.status in (429, 503) and self.code != "" and "retry-after" in self.headers

    @property
    def code(self) -> str:
        """The error's code, "" without one."""
        try:
            return str(msgspec.json.decode(self.body)["error"]["code"])
        except (msgspec.DecodeError, KeyError, TypeError):
            return ""

    @property
    def content(self) -> str:
        """The answer's text, streamed or not."""
        if not self.headers.get("content-type", "").startswith("text/event-stream"):
            reply = msgspec.json.decode(self.body)
            return str(reply["choices"][0]["message"]["content"])
        events = (line[6:] for line in self.body.split(b"\n\n") if line.startswith(b"data: {"))
        deltas = [c["delta"] for event in events for c in msgspec.json.decode(event)["choices"]]
        return "".join(delta.get("content") or "" for delta in deltas)


async def ask(http: httpx.AsyncClient, **more: object) -> Heard:
    """Ask, and hear all that comes of it."""
    heard = Heard()
    try:
        async with http.stream("POST", CHAT, json=ASKED | more) as reply:
            heard.status, heard.headers = reply.status_code, reply.headers
            async for part in reply.aiter_raw():
                heard.body += part
            heard.is_whole = True
    except httpx.RemoteProtocolError:
        pass
    return heard


def asking(box: Appliance, **more: object) -> asyncio.Task[Heard]:
    """Ask beside the test."""
    return asyncio.create_task(ask(box.client, **more))


async def streaming(box: Appliance) -> asyncio.Task[Heard]:
    """Return a stream that goes on for as long as the engine lives, and has begun."""
    seen = await box.metric("vllm:generation_tokens_total")
    task = asking(box, **{**LONG, "stream": True})

    async def begun() -> bool:
        return await box.metric("vllm:generation_tokens_total") > seen + 2

    await eventually(begun, "the stream to begin")
    return task


async def waiting(box: Appliance, count: int) -> None:
    """Wait until so many wait at the gate."""

    async def there() -> bool:
        return box.running.gate.waiting == count

    await eventually(there, f"{count} to wait")


@dataclass
class Chronicle:
    """Which states the engine entered, and when, counted from the last ``mark``."""

    box: Appliance
    began: float = field(default_factory=time.monotonic)
    entries: list[tuple[float, Snapshot]] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Listen from now on."""
        self._last = self.box.snapshot
        self.box.running.engine.listen(self._note)

    @property
    def states(self) -> list[str]:
        """The states entered since the mark."""
        return [now.state for _, now in self.entries]

    @property
    def codes(self) -> list[tuple[str, str]]:
        """The same with the reasons' codes."""
        return [(now.state, now.reason.code) for _, now in self.entries]

    def mark(self) -> None:
        """Count from now."""
        self.entries.clear()
        self.began = time.monotonic()

    async def until(self, *states: str, within_s: float = WITHIN_S) -> float:
        """Wait until one of ``states`` was entered; return when, in seconds since the mark."""

        async def entered() -> bool:
            return any(now.state in states for _, now in self.entries)

        await eventually(entered, f"{states} after {self.codes}", within_s)
        return next(at for at, now in self.entries if now.state in states) - self.began

    def of(self, state: str) -> list[Snapshot]:
        """Return how each entry into this state looked."""
        return [now for _, now in self.entries if now.state == state]

    def _note(self, now: Snapshot) -> None:
        if (self._last.state, self._last.reason) != (now.state, now.reason):
            self.entries.append((time.monotonic(), now))
        self._last = now


def incidents(folder: Path) -> list[Incident]:
    """Return what is kept of an appliance's failures, newest first; never too much of it."""
    store = IncidentStore(folder / "state" / "incidents")
    assert len(list(store.folder.glob("*"))) <= KEEP
    return store.list()


def lives(folder: Path, *faults: str) -> tuple[str, str]:
    """Return the fake's flag by which its next lives have these faults, one after the other.

    A life that finds none is well. Called again, it sets the lives to come anew.
    """
    file = folder / "lives.txt"
    file.write_text("".join(f"{line}\n" for line in faults))
    return "--lives", str(file)


def saying(folder: Path, line: str) -> str:
    """Return the faults of a life that says this line and ends with exit code 1."""
    file = folder / "said.txt"
    file.write_text(f"{line}\n")
    return f"--log-lines {file} --exit-code 1 --never-ready"


def argv_value(box: Appliance, flag: str) -> str:
    """Return what the current spawn's command gives for a flag."""
    plan = box.running.engine.plan
    assert plan is not None
    return plan.argv[plan.argv.index(flag) + 1]
