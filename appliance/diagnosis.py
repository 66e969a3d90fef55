"""From an engine's last lines and its exit to a cause that a person can act on. Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from appliance.restart import Grade, Reason

_STOP_OTHERS = (
    "stop other programs: appliance plan tells what is short; "
    "APPLIANCE_MEMORY_PROFILE=safe asks less"
)


@dataclass(frozen=True)
class Cause:
    """One known way to die: how it reads in the log, and what to type next.

    ``while_serving`` says that it can end an engine that was ready. The others cannot: a request
    that names a missing file must not brick the box.
    """

    code: str
    grade: Grade
    phrases: tuple[re.Pattern[str], ...]
    what: str
    hint: str
    while_serving: bool = False

    def is_told_by(self, line: str) -> bool:
        """Whether ``line`` tells this cause."""
        return any(phrase.search(line) for phrase in self.phrases)


def _cause(
    code: str, grade: Grade, phrases: Sequence[str], what: str, hint: str, *, serving: bool = False
) -> Cause:
    return Cause(code, grade, tuple(map(re.compile, phrases)), what, hint, serving)


# A gap in a phrase is bounded: on a line of many beginnings an open one takes minutes.
OUT_OF_MEMORY = _cause(
    "out_of_memory",
    Grade.MEMORY,
    (
        r"CUDA out of memory(?:\. Tried to allocate [\d.]+ [KMGT]iB)?",
        r"OutOfMemoryError|\bMemoryError\b|out of memory|NV_ERR_NO_MEMORY|std::bad_alloc",
        r"Cannot allocate memory|CUBLAS_STATUS_ALLOC_FAILED|cudaErrorMemoryAllocation",
    ),
    "memory ran out",
    _STOP_OTHERS,
    serving=True,
)
# It says that, never why: whatever says why stands before it.
ENGINE_CORE_DIED = _cause(
    "engine_core_died",
    Grade.TRANSIENT,
    (
        r"EngineDeadError|EngineCore encountered (?:a fatal error|an issue)",
        r"Engine core process EngineCore(?:_DP\d+)? died unexpectedly",
        r"Engine core proc.{0,300} died|Worker proc.{0,300} died unexpectedly",
        r"Failed core proc\(s\): \{'",
        r"RPC call to (?:execute_model|sample_tokens) timed out",
    ),
    "its engine core died",
    "appliance status --lines 50 shows its last lines; it is tried again",
    serving=True,
)
ENGINE_KILLED = _cause(
    "engine_killed",
    Grade.TRANSIENT,
    (),  # told by the exit alone
    "something killed it",
    "who kills: a person, a container limit, or the kernel when memory is short "
    "(dmesg | grep -i oom tells)",
    serving=True,
)

# First match wins, so the particular stands before the general. Read on vLLM 0.32 and 0.33.
CAUSES = (
    _cause(
        "engine_port_taken",
        Grade.TRANSIENT,
        (r"\[Errno 98\]|EADDRINUSE",),
        "the engine's loopback port was taken by another process",
        "start again: a new port is picked for every start",
    ),
    _cause(
        "memory_short",
        Grade.MEMORY,
        (
            r"Free memory on device .{0,300} is less than",
            r"is less than requested memory for kv|exceed the desired GPU memory utilization",
        ),
        "less memory is free than the engine was told to take",
        _STOP_OTHERS,
    ),
    _cause(
        "kv_cache_short",
        Grade.MEMORY,
        (
            r"No available memory for the cache blocks",
            r"larger than the available KV cache memory",
            r"max seq len .{0,300} is larger than the maximum number of tokens",
        ),
        "the KV cache does not hold one request of the chosen context",
        "lower APPLIANCE_MAX_MODEL_LEN: appliance plan tells how many tokens fit",
    ),
    _cause(
        "context_too_long",
        Grade.PERMANENT,
        (r"User-specified max_model_len .{0,300} is greater than",),
        "the chosen context is longer than the checkpoint allows",
        "lower APPLIANCE_MAX_MODEL_LEN, or unset it: the checkpoint's own is taken",
    ),
    _cause(
        "ptxas_failed",
        Grade.PERMANENT,
        (
            r"ptxas fatal|not defined for option 'gpu-name'|PTXASError",
            r"`ptxas` failed with error code \d+",
        ),
        "the ptxas that Triton brings does not know this GPU",
        "set TRITON_PTXAS_PATH to CUDA's own, such as /usr/local/cuda/bin/ptxas",
        serving=True,
    ),
    _cause(
        "kernel_not_supported",
        Grade.PERMANENT,
        (
            r"no kernel image is available|cudaErrorNoKernelImageForDevice",
            r"device kernel image is invalid|PTX was compiled with an unsupported toolchain",
            r"\[FP4 gemm Runner\] Failed",
            r"(?i)\bsm_?\d+[a-z]? (?:is )?(?:not supported|unsupported)",
            r"(?i)not supported (?:on|for) sm_?\d+",
            r"is not supported for the current GPU",
        ),
        "a kernel has no code for this GPU",
        "choose another one: APPLIANCE_MOE_BACKEND=marlin, or another "
        "APPLIANCE_ATTENTION_BACKEND; or pull an image built for this GPU",
        serving=True,
    ),
    OUT_OF_MEMORY,
    _cause(
        "jit_failed",
        Grade.TRANSIENT,
        (
            r"Error building extension|Error compiling objects for extension|Ninja build failed",
            r"ninja: build stopped|ninja exited with status|nvcc fatal",
            r"No such file or directory: '(?:[\w./-]*/)?(?:ninja|nvcc|gcc|g\+\+|c\+\+|cc)'",
        ),
        "a kernel could not be built on this machine",
        "it is tried again; if it stays, empty the engine's caches (~/.cache/flashinfer, "
        "~/.cache/vllm) and check that nvcc and ninja run",
        serving=True,
    ),
    _cause(
        "bad_engine_flag",
        Grade.PERMANENT,
        (
            r"unrecognized arguments|error: argument |invalid choice:|ambiguous option:",
            r"error: the following arguments are required|TypeError: Error: --",
        ),
        "the engine does not know one of its flags",
        "appliance plan --shell shows the command; check APPLIANCE_ENGINE_EXTRA_ARGS",
    ),
    _cause(
        "bad_tokenizer",
        Grade.PERMANENT,
        (
            r"Can't load tokenizer for|Couldn't instantiate the backend tokenizer",
            r"Unable to load vocabulary from file|variant of untagged enum ModelWrapper",
            r"Tokenizer class .{0,300} does not exist",
            r"could not locate .{0,300}tokens? in the tokenizer",
            r"(?i)tokenizer.{0,300} mismatch|vocab size mismatch",
        ),
        "the tokenizer does not fit the checkpoint or the parsers",
        "check the tokenizer's files in APPLIANCE_MODEL_DIR against their source",
    ),
    _cause(
        "engine_file_missing",
        Grade.PERMANENT,
        (
            r"chat template path doesn't exist|looks like a file path, but it failed to be opened",
            r"does not appear to have a file named",
            # what multiprocessing misses as it is torn down is no cause
            r"FileNotFoundError(?!.{0,300}(?:'/psm_|'/mp-|'/sem\.|/dev/shm/|'/tmp/|\.sock'))",
        ),
        "a file that the engine was pointed at is not there",
        "check the named file; appliance plan --shell shows every path that the engine is given",
    ),
    _cause(
        "bad_parser",
        Grade.PERMANENT,
        (
            r"has not been registered|(?:Reasoning|Tool) parser '.{0,300}' not found",
            r"invalid (?:tool call|reasoning) parser",
        ),
        "a parser is not registered with this engine",
        "check APPLIANCE_REASONING_PARSER and APPLIANCE_TOOL_CALL_PARSER",
    ),
    _cause(
        "model_not_supported",
        Grade.PERMANENT,
        (
            r"Model architectures .{0,300} (?:are not supported|failed to be inspected)",
            r"Unknown quantization method|Quantization method specified in the model config",
            r"is not supported for quantization|quantization is currently not supported in",
        ),
        "this vLLM does not know the checkpoint's architecture or quantization",
        "check APPLIANCE_MODEL_DIR, or install a vLLM that knows it",
    ),
    _cause(
        "bad_checkpoint",
        Grade.PERMANENT,
        (
            r"SafetensorError|no module or parameter named|weights were not initialized",
            r"HeaderTooLarge|InvalidHeader|incomplete metadata|Attempted to load weight \(",
        ),
        "the checkpoint's weights do not fit its config, or a shard is damaged",
        "check the files in APPLIANCE_MODEL_DIR against their source",
    ),
    _cause(
        "cuda_missing",
        Grade.PERMANENT,
        (
            r"No CUDA GPUs are available|CUDA driver version is insufficient",
            r"Found no NVIDIA driver|Failed to infer device type|no CUDA-capable device",
            r"libcuda\.so\.1: cannot open shared object file",
        ),
        "the engine sees no GPU",
        "run nvidia-smi on the host; in Docker, check that the GPU is handed to the container",
    ),
    _cause(
        "import_failed",
        Grade.PERMANENT,
        (r"ModuleNotFoundError|ImportError",),
        "the engine's Python installation is incomplete",
        "make setup installs the demo engine again; on a box, pull the image again",
    ),
    _cause(
        "gpu_fault",
        Grade.TRANSIENT,
        (
            r"CUDA error: (?:an illegal (?:memory access|instruction) was encountered"
            r"|device-side assert triggered|misaligned address|unspecified launch failure)",
            r"CUDA error:|CUBLAS_STATUS_EXECUTION_FAILED|CUDNN_STATUS_EXECUTION_FAILED",
        ),
        "the GPU reported a fault",
        "it is tried again; dmesg | grep -i xid tells whether the driver saw it",
        serving=True,
    ),
    ENGINE_CORE_DIED,
    ENGINE_KILLED,
)

# Phrases without a gap hold no value: they may be shown even where all else is hidden.
_FIXED = tuple(
    phrase
    for cause in CAUSES
    if cause.while_serving
    for phrase in cause.phrases
    if not re.search(r"\.\{|\\w", phrase.pattern)
)
# vLLM's own words of lesser weight: an optional import that failed is no cause of death.
_HARMLESS = re.compile(r"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d |^\S+:\d+: \w*Warning: ")
# Python's last line of a traceback, or pydantic's second, which says what the first does not.
_EXCEPTION = re.compile(
    r"\b[\w.]*(?:Error|Exception|Interrupt)(?:: |$)|^\s*(?:Value error|Assertion failed), "
)
_SIGKILL = (-9, 137)
_LOOKED_AT = 4000  # characters of a line: a cause stands at its beginning


def known_words(text: str) -> str:
    """Return which fixed words of ``text`` tell a cause that can end a serving engine, or ""."""
    found = (phrase.search(text) for phrase in _FIXED)
    return next((match[0] for match in found if match), "")


def diagnose_exit(
    returncode: int, lines: Sequence[str], *, was_ready: bool | None, oom_killed: bool = False
) -> Reason:
    """Return why the child ended, from its return code (negative: the signal) and last lines.

    ``was_ready`` is None where nobody can tell: a headless part of an engine never says so.
    ``oom_killed`` says that the kernel's count of processes killed for memory rose meanwhile.
    """
    how = f"signal {-returncode}" if returncode < 0 else f"exit code {returncode}"
    when = {True: " while serving", False: " while loading", None: ""}[was_ready]
    ended = f"the engine ended{when} ({how})"
    lines = [line[:_LOOKED_AT] for line in lines]
    grave = [line for line in reversed(lines) if not _HARMLESS.search(line)]
    last = lines[-1] if lines else "nothing"
    said = next((line for line in grave if _is_telling(line)), last)
    cause, line = _first_told(grave, was_ready)
    if oom_killed and (returncode in _SIGKILL or cause is ENGINE_CORE_DIED):
        what = f"{ended}: the kernel killed it, as memory ran out"
        return Reason(OUT_OF_MEMORY.code, what, OUT_OF_MEMORY.hint, OUT_OF_MEMORY.grade)
    if cause is None and returncode in _SIGKILL:  # it had no time to say anything
        what = f"{ended}: {ENGINE_KILLED.what}"
        return Reason(ENGINE_KILLED.code, what, ENGINE_KILLED.hint, ENGINE_KILLED.grade)
    if cause is not None:
        # a dead core is told by those who miss it; what it said itself says more
        line = said if cause is ENGINE_CORE_DIED and said is not last else line
        what = f"{ended}: {cause.what}. It said: {_clip(line)}"
        return Reason(cause.code, what, cause.hint, cause.grade)
    return Reason(
        "engine_died_loading" if was_ready is False else "engine_died",
        f"{ended}. It said: {_clip(said)}",
        "appliance status --lines 50 shows its last lines; appliance start tries again",
        Grade.TRANSIENT,
    )


def _first_told(grave: Sequence[str], was_ready: bool | None) -> tuple[Cause | None, str]:
    for cause in CAUSES:
        if was_ready and not cause.while_serving:
            continue
        line = next((entry for entry in grave if cause.is_told_by(entry)), None)
        if line is not None:
            return cause, line
    return None, ""


def _is_telling(line: str) -> bool:
    # the processes above the one that failed only point at it: "See root cause above."
    return bool(_EXCEPTION.search(line)) and "root cause" not in line


def _clip(line: str, width: int = 300) -> str:
    line = line.strip()
    return line if len(line) <= width else line[: width - 1] + "…"
