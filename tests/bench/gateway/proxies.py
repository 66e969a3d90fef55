"""The proxies under measurement: how each is started, stopped, and kept out of the others' runs."""

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import IO

from tests.bench.gateway.bodies import MODEL
from tests.bench.gateway.load import PROXY_CORE, pin

ROOT = Path(__file__).resolve().parents[3]
KEY = "sk-" + "0123456789abcdef" * 4  # LiteLLM refuses a weaker one
OPERATOR_KEY = "bench-operator-key"
READY_WITHIN_S = 120.0
NGINX_PROGRAM = "nginx/usr/sbin/nginx"
FLOOR = Path(__file__).with_name("floor.py")
APPLIANCE = "import sys; from appliance.cli import main; sys.exit(main())"
DISTRIBUTION = "/usr/bin/python3"
OURS = f"{sys.version_info.major}.{sys.version_info.minor}"
PAGE = os.sysconf("SC_PAGE_SIZE")

NGINX = """
daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log crit; worker_processes 1; {user}
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  upstream engine {{ server 127.0.0.1:{engine}; keepalive 512; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    keepalive_requests 1000000; client_max_body_size 64m; client_body_buffer_size 8m;
    location / {{
      proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_request_buffering off; proxy_read_timeout 600;
    }}
  }}
}}
"""

LITELLM = """
model_list:
  - model_name: {model}
    litellm_params:
      {{model: hosted_vllm/{model}, api_base: "http://127.0.0.1:{engine}/v1", api_key: none}}
general_settings: {{master_key: {key}, background_health_checks: false}}
litellm_settings: {{telemetry: false, num_retries: 0}}
"""


@cache
def interpreter() -> str:
    """Return the Python that runs the appliance, and LiteLLM.

    It is the distribution's, as in the image, where that is of the version which our libraries
    were installed for. One that was built without profile-guided optimisation, as pyenv builds it,
    takes 1.4 times as long for everything.
    """
    asked = [DISTRIBUTION, "-c", "import sys; print(*sys.version_info[:2], sep='.')"]
    try:
        found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return sys.executable
    return DISTRIBUTION if found == OURS else sys.executable


def libraries(environment: Path) -> str:
    """Return where an environment of our version of Python keeps its libraries."""
    return str(environment / f"lib/python{OURS}/site-packages")


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Proxy:
    """One running proxy. ``port`` 0 is none: the client asks the engine itself."""

    name: str
    port: int = 0
    process: subprocess.Popen[bytes] | None = None
    health: str = ""
    log: Path = Path()
    files: list[IO[bytes]] = field(default_factory=list)

    def pids(self) -> list[int]:
        """Return the process and all its descendants; none of one that ended."""
        if self.process is None or self.process.poll() is not None:
            return []
        parents = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    after_name = (entry / "stat").read_text().rpartition(")")[2]
                except OSError:
                    continue
                parents[int(entry.name)] = int(after_name.split()[1])
        found = {self.process.pid}
        while more := {pid for pid, parent in parents.items() if parent in found} - found:
            found |= more
        return sorted(found)

    def rss_bytes(self) -> int:
        """Return the resident memory of all its processes."""
        pages = 0
        for pid in self.pids():
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * PAGE

    def resume(self, *, real_time: bool) -> None:
        """Let it run, alone on its core, and wait until it answers."""
        for pid in self.pids():
            os.kill(pid, signal.SIGCONT)
            pin(pid, PROXY_CORE, real_time=real_time)
        self.wait()

    def suspend(self) -> None:
        """Stop it where it is: its timers must not disturb the others' runs."""
        for pid in self.pids():
            os.kill(pid, signal.SIGSTOP)

    def wait(self) -> None:
        """Wait until its health route answers 200. Raises RuntimeError."""
        end = time.monotonic() + READY_WITHIN_S
        while self.process is not None:
            if self.process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"{self.name} does not answer:\n{self.tail()}")
            if _answers(f"http://127.0.0.1:{self.port}{self.health}"):
                return
            time.sleep(0.05)

    def tail(self) -> str:
        """Return the last that it said."""
        return self.log.read_text(errors="replace")[-1500:] if self.process else ""

    def end(self) -> None:
        """End it and its children."""
        if self.process is None:
            return
        pids = self.pids()
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
        self.process.terminate()
        try:
            self.process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        for file in self.files:
            file.close()


