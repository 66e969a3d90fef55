"""The worker's part of a cluster: it takes its head's orders, one at a time, each once.

A worker must never outlive its head: torch's and vLLM's workers do (a minute and more), and a head
that comes back finds them in its way. So a child lives on a lease: while its head looks.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec
import structlog

from appliance.cluster.joindesk import JoinDesk, JoinRefused
from appliance.cluster.membership import HeadKept, Kept, digest_of, fits
from appliance.cluster.peer import Alive, Exited, NodeFacts, NodeState, OrderRefused, SpawnOrder
from appliance.cluster.wire import WAIT_S, JoinAsk, JoinReply, Look, SpawnAsk, StateReply, StopAsk
from appliance.restart import Reason

log = structlog.get_logger()

LEASE_S = 20.0
ORPHAN_GRACE_S = 5.0  # its head is gone: nobody waits for what it still says
HEAD_LOST = Reason(
    "head_lost",
    "nothing was heard of the head for {0:.0f} s, so this node ended its part of the engine",
    "look at the head: appliance status; and at the cable: appliance doctor",
)


class NodeEngine(Protocol):
    """The child side: one child at most, made of this node's own settings and an order."""

    @property
    def state(self) -> NodeState:
        """What the child does now."""
        ...

    async def spawn(self, order: SpawnOrder) -> None:
        """Start the child. Raises ApplianceError where that fails."""
        ...

    async def stop(self, *, grace_s: float) -> None:
        """End the child, by force after ``grace_s``; returns once its whole tree is gone."""
        ...

    async def facts(self) -> NodeFacts:
        """Return what is seen of this node."""
        ...

    def listen(self, told: Callable[[NodeState], None]) -> Callable[[], None]:
        """Call ``told`` at each change of the state; return how to stop that."""
        ...


@dataclass(frozen=True)
class Terms:
    """What this node's own settings agree to."""

    head_addr: str
    tensor_parallel_size: int
    master_port: int = 29501

    def refuse(self, order: SpawnOrder) -> None:
        """Raise OrderRefused for an order that is not what this node was set up for."""
        if order.master_addr != self.head_addr:
            raise OrderRefused(
                f"the order says that torch meets at {order.master_addr}, and this node's head "
                f"is {self.head_addr}",
                "set APPLIANCE_CLUSTER_HEAD alike on both boxes",
                code="other_head_address",
            )
        if order.master_port != self.master_port:
            raise OrderRefused(
                f"the order says that torch meets at port {order.master_port}, and this node is "
                f"set up for {self.master_port}",
                "set APPLIANCE_CLUSTER_MASTER_PORT alike on both boxes",
                code="other_master_port",
            )
        if order.tensor_parallel_size != self.tensor_parallel_size:
            raise OrderRefused(
                f"the order is for {order.tensor_parallel_size} ways of tensor parallel, and this "
                f"node is set up for {self.tensor_parallel_size}",
                "set APPLIANCE_TENSOR_PARALLEL_SIZE alike on both boxes",
                code="other_parallel_size",
            )


