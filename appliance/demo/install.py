"""Set up the environment that the demo's engine runs in: vLLM for the CPU, from ``engine.lock``.

Standard library alone, in the appliance's own interpreter. The engine gets an environment of its
own because its packages and ours pin different versions of the same things.
"""

import argparse
import contextlib
import fcntl
import os
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from appliance.demo import envdir, piprun, preflight
from appliance.demo.envdir import EngineEnv, Stamp
from appliance.demo.piprun import Outcome, Progress, Say, Teller
from appliance.errors import ApplianceError, HostError

__all__ = ["EngineEnv", "ensure_engine"]

PROJECT: Final = Path(__file__).resolve().parents[2]
LOCK: Final = Path(__file__).with_name("engine.lock")
ROOT: Final = PROJECT / ".demo" / "engine"
PLUGIN: Final = PROJECT / "unglitched_vllm" / "plugin"
TORCH_INDEX: Final = "https://download.pytorch.org/whl/cpu"  # PyTorch's own; a setting's default

WAIT_DEADLINE_S: Final = piprun.STEP_DEADLINE_S  # for another setup of the same environment
POLL_S: Final = 0.5
# vLLM only warns when its kernels do not load, so this touches one of them. It also needs the shim.
LOAD: Final = (
    "from importlib.metadata import version; version('vllm'); "
    "from vllm.platforms import current_platform as here; here.import_kernels(); "
    "import torch; torch.ops._C.silu_and_mul"
)
LOAD_DEADLINE_S: Final = 300  # measured: 5 to 20 s on a busy machine; a cold disk takes longer
AGAIN: Final = "then run the same command again: it goes on from here"


@dataclass(frozen=True)
class Setup:
    """One setup of one environment: where, from what, and who is told."""

    env: EngineEnv
    lock: Path
    torch_index: str
    plugin: Path
    pins: dict[str, str]
    teller: Teller
    held_fd: int

    @property
    def log(self) -> Path:
        """All that pip printed, this time."""
        return self.env.root.parent / "install.log"

    @property
    def temporary(self) -> Path:
        """Where pip unpacks: on the disk whose free space was checked."""
        return self.env.root.parent / "install.tmp"

    def missing(self) -> list[str]:
        """Return the pinned packages that are not in place."""
        return envdir.missing(self.pins, envdir.installed(self.env.site_packages))

    def run(
        self, argv: Sequence[str], progress: Progress, deadline_s: float = piprun.STEP_DEADLINE_S
    ) -> Outcome:
        """Run one child of this setup, and tell how far it is."""
        return piprun.run(
            argv,
            environ=piprun.pip_environment(os.environ, self.temporary),
            log=self.log,
            progress=progress,
            present=lambda: len(self.pins) - len(self.missing()),
            teller=self.teller,
            keep_open=(self.held_fd,),
            deadline_s=deadline_s,
        )

    def pip(self, words: Sequence[str], progress: Progress) -> Outcome:
        """Run the environment's own pip, without dependencies and without building anything."""
        argv = [str(self.env.python), "-m", "pip", "install", "--no-deps", *words]
        return self.run(argv, progress)


def ensure_engine(
    root: Path,
    *,
    torch_index: str,
    plugin: Path,
    say: Say,
    tick: Say | None = None,
    lock: Path = LOCK,
) -> EngineEnv:
    """Return the engine's environment at ``root``, set up if it is not, or not as it should be.

    When its stamp is right this costs milliseconds and starts no process. Else it takes minutes
    and downloads 0.6 GB; an environment that was cut off, or made by hand, is completed. ``say``
    gets lines for people; ``tick``, for a terminal, a status to show in one changing line.

    Raises HostError: this machine cannot run the engine (all shortfalls at once, before anything
    is downloaded), pip failed (with its last lines), or ``root`` is something else.
    """
    env = EngineEnv(root.resolve())
    wanted = envdir.wanted_stamp(lock, plugin)
    if envdir.read_stamp(env) == wanted:
        return env
    try:
        env.root.parent.mkdir(parents=True, exist_ok=True)
        with only_setup(env.root.parent / "install.lock", say) as held_fd:
            if envdir.read_stamp(env) == wanted:
                return env  # the setup that we waited for was this one
            pins = envdir.read_lock(lock.read_text(encoding="utf-8"), os.uname().machine)
            pins["torch"] = envdir.TORCH
            teller = Teller(say, tick)
            _set_up(Setup(env, lock, torch_index, plugin, pins, teller, held_fd), wanted)
    except OSError as cause:
        raise HostError(
            f"the engine's environment cannot be set up at {env.root}: {cause}",
            f"make the folder writable, with room in it, {AGAIN}",
        ) from cause
    return env