def _answers(url: str) -> bool:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {KEY}"})
    try:
        with urllib.request.urlopen(request, timeout=5) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


class Starter:
    """Starts proxies in front of the engine at ``engine`` (a port), their files in ``folder``."""

    def __init__(
        self, engine: int, tools: Path, folder: Path, settings: Mapping[str, str], tree: Path = ROOT
    ) -> None:
        self._engine = engine
        self._tree = tree
        self._tools = tools
        self._folder = folder
        self._settings = settings

    def start(self, name: str, code: str = APPLIANCE) -> Proxy:
        """Start one by name and wait until it answers; ``code`` is what the appliance runs."""
        make = {
            "direct": lambda: Proxy("direct"),
            "nginx": self._nginx,
            "vllm-router": self._router,
            "litellm": self._litellm,
            "floor": self._floor,
        }
        proxy = make[name]() if name in make else self._appliance(name, code)
        proxy.wait()
        return proxy

    def _spawn(
        self, name: str, argv: list[str], port: int, health: str, env: Mapping[str, str]
    ) -> Proxy:
        folder = self._folder / name
        folder.mkdir(parents=True, exist_ok=True)
        log = folder / "out.log"
        file = log.open("wb")
        clean = {k: v for k, v in os.environ.items() if not k.startswith("APPLIANCE_")}
        process = subprocess.Popen(
            argv,
            env={**clean, **env},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            cwd=folder,
            start_new_session=True,
        )
        pin(process.pid, PROXY_CORE, real_time=False)
        return Proxy(name, port, process, health, log, [file])

    def _nginx(self) -> Proxy:
        port = free_port()
        folder = self._folder / "nginx"
        folder.mkdir(parents=True, exist_ok=True)
        user = "user root;" if os.geteuid() == 0 else ""
        config = folder / "nginx.conf"
        config.write_text(NGINX.format(folder=folder, engine=self._engine, port=port, user=user))
        argv = [str(self._tools / NGINX_PROGRAM), "-p", str(folder), "-c", str(config)]
        return self._spawn("nginx", argv, port, "/health", {})

    def _router(self) -> Proxy:
        port = free_port()
        engine = f"http://127.0.0.1:{self._engine}"
        argv = [str(self._tools / "venv/bin/vllm-router"), "--worker-urls", engine]
        argv += ["--port", str(port), "--policy", "round_robin", "--log-level", "warning"]
        argv += ["--max-concurrent-requests", "1024", "--prometheus-port", str(free_port())]
        argv += ["--disable-circuit-breaker", "--max-payload-size", str(64 * 2**20)]
        return self._spawn("vllm-router", argv, port, "/health", {})

    def _litellm(self) -> Proxy:
        port = free_port()
        folder = self._folder / "litellm"
        folder.mkdir(parents=True, exist_ok=True)
        config = folder / "config.yaml"
        config.write_text(LITELLM.format(model=MODEL, engine=self._engine, key=KEY))
        venv = self._tools / "venv"
        argv = [interpreter(), str(venv / "bin/litellm"), "--config", str(config)]
        argv += ["--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        env = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR"}
        env["LITELLM_MODE"] = "PRODUCTION"
        env["PYTHONPATH"] = libraries(venv)
        return self._spawn("litellm", argv, port, "/health/liveliness", env)

    def _floor(self) -> Proxy:
        port = free_port()
        engine = f"http://127.0.0.1:{self._engine}"
        argv = [interpreter(), str(FLOOR), str(port), engine]
        env = {"PYTHONPATH": f"{self._tree}:{libraries(Path(sys.prefix))}"}
        return self._spawn("floor", argv, port, "/health", env)

    def _appliance(self, name: str, code: str) -> Proxy:
        folder = self._folder / name
        port = free_port()
        settings = {
            "profile": "demo",
            "engine": "attach",
            "engine_url": f"http://127.0.0.1:{self._engine}",
            "engine_key": "bench-engine-key",
            "api_key": KEY,
            "operator_key": OPERATOR_KEY,
            "served_model_name": MODEL,
            "max_num_seqs": "512",
            "port": str(port),
            "state_dir": str(folder / "state"),
            **self._settings,
        }
        env = {f"APPLIANCE_{key.upper()}": value for key, value in settings.items()}
        argv = [interpreter(), "-c", code, "run"]
        env["PYTHONPATH"] = f"{self._tree}:{libraries(Path(sys.prefix))}"
        return self._spawn(name, argv, port, "/health/ready", env)
