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


# What the engine's progress bars look like, and what it says when a phase begins
# (vLLM 0.26 to 0.33).
_BARS = (
    ("loading weights", re.compile(r"[Ll]oading .*?(\d{1,3})% Completed")),
    ("capturing graphs", re.compile(r"Capturing .*?(\d{1,3})%")),
    ("warming kernels", re.compile(r"warmup\b.*?(\d{1,3})%\|")),
)
_PHASES = (
    ("initialising", re.compile(r"Initializing a V1 LLM engine|Resolved architecture")),
    ("loading weights", re.compile(r"Starting to load model|Loading model from scratch")),
    ("weights loaded", re.compile(r"Loading weights took|Model loading took")),
    (
        "compiling",
        re.compile(r"torch\.compile|Dynamo bytecode|Compiling a graph|for the compilation"),
    ),
    ("measuring memory", re.compile(r"Available KV cache memory|GPU KV cache size|CPU KV cache")),
    ("capturing graphs", re.compile(r"Capturing CUDA graph|Graph capturing finished")),
    ("warming kernels", re.compile(r"init engine .* took|kernel warmup|Warming up")),
    ("opening the API", re.compile(r"Starting vLLM (?:API )?server|Application startup complete")),
)


def advance(progress: Progress, line: str) -> Progress:
    """Return the progress after the engine printed ``line``.

    A warning begins no phase: "Enforce eager set, disabling torch.compile" does not compile.
    """
    if " WARNING " in line:
        return progress
    for phase, pattern in _BARS:
        if match := pattern.search(line):
            return Progress(phase, min(int(match[1]), 100) / 100)
    for phase, pattern in _PHASES:
        if pattern.search(line):
            return progress if phase == progress.phase else Progress(phase)
    return progress
