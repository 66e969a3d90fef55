"""Everyday life, only faster: streams, huge prompts, clients that leave, engines that die."""

import asyncio
import os
import random
import signal
import time
from collections import Counter
from dataclasses import dataclass, field

import httpx

from tests.accept.stage import Stage
from tests.appliances import CHAT, CONTROL, NO_TLS, WEB, ApplianceProcess, engines_of
from tests.engines import MODEL
from tests.gateway.vitals import look

STREAMS = 4
# A request is hung if nothing is heard of it for so long, keep-alives included, or if it has not
# ended in five minutes. One that only waits may wait: on a slow machine an engine that is restarted
# every ten seconds may not come to serve for longer than a minute.
SILENT_S = 60.0
HUNG_S = 300.0
HUGE = "a megabyte of plain words, one after the other. " * 21_846
RESTART_EVERY_S = (6.0, 14.0)


@dataclass
class Soak:
    """One run over an appliance.

    ``ended`` counts how requests ended, ``hung`` names those that did not, ``rss`` holds the
    appliance's resident bytes, one each second.
    """

    stage: Stage
    length_s: float
    random: random.Random
    ended: Counter[str] = field(default_factory=Counter)
    hung: list[str] = field(default_factory=list)
    rss: list[int] = field(default_factory=list)
    restarts: Counter[str] = field(default_factory=Counter)

    @property
    def box(self) -> ApplianceProcess:
        """The appliance."""
        return self.stage.appliance

    async def run(self) -> None:
        """Live for ``length_s``; then wait for what is still under way."""
        self.end = time.monotonic() + self.length_s
        headers = {"authorization": f"Bearer {self.box.key('client')}"}
        async with httpx.AsyncClient(
            base_url=self.box.base_url,
            headers=headers,
            timeout=None,  # noqa: S113 - HUNG_S ends each
            trust_env=False,
            verify=NO_TLS,
        ) as http:
            streams = [self._client(http, f"stream {n}", "Count.") for n in range(STREAMS)]
            huge = [self._client(http, f"huge {n}", HUGE) for n in range(2)]
            await asyncio.gather(*streams, *huge, self._restarter(), self._watcher())

    async def _client(self, http: httpx.AsyncClient, name: str, text: str) -> None:
        while time.monotonic() < self.end:
            leaves_after_s = self.random.choice([None, None, self.random.uniform(0, 1.5)])
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": text}],
                "stream": name.startswith("stream") or self.random.random() < 0.5,
            }
            try:
                async with asyncio.timeout(leaves_after_s or HUNG_S):
                    self.ended[await _outcome(http, body)] += 1
            except TimeoutError:
                if leaves_after_s is None:
                    self.hung.append(name)
                self.ended["left" if leaves_after_s is not None else "hung"] += 1
            if text is HUGE:
                await asyncio.sleep(0.3)

    async def _restarter(self) -> None:
        while (pause_s := self.random.uniform(*RESTART_EVERY_S)) < self.end - time.monotonic():
            await asyncio.sleep(pause_s)
            how = self.random.choice(["killed", "asked"])
            await asyncio.to_thread(self._restart, how)
            self.restarts[how] += 1

    def _restart(self, how: str) -> None:
        if how == "killed":
            for pid in engines_of(self.box.folder):
                os.kill(pid, signal.SIGKILL)
            return
        key = {"authorization": f"Bearer {self.box.key('operator')}"}
        reply = WEB.post(f"{self.box.base_url}{CONTROL}/restart", headers=key)
        assert reply.status_code == 202, reply.text

    async def _watcher(self) -> None:
        while time.monotonic() < self.end:
            self.rss.append(look(self.box).rss_bytes)
            await asyncio.sleep(1)

    def growth(self) -> int:
        """Return by how much the last third's largest RSS passes the second third's."""
        third = len(self.rss) // 3
        return max(self.rss[-third:]) - max(self.rss[third:-third])


async def _outcome(http: httpx.AsyncClient, body: dict[str, object]) -> str:
    """Ask; return how that ended."""
    try:
        async with asyncio.timeout(SILENT_S) as silence:
            async with http.stream("POST", CHAT, json=body) as reply:
                data = b""
                async for part in reply.aiter_raw():
                    data += part
                    silence.reschedule(asyncio.get_running_loop().time() + SILENT_S)
    except httpx.HTTPError:
        return "broken"
    if reply.status_code != 200:
        return str(reply.status_code)
    if body["stream"] and not data.endswith(b"data: [DONE]\n\n"):
        return "cut short"
    return "whole"
