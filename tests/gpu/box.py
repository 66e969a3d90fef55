"""The folder on the machine, and how engines and appliances are started from it."""

import json
import os
import secrets
import shlex
import shutil
import signal
import ssl
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from appliance.checkpoint.folder import read_model_facts
from appliance.errors import ApplianceError
from appliance.host import find_extras, free_port
from appliance.launch import LaunchPlan, plan_launch
from appliance.memory import MemoryPlan, plan_memory
from appliance.observe import observe
from appliance.settings import Settings, load_settings
from tests.gpu.record import Facts

ROOT = Path(__file__).resolve().parents[2]
MODEL = "Nikola"
# What engines compile lasts from call to call: a cold start takes minutes.
CACHES = {
    "VLLM_CACHE_ROOT": "vllm",
    "TRITON_CACHE_DIR": "triton",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "FLASHINFER_WORKSPACE_BASE": "flashinfer",
    "CUDA_CACHE_PATH": "cuda",
}
TAIL_LINES = 60
LISTENS_S = 30.0
NO_TLS = ssl.create_default_context()  # 60 ms, which each client would take for itself
END_S = 15.0  # an engine with requests takes its time


class NotReady(Exception):
    """A program ended, or was not ready in time."""


@dataclass
class Program:
    """One engine or appliance: its process leads a group that ends with it."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path
    base_url: str = ""
    key: str = ""
    began: float = field(default_factory=time.monotonic)
    ready_s: float = 0.0

    def client(self, timeout_s: float = 120.0) -> httpx.Client:
        """Return a client with the key."""
        headers = {"authorization": f"Bearer {self.key}"}
        return httpx.Client(
            base_url=self.base_url, headers=headers, timeout=timeout_s, trust_env=False,
            verify=NO_TLS,
        )  # fmt: skip

    def said(self) -> str:
        """Return all that it printed."""
        return self.log.read_text(errors="replace")

    def tail(self) -> str:
        """Return the end of what it printed."""
        lines = self.said().splitlines()
        return "\n".join(line[:400] for line in lines[-TAIL_LINES:])

    def is_ready(self) -> bool:
        """Ask /health. Raises NotReady when the program has ended."""
        if self.process.poll() is not None:
            raise NotReady(f"{self.name} ended with {self.process.returncode}")
        try:
            with self.client(5) as client:
                answer = client.get("/health")
        except httpx.HTTPError:
            return False
        return answer.status_code == 200

    def wait_ready(self, within_s: float) -> float:
        """Wait for 200 on /health; return the seconds since it was started."""
        deadline = self.began + within_s
        while not self.is_ready():
            if time.monotonic() > deadline:
                raise NotReady(f"{self.name} was not ready within {within_s:.0f} s")
            time.sleep(0.05)
        self.ready_s = time.monotonic() - self.began
        return self.ready_s

    def end(self) -> None:
        """End it in order, and by force where that takes too long."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout=END_S)
                return


