"""The steps that change the engine's state: a drain under load, and a kill with its recovery."""

import asyncio
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from appliance.accept.box import POLL_S, Box, Tell
from appliance.accept.keptstate import read_kept
from appliance.accept.load import Asker
from appliance.errors import HostError
from appliance.tree import Process, find, signal_all

DRAIN_TOKENS = 96
NOTICED_S = 60.0
DOWN_S = 300.0  # a drain and a stop, at the longest that settings make sense with


def drain_and_start(box: Box, status: dict[str, Any], tell: Tell, *, again: bool) -> dict[str, Any]:
    """Drain while an answer is written; then start again, or leave it stopped as it was.

    However this ends, an engine that was running is told to start again.
    """
    down = ("draining", "stopped") if status["engine"] == "attach" else ("stopped",)
    began = time.monotonic()
    try:
        whole = asyncio.run(_drain_under_load(box, status["model"], tell))
        box.settle(down, DOWN_S, tell)
        figures: dict[str, Any] = {"whole": whole, "drained_s": round(_since(began), 1)}
    finally:
        if again:
            with suppress(HostError):
                box.change("start")
    if again:
        began = time.monotonic()
        box.settle(("ready",), box.start_s(), tell)
        figures["ready_s"] = round(_since(began), 1)
    return figures


async def _drain_under_load(box: Box, model: str, tell: Tell) -> bool:
    """Ask for a drain once an answer has begun; return whether that came whole."""
    begun = asyncio.Event()
    async with Asker(box, model) as asker:
        text = "Write a long answer about draining a pond."
        answer = asyncio.create_task(asker.ask(text, DRAIN_TOKENS, begun.set))
        started = asyncio.create_task(begun.wait())
        await asyncio.wait((answer, started), return_when=asyncio.FIRST_COMPLETED)
        started.cancel()
        tell("draining, with an answer in flight")
        await asyncio.to_thread(box.change, "drain")
        try:
            return (await answer).completion_tokens > 0
        except HostError:
            return False


def kill_and_recover(box: Box, status: dict[str, Any], tell: Tell) -> dict[str, Any]:
    """Kill the engine's core with SIGKILL; wait until it is ready again.

    Raises HostError when there is no such process, or it does not come back.
    """
    known = {incident["id"] for incident in box.incidents()}
    target, name = engine_core(box.operator.state_dir)
    tell(f"killing {name}")
    signal_all([target], signal.SIGKILL)
    began = time.monotonic()
    noticed_s = None
    while noticed_s is None:
        now = box.status()
        if now["state"] != "ready" or now["spawn"] > status["spawn"]:
            noticed_s = _since(began)
        elif _since(began) > NOTICED_S:
            raise HostError(
                f"{name} was killed, and after {NOTICED_S:.0f} s nobody had noticed",
                "appliance status; appliance restart",
            )
        else:
            time.sleep(POLL_S / 10)
    box.settle(("ready",), box.start_s(), tell)
    fresh = [incident for incident in box.incidents() if incident["id"] not in known]
    return {
        "killed": name,
        "noticed_s": round(noticed_s, 2),
        "ready_s": round(_since(began), 1),
        "code": fresh[0]["code"] if fresh else "",
    }


def engine_core(state_dir: Path) -> tuple[Process, str]:
    """Return the engine's core, or the engine itself where it has none of its own.

    Raises HostError when the state folder knows of no engine that lives.
    """
    kept = read_kept(state_dir)
    engine = kept.engine if kept else None
    found = find(engine.pid, engine.token) if engine and engine.pid else {}
    leader = found.get(engine.pid) if engine else None
    if engine is None or leader is None or leader.start_ticks != engine.start_ticks:
        raise HostError(
            f"the state folder {state_dir} knows of no engine that runs",
            "type this where the appliance runs, in its container if it has one",
        )
    for process in found.values():
        if b"EngineCore" in _command(process.pid):
            return process, "EngineCore"
    return leader, "the engine"


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _since(moment: float) -> float:
    return time.monotonic() - moment
