"""The engine's exact command: the only owner of vLLM's flags. Pure."""

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from appliance.memory import MemoryPlan
from appliance.part import Part
from appliance.profiles import BOX_PROFILES
from appliance.settings import Settings
from appliance.speculation import speculative_config

HIDDEN = "(hidden)"
SPAWN_VARIABLE = "UNGLITCHED_SPAWN"  # marks all that one spawn starts

# What the engine may inherit. A list of what passes, not of what is held back: the appliance's
# own secrets, and whatever else is in the operator's shell, stay out of the engine.
INHERITED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LANG",
        "LC_ALL",
        "TZ",
        "TMPDIR",
        "LD_LIBRARY_PATH",
        "LD_PRELOAD",
        "CUDA_HOME",
        "CUDA_VISIBLE_DEVICES",
        "CUDA_CACHE_PATH",
        "NVIDIA_VISIBLE_DEVICES",
        "NVIDIA_DRIVER_CAPABILITIES",
        "OMP_NUM_THREADS",
        "TRITON_PTXAS_PATH",
        "TRITON_CACHE_DIR",
        "TORCHINDUCTOR_CACHE_DIR",
        "XDG_CACHE_HOME",
        "HF_HOME",
        "SSL_CERT_FILE",
    }
)
INHERITED_PREFIXES = ("VLLM_", "FLASHINFER_", "NCCL_", "GLOO_")
# An API server that outlives its engine core would never be seen to have died.
NOT_INHERITED = frozenset({"VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"})

_FIXED_ENV = {
    "HF_HUB_OFFLINE": "1",  # a folder is served; nothing is fetched at run time
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    # An allowed host that redirects would lead the engine to one that is not.
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "PYTHONUNBUFFERED": "1",  # progress is read from its log as it happens
}


@dataclass(frozen=True)
class Extras:
    """The folder's files that the engine is pointed at."""

    chat_template: Path
    reasoning_parser_plugin: Path


@dataclass(frozen=True)
class LaunchPlan:
    """One engine start: what is executed, with what environment, and where it will listen.

    ``api_key`` is random for each spawn and travels in the environment, never in ``argv``.
    ``token`` marks the spawn's processes, so that a later life of the appliance knows them.
    ``inherited`` names what of ``env`` is the appliance's own environment, handed on;
    ``known_paths`` are those that the engine's lines may name; ``memory`` is the plan that it
    was made of, None where nobody planned.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    host: str
    port: int
    api_key: str
    inherited: frozenset[str] = frozenset()
    token: str = ""
    known_paths: tuple[str, ...] = ()
    memory: MemoryPlan | None = None

    @property
    def base_url(self) -> str:
        """The engine's address, without a path."""
        return f"http://{self.host}:{self.port}"

    def own_env(self) -> dict[str, str]:
        """Return what the appliance sets, without what is inherited, and without the key."""
        shown = {k: v for k, v in self.env.items() if k not in self.inherited}
        return {**shown, "VLLM_API_KEY": HIDDEN}

    def shell(self) -> str:
        """Return the command as one would type it, a flag a line."""
        env = " \\\n  ".join(f"{k}={shlex.quote(v)}" for k, v in sorted(self.own_env().items()))
        lines: list[str] = []
        for word in self.argv:
            if word.startswith("--") or not lines:
                lines.append(shlex.quote(word))
            else:
                lines[-1] += " " + shlex.quote(word)
        return f"{env} \\\n" + " \\\n  ".join(lines)


def plan_launch(
    settings: Settings,
    extras: Extras,
    memory: MemoryPlan | None = None,
    *,
    port: int,
    api_key: str,
    base_env: Mapping[str, str],
    token: str = "",
    evidence: Path | None = None,
    part: Part | None = None,
) -> LaunchPlan:
    """Return the engine's command for these settings, with the memory that the plan gives it.

    ``memory`` is None where nobody planned: the engine then sizes itself by the settings alone.
    ``base_env`` is the appliance's own environment, of which only an allow-list passes.
    ``token`` marks the spawn; ``evidence`` is the folder for the stacks of a wedged engine.
    ``part`` is this box's of an engine that spans two.
    """
    argv = (
        *settings.engine_command,
        "serve",
        str(settings.model_dir),
        *("--served-model-name", settings.served_model_name),
        *(() if part and part.is_headless else ("--host", "127.0.0.1", "--port", str(port))),
        *("--disable-access-log-for-endpoints", "/health,/metrics"),  # we ask every 2 s
        "--enable-prompt-tokens-details",  # usage tells what the prefix cache had
        *_capacity_flags(settings, memory),
        *_kernel_flags(settings),
        *_chat_flags(settings, extras),
        *(part.flags() if part else ()),
        *settings.engine_extra_args,
    )
    own = _own_environment(settings, api_key, memory)
    if part:
        own |= part.env(on_cpu=BOX_PROFILES[settings.profile].on_cpu)
    if token:
        own[SPAWN_VARIABLE] = token
    if evidence is not None:
        own["UNGLITCHED_EVIDENCE_DIR"] = str(evidence)
    inherited = {name: value for name, value in base_env.items() if _passes(name)}
    names = frozenset(inherited) - frozenset(own)
    paths = (settings.model_dir, extras.chat_template.parent)
    return LaunchPlan(
        argv=argv,
        env={**inherited, **own},
        host="127.0.0.1",
        port=port,
        api_key=api_key,
        inherited=names,
        token=token,
        known_paths=tuple(map(str, paths)),
        memory=memory,
    )


