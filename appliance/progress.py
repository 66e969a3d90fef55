"""Loading progress, read from the engine's own log lines. Pure."""

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where a start stands: a phase for people, and how far into it, 0 to 1 where known."""

    phase: str = "starting"
    fraction: float | None = None

    def __str__(self) -> str:
        return self.phase if self.fraction is None else f"{self.phase} {self.fraction:.0%}"


_SHARDS = re.compile(r"Loading.*?(\d{1,3})%")
_GRAPHS = re.compile(r"Capturing (?:CUDA|XPU|decode)?.*?(\d{1,3})%")

# What the engine says when a phase begins (vLLM 0.26 to 0.33).
_PHASES = (
    ("initialising", re.compile(r"Initializing a V1 LLM engine|Resolved architecture")),
    ("loading weights", re.compile(r"Starting to load model|Loading model from scratch")),
    ("weights loaded", re.compile(r"Loading weights took|Model loading took")),
    ("compiling", re.compile(r"torch\.compile|Dynamo bytecode|Compiling a graph|JIT")),
    ("measuring memory", re.compile(r"Available KV cache memory|GPU KV cache size|CPU KV cache")),
    ("capturing graphs", re.compile(r"Capturing CUDA graph|Graph capturing finished")),
    ("warming kernels", re.compile(r"init engine .* took|warmup|Warming up", re.IGNORECASE)),
    ("opening the API", re.compile(r"Starting vLLM (?:API )?server|Application startup complete")),
)


def advance(progress: Progress, line: str) -> Progress:
    """Return the progress after the engine printed ``line``."""
    if match := _GRAPHS.search(line):
        return Progress("capturing graphs", _fraction(match[1]))
    if "shards" in line and (match := _SHARDS.search(line)):
        return Progress("loading weights", _fraction(match[1]))
    for phase, pattern in _PHASES:
        if pattern.search(line):
            return progress if phase == progress.phase else Progress(phase)
    return progress


def _fraction(percent: str) -> float:
    return min(int(percent), 100) / 100