def _set_up(setup: Setup, wanted: Stamp) -> None:
    """Bring an environment to its stamp, doing only what is missing."""
    start_s = time.monotonic()
    setup.log.unlink(missing_ok=True)
    shutil.rmtree(setup.temporary, ignore_errors=True)
    setup.temporary.mkdir()
    try:
        if envdir.read_stamp(setup.env).engine != wanted.engine:
            _packages(setup)
        # From here on the packages are right, and only the plug-in is open.
        envdir.write_stamp(setup.env, replace(wanted, plugin=""))
        setup.teller.say("setup: installing our vLLM plug-in")
        _plugin(setup)
        envdir.write_stamp(setup.env, wanted)
    finally:
        shutil.rmtree(setup.temporary, ignore_errors=True)
    setup.teller.say(f"setup: the engine is ready ({time.monotonic() - start_s:.0f} s)")


def _packages(setup: Setup) -> None:
    """Put the locked packages and the shim in place."""
    env, say = setup.env, setup.teller.say
    if shortfalls := preflight.preflight(preflight.gather(env.root)):
        raise cannot_run(shortfalls)
    if not envdir.usable(env):
        envdir.clear(env)
        envdir.write_stamp(env, Stamp())  # marks the folder as ours before it is anything
        say(f"setup: making a Python environment at {env.root}")
        made = setup.run([sys.executable, "-m", "venv", str(env.root)], Progress("setup", 0))
        _expect(setup, made, "the Python environment could not be made")
    envdir.write_stamp(env, Stamp())
    envdir.sweep(env.site_packages)
    _refuse_forbidden(env)
    if left := setup.missing():
        say(f"setup: {len(left)} of {len(setup.pins)} packages to install (log: {setup.log})")
    if "torch" in left:
        _torch(setup)
    if setup.missing():
        words = ["--only-binary", ":all:", "--require-hashes", "-r", str(setup.lock)]
        progress = Progress("setup 2/3, vLLM and its packages", len(setup.pins), done=1)
        done = setup.pip(words, progress)
        _expect(setup, done, "the engine's packages could not be installed")
    envdir.write_shim(env.site_packages)
    _refuse_forbidden(env)
    if left := setup.missing():
        raise HostError(
            f"pip ended well, but these packages are not in place: {', '.join(left)}",
            f"see {setup.log}, remove {env.root}, {AGAIN}",
        )
    _loads(setup)


def _torch(setup: Setup) -> None:
    """Install PyTorch's CPU build: from where pip looks anyway, or else from PyTorch's index.

    The package index has no "+cpu" builds, so this pin can never bring its CUDA build.
    """
    words = ["--only-binary", ":all:", f"torch=={envdir.TORCH}"]
    progress = Progress("setup 1/3, PyTorch for the CPU", len(setup.pins))
    done = setup.pip(words, progress)
    if done.not_found and setup.torch_index:
        setup.teller.say(f"setup: fetching PyTorch for the CPU from {setup.torch_index}")
        done = setup.pip(["--index-url", setup.torch_index, *words], progress)
    if done.not_found:
        asked = f"pip's own indexes and {setup.torch_index or '(no PyTorch index is set)'}"
        raise HostError(
            f"torch {envdir.TORCH} was not found: asked were {asked}",
            f"check the network (pip's words: {setup.log}), name an index that has it with "
            "--torch-index, or put its wheel into a folder and set PIP_FIND_LINKS to that, "
            f"{AGAIN}",
        )
    _expect(setup, done, "PyTorch could not be installed")


def _plugin(setup: Setup) -> None:
    """Install our plug-in; its build tools are in the lock, so nothing is downloaded."""
    words = ["--no-build-isolation", "--no-index", "--force-reinstall", str(setup.plugin.resolve())]
    done = setup.pip(words, Progress("setup 3/3, our vLLM plug-in", 0))
    _expect(setup, done, "our vLLM plug-in could not be installed")


def _loads(setup: Setup) -> None:
    """Load vLLM's kernels: a broken environment shows here, not at the engine's first request."""
    argv = [str(setup.env.python), "-c", LOAD]
    done = setup.run(argv, Progress("setup, loading vLLM's kernels", 0), LOAD_DEADLINE_S)
    _expect(setup, done, "vLLM is installed, but its kernels do not load here")


