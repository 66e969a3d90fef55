"""Whole appliances for tests, as tasks of the test's own loop: to look inside while they run."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import httpx
import pytest

from appliance.engine import Snapshot
from appliance.serve import Running, serve
from appliance.settings import load_settings
from tests.appliances import (
    ASKED,
    CHAT,
    NO_TLS,
    WITHIN_S,
    Fake,
    environment,
    metric,
    no_engine_left,
)


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str, within_s: float = WITHIN_S
) -> None:
    """Wait for a state, with a deadline."""
    try:
        async with asyncio.timeout(within_s):
            while not await condition():  # noqa: ASYNC110 - the state may be another process's
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {within_s} s in vain for {what}") from None


@dataclass
class Appliance:
    """An appliance that runs as a task of the test's own loop.

    ``history`` holds each state that the engine has been in, with its reason's code.
    """

    running: Running
    folder: Path
    task: asyncio.Task[int]
    client: httpx.AsyncClient
    operator: httpx.AsyncClient
    stop: asyncio.Event
    history: list[tuple[str, str]] = field(default_factory=list)

    @property
    def snapshot(self) -> Snapshot:
        """The engine now."""
        return self.running.engine.snapshot

    @property
    def fake(self) -> Fake:
        """The engine that it spawned."""
        plan = self.running.engine.plan
        assert plan is not None
        return Fake(plan.base_url)

    async def until(self, *states: str, within_s: float = WITHIN_S) -> Snapshot:
        """Wait until the engine is in one of ``states``."""
        changed = asyncio.Event()
        forget = self.running.engine.listen(lambda _snapshot: changed.set())
        try:
            async with asyncio.timeout(within_s):
                while self.snapshot.state not in states:
                    changed.clear()
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"no {states} within {within_s} s: {self.snapshot}") from None
        finally:
            forget()
        return self.snapshot

    async def health(self) -> dict[str, Any]:
        """Return what the operator sees at /health."""
        health: dict[str, Any] = (await self.operator.get("/health")).json()
        return health

    async def ask(self, **more: object) -> httpx.Response:
        """Ask for one whole answer."""
        return await self.client.post(CHAT, json=ASKED | more)

    async def metric(self, name: str, **labels: str) -> float:
        """Return one sample of /metrics."""
        return metric((await self.client.get("/metrics")).text, name, **labels)

    async def end(self) -> int:
        """End the appliance as SIGTERM would; return its exit code."""
        self.stop.set()
        async with asyncio.timeout(WITHIN_S):
            return await self.task


@asynccontextmanager
async def running_here(folder: Path, *faults: str, **settings: object) -> AsyncIterator[Appliance]:
    """Run an appliance on this loop; at the end see it, and all that it started, gone."""
    chosen = load_settings(environment(folder, *faults, **settings))
    stop = asyncio.Event()
    started: asyncio.Future[Running] = asyncio.get_running_loop().create_future()

    async def hook(running: Running) -> int:
        started.set_result(running)
        await stop.wait()
        return 0

    task = asyncio.create_task(serve(chosen, hook))
    either: set[asyncio.Future[Any]] = {task, started}
    await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED, timeout=WITHIN_S)
    if not started.done():
        task.cancel()
        await task  # raises what kept it from listening
    running = started.result()
    keys = running.keys
    async with (
        _http(running.base_url, keys.client) as client,
        _http(running.base_url, keys.operator) as operator,
    ):
        appliance = Appliance(running, folder, task, client, operator, stop)
        running.engine.listen(
            lambda now: (
                appliance.history.append((now.state, now.reason.code))
                if appliance.history[-1:] != [(now.state, now.reason.code)]
                else None
            )
        )
        try:
            yield appliance
        finally:
            assert await appliance.end() == 0
    no_engine_left(folder)


def _http(base_url: str, key: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=base_url,
        headers={"authorization": f"Bearer {key}"},
        timeout=WITHIN_S,
        trust_env=False,
        verify=NO_TLS,
    )


class StartAppliance(Protocol):
    """Starts an appliance in this process with these fault flags and settings."""

    async def __call__(
        self, *faults: str, state: str | None = "ready", **settings: object
    ) -> Appliance:
        """Return it once its engine is in ``state`` (None: at once)."""


@pytest.fixture
async def start(tmp_path: Path) -> AsyncIterator[StartAppliance]:
    """Start appliances in this process; all end, and leave nothing, with the test."""
    numbers = count()
    async with AsyncExitStack() as stack:

        async def begin(*faults: str, state: str | None = "ready", **settings: object) -> Appliance:
            folder = tmp_path / f"box{next(numbers)}"
            running = running_here(folder, *faults, **settings)
            appliance = await stack.enter_async_context(running)
            if state is not None:
                await appliance.until(state)
            return appliance

        yield begin
