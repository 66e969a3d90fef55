"""A fake vLLM server that misbehaves on demand.

    python tests/fakes/engine.py [FAULTS] serve MODEL [vLLM's flags] [FAULTS]

vLLM's flags are accepted and, but for a few, ignored. The faults of serving can be changed at
run time:

    POST /fake {"stall_after": 3}     the whole set; what is not named works ({}: all works);
                                      {"exit_code": 1, "exit_after": 0.5} ends the process;
                                      a negative code is a signal
    GET /fake/seen                    {"requests": [{method, path, headers, body, at}],
                                       "aborted": [{path, at, chunks}]}; DELETE forgets

Chunks are server-sent events. Moments are seconds of the system's monotonic clock.
"""

import argparse
import asyncio
import contextlib
import os
import shlex
import signal
import socket
import sys
import time
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script from anywhere

from tests.fakes.engine_api import FakeEngine, Faults
from tests.fakes.engine_http import Connection

DRAIN_S = 1.0  # how long SIGTERM lets running requests finish


def parse(argv: list[str]) -> argparse.Namespace:
    """Read the flags that mean something here; everything else is vLLM's business."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("model")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--served-model-name", nargs="+")
    parser.add_argument("--api-key", nargs="+")
    parser.add_argument("--max-model-len", type=int, default=8192)
    parser.add_argument("--max-num-seqs", type=int, default=64)
    start = parser.add_argument_group("faults of the process")
    start.add_argument("--ready-after", type=float, default=0.0, metavar="S")
    start.add_argument("--busy-load", type=float, default=0.0, metavar="S", help="as a compile")
    start.add_argument("--never-ready", action="store_true")
    start.add_argument("--exit-code", type=int, metavar="N", help="negative: a signal")
    start.add_argument("--exit-after", type=float, default=0.0, metavar="S")
    start.add_argument("--deaf-to-sigterm", action="store_true")
    start.add_argument("--deaf-until-ready", action="store_true", help="as the real one is")
    start.add_argument(
        "--drain-forever", action="store_true", help="as vLLM with a whole request in flight"
    )
    start.add_argument("--fork-grandchild", action="store_true")
    start.add_argument("--shared-memory", action="store_true", help="a segment, as vLLM's cores")
    start.add_argument("--log-lines", type=Path, metavar="FILE", help="'E ' in front: to stderr")
    start.add_argument(
        "--lives", type=Path, metavar="FILE", help="each life takes a line of faults off FILE"
    )
    serving = parser.add_argument_group("faults of serving, as in POST /fake")
    serving.add_argument("--stall-after", type=int, metavar="N")
    serving.add_argument("--stall-s", type=float, metavar="S", help="one long step; else for good")
    serving.add_argument("--tear-after", type=int, metavar="N")
    serving.add_argument("--error-after", type=int, metavar="N", help="as when EngineCore dies")
    serving.add_argument("--slow-head", type=float, default=0.0, metavar="S")
    serving.add_argument("--silent-prefill", type=float, default=0.0, metavar="S")
    serving.add_argument("--garbage", action="store_true")
    serving.add_argument("--gibberish", action="store_true", help="/v1 speaks no HTTP")
    serving.add_argument("--deaf", action="store_true", help="accepts, and answers nothing")
    serving.add_argument("--health-status", type=int, default=200, metavar="N")
    serving.add_argument("--chunk-delay", type=float, default=0.0, metavar="S")
    options, _ignored = parser.parse_known_args(argv)
    return options


def faults_of_this_life(path: Path) -> list[str]:
    """Take the first line of faults off the file: none left, none added."""
    mine, _, rest = path.read_text().partition("\n")
    path.write_text(rest)
    return shlex.split(mine)


def load_busily(seconds: float) -> None:
    """Compute without a word, as a compile does."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


def fork_grandchild() -> None:
    """Leave a process in our group that holds stdout and stderr and ignores SIGTERM."""
    if (pid := os.fork()) == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        while True:
            signal.pause()
    print(f"grandchild {pid}", flush=True)


def share_memory() -> SharedMemory:
    """Take a segment of shared memory, with the helper process that removes it if we do not."""
    segment = SharedMemory(create=True, size=4096)
    print(f"segment {segment.name.lstrip('/')}", flush=True)
    return segment


def print_log_lines(path: Path) -> None:
    """Print what an engine would say while it loads."""
    for line in path.read_text().splitlines():
        stream = sys.stderr if line.startswith("E ") else sys.stdout
        print(line.removeprefix("E "), file=stream, flush=True)


def bind(host: str, port: int) -> socket.socket:
    """Bind without listening, as vLLM does while it loads: clients are refused."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, port))
    return sock


class Process:
    """The fake engine as a process: when it listens, and how it ends."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        keys = options.api_key or [os.environ.get("VLLM_API_KEY", "")]
        self.engine = FakeEngine(
            options.served_model_name or [options.model],
            options.model,
            [key for key in keys if key],
            options.max_model_len,
            options.max_num_seqs,
        )
        self.engine.faults = Faults(**{name: vars(options)[name] for name in vars(Faults())})
        self.engine.post_exit = self.exit_later
        self.asked_to_stop = asyncio.Event()

    async def run(self) -> None:
        """Load, listen, serve until told to stop."""
        loop, options = asyncio.get_running_loop(), self.options
        for number in (signal.SIGTERM, signal.SIGINT):
            if options.deaf_to_sigterm or options.deaf_until_ready:
                signal.signal(number, signal.SIG_IGN)
        sock = bind(options.host, options.port)
        if options.exit_code is not None:
            self.exit_later(options.exit_code, options.exit_after)
        await asyncio.sleep(options.ready_after)
        if options.never_ready:
            await asyncio.Event().wait()
        if not options.deaf_to_sigterm:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self.asked_to_stop.set)
        engine = self.engine
        await loop.create_server(lambda: Connection(engine.handle, engine.aborted), sock=sock)
        print("INFO:     Application startup complete.", file=sys.stderr, flush=True)
        await self.asked_to_stop.wait()
        await self.drain()

    async def drain(self) -> None:
        """End the running streams with ``abort``, as vLLM does; give up on those that stall."""
        self.engine.stopping = True
        with contextlib.suppress(TimeoutError):
            limit_s = None if self.options.drain_forever else DRAIN_S
            await asyncio.wait_for(self.engine.idle.wait(), limit_s)

    def exit_later(self, code: int, after_s: float) -> None:
        """End the process, without a word, in ``after_s`` seconds."""
        asyncio.get_running_loop().call_later(after_s, end_now, code)


def end_now(code: int) -> None:
    """End the process with this code; a negative one is the signal that ends it."""
    if code < 0:
        os.kill(os.getpid(), -code)
    os._exit(code)


def main() -> None:
    """Run the fake engine."""
    options = parse(sys.argv[1:])
    if options.lives is not None:
        options = parse([*faults_of_this_life(options.lives), *sys.argv[1:]])
    if options.fork_grandchild:
        fork_grandchild()  # before any socket is there to be inherited
    if options.log_lines is not None:
        print_log_lines(options.log_lines)
    segment = share_memory() if options.shared_memory else None
    load_busily(options.busy_load)
    asyncio.run(Process(options).run())
    if segment is not None:
        segment.close()
        segment.unlink()


if __name__ == "__main__":
    main()