class Node:
    """Takes a head's join, its looks and its orders. ``now`` is the loop's clock, in seconds."""

    def __init__(
        self, engine: NodeEngine, kept: Kept, desk: JoinDesk, terms: Terms, lease_s: float = LEASE_S
    ) -> None:
        self._engine = engine
        self._kept = kept
        self._desk = desk
        self._terms = terms
        self._lease_s = lease_s
        self._head = kept.head()
        self._life = secrets.token_hex(8)
        self._changes = 0
        self._news = asyncio.Event()
        self._ordering = asyncio.Lock()
        self._lost: Reason | None = None
        self._loop = asyncio.get_running_loop()
        self._lease_ends = 0.0
        self._forget = engine.listen(lambda _state: self._changed())

    @property
    def head(self) -> HeadKept | None:
        """Who may give orders; None before a join."""
        return self._head

    def knows(self, presented: str) -> bool:
        """Whether this is the key of the head."""
        return self._head is not None and fits(self._head, presented)

    def join(self, ask: JoinAsk) -> JoinReply:
        """Take this head, and no other after it. Raises JoinRefused."""
        if self._head is not None:
            raise JoinRefused(
                "this node has a head already",
                "on the worker: appliance node --forget, which shows a new code",
                code="has_a_head",
            )
        reply = self._desk.answer(ask, self._loop.time())
        head = HeadKept(ask.head, digest_of(reply.key))
        self._kept.keep_head(head)
        self._head = head
        log.info("node.joined", head=ask.head)
        return reply

    async def facts(self) -> NodeFacts:
        """Return what is seen of this node."""
        return await self._engine.facts()

    async def look(self, look: Look) -> StateReply:
        """Return the state at once if it is news, else after a while; renew the lease."""
        self._renew(look.token)
        if look.seen == self._seen():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WAIT_S):
                    await self._news.wait()
        self._renew(look.token)
        return self._reply()

    async def spawn(self, ask: SpawnAsk) -> StateReply:
        """Start the child, if the order is new, and agrees with this node's own settings."""
        async with self._ordering:
            head = self._owner()
            _refuse_old(ask, head)
            if isinstance(state := self._engine.state, Alive):
                raise OrderRefused(
                    f"the child of spawn {state.spawn} still lives (pid {state.pid})",
                    "stop it first",
                    code="child_alive",
                )
            self._terms.refuse(ask.order)
            # Kept before it is obeyed: an order that was cut half-way is used up.
            self._head = msgspec.structs.replace(head, serial=ask.serial, token=ask.order.token)
            self._kept.keep_head(self._head)
            self._lost = None
            await self._engine.spawn(ask.order)  # which may settle memory first, for a minute
            self._lease_ends = self._loop.time() + self._lease_s
            self._changed()
            return self._reply()

    async def stop(self, ask: StopAsk) -> StateReply:
        """End the child of that serial; of an older one there is nothing left to end."""
        async with self._ordering:
            if ask.serial > self._owner().serial:
                raise OrderRefused(
                    f"there was no order {ask.serial} yet",
                    "look at its state",
                    code="no_such_order",
                )
            if ask.serial == self._owner().serial and isinstance(self._engine.state, Alive):
                await self._engine.stop(grace_s=ask.grace_s)
                self._changed()
            return self._reply()

    async def keep_lease(self) -> None:
        """End a child that its head no longer looks at; runs until cancelled."""
        while True:
            left_s = self._lease_ends - self._loop.time()
            if left_s > 0 or not isinstance(self._engine.state, Alive):
                await asyncio.sleep(max(left_s, self._lease_s / 10))
                continue
            async with self._ordering:
                if self._lease_ends <= self._loop.time():
                    await self._end_orphan()

    async def end(self) -> None:
        """End the child with this node."""
        self._forget()
        async with self._ordering:
            await self._engine.stop(grace_s=ORPHAN_GRACE_S)

    async def _end_orphan(self) -> None:
        self._lost = replace(HEAD_LOST, what=HEAD_LOST.what.format(self._lease_s))
        log.warning("node.head_lost", what=self._lost.what, next=self._lost.hint)
        await self._engine.stop(grace_s=ORPHAN_GRACE_S)
        self._changed()

    def _owner(self) -> HeadKept:
        if self._head is None:
            raise OrderRefused("this node has no head", "appliance cluster join", code="no_head")
        return self._head

    def _renew(self, token: str) -> None:
        # Only who ordered this child keeps it: a head started anew does not know its token.
        if self._head is not None and token and secrets.compare_digest(token, self._head.token):
            self._lease_ends = self._loop.time() + self._lease_s

    def _changed(self) -> None:
        self._changes += 1
        self._news.set()
        self._news = asyncio.Event()

    def _seen(self) -> str:
        return f"{self._life}-{self._changes}"

    def _reply(self) -> StateReply:
        state = self._engine.state
        if isinstance(state, Exited) and self._lost is not None:
            state = msgspec.structs.replace(state, diagnosis=self._lost)
        return StateReply(self._seen(), self._head.serial if self._head else 0, state)


def _refuse_old(ask: SpawnAsk, head: HeadKept) -> None:
    if ask.serial != head.serial + 1 or ask.order.token == head.token:
        raise OrderRefused(
            f"order {ask.serial} is not the one after {head.serial}, or its token was used",
            "an order counts once; look at the state, then order anew",
            code="old_order",
        )