def _refuse_forbidden(env: EngineEnv) -> None:
    if found := envdir.forbidden(envdir.installed(env.site_packages)):
        raise HostError(
            f"the engine's environment has packages that a CPU must not get: {', '.join(found)}",
            f"remove {env.root}, {AGAIN}",
        )


def _expect(setup: Setup, outcome: Outcome, failed: str) -> None:
    """Raise HostError with the child's last lines, unless it ended well."""
    if outcome.code == 0:
        return
    last = "".join(f"\n    {line}" for line in outcome.tail)
    hint = piprun.hint_for(outcome.tail) or "read its last lines above"
    raise HostError(
        f"{failed} (exit code {outcome.code}):{last}",
        f"{hint} (all of it: {setup.log}), {AGAIN}",
    )


def cannot_run(shortfalls: Sequence[str]) -> HostError:
    """Return the error that carries every shortfall of this machine."""
    listed = "".join(f"\n  - {shortfall}" for shortfall in shortfalls)
    return HostError(
        f"this machine cannot run the demo's engine, and nothing was downloaded:{listed}",
        "do what each line says, then run the same command again",
    )


@contextlib.contextmanager
def only_setup(path: Path, say: Say) -> Iterator[int]:
    """Hold the lock on setups in this folder; yield its descriptor, for the children to share.

    The kernel frees it with the last process that has it, so a killed setup leaves no stale lock,
    and one whose pip lives on still keeps others out.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        deadline_s = time.monotonic() + WAIT_DEADLINE_S
        told_s = float("-inf")
        while not _locked(descriptor):
            now_s = time.monotonic()
            pid = os.pread(descriptor, 20, 0).decode().strip() or "unknown"
            if now_s >= deadline_s:
                raise HostError(
                    f"another setup (pid {pid}) has held {path} for {WAIT_DEADLINE_S} s",
                    f"see whether it is alive (ps {pid}), end it, {AGAIN}",
                )
            if now_s >= told_s + piprun.LINE_S:
                say(f"setup: another setup is running (pid {pid}), waiting")
                told_s = now_s
            time.sleep(POLL_S)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def check(env: EngineEnv, plugin: Path, say: Say) -> bool:
    """Say what this machine lacks and whether an install is needed; True: all is in place."""
    shortfalls = preflight.preflight(preflight.gather(env.root))
    for shortfall in shortfalls:
        say(f"short: {shortfall}")
    if not shortfalls:
        say("this machine can run the engine")
    wanted, found = envdir.wanted_stamp(LOCK, plugin), envdir.read_stamp(env)
    if found == wanted:
        say(f"the environment at {env.root} is in place")
    elif found.engine == wanted.engine:
        say(f"our plug-in has changed since the environment at {env.root} was set up")
    else:
        say(f"an install is needed: the environment at {env.root} is missing, unfinished or old")
    return not shortfalls and found == wanted


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m appliance.demo.install",
        description="Set up the environment that the demo's engine runs in: vLLM for the CPU, "
        "PyTorch's CPU build, and our plug-in. It takes some minutes, 0.6 GB of download and "
        "3 GB of disk. When all is in place it ends at once.",
        epilog="Packages come from where your pip is set to look (see `pip config list`). "
        "Exit codes: 0 in place; 1 it is not, and the message says why; 130 stopped by Ctrl-C.",
    )
    parser.add_argument(
        "--root", type=Path, default=ROOT, metavar="DIR", help="the environment (%(default)s)"
    )
    parser.add_argument(
        "--torch-index",
        default=TORCH_INDEX,
        metavar="URL",
        help="asked for PyTorch's CPU build when pip's own indexes do not have it; empty: do not "
        "ask (%(default)s)",
    )
    parser.add_argument(
        "--plugin", type=Path, default=PLUGIN, metavar="DIR", help="our vLLM plug-in (%(default)s)"
    )
    parser.add_argument(
        "--check",
        action="store_true",
        help="change nothing: say whether this machine can run it, and whether an install is "
        "needed (exit 0: all is in place; 1: not)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = _parser().parse_args(argv)
    console = piprun.Console(sys.stderr)
    try:
        if options.check:
            env = EngineEnv(options.root.resolve())
            return 0 if check(env, options.plugin, console.say) else 1
        env = ensure_engine(
            options.root,
            torch_index=options.torch_index,
            plugin=options.plugin,
            say=console.say,
            tick=console.tick,
        )
    except ApplianceError as error:
        console.say(f"error: {error}")
        return error.exit_code
    except KeyboardInterrupt:
        console.say(f"stopped; {AGAIN.removeprefix('then ')}")
        return 130
    print(env.python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
