"""``make demo``: from a clone to a smoke-checked appliance over the real vLLM CPU engine."""

import argparse
import asyncio
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvloop

from appliance.demo.checkpoint import PROJECT, ensure_checkpoint
from appliance.demo.install import EngineEnv, ensure_engine
from appliance.engine import Snapshot
from appliance.errors import ApplianceError
from appliance.host import bind
from appliance.kilo import kilo_config
from appliance.logs import configure
from appliance.once import smoke_once, until_ready
from appliance.probes import GREETING
from appliance.serve import Running, serve
from appliance.settings import Settings, load_settings

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
HEARTBEAT_S = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Set up what is missing, then run; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except ApplianceError as error:
        print(f"demo: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("demo: stopped; make demo goes on from here", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="make demo",
        description="The appliance over the real vLLM CPU engine with a tiny MiniMax-M2 model.",
        epilog="make demo            serve until Ctrl-C\n"
        "make demo ONCE=1     run the smoke checks and exit with their status\n"
        "make demo PORT=9001  on another port",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--once", action="store_true", help="exit after the smoke checks")
    parser.add_argument("--setup", action="store_true", help="install and train, start nothing")
    parser.add_argument("--port", metavar="N", help="port on 127.0.0.1 (default 9000)")
    parser.add_argument("--folder", type=Path, default=PROJECT / ".demo", help="where all is kept")
    parser.add_argument(
        "--torch-index", default=TORCH_INDEX, help="where PyTorch's CPU build comes from"
    )
    return parser


def _run(options: argparse.Namespace) -> int:
    folder: Path = options.folder.resolve()
    engine = folder / "engine"
    settings = _settings(folder, engine / "bin" / "vllm", options.port)
    if not options.setup:
        bind(settings.host, settings.port).close()  # a taken port is said before minutes of set-up
    folder.mkdir(parents=True, exist_ok=True)
    env = _set_up(folder, engine, options.torch_index)
    if options.setup:
        return 0
    print(f"demo: the appliance's log is {folder / 'appliance.log'}", flush=True)
    with (folder / "appliance.log").open("a", encoding="utf-8") as log_file:
        configure("console", log_file)
        settings = _settings(folder, env.root / "bin" / "vllm", options.port)
        return uvloop.run(serve(settings, _once if options.once else _stay))


def _settings(folder: Path, vllm: Path, port: str | None) -> Settings:
    overrides = {
        "profile": "demo",
        "model_dir": folder / "checkpoint",
        "state_dir": folder / "state",
        "engine_command": (str(vllm),),
    }
    return load_settings(overrides=overrides | ({"port": port} if port else {}))


def _set_up(folder: Path, engine: Path, torch_index: str) -> EngineEnv:
    plugin = PROJECT / "unglitched_vllm" / "plugin"
    env = ensure_engine(engine, torch_index=torch_index, plugin=plugin, say=_say)
    ensure_checkpoint(folder / "checkpoint", env.python, _say)
    return env


def _say(text: str) -> None:
    print(f"demo: {text}", flush=True)


async def _once(running: Running) -> int:
    async with _telling(running):
        if not await until_ready(running):
            return 1
    return await smoke_once(running)


async def _stay(running: Running) -> int | None:
    if await _once(running) != 0:
        _say("a check failed: see above, and the log; still serving, Ctrl-C ends it")
    if not running.engine.snapshot.is_ready:
        return 1
    _greet(running)
    return None


class _telling:
    """Says how loading goes: each new phase, and a sign of life every few seconds."""

    def __init__(self, running: Running) -> None:
        self._engine = running.engine
        self._started = time.monotonic()
        self._said = ""

    async def __aenter__(self) -> None:
        self._forget = self._engine.listen(self._tell)
        self._beat = asyncio.create_task(self._beats())

    async def __aexit__(self, *_exc: object) -> None:
        self._forget()
        self._beat.cancel()

    def _tell(self, snapshot: Snapshot) -> None:
        text = f"engine {snapshot.state}" + (f": {snapshot.progress}" if snapshot.progress else "")
        if text != self._said:
            self._said = text
            self._say()

    def _say(self) -> None:
        _say(f"[{time.monotonic() - self._started:4.0f} s] {self._said}")

    async def _beats(self) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_S)
            self._say()


def _greet(running: Running) -> None:
    url, key = running.base_url, running.keys.client
    name = running.settings.served_model_name
    question = json.dumps({"model": name, "messages": [{"role": "user", "content": GREETING}]})
    block = kilo_config(url, name, running.engine.snapshot.max_model_len, key)
    print(
        f"\nServing {name} at {url}/v1\n\n"
        f"Ask it something:\n\n"
        f"  curl {url}/v1/chat/completions -H 'Authorization: Bearer {key}' \\\n"
        f"    -H 'Content-Type: application/json' -d '{question}'\n\n"
        f"Kilo Code: put this into ~/.config/kilo/kilo.jsonc\n\n{json.dumps(block, indent=2)}\n\n"
        f"Ctrl-C ends it.",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
