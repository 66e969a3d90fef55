"""What the supervisor writes down, and what it finds written: history, the engine's pid, incidents.

Nothing here may end the appliance: a state folder that is full or read-only costs memory of the
past, which is told as ``degraded``, and not service.
"""

import asyncio
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import structlog

from appliance.engine import Snapshot, Traffic
from appliance.host import memory_snapshot
from appliance.incarnation import Incarnation
from appliance.incidents import Incident, IncidentPlan, IncidentStore
from appliance.lifecycle import Machine
from appliance.logs import EngineLog
from appliance.orphans import EngineRecord, end_orphans, find_orphans, record_of
from appliance.overheads import Learned
from appliance.restart import History, Reason
from appliance.statefile import ENGINE_FILE, Kept, KeptEngine, StateFile, fresh
from appliance.tree import boot_id

log = structlog.get_logger()

NOT_SAVED = "state_not_saved"
INCIDENT_LINES = 400
ORPHANS_S = 30.0


@dataclass
class Keeper:
    """The memory of one state folder. Made by ``open_keeper``."""

    file: StateFile
    incidents: IncidentStore
    kept: Kept
    _state_trouble: str = ""
    _incident_trouble: str = ""

    def __post_init__(self) -> None:
        self._changed = asyncio.Event()
        self._writing = threading.Lock()

    @property
    def history(self) -> History:
        """The failures that still count."""
        return self.kept.history

    @property
    def learned(self) -> Learned | None:
        """What the last start of this choice taught about overheads."""
        return Learned.of(self.kept.learned)

    @property
    def is_wanted(self) -> bool:
        """Whether the operator left the engine running."""
        return self.kept.wanted

    @property
    def degraded(self) -> tuple[str, ...]:
        """What is wrong with keeping."""
        return (NOT_SAVED,) if self._state_trouble or self._incident_trouble else ()

    # ---- what changes

    def want(self, wanted: bool) -> None:
        """Keep whether the operator wants the engine."""
        self._set(msgspec.structs.replace(self.kept, wanted=wanted))

    def remember(self, history: History) -> None:
        """Keep the failures."""
        past = {"failures": history.failures, "rung": history.rung, "gave_up": history.gave_up}
        self._set(msgspec.structs.replace(self.kept, **past))

    def learn(self, learned: Learned | None) -> None:
        """Keep what an engine's log said about its overheads, if it said anything."""
        if learned is not None:
            self._set(msgspec.structs.replace(self.kept, learned=learned.as_dict()))

    def forget(self) -> None:
        """Forget what was learned: an operator starts anew."""
        self._set(msgspec.structs.replace(self.kept, learned={}))

    async def announce(self, token: str) -> None:
        """Write down that an engine with this token is about to be there; wait until it stands.

        The appliance may be killed at any moment from here on, and the engine would outlive it.
        """
        self._note(record_of(0, token))
        await asyncio.to_thread(self.save_now)

    def born(self, pid: int, token: str) -> None:
        """Write down the engine's leader."""
        self._note(record_of(pid, token))

    def gone(self) -> None:
        """Write down that no engine is there."""
        self._set(msgspec.structs.replace(self.kept, engine=None))

    def _note(self, record: EngineRecord) -> None:
        engine = KeptEngine(record.pid, record.start_ticks, record.token, record.init_ticks)
        self._set(msgspec.structs.replace(self.kept, engine=engine))

    def _set(self, kept: Kept) -> None:
        if kept != self.kept:
            self.kept = kept
            self._changed.set()

    # ---- writing

    async def run(self) -> None:
        """Write each change, off the loop: a busy disk must not hold up streams."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            await asyncio.to_thread(self.save_now)

    def save_now(self) -> None:
        """Write what is kept; from any thread."""
        with self._writing:  # the newest state last
            self._state_trouble = self.file.save(self.kept)

    # ---- an earlier life

    async def end_orphans(self) -> bool:
        """End the engine that an earlier life of the appliance left; tell whether there was one."""
        engine = self.kept.engine
        if engine is None:
            return False
        record = EngineRecord(
            engine.pid, engine.start_ticks, self.kept.boot_id, engine.token, engine.init_ticks
        )
        try:
            found = len(await asyncio.to_thread(find_orphans, record))
            if found:
                log.warning("engine.orphans", processes=found, next="ending them")
            ended = await end_orphans(record, ORPHANS_S)
        except OSError as cause:
            log.error("engine.orphans", what=f"/proc cannot be read: {cause.strerror}")
            return False
        if not ended:
            log.error("engine.survivors", next="they ignore SIGKILL: see ps")
        self.gone()
        return found > 0

    # ---- incidents

    def incident(
        self,
        before: Machine,
        reason: Reason,
        now: Snapshot,
        lines: EngineLog,
        engine: Incarnation | None,
    ) -> None:
        """Keep one failure: ``before`` is where it happened, ``now`` what follows."""
        at = datetime.now(UTC)
        findings = engine.findings if engine else None
        plan = engine.plan if engine else None
        traffic = findings.traffic if findings else Traffic()
        after = memory_snapshot()
        incident = Incident(
            id=self.incidents.new_id(at, before.spawn),
            at=at.isoformat(timespec="seconds"),
            spawn=before.spawn,
            state=before.state.value,
            code=reason.code,
            grade=reason.grade.value,
            what=reason.what,
            hint=reason.hint,
            phase=str(engine.progress) if engine and not engine.is_ready else "",
            uptime_s=round(engine.uptime_s, 1) if engine else 0.0,
            exit=findings.exit if findings else "",
            next=now.next,
            memory={
                "before": findings.memory if findings else {},
                "after": after,
                "plan": {row.name: row.bytes for row in plan.memory.rows}
                if plan and plan.memory
                else {},
            },
            plan=IncidentPlan(plan.argv, plan.own_env()) if plan else IncidentPlan(),
            requests_running=traffic.running,
            requests_waiting=traffic.waiting,
            lines=tuple(line.text for line in lines.tail(INCIDENT_LINES)),
            stacks=findings.stacks if findings else {},
            metrics=dict(findings.counters) if findings else {},
            processes=findings.processes if findings else {},
        )
        self._incident_trouble = self.incidents.save(incident)
        log.warning("engine.incident", id=incident.id, code=reason.code, spawn=before.spawn)


def open_keeper(state_dir: Path, choice: str) -> Keeper:
    """Return the memory of a state folder, without what another boot or choice has outdated."""
    file = StateFile(state_dir / ENGINE_FILE)
    kept = fresh(file.load(), boot_id(), choice)
    return Keeper(file, IncidentStore(state_dir / "incidents"), kept)
