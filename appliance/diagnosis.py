"""From an engine's last lines and its exit to a cause that a person can act on. Pure.

Also the redaction of engine lines: what is shown to people, or kept, never holds a key.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.lifecycle import Reason


@dataclass(frozen=True)
class Cause:
    """One known way to die: how it reads in the log, and what to type next."""

    code: str
    pattern: re.Pattern[str]
    what: str
    hint: str


def _cause(code: str, pattern: str, what: str, hint: str) -> Cause:
    return Cause(code, re.compile(pattern), what, hint)


# First match wins, so the particular stands before the general. Read on vLLM 0.32 and 0.33.
CAUSES = (
    _cause(
        "engine_port_taken",
        r"\[Errno 98\]|EADDRINUSE",
        "the engine's loopback port was taken by another process",
        "start again: a new port is picked for every start",
    ),
    _cause(
        "memory_short",
        r"Free memory on device .* is less than|is less than requested memory for kv"
        r"|exceed the desired GPU memory utilization",
        "less memory is free than the engine was told to take",
        "stop other programs, or lower APPLIANCE_GPU_MEMORY_UTILIZATION",
    ),
    _cause(
        "kv_cache_short",
        r"No available memory for the cache blocks|larger than the available KV cache memory"
        r"|max seq len .* is larger than the maximum number of tokens",
        "the KV cache does not hold one request of the chosen context",
        "lower APPLIANCE_MAX_MODEL_LEN, or raise APPLIANCE_GPU_MEMORY_UTILIZATION",
    ),
    _cause(
        "context_too_long",
        r"User-specified max_model_len .* is greater than",
        "the chosen context is longer than the checkpoint allows",
        "lower APPLIANCE_MAX_MODEL_LEN, or unset it: the checkpoint's own is taken",
    ),
    _cause(
        "out_of_memory",
        r"OutOfMemoryError|out of memory|NV_ERR_NO_MEMORY|Cannot allocate memory",
        "memory ran out",
        "lower APPLIANCE_GPU_MEMORY_UTILIZATION or APPLIANCE_MAX_MODEL_LEN; stop other programs",
    ),
    _cause(
        "bad_engine_flag",
        r"unrecognized arguments|error: argument |invalid choice:",
        "the engine does not know one of its flags",
        "appliance plan --shell shows the command; check APPLIANCE_ENGINE_EXTRA_ARGS",
    ),
    _cause(
        "bad_parser",
        r"has not been registered|(?:Reasoning|Tool) parser '.*' not found"
        r"|invalid (?:tool call|reasoning) parser",
        "a parser is not registered with this engine",
        "check APPLIANCE_REASONING_PARSER and APPLIANCE_TOOL_CALL_PARSER",
    ),
    _cause(
        "model_not_supported",
        r"Model architectures .* (?:are not supported|failed to be inspected)"
        r"|Unknown quantization method",
        "this vLLM does not know the checkpoint's architecture or quantization",
        "check APPLIANCE_MODEL_DIR, or install a vLLM that knows it",
    ),
    _cause(
        "bad_checkpoint",
        r"SafetensorError|no module or parameter named|weights were not initialized"
        r"|HeaderTooLarge|InvalidHeader|incomplete metadata",
        "the checkpoint's weights do not fit its config, or a shard is damaged",
        "check the files in APPLIANCE_MODEL_DIR against their source",
    ),
    _cause(
        "cuda_missing",
        r"No CUDA GPUs are available|CUDA driver version is insufficient|Found no NVIDIA driver"
        r"|Failed to infer device type",
        "the engine sees no GPU",
        "run nvidia-smi on the host; in Docker, check that the GPU is handed to the container",
    ),
    _cause(
        "import_failed",
        r"ModuleNotFoundError|ImportError",
        "the engine's Python installation is incomplete",
        "make engine installs the demo engine again; on a box, pull the image again",
    ),
)

# A key's value is a list, or quoted, or one word.
_SECRETS = (
    (re.compile(r"(?i)(bearer\s+)[^\s'\"]+"), r"\1(hidden)"),
    (
        re.compile(
            r"(?i)((?:api[-_]?key|token|secret|password|authorization)['\"]?\s*[=:]\s*)"
            r"(?:\[[^\]]*\]|'[^']*'|\"[^\"]*\"|[^\s'\",\]}]+)"
        ),
        r"\1(hidden)",
    ),
    (re.compile(r"\b(?:hf_|sk[-_])[A-Za-z0-9_-]{16,}"), "(hidden)"),
)
# vLLM's own words of lesser weight: an optional import that failed is no cause of death.
_HARMLESS = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d ")
# Python's last line of a traceback, or pydantic's second, which says what the first does not.
_EXCEPTION = re.compile(
    r"\b[\w.]*(?:Error|Exception|Interrupt)(?:: |$)|^\s*(?:Value error|Assertion failed), "
)
_ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def redact(line: str, secrets: Sequence[str] = ()) -> str:
    """Return ``line`` without terminal codes, ``secrets``, and whatever looks like a key."""
    line = _ANSI.sub("", line)
    for secret in filter(None, secrets):
        line = line.replace(secret, "(hidden)")
    for pattern, shown in _SECRETS:
        line = pattern.sub(shown, line)
    return line


def diagnose_exit(returncode: int, lines: Sequence[str], *, was_ready: bool) -> Reason:
    """Return why the child ended, from its return code (negative: the signal) and last lines."""
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    when = "while serving" if was_ready else "while loading"
    grave = [line for line in reversed(lines) if not _HARMLESS.search(line)]
    for cause in CAUSES:
        line = next((entry for entry in grave if cause.pattern.search(entry)), None)
        if line is not None:
            what = f"the engine ended {when} ({how}): {cause.what}. It said: {_clip(line)}"
            return Reason(cause.code, what, cause.hint)
    said = next((line for line in grave if _is_telling(line)), lines[-1] if lines else "nothing")
    what = f"the engine ended {when} ({how}). It said: {_clip(said)}"
    return Reason(
        "engine_died" if was_ready else "engine_died_loading",
        what,
        "appliance status --lines 50 shows its last lines; appliance start tries again",
    )


def _is_telling(line: str) -> bool:
    # the processes above the one that failed only point at it: "See root cause above."
    return bool(_EXCEPTION.search(line)) and "root cause" not in line


def _clip(line: str, width: int = 300) -> str:
    line = line.strip()
    return line if len(line) <= width else line[: width - 1] + "…"