def _option(flag: str, value: object) -> tuple[str, ...]:
    return () if value is None else (flag, str(value))


def _capacity_flags(settings: Settings, memory: MemoryPlan | None) -> tuple[str, ...]:
    return (
        *_memory_flags(settings, memory),
        *_option("--max-num-batched-tokens", settings.max_num_batched_tokens),
        *_option("--kv-cache-dtype", settings.kv_cache_dtype),
        "--enable-prefix-caching",
        "--enable-chunked-prefill",
        *_scheduling_flags(settings),
    )


def _scheduling_flags(settings: Settings) -> tuple[str, ...]:
    if settings.speculation == "off":
        return ("--async-scheduling",)
    # vLLM 0.32, and the older model runner of 0.33, refuse asynchronous scheduling beside prompt
    # lookup; left to itself each version takes it where it can.
    return ("--speculative-config", speculative_config(settings.speculation_tokens))


def _memory_flags(settings: Settings, memory: MemoryPlan | None) -> tuple[str, ...]:
    if memory is None:
        return (
            *_option("--gpu-memory-utilization", settings.gpu_memory_utilization),
            *_option("--max-model-len", settings.max_model_len),
            *_option("--max-num-seqs", settings.max_num_seqs),
        )
    on_gpu = memory.gpu_memory_utilization is not None  # the CPU engine is told by its environment
    kv_bytes = memory.kv_bytes if on_gpu and memory.kv_is_computed else None
    return (
        *_option("--gpu-memory-utilization", memory.gpu_memory_utilization),
        *_option("--kv-cache-memory-bytes", kv_bytes),
        *_option("--max-model-len", memory.max_model_len),
        *_option("--max-num-seqs", memory.max_num_seqs),
    )


def _kernel_flags(settings: Settings) -> tuple[str, ...]:
    flags = (
        *_option("--attention-backend", settings.attention_backend),
        *_option("--moe-backend", settings.moe_backend),
        *_option("--load-format", settings.load_format),
    )
    if settings.flashinfer_autotune is not None:
        no = "" if settings.flashinfer_autotune else "no-"
        flags += (f"--{no}enable-flashinfer-autotune",)
    if settings.enforce_eager:
        flags += ("--enforce-eager",)
    elif settings.cudagraph_capture_sizes:
        # A size counts tokens, and with drafts each sequence of a step has several: a size that is
        # no multiple of them is captured in vain, and the older model runner refuses to start.
        each = 1 if settings.speculation == "off" else 1 + settings.speculation_tokens
        sizes = (str(each * size) for size in settings.cudagraph_capture_sizes)
        flags += ("--cudagraph-capture-sizes", *sizes)
    return flags


def _chat_flags(settings: Settings, extras: Extras) -> tuple[str, ...]:
    flags: tuple[str, ...] = ()
    if settings.tool_call_parser:
        flags += ("--enable-auto-tool-choice", "--tool-call-parser", settings.tool_call_parser)
    if settings.reasoning_parser == OWN_PARSER:
        flags += ("--reasoning-parser-plugin", str(extras.reasoning_parser_plugin))
        flags += ("--chat-template", str(extras.chat_template))
    flags += _option("--reasoning-parser", settings.reasoning_parser)
    if settings.sampling:
        flags += ("--override-generation-config", json.dumps(settings.sampling))
    return flags


# Our parser and our template belong together: the template leaves the mark that it reads.
OWN_PARSER = "minimax_m2_optthink"


def _passes(name: str) -> bool:
    return name not in NOT_INHERITED and (name in INHERITED or name.startswith(INHERITED_PREFIXES))


def _own_environment(settings: Settings, api_key: str, memory: MemoryPlan | None) -> dict[str, str]:
    profile = BOX_PROFILES[settings.profile]
    env = {**_FIXED_ENV, **{name: row.value for name, row in profile.engine_env.items()}}
    if profile.on_cpu and memory is not None:
        env["VLLM_CPU_KVCACHE_SPACE"] = str(memory.kv_bytes // 2**30)  # it takes whole GiB
    if settings.expandable_segments is not None:
        mode = settings.expandable_segments
        env["PYTORCH_CUDA_ALLOC_CONF"] = f"expandable_segments:{mode}"
    env["VLLM_API_KEY"] = api_key
    return env
