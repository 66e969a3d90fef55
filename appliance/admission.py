"""The gate: a request passes when the engine is ready and a place is free, first in first out."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from appliance.errors import ApplianceError, EngineNotReady, RequestError


class Gate:
    """At most ``places`` requests run, at most ``max_waiting`` wait.

    All methods run on the event loop and none awaits between a look and the change it decides,
    so no lock is needed.
    """

    def __init__(self, places: int, max_waiting: int) -> None:
        self._places = places
        self._max_waiting = max_waiting
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._refusal: Callable[[], ApplianceError] | None = None
        self._is_open = False
        self.running = 0

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._waiting)

    def open(self) -> None:
        """Let requests through: the engine is ready."""
        self._refusal = None
        self._is_open = True
        self._release()

    def hold(self) -> None:
        """Let requests wait: the engine is on its way."""
        self._refusal = None
        self._is_open = False

    def refuse(self, make_error: Callable[[], ApplianceError]) -> None:
        """Send everybody away, who waits and who comes: nothing is on its way.

        A maker and not an error: an exception raised twice drags its first traceback along.
        """
        self._refusal = make_error
        self._is_open = False
        while self._waiting:
            place = self._waiting.popleft()
            if not place.done():
                place.set_exception(make_error())

    @asynccontextmanager
    async def admit(self, timeout_s: float) -> AsyncIterator[None]:
        """Hold one place for the length of the ``async with`` body.

        Raises the refusal in force, RequestError 429 when the queue is full, EngineNotReady
        after ``timeout_s`` in the queue.
        """
        await self._enter(timeout_s)
        try:
            yield
        finally:
            self.running -= 1
            self._release()

    async def _enter(self, timeout_s: float) -> None:
        if self._refusal is not None:
            raise self._refusal()
        if self._is_open and self.running < self._places and not self._waiting:
            self.running += 1
            return
        if len(self._waiting) >= self._max_waiting:
            raise RequestError(
                429,
                "queue_full",
                f"{len(self._waiting)} requests are waiting already, the most that may",
                "retry in a few seconds, or raise APPLIANCE_MAX_WAITING",
            )
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            async with asyncio.timeout(timeout_s):
                await place
        except TimeoutError:
            self._leave(place)
            raise EngineNotReady(
                f"no place was free within {timeout_s:.0f} s",
                "retry; appliance status tells what the engine is doing",
                code="queue_timeout",
            ) from None
        except asyncio.CancelledError:
            self._leave(place)
            raise

    def _leave(self, place: asyncio.Future[None]) -> None:
        if place in self._waiting:
            self._waiting.remove(place)
        elif place.done() and not place.cancelled() and place.exception() is None:
            # granted in the very moment that its owner gave up: hand it on
            self.running -= 1
            self._release()

    def _release(self) -> None:
        while self._is_open and self._waiting and self.running < self._places:
            place = self._waiting.popleft()
            if not place.done():
                self.running += 1
                place.set_result(None)
