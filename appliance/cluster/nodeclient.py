"""The worker as its head sees it: a ``Peer`` over HTTPS, with one certificate pinned."""

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from types import TracebackType
from typing import TypeVar

import httpx
import msgspec

from appliance.cluster.identity import pinned
from appliance.cluster.membership import WorkerKept
from appliance.cluster.peer import (
    Alive,
    NodeFacts,
    NodeState,
    OrderRefused,
    PeerError,
    PeerLost,
    SpawnOrder,
    Value,
)
from appliance.cluster.wire import (
    FACTS,
    MOST_BYTES,
    MOST_GRACE_S,
    SPAWN,
    STATE,
    STOP,
    WAIT_S,
    FactsReply,
    Look,
    Refusal,
    SpawnAsk,
    StateReply,
    StopAsk,
    decode,
    encode,
)

CONNECT_S = 3.0
ANSWER_S = 5.0
SPAWN_S = 180.0  # the worker may wait for memory to come back, and push some out, first
FACTS_S = 60.0  # to read headers off a disk that sleeps
SWEEP_S = 30.0  # from the end of the grace to the last process gone
PATIENCE_S = 10.0  # a cable that is out for less is no loss
AGAIN_S = 0.5

T = TypeVar("T", bound=Value)


class NodeClient:
    """The head's side of one worker, which may be silent for ``patience_s`` while watched."""

    def __init__(self, worker: WorkerKept, patience_s: float = PATIENCE_S) -> None:
        self.address = worker.address
        self._patience_s = patience_s
        self._token = ""
        self._http = httpx.AsyncClient(
            base_url=f"https://{worker.address}",
            headers={"authorization": f"Bearer {worker.key}"},
            verify=pinned(worker.certificate),
            timeout=httpx.Timeout(ANSWER_S, connect=CONNECT_S),
            trust_env=False,
        )

    async def __aenter__(self) -> "NodeClient":
        """Return itself."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def facts(self) -> NodeFacts:
        """Return what the worker has seen of itself, with its clock beside ours."""
        began, clock = time.monotonic(), time.time()
        reply = await self._ask(FACTS, Look(), FactsReply, FACTS_S)
        round_trip_s = time.monotonic() - began
        skew_s = reply.clock_s - (clock + round_trip_s / 2)
        return msgspec.structs.replace(reply.facts, clock_skew_s=skew_s, round_trip_s=round_trip_s)

    async def spawn(self, order: SpawnOrder) -> None:
        """Start the worker's child."""
        last = (await self._look("")).serial
        self._token = order.token
        await self._ask(SPAWN, SpawnAsk(last + 1, order), StateReply, SPAWN_S)

    async def stop(self, spawn: int, *, grace_s: float) -> None:
        """End the worker's child."""
        reply = await self._look("")
        if not isinstance(reply.state, Alive):
            return
        if reply.state.spawn != spawn:
            raise OrderRefused(
                f"the worker runs spawn {reply.state.spawn}, not {spawn}",
                "look at its state",
                code="other_spawn",
            )
        ask = StopAsk(reply.serial, min(grace_s, MOST_GRACE_S))
        await self._ask(STOP, ask, StateReply, ask.grace_s + SWEEP_S)

    async def state(self) -> NodeState:
        """Return what the worker's child does now."""
        return (await self._look("")).state

    async def watch(self) -> AsyncIterator[NodeState]:
        """Yield the state now and at each change."""
        seen, loop = "", asyncio.get_running_loop()
        heard_at = loop.time()
        while True:
            try:
                reply = await self._look(seen)
            except PeerLost:
                if loop.time() - heard_at > self._patience_s:
                    raise
                await asyncio.sleep(AGAIN_S)
                continue
            heard_at = loop.time()
            if reply.seen != seen:
                seen = reply.seen
                yield reply.state

    async def _look(self, seen: str) -> StateReply:
        return await self._ask(STATE, Look(seen, self._token), StateReply, ANSWER_S + WAIT_S)

    async def _ask(self, path: str, message: Value, kind: type[T], within_s: float) -> T:
        limit = httpx.Timeout(within_s, connect=CONNECT_S)
        try:
            async with asyncio.timeout(within_s), contextlib.AsyncExitStack() as stack:
                post = self._http.stream("POST", path, content=encode(message), timeout=limit)
                response = await stack.enter_async_context(post)
                body = await _read(response)
        except (httpx.HTTPError, TimeoutError, ssl.SSLError) as cause:
            if "certificate verify failed" in str(cause).lower():
                raise self._stranger() from cause
            raise PeerLost(
                f"the worker at {self.address} does not answer: {cause or type(cause).__name__}",
                "is its appliance running (appliance node), and the cable in? appliance doctor",
            ) from cause
        if response.status_code == 200:
            return decode(body, kind)
        refusal = decode(body, Refusal)
        error = PeerError if response.status_code == 401 else OrderRefused
        raise error(f"the worker refuses: {refusal.what}", refusal.hint, code=refusal.code)

    def _stranger(self) -> PeerError:
        return PeerError(
            f"what answers at {self.address} is not the worker that joined: another certificate",
            "if its state folder was made anew: appliance cluster join CODE --replace",
            code="other_certificate",
        )


async def _read(response: httpx.Response) -> bytes:
    body = b""
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > MOST_BYTES:
            raise PeerError("the worker's answer is too large", "compare the versions")
    return body
