"""The head's child, tied to the worker's: to whoever holds it the two are one child.

They start together and end together. The head's own end is learned as always; the worker's, or
its loss, ends the head's at once, for vLLM says nothing of it while it is idle: ``/health`` stays
200. The worker is swept with the head, so no new start meets an old part.
"""

import asyncio
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from appliance.child import Child, open_process
from appliance.cluster.peer import Alive, Exited, Idle, NodeState, Peer, PeerLost, SpawnOrder
from appliance.errors import ApplianceError
from appliance.launch import LaunchPlan
from appliance.part import Part
from appliance.restart import Grade, Reason

log = structlog.get_logger()

HEAD, WORKER = "head", "worker"
GRACE_S = 5.0  # the head is gone: nobody waits for what the worker still says
ASKED_S = 3.0  # what became of the worker, when the head ended first
SPAWNING_S = 20.0  # an order that is on its way is not overtaken by its own stop


@dataclass(frozen=True)
class Tie:
    """Starts twins. ``show`` is told of each box whether its part runs."""

    peer: Peer
    part: Part
    show: Callable[[str, bool], None]

    def start(self, number: int, plan: LaunchPlan, on_line: Callable[[str], None]) -> Child:
        """Start both parts; returns with the head's. Raises SpawnFailed."""
        process = open_process(plan.argv, plan.env)
        return Twin(process, on_line, self._order(number, plan), self)

    def _order(self, number: int, plan: LaunchPlan) -> SpawnOrder:
        memory = plan.memory
        return SpawnOrder(
            spawn=number,
            token=plan.token,
            tensor_parallel_size=self.part.ranks,
            master_addr=self.part.master_addr,
            master_port=self.part.master_port,
            max_model_len=memory.max_model_len if memory else None,
            max_num_seqs=memory.max_num_seqs if memory else None,
            kv_bytes=memory.kv_bytes if memory else None,
        )


class Twin(Child):
    """The head's part of one engine, and the hold on the worker's."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        on_line: Callable[[str], None],
        order: SpawnOrder,
        tie: Tie,
    ) -> None:
        super().__init__(process, on_line, order.token)
        self._order = order
        self._tie = tie
        self._is_swept = False
        tie.show(HEAD, True)
        self._ordered = asyncio.create_task(self._order_worker())
        self._watching = asyncio.create_task(self._watch_worker())

    async def wait(self) -> int:
        """Return the head's exit code, once its leader is gone; ``why`` then says what of."""
        code = await super().wait()
        self._tie.show(HEAD, False)
        if self.why is None:
            self.why = await self._asked()
        return code

    async def sweep(self, timeout_s: float = 10.0) -> bool:
        """End both parts; True once nothing of the head's is left. May be called again."""
        is_gone = await super().sweep(timeout_s)
        if not self._is_swept:
            self._is_swept = True
            await self._end_worker()
        return is_gone

    # ---- the worker's part

    async def _order_worker(self) -> None:
        try:
            await self._tie.peer.spawn(self._order)
        except ApplianceError as error:
            self._end(_not_started(error))

    async def _watch_worker(self) -> None:
        await asyncio.wait([self._ordered])
        try:
            async for state in self._tie.peer.watch():
                self._tie.show(WORKER, isinstance(state, Alive))
                if reason := fate(state, self._order.spawn):
                    self._end(reason)
                    return
        except ApplianceError as error:
            self._end(lost(error))

    def _end(self, reason: Reason) -> None:
        """End the head's part too: without the worker's it does nothing but look well."""
        if self.why is None:
            self.why = reason
            log.warning("cluster.part_lost", spawn=self._order.spawn, reason=reason.code)
        self._tie.show(WORKER, False)
        self.kill_group()

    async def _asked(self) -> Reason | None:
        """Return what became of the worker's part when the head's ended first."""
        try:
            async with asyncio.timeout(ASKED_S):
                await asyncio.wait([self._ordered])
                return fate(await self._tie.peer.state(), self._order.spawn)
        except (ApplianceError, TimeoutError) as cause:
            return lost(cause) if isinstance(cause, PeerLost) else None

    async def _end_worker(self) -> None:
        await asyncio.wait([self._ordered], timeout=SPAWNING_S)
        self._ordered.cancel()
        self._watching.cancel()
        await asyncio.gather(self._ordered, self._watching, return_exceptions=True)
        self._tie.show(WORKER, False)
        try:
            await self._tie.peer.stop(self._order.spawn, grace_s=GRACE_S)
        except ApplianceError as error:
            # its own lease ends it, and the next start asks for that first
            log.warning("cluster.worker_not_ended", what=error.what, next=error.hint)


def fate(state: NodeState, spawn: int) -> Reason | None:
    """Return why a spawn's part on the worker is over; None while it runs. Pure."""
    match state:
        case Alive(spawn=number) if number == spawn:
            return None
        case Exited(spawn=number, diagnosis=diagnosis) if number == spawn:
            what = f"on the worker: {diagnosis.what or diagnosis.code}"
            return Reason(f"worker_{diagnosis.code}", what, diagnosis.hint, diagnosis.grade)
        case Idle():
            what = "the worker's appliance was started anew, and its part of the engine is gone"
        case _:
            what = f"the worker runs another part than that of spawn {spawn}"
    return Reason("worker_restarted", what, "appliance incidents show tells more")


def lost(error: ApplianceError) -> Reason:
    """Return the reason of an engine whose worker does not answer any more. Pure."""
    return Reason("worker_lost", error.what, error.hint)


def _not_started(error: ApplianceError) -> Reason:
    grade = Grade.MEMORY if error.code == "does_not_fit" else Grade.TRANSIENT
    return Reason(f"worker_{error.code}", error.what, error.hint, grade)
