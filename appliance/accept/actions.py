"""What each step does: it asks the box, and hands what it saw to its judge."""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.accept import judge
from appliance.accept.box import Box, Tell
from appliance.accept.changes import drain_and_start, kill_and_recover
from appliance.accept.figures import alone, together
from appliance.accept.load import Asker, at_once, long_prompt
from appliance.accept.shortpaths import ask_paths
from appliance.accept.steps import SHARES, Finding, failed, passed, skipped
from appliance.smoke import Result, run_smoke

MOST_STREAMS = 8  # at once: a box has 2 places, the demo 64 and two cores
SPEED_PROMPTS = (512, 4096)  # tokens: those of the published prefill figures
SPEED_TOKENS = 128


@dataclass(frozen=True)
class Act:
    """What a step may need. ``low_water`` is the least MemAvailable since it began.

    ``look`` yields the doctor's rows, None where nobody can look at that host.
    """

    box: Box
    folder: Path
    nonce: str
    was_running: bool
    with_kill: bool
    look: Callable[[], Sequence[Mapping[str, Any]] | None]
    tell: Tell
    low_water: Callable[[], int | None]


def doctor(act: Act) -> Finding:
    """Look at the host."""
    rows = act.look()
    if rows is None:
        return skipped("the appliance is on another machine", "there: appliance doctor")
    return judge.judge_doctor(rows)


def appliance(act: Act) -> Finding:
    """See whether it answers, and which version it is."""
    version = act.box.status()["version"]
    if version != __version__:
        told = f"it is version {version}, and this command is {__version__}"
        return failed(told, "use the appliance command of the same version")
    return passed(f"version {version} answers", version=version)


def plan(act: Act) -> Finding:
    """Read the memory plan in force."""
    status = act.box.status()
    if status["state"] == "stopped" and not status.get("memory"):
        status = act.box.ready(act.tell)  # nothing is planned before the first start
    available = act.box.available_bytes()
    return judge.judge_plan(status.get("memory"), status["engine"], available)


def start(act: Act) -> Finding:
    """Get the engine ready."""
    began = time.monotonic()
    was = act.box.status()["state"]
    status = act.box.ready(act.tell)
    if was == "ready":
        return passed("it was ready", was=was)
    took = time.monotonic() - began
    return passed(f"ready after {took:.0f} s; it was {was}", was=was, ready_s=round(took, 1),
                  spawn=status["spawn"])  # fmt: skip


def warmup(act: Act) -> Finding:
    """Read what the warm-up found."""
    return judge.judge_warmup(act.box.ready(act.tell))


def smoke(act: Act) -> Finding:
    """Run the smoke checks."""
    checks: list[dict[str, Any]] = []
    glitch = act.box.ready(act.tell)["profile"] == "demo"

    def told(result: Result) -> None:
        checks.append(vars(result))
        act.tell(result.name)

    box = act.box
    run_smoke(box.url, box.key, expect_glitch=glitch, trust=box.trusted, tell=told)
    return judge.judge_smoke(checks)


def kilo(act: Act) -> Finding:
    """Fetch Kilo's configuration, as a client over the network does."""
    status = act.box.ready(act.tell)
    response = act.box.get("/kilo.json")
    if response.status_code != 200:
        told = f"/kilo.json is answered with {response.status_code}"
        return failed(told, "appliance kilo")
    return judge.judge_kilo(response.json(), status["max_model_len"], status["model"])


def prefill(act: Act, share: int) -> Finding:
    """Read a prompt of a share of the served context, that no cache has seen."""
    status = act.box.ready(act.tell)
    served = status["max_model_len"]
    if not served:
        return skipped("nobody knows the served context", "appliance status")
    tokens = served * share // 100
    act.tell(f"{tokens:,} tokens")

    async def ask() -> dict[str, Any]:
        async with Asker(act.box, status["model"]) as asker:
            return alone(await long_prompt(asker, tokens, f"{act.nonce}/{share}"))

    figures = {**asyncio.run(ask()), "share": share, "served": served}
    return judge.judge_prefill(figures, act.low_water(), status.get("memory"))


def speeds(act: Act) -> Finding:
    """Measure the first token and the decode, alone and with as many as have a place."""
    status = act.box.ready(act.tell)
    served, places = status["max_model_len"] or 0, status["requests"]["places"]
    streams = min(places, MOST_STREAMS)

    async def ask() -> dict[str, Any]:
        async with Asker(act.box, status["model"]) as asker:
            prompts = []
            for tokens in SPEED_PROMPTS:
                if tokens < served * 0.9:
                    act.tell(f"a prompt of {tokens} tokens")
                    timing = await long_prompt(asker, tokens, f"{act.nonce}/speed-{tokens}")
                    prompts.append(alone(timing))
            act.tell("one stream")
            await at_once(asker, 1, 8)  # the first of its shape may compile
            (one,) = await at_once(asker, 1, SPEED_TOKENS)
            act.tell(f"{streams} streams at once")
            await at_once(asker, streams, 8)
            many = together(await at_once(asker, streams, SPEED_TOKENS))
        return {"alone": alone(one), "together": {**many, "places": places}, "prompts": prompts}

    return judge.judge_speeds(asyncio.run(ask()))


def paths(act: Act) -> Finding:
    """Ask for paths of each kind, as agents are served."""
    status = act.box.ready(act.tell)
    guard = str(act.box.plan()["settings"].get("path_guard", "repair"))
    places = status["requests"]["places"]
    asking = ask_paths(act.box, status["model"], guard, places, act.folder / "paths", act.tell)
    return judge.judge_paths(asyncio.run(asking), status["profile"])


def kill(act: Act) -> Finding:
    """Kill the engine's core, and see it come back."""
    if not act.with_kill:
        return skipped("it was not asked for", "appliance accept --with-kill")
    if not act.box.is_here:
        told = "the appliance is on another machine, where nothing can be killed from here"
        return skipped(told, "there: appliance accept --with-kill")
    status = act.box.ready(act.tell)
    if status["engine"] == "attach":
        return skipped("the engine is somebody else's, and is not killed")
    return judge.judge_kill(kill_and_recover(act.box, status, act.tell))


def drain(act: Act) -> Finding:
    """Drain with an answer in flight; start again where it was running before."""
    status = act.box.ready(act.tell)
    figures = drain_and_start(act.box, status, act.tell, again=act.was_running)
    return judge.judge_drain(figures)


def _prefill(share: int) -> Callable[[Act], Finding]:
    return lambda act: prefill(act, share)


ACTIONS: Mapping[str, Callable[[Act], Finding]] = {
    "doctor": doctor,
    "appliance": appliance,
    "plan": plan,
    "start": start,
    "warmup": warmup,
    "smoke": smoke,
    "kilo": kilo,
    **{f"prefill-{share}": _prefill(share) for share in SHARES},
    "speeds": speeds,
    "paths": paths,
    "kill": kill,
    "drain": drain,
}