@dataclass
class Box:
    """FOLDER of ``unpack.py``, and how this run uses it.

    ``on_cpu`` is the dry run: vLLM's CPU engine, or a fake one, in the place of the CUDA one.
    """

    folder: Path
    logs: Path
    engine: tuple[str, ...]
    on_cpu: bool = False
    chosen: Mapping[str, Any] = field(default_factory=dict)  # settings for all engines
    running: list[Program] = field(default_factory=list)

    @property
    def python(self) -> str:
        """The Python that sees what was carried here."""
        return sys.executable

    def checkpoint(self, name: str) -> Path:
        """Return where a checkpoint is, whether or not it is there."""
        return self.folder / "checkpoints" / name

    def environment(self) -> dict[str, str]:
        """Return what programs inherit: this process's variables, and the lasting caches."""
        mine = {k: v for k, v in os.environ.items() if not k.startswith("APPLIANCE_")}
        caches = {name: str(self.folder / "cache" / sub) for name, sub in CACHES.items()}
        # FlashInfer's sampler would be compiled for minutes, and is not what is shown here
        return mine | caches | {"VLLM_USE_FLASHINFER_SAMPLER": "0"}

    def settings(self, checkpoint: str, **chosen: Any) -> Settings:
        """Return the appliance's settings for an engine over this checkpoint."""
        return load_settings({}, self.overrides(checkpoint, **chosen))

    def overrides(self, checkpoint: str, **chosen: Any) -> dict[str, Any]:
        """Return what differs from the profile: where things are, and kernels for this GPU."""
        here: dict[str, Any] = {
            "profile": "demo" if self.on_cpu else "spark",
            "model_dir": self.checkpoint(checkpoint),
            "engine_command": self.engine,
            "max_num_seqs": 4,
        }
        if not self.on_cpu:
            here |= {"attention_backend": "TRITON_ATTN"}
        # the CPU engine knows neither these kernels nor an FP8 cache
        foreign = ("kv_cache_dtype", "attention_backend", "moe_backend") if self.on_cpu else ()
        given = {name: value for name, value in chosen.items() if name not in foreign}
        return here | dict(self.chosen) | given

    def start_engine(
        self, name: str, checkpoint: str, extra: Sequence[str] = (), *, alone: bool = True,
        variables: Mapping[str, str] | None = None, **chosen: Any,
    ) -> tuple[Program, LaunchPlan]:  # fmt: skip
        """Start an engine by the appliance's own plan, and return at once.

        ``alone`` False: several share this machine, so each takes what it is told, and the plan
        for a whole machine is not asked. ``extra`` and ``variables`` come last, so they win.
        """
        settings = self.settings(checkpoint, **chosen)
        memory = self._memory(settings) if alone else None
        key = secrets.token_hex(16)
        plan = plan_launch(
            settings, find_extras(), memory, port=free_port(), api_key=key,
            base_env=self.environment(),
        )  # fmt: skip
        env = dict(plan.env) | {"TMPDIR": os.environ.get("TMPDIR", "/tmp")} | dict(variables or {})
        program = self.start(name, [*plan.argv, *extra], env)
        program.base_url, program.key = plan.base_url, key
        return program, plan

    def start_appliance(self, name: str, settings: Mapping[str, Any]) -> Program:
        """Start ``appliance run`` with these settings, and return once it listens."""
        state = self.logs / f"{name}.state"
        shutil.rmtree(state, ignore_errors=True)
        chosen = {"state_dir": state, "port": 0, "failed_key_delay_s": 0, **settings}
        variables = {f"APPLIANCE_{k.upper()}": as_text(v) for k, v in chosen.items()}
        command = "import sys; from appliance.cli import main; sys.exit(main())"
        program = self.start_own(name, ["-c", command, "run"], state, variables)
        program.key = (state / "api_key").read_text().strip()
        return program

    def start_own(
        self, name: str, arguments: Sequence[str], state: Path, variables: Mapping[str, str]
    ) -> Program:
        """Start a Python program of this project; return once it says in state/address where."""
        path = f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"
        env = self.environment() | dict(variables) | {"PYTHONPATH": path}
        program = self.start(name, [self.python, *arguments], env)
        deadline = time.monotonic() + LISTENS_S
        while not (state / "address").exists():
            if program.process.poll() is not None or time.monotonic() > deadline:
                raise NotReady(f"{name} does not listen: {program.tail()[-500:]}")
            time.sleep(0.05)
        program.base_url = (state / "address").read_text().strip()
        return program

    def start(self, name: str, argv: Sequence[str], env: Mapping[str, str]) -> Program:
        """Start a program in a process group of its own, its output in a log."""
        self.logs.mkdir(parents=True, exist_ok=True)
        log = self.logs / f"{name}.log"
        with log.open("ab") as output:
            output.write(f"$ {' '.join(argv)}\n".encode())
            output.flush()
            process = subprocess.Popen(
                list(argv), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env=dict(env), cwd=self.logs, start_new_session=True,
            )  # fmt: skip
        program = Program(name, process, log)
        self.running.append(program)
        return program

    def end_all(self) -> None:
        """End whatever still runs, all at the same time."""
        for program in self.running:
            with suppress(ProcessLookupError):
                os.killpg(program.process.pid, signal.SIGTERM)
        while self.running:
            self.running.pop().end()
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def processes(self, name: str = "") -> list[int]:
        """Return what of any run is alive, of those whose title holds ``name``, but for us.

        They are known by the folder that they were started in: an engine's cores overwrite their
        titles and their environment.
        """
        logs = self.folder / "logs"
        found = [pid for pid, title in processes() if name in title]
        return [pid for pid in found if pid != os.getpid() and logs in working_folder(pid).parents]

    def tails(self) -> dict[str, str]:
        """Return the ends of the logs of what runs."""
        return {program.name: program.tail() for program in self.running}

    def _memory(self, settings: Settings) -> MemoryPlan | None:
        """Return the plan of the whole machine, None where it has no room for one."""
        try:
            facts = read_model_facts(settings.model_dir)
            return plan_memory(settings, observe((), settings.cgroup_base), facts)
        except ApplianceError as cause:
            print(f"  no memory plan, the engine sizes itself: {cause}", flush=True)
            return None


def as_text(value: Any) -> str:
    """Return a setting as its variable has it."""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, (tuple, list)):
        return shlex.join(map(str, value))
    return json.dumps(value) if isinstance(value, dict) else str(value)


def processes() -> list[tuple[int, str]]:
    """Return (pid, title) of everything alive."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            stat = (entry / "stat").read_text().rpartition(")")[2].split()
            title = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if stat[0] not in "ZX":
            found.append((int(entry.name), title))
    return found


def working_folder(pid: int) -> Path:
    """Return the folder that a process works in; / where it is not to be seen."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink()
    except OSError:
        return Path("/")


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process's threads have taken, to the nanosecond."""
    total = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def machine_facts() -> Facts:
    """Return what this machine is: GPU, driver, CPUs, memory, versions."""
    found: Facts = {"uname": " ".join(os.uname()), "cpus": os.cpu_count(), "python": sys.version}
    query = "--query-gpu=name,driver_version,memory.total,compute_cap"
    try:
        asked = subprocess.run(
            ["nvidia-smi", query, "--format=csv,noheader"],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        found["gpu"] = asked.stdout.strip()
    except (OSError, subprocess.TimeoutExpired) as cause:
        found["gpu"] = f"none: {cause}"
    names = ("MemTotal", "MemAvailable")
    lines = Path("/proc/meminfo").read_text().splitlines()
    found["memory"] = {n: line.split()[1] for line in lines for n in names if line.startswith(n)}
    return found
