"""Steps over the whole appliance: it starts the engine, serves agents, and mends a killed one."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from tests.gpu.box import ROOT, NotReady, Program, processes
from tests.gpu.record import Facts, Outcome, Skip, require
from tests.gpu.stage import DEMO, Stage, last_error, sayings
from tests.gpu.streams import Way, ask_at_once, question

BACKOFF_S = 2.0
RECOVERED_S = 240.0
TOLD = ("attention", "kv_cache_dtype", "compile_s", "kv_tokens")
REFUSED = 3  # force_swap's exit code of a safety rule


def appliance(stage: Stage, outcome: Outcome) -> None:
    """The appliance starts the engine over the trained checkpoint: smoke and path checks pass."""
    stage.clear()
    box = _supervised(stage, outcome)
    outcome.facts["status"] = _status(box)
    lines = str(_command(stage, box, "status", "--lines", "500")["out"])
    outcome.facts["says"] = says = sayings(lines)
    told = ", ".join(f"{name} {says[name]}" for name in TOLD if name in says)
    outcome.show(f"ready after {box.ready_s:.0f} s; {told}")
    smoke = _command(stage, box, "smoke", "--expect-glitch")
    outcome.facts["smoke"] = smoke
    for line in str(smoke["out"]).strip().splitlines():
        outcome.show(line[:110])
    folder = stage.box.logs / "paths"
    cases = ("--cases", "1", "--tasks", "echo", "--prompt", "on", "--guard", "off,repair")
    paths = _command(stage, box, "bench", "paths", *cases, "--max-tokens", "128",
                     "--out", str(folder))  # fmt: skip
    outcome.facts["paths"] = paths
    if (folder / "report.json").exists():
        outcome.facts["paths_report"] = json.loads((folder / "report.json").read_text())
    outcome.show(f"bench paths: exit {paths['code']}; {paths_line(str(paths['out']))}")
    require(smoke["code"] == 0, "a smoke check failed")
    require(paths["code"] == 0, "bench paths did not run to its end")


def _supervised(stage: Stage, outcome: Outcome) -> Program:
    """Start the appliance with an engine of its own over the demo's checkpoint."""
    chosen = stage.box.overrides(DEMO, max_model_len=32_768, moe_backend="auto",
                                 kv_cache_dtype="auto")  # fmt: skip
    chosen |= {
        "restart_backoff_s": BACKOFF_S, "drain_timeout_s": 2, "stop_timeout_s": 5,
        "start_timeout_s": stage.sizes.ready_s, "log_format": "json", "swap": "off",
    }  # fmt: skip
    program = stage.box.start_appliance("appliance", chosen)
    outcome.facts["settings"] = {name: str(value) for name, value in chosen.items()}
    try:
        program.wait_ready(stage.sizes.ready_s)
    except NotReady as cause:
        raise NotReady(f"{cause}: {last_error(program.log)}") from None
    return program


def _operator(program: Program) -> Path:
    return program.log.with_name(f"{program.name}.state")


def _status(program: Program) -> Facts:
    key = (_operator(program) / "operator_key").read_text().strip()
    with program.client(10) as client:
        answer = client.get("/appliance/v1/status", headers={"authorization": f"Bearer {key}"})
    status: Facts = answer.json()
    return status


def _command(stage: Stage, program: Program, *arguments: str) -> Facts:
    """Run an ``appliance`` command against it; return its exit code and what it printed."""
    path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
    state = {"APPLIANCE_STATE_DIR": str(_operator(program)), "PYTHONPATH": path}
    command = "import sys; from appliance.cli import main; sys.exit(main())"
    began = time.monotonic()
    done = subprocess.run(
        [stage.box.python, "-c", command, *arguments],
        env=stage.box.environment() | state, capture_output=True, text=True, check=False,
        timeout=200,
    )  # fmt: skip
    took = time.monotonic() - began
    return {"argv": arguments, "code": done.returncode, "out": done.stdout, "err": done.stderr,
            "seconds": took}  # fmt: skip


def paths_line(printed: str) -> str:
    """Return the row of the table by task: asked, and exact in percent with its interval."""
    rows = [line for line in printed.splitlines() if line.startswith(("|      | asked", "| echo"))]
    return "; ".join(" ".join(row.replace("|", " ").split()) for row in rows)


def kill(stage: Stage, outcome: Outcome) -> None:
    """EngineCore is killed: the appliance sees it, starts anew, and answers again."""
    running = [program for program in stage.box.running if program.name == "appliance"]
    if not running:
        stage.clear()
    box = running[0] if running else _supervised(stage, outcome)
    # an engine of one process, as the fake one, is its own core
    victims = stage.box.processes("EngineCore") or stage.box.processes(
        f"serve {stage.box.checkpoint(DEMO)}"
    )
    require(bool(victims), "no EngineCore was found")
    outcome.facts["victim"] = dict(processes())[victims[0]]
    os.kill(victims[0], signal.SIGKILL)
    killed = time.monotonic()
    seen = _wait(box, killed, ready=False)
    back = _wait(box, killed, ready=True)
    answer = ask_at_once(Way.to(box, "through"), [question("Hello! Who are you?", 8)])[0]
    outcome.facts.update(seen_s=seen, recovered_s=back, backoff_s=BACKOFF_S, tokens=answer.tokens)
    outcome.facts["status"] = _status(box)
    outcome.show(
        f"killed pid {victims[0]}: seen after {seen:.2f} s, serves again after {back:.0f} s "
        f"(its first start took {box.ready_s:.0f} s, the backoff is {BACKOFF_S:.0f} s)"
    )
    require(answer.tokens == 8, f"{answer.tokens} tokens came after the recovery")


def _wait(program: Program, since: float, *, ready: bool) -> float:
    while program.is_ready() is not ready:
        if time.monotonic() - since > RECOVERED_S:
            raise NotReady(f"{'no' if ready else 'still'} ready after {RECOVERED_S:.0f} s")
        time.sleep(0.02)
    return time.monotonic() - since


def force_swap(stage: Stage, outcome: Outcome) -> None:
    """force_swap says of a GPU with memory of its own that there is nothing to make room for."""
    program = stage.box.folder / "bin" / "force_swap"
    if not program.exists():
        raise Skip(f"{program} is not there: the pack was made without g++")
    runs = {}
    for arguments in (("probe",), ("plan", "--util", "0.9")):
        done = subprocess.run(
            [str(program), *arguments], capture_output=True, text=True, check=False, timeout=60
        )
        told = json.loads(done.stdout)
        runs[arguments[0]] = {"code": done.returncode, "told": told, "err": done.stderr}
        outcome.show(f"{' '.join(arguments)}: exit {done.returncode}, {done.stderr.strip()[:160]}")
    outcome.facts.update(runs)
    if stage.box.on_cpu:
        raise Skip("no GPU here: the refusal was not asked for")
    plan = runs["plan"]
    reason = json.dumps(plan["told"])
    require(plan["code"] == REFUSED and "discrete_gpu" in reason, "plan --util was not refused")


STEPS: dict[str, Callable[[Stage, Outcome], None]] = {
    "appliance": appliance, "kill": kill, "force-swap": force_swap,
}  # fmt: skip
