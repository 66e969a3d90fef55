"""What can be read of the engine and its machine from outside: progress, power, memory."""

import asyncio
import contextlib
import math
import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.host import counts
from appliance.upstream import Upstream

READ_S = 5.0
_KILLED_S = 1.0
_LOAD = (b"vllm:num_requests_running", b"vllm:num_requests_waiting")
# While a prompt is read in pieces and no other request is there, vLLM's token counters stand
# still until the first token. Its share of KV blocks in use grows with each piece.
_PROGRESS = (
    b"vllm:iteration_tokens_total_count",
    b"vllm:generation_tokens_total",
    b"vllm:prompt_tokens_total",
    b"vllm:kv_cache_usage_perc",
)


@dataclass(frozen=True)
class EngineCounters:
    """``load``: requests running and waiting; ``heartbeat`` differs when there was progress."""

    load: int
    heartbeat: tuple[float, ...]


async def read_counters(upstream: Upstream, within_s: float = READ_S) -> EngineCounters | None:
    """Ask the engine for its counters; None when it does not answer in time, or with no such."""
    try:
        async with asyncio.timeout(within_s):
            text = await upstream.metrics()
    except TimeoutError:
        return None
    return parse_counters(text)


def parse_counters(text: bytes) -> EngineCounters | None:
    """Return the counters in Prometheus text, summed over label sets; None if there is none."""
    sums = sums_of(text, (*_LOAD, *_PROGRESS))
    if not sums:
        return None
    load = sum(sums.get(name, 0.0) for name in _LOAD)
    return EngineCounters(int(load), tuple(sums.get(name, 0.0) for name in _PROGRESS))


def sums_of(text: bytes, names: Collection[bytes]) -> dict[bytes, float]:
    """Return the named samples in Prometheus text, summed over label sets; absent is not there.

    Lines are matched, not parsed: this runs each second or two, over some thousand lines.
    """
    sums: dict[bytes, float] = {}
    for line in text.split(b"\n"):
        if not line.startswith(b"vllm:"):
            continue
        name = line.partition(b"{")[0].partition(b" ")[0]
        value = finite(line.rpartition(b" ")[2]) if name in names else None
        if value is not None:
            sums[name] = sums.get(name, 0.0) + value
    return sums


async def read_power_w(program: str = "nvidia-smi", within_s: float = READ_S) -> float | None:
    """Return what all GPUs draw, in watts; None where that cannot be read."""
    argv = (program, "--query-gpu=power.draw", "--format=csv,noheader,nounits")
    text = await asyncio.to_thread(output_of, argv, within_s)
    watts = [finite(line) for line in text.split(b"\n") if line.strip()]
    known = [value for value in watts if value is not None]
    # A sum that lacks a GPU would pass for a low one.
    return sum(known) if known and len(known) == len(watts) else None


def oom_kills(path: Path = Path("/proc/vmstat")) -> int:
    """Return how many processes the kernel killed for memory since boot; 0 if not readable."""
    return counts(path).get("oom_kill", 0)


def output_of(argv: Sequence[str], within_s: float) -> bytes:
    """Return what a program prints; b"" if it fails, or does not end in time.

    Not ``subprocess.run``: after its timeout it waits for the killed program without end, and
    one that asks a hung driver does not die.
    """
    quiet = subprocess.DEVNULL
    try:
        process = subprocess.Popen(argv, stdin=quiet, stdout=subprocess.PIPE, stderr=quiet)
    except OSError:
        return b""
    try:
        output, _ = process.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_KILLED_S)
        if process.stdout:
            process.stdout.close()
        return b""
    return output if process.returncode == 0 else b""


def finite(text: bytes) -> float | None:
    """Return the number; None for "[N/A]", and for NaN, which would differ from itself."""
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None
