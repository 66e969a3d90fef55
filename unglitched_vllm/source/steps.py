"""The steps from a release to an engine, each skipped when its result is already there."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unglitched_vllm.source import enginejson, fetch, preflight, wheel
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.patches import Patch, apply
from unglitched_vllm.source.targets import Target, compile_environment, job_count, overruled
from unglitched_vllm.source.upstream import Artifact, Upstream

Say = Callable[[str], None]
TELLING_LINES = 10
_FAILED = re.compile(r"CMake Error|^\s*FAILED:|\berror: |ModuleNotFoundError|\bKilled\b")


@dataclass(frozen=True)
class Job:
    """One run: what is wanted, and where things lie. ``env`` is the caller's environment."""

    upstream: Upstream
    patches: tuple[Patch, ...]
    target: Target
    work: Path  # kept between runs: downloads, the patched tree, objects
    out: Path  # the wheel and ENGINE.json
    wheels: Path | None
    env: Mapping[str, str]
    say: Say

    def get(self, artifact: Artifact, command: Sequence[str]) -> Path:
        """Return a pinned file, saying where it came from."""
        path, fetched = fetch.obtain(artifact, self.work, self.wheels, command)
        self.say(f"{'fetched' if fetched else 'found'} {path} (sha256 as pinned)")
        return path

    def sdist(self) -> Path:
        """Return the release's source archive."""
        return self.get(self.upstream.sdist, fetch.sdist_command(self.upstream))

    def stock_wheel(self) -> tuple[Artifact, Path]:
        """Return the stock wheel of the target's machine."""
        machine = self.target.machine
        if machine not in self.upstream.wheels:
            raise SourceError(f"UPSTREAM pins no wheel for {machine}", "use --engine build")
        artifact = self.upstream.wheels[machine]
        return artifact, self.get(artifact, fetch.wheel_command(self.upstream, machine))


def engine_from_wheel(job: Job) -> Path:
    """Patch the stock wheel's Python; return the new wheel. Nothing is compiled."""
    artifact, stock = job.stock_wheel()
    patches = tuple(patch for patch in job.patches if patch.is_python)
    for patch in job.patches:
        if patch not in patches:
            job.say(f"left out, it needs --engine build: {patch.name}")
    if patches:
        made = wheel.repack(stock, job.out, epoch=job.upstream.epoch, patches=patches)
        job.say(f"patched: {', '.join(patch.name for patch in patches)}")
    else:
        made = wheel.copy(stock, job.out)
    enginejson.write(
        job.out,
        source="wheel",
        vllm=job.upstream.version,
        patches=patches,
        made_from=artifact,
        wheel=made,
        target=job.target.name,
    )
    return made


def engine_from_source(job: Job) -> Path:
    """Compile the patched source for the target; return the wheel. About an hour on a box."""
    preflight.check(job.upstream.needs, job.env)
    tree = patched_tree(job)
    raw = _compile(job, tree)
    made = wheel.repack(raw, job.out, epoch=job.upstream.epoch)
    enginejson.write(
        job.out,
        source="build",
        vllm=job.upstream.version,
        patches=job.patches,
        made_from=job.upstream.sdist,
        wheel=made,
        target=job.target.name,
        arch_list=job.target.arch_list,
    )
    return made


def patched_tree(job: Job) -> Path:
    """Return the source tree with every patch in, made anew if release or patches changed.

    The objects of an earlier build lie in it, so an unchanged tree is taken as it is.
    """
    folder = job.work / f"source-{job.target.name}"
    stamp = folder.with_suffix(".stamp")
    key = _key(job.upstream, job.patches)
    if folder.is_dir() and stamp.is_file() and stamp.read_text(encoding="ascii") == key:
        (tree,) = (path for path in folder.iterdir() if path.is_dir())
        job.say(f"found {tree}, patched")
        return tree
    sdist = job.sdist()
    stamp.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    tree = fetch.unpack(sdist, folder)
    apply(job.patches, tree)
    stamp.write_text(key, encoding="ascii")
    job.say(f"unpacked {tree}; patched: {', '.join(p.name for p in job.patches) or 'nothing'}")
    return tree


def _key(upstream: Upstream, patches: Sequence[Patch]) -> str:
    parts = (upstream.sdist.sha256, *(patch.sha256 for patch in patches))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _compile(job: Job, tree: Path) -> Path:
    env = _compile_env(job)
    raw = job.work / f"raw-{job.target.name}"
    shutil.rmtree(raw, ignore_errors=True)
    log = job.work / f"compile-{job.target.name}.log"
    job.say(f"compiling for {env['TORCH_CUDA_ARCH_LIST']}, {env['MAX_JOBS']} jobs; log: {log}")
    command = (sys.executable, "-m", "pip", "wheel", "-v", "--no-deps", "--no-build-isolation")
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            [*command, "--disable-pip-version-check", "--wheel-dir", str(raw), str(tree)],
            env=env,
            stdout=file,
            stderr=subprocess.STDOUT,
            check=False,
        )
    if done.returncode != 0:
        lines = telling(log.read_text(encoding="utf-8", errors="replace").splitlines())
        raise SourceError(
            f"vLLM did not compile (exit {done.returncode}):\n  | " + "\n  | ".join(lines),
            f"read {log}; run again to go on from here. Out of memory: MAX_JOBS=1",
        )
    (made,) = raw.glob("*.whl")
    return made


def telling(lines: Sequence[str]) -> list[str]:
    """Return the lines of a log that say what failed: pip puts a hundred of its own behind them."""
    first = next((at for at, line in enumerate(lines) if _FAILED.search(line)), -TELLING_LINES)
    return [line.strip() for line in lines[first:][:TELLING_LINES]]


def _compile_env(job: Job) -> dict[str, str]:
    note = overruled(job.env, job.target)
    if note:
        job.say(note)
    if shutil.which("ccache", path=job.env.get("PATH")) is None:
        job.say("no ccache here: a build after a small change takes as long as the first")
    version = job.upstream.version
    if job.patches:
        version = wheel.local_version(version, len(job.patches))
    jobs = job_count(_available_bytes(), len(os.sched_getaffinity(0)))
    return compile_environment(
        job.env, job.target, version=version, epoch=job.upstream.epoch, jobs=jobs
    )


def _available_bytes() -> int:
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0
