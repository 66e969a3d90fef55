"""The gate: a request passes when the engine is ready, a place is free and its key's turn is."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from appliance.errors import ApplianceError, RequestError
from appliance.fairqueue import FairQueue, Share

NO_KEY = Share()


class Ticket:
    """One request's turn, from ``Gate.enter`` to the end of its ``with`` body.

    It waits, or holds its place, or has been refused. A request that makes the engine run
    several sequences at once needs as many ``places``, and gets all of them or none.
    """

    def __init__(self, gate: "Gate", number: int, share: Share, places: int = 1) -> None:
        self._gate = gate
        self.number = number
        self.share = share
        self.places = places
        self.has_place = False
        self.refusal: ApplianceError | None = None
        self.news = asyncio.Event()

    async def wait(self, within_s: float | None = None) -> bool:
        """Wait for the place; tell whether it is there.

        Returns early, without it, when the gate opens or shuts: how long to wait may hang on
        that. Raises the refusal that met this request.
        """
        if not self.has_place and self.refusal is None:
            self.news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self.news.wait()
        # Read after the wait, whatever ended it: a place that came with the timeout is there.
        if self.refusal is not None:
            raise self.refusal
        return self.has_place

    def back(self) -> None:
        """Give the place back and wait for another, in the old turn: before all who came later.

        Raises the refusal in force.
        """
        self._gate.take_back(self)


class Gate:
    """At most ``places`` are taken, at most ``max_waiting`` requests wait; the keys take turns.

    Who is next and needs more places than are free is overtaken by nobody: else a request for
    several would wait for as long as others ask for one.

    Where others' requests fill the queue, a key of which nothing waits has one seat more: nobody
    is kept out by another's crowd.

    All methods that change anything run on the event loop without an await between a look and
    the change it decides, so no lock is needed.
    """

    def __init__(self, places: int, max_waiting: int) -> None:
        self._places = places
        self._max_waiting = max_waiting
        self._queue: FairQueue[Ticket] = FairQueue()
        self._running_by_key: Counter[str] = Counter()
        self._places_by_key: Counter[str] = Counter()
        self._numbers = count()
        self._refusal: Callable[[], ApplianceError] | None = None
        self._wake: Callable[[], None] | None = None
        self._shut = asyncio.Event()
        self._shut.set()
        self._free_places = places
        self.running = 0  # requests, however many places each has
        # Called when ``running`` falls to 0 and nobody takes the place at once.
        self.on_idle: Callable[[], None] | None = None

    @property
    def waiting(self) -> int:
        """How many requests wait."""
        return len(self._queue)

    def by_key(self) -> dict[str, tuple[int, int]]:
        """Return how many requests of each key run and wait, of those that have any."""
        waiting = Counter(ticket.share.key for ticket in self._queue)
        keys = sorted({*self._running_by_key, *waiting})
        return {key: (self._running_by_key[key], waiting[key]) for key in keys}

    @property
    def is_open(self) -> bool:
        """Whether requests pass, as far as there are places."""
        return not self._shut.is_set()

    def open(self) -> None:
        """Let requests through: the engine is ready."""
        self._refusal = self._wake = None
        self._shut.clear()
        self._release()
        self._tell_all()

    def hold(self, wake: Callable[[], None] | None = None) -> None:
        """Let requests wait: the engine is on its way, or comes when ``wake`` is called.

        It is called for each request that finds the gate held, and now for those that wait
        already; it must return at once, and bear being called again.
        """
        self._refusal, self._wake = None, wake
        self._shut.set()
        self._tell_all()
        if wake is not None and self._queue:
            wake()

    def refuse(self, make_error: Callable[[], ApplianceError]) -> None:
        """Send everybody away, who waits and who comes: nothing is on its way.

        A maker and not an error: an exception raised twice drags its first traceback along.
        """
        self._refusal, self._wake = make_error, None
        self._shut.set()
        for ticket in self._queue:
            ticket.refusal = make_error()
        self._tell_all()
        self._queue.clear()

    async def shut(self, within_s: float) -> bool:
        """Wait until the gate is held or refuses; tell whether it came to that."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._shut.wait()
        return self._shut.is_set()

    @contextmanager
    def enter(self, share: Share = NO_KEY, places: int = 1) -> Iterator[Ticket]:
        """Give a ticket for the length of the ``with`` body, its place free or in the queue.

        Raises at once RequestError 400 for more ``places`` than there are, or than ``share`` lets
        its key have; the refusal in force; and RequestError 429 when the queue, or what ``share``
        leaves its key of it, is full.
        """
        self._must_exist(share, places)
        if self._refusal is not None:
            raise self._refusal()
        ticket = Ticket(self, next(self._numbers), share, places)
        if self._has_place_for(ticket):
            self._grant(ticket)
        else:
            self._line_up(ticket)
        try:
            yield ticket
        finally:
            self._leave(ticket)

    def take_back(self, ticket: Ticket) -> None:
        """Do what ``Ticket.back`` says.

        Who was inside has been counted, so the bound does not send it away: the queue may be
        longer than the bound by the number of places.
        """
        if self._refusal is not None:
            raise self._refusal()
        if ticket.has_place:
            ticket.has_place = False
            self._queue.put_back(ticket)
            if self._wake is not None:
                self._wake()
            self._free(ticket)

    def _must_exist(self, share: Share, places: int) -> None:
        if places > self._places:
            limit, hint = f"{self._places} run at once here", "raise APPLIANCE_MAX_NUM_SEQS"
        elif share.max_running is not None and places > share.max_running:
            limit = f"the key {share.key!r} may run {share.max_running} at once"
            hint = f"appliance key new {share.key} --replace --max-running {places}"
        else:
            return
        raise RequestError(
            400,
            "too_many_sequences",
            f"the request asks for {places} sequences (n for each prompt), and {limit}",
            f"ask for fewer, or {hint}",
        )

    def _has_place_for(self, ticket: Ticket) -> bool:
        # who waits and is let in by its key's limit waits for more places to come free
        is_free = self.is_open and ticket.places <= self._free_places and self._may_run(ticket)
        is_alone = not self._queue.count(ticket.share.key)
        return is_free and is_alone and self._queue.first(self._may_run) is None

    def _may_run(self, ticket: Ticket) -> bool:
        share = ticket.share
        if share.max_running is None:
            return True
        return self._places_by_key[share.key] + ticket.places <= share.max_running

    def _line_up(self, ticket: Ticket) -> None:
        if self._wake is not None:
            self._wake()  # for who is turned away too: the engine is wanted
        share, waiting, own = ticket.share, self.waiting, self._queue.count(ticket.share.key)
        if share.max_waiting is not None and own >= share.max_waiting:
            raise RequestError(
                429,
                "key_queue_full",
                f"{own} requests with the key {share.key!r} are waiting already, the most that may",
                "retry in a few seconds; appliance key list shows the limits",
            )
        is_kept_out = waiting > 0 and own == 0
        if waiting >= self._max_waiting and not is_kept_out:
            raise RequestError(
                429,
                "queue_full",
                f"{waiting} requests are waiting already, the most that may",
                "retry in a few seconds, or raise APPLIANCE_MAX_WAITING",
            )
        self._queue.add(ticket)

    def _leave(self, ticket: Ticket) -> None:
        if ticket.has_place:
            ticket.has_place = False
            self._free(ticket)
        else:
            self._queue.remove(ticket)
            self._release()  # who stood behind it may need less, or have a higher limit

    def _free(self, ticket: Ticket) -> None:
        key = ticket.share.key
        self.running -= 1
        self._free_places += ticket.places
        self._running_by_key[key] -= 1
        self._places_by_key[key] -= ticket.places
        if not self._running_by_key[key]:  # keys come and go
            del self._running_by_key[key], self._places_by_key[key]
        self._release()
        if self.running == 0 and self.on_idle is not None:
            self.on_idle()

    def _release(self) -> None:
        while self.is_open and self._free_places:
            ticket = self._queue.first(self._may_run)
            if ticket is None or ticket.places > self._free_places:
                return
            self._queue.take(ticket)
            self._grant(ticket)

    def _grant(self, ticket: Ticket) -> None:
        self.running += 1
        self._free_places -= ticket.places
        self._running_by_key[ticket.share.key] += 1
        self._places_by_key[ticket.share.key] += ticket.places
        ticket.has_place = True
        ticket.news.set()

    def _tell_all(self) -> None:
        for ticket in self._queue:
            ticket.news.set()
