"""What was chosen about the box, the engine and its memory: fields alone."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr

from appliance.fieldtypes import (
    Address,
    Count,
    Fraction,
    HomePath,
    Numbers,
    Positive,
    Seconds,
    Size,
    Table,
    Words,
)
from appliance.speculation import MOST_DRAFTS

MIB, GIB = 2**20, 2**30


class BoxSettings(BaseModel):
    """The fields of ``Settings`` that speak of the box and its engine."""

    profile: str = Field("spark", description="box profile: spark, thor or demo")
    model_profile: str = Field(
        "nikola", description="model profile: nikola, qwen3.5-122b or custom"
    )
    model_dir: HomePath = Field(Path("/models/Nikola"), description="the checkpoint's folder")
    served_model_name: str = Field("Nikola", min_length=1, description="the name clients ask for")

    listen: Literal["loopback", "lan"] = Field(
        "loopback", description="who can reach it: this machine, or its network (lan)"
    )
    host: str = Field("127.0.0.1", description="address to listen on; lan: 0.0.0.0")
    port: int = Field(9000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    state_dir: HomePath = Field(
        Path("~/.local/state/unglitched"), description="folder for keys, socket and lock"
    )
    tls_cert: HomePath | None = Field(None, description="serve HTTPS with this certificate (PEM)")
    tls_key: HomePath | None = Field(None, description="and its key; appliance cert makes both")
    api_key: SecretStr | None = Field(None, description="client key; generated if not given")
    operator_key: SecretStr | None = Field(None, description="operator key; generated likewise")
    log_format: Literal["console", "json"] = Field("console", description="the appliance's log")

    engine: Literal["spawn", "attach"] = Field(
        "spawn", description="start vLLM, or use a running one"
    )
    engine_command: Words = Field(("vllm",), min_length=1, description="how vLLM's CLI is started")
    engine_url: Address | None = Field(None, description="attach: the engine's base URL")
    engine_key: SecretStr | None = Field(None, description="attach: the engine's API key")
    engine_extra_args: Words = Field((), description="further vLLM flags, appended as they are")
    engine_debug: bool = Field(False, description="let the engine log prompts, and show its lines")
    start_timeout_s: Seconds = Field(3600.0, description="longest time from spawn to ready")
    start_quiet_s: Seconds = Field(600.0, description="longest time of loading without progress")
    expected_start_s: Seconds = Field(
        60.0, description="a start's usual length, until one was seen"
    )
    stop_timeout_s: Seconds = Field(20.0, description="from SIGTERM to SIGKILL of the engine")
    drain_timeout_s: Seconds = Field(120.0, description="what runs may go on for before a stop")
    settle_timeout_s: Seconds = Field(90.0, description="wait for memory to come back, at most")
    idle_stop_after_s: Seconds | None = Field(
        None, description="stop an engine that nobody asks; the next request starts it"
    )

    restart_backoff_s: Seconds = Field(30.0, description="wait after a first failure; it doubles")
    restart_backoff_cap_s: Seconds = Field(900.0, description="longest wait after a failure")
    restart_max_failures: int = Field(3, ge=1, description="failures until it gives up")
    restart_window_s: Seconds = Field(7200.0, description="within which failures count")
    wedge_quiet_s: Seconds = Field(180.0, description="no token for so long: the engine hangs")
    prefill_tokens_per_s: Seconds = Field(200.0, description="slowest prefill to be patient with")
    wedge_power_floor_w: Seconds | None = Field(
        None, description="GPU power under which a silent engine hangs and does not work"
    )
    probe_every_s: Seconds = Field(60.0, description="one-token probe of an idle engine")

    memory_profile: Literal["safe", "default", "wide"] = Field(
        "default", description="how much of what is left the KV cache takes: safe, default, wide"
    )
    memory_force: bool = Field(
        False, description="take a plan that its own floors refuse; the guards must be on"
    )
    memory_guards: bool = Field(True, description="watch MemAvailable, and end an engine in time")
    memory_growth: Size = Field(3 * GIB, ge=0, description="what a serving engine may yet grow by")
    memory_warn_floor: Size = Field(
        3584 * MIB, ge=0, description="MemAvailable below which it warns"
    )
    memory_stop_floor: Size = Field(3 * GIB, ge=0, description="below which nobody more is let in")
    memory_kill_floor: Size = Field(
        2560 * MIB, ge=0, description="below which the engine is ended in order"
    )
    memory_emergency: Size = Field(
        2 * GIB, ge=0, description="below which the engine is killed at once"
    )
    load_free_floor: Size | None = Field(
        None, description="MemFree below which a load drops the page cache of its shards"
    )
    swap: Literal["auto", "on", "off"] = Field(
        "auto", description="push cold pages out before a start; auto: if force_swap is there"
    )
    swap_command: Words = Field(
        ("force_swap",), min_length=1, description="how force_swap is started"
    )
    evict_cgroups: Words = Field(
        (), description="leaf cgroups whose cold pages may be pushed out, below cgroup_base"
    )
    evict_max: Size = Field(16 * GIB, ge=0, description="what is pushed out at most")
    cgroup_base: HomePath = Field(Path("/sys/fs/cgroup"), description="where cgroup v2 is mounted")

    memory_bandwidth_gb_s: Positive | None = Field(
        None, description="of the memory, GB (10^9 bytes) a second: for the decode roofline alone"
    )
    gpu_memory_utilization: Fraction | None = Field(
        None, description="vLLM's memory fraction, instead of the plan's"
    )
    max_model_len: Count | None = Field(None, description="context in tokens, not the plan's")
    max_num_seqs: Count = Field(2, description="requests that run at once")
    max_num_batched_tokens: Count | None = Field(None, description="prefill chunk in tokens")
    kv_cache_dtype: str = Field("auto", description="KV cache type")
    attention_backend: str | None = Field(None, description="vLLM's attention backend")
    moe_backend: str | None = Field(None, description="vLLM's kernels for NVFP4 experts")
    load_format: str | None = Field(None, description="vLLM's weight loader")
    flashinfer_autotune: bool | None = Field(None, description="tune kernels at start")
    expandable_segments: bool | None = Field(None, description="PyTorch's CUDA allocator mode")
    cudagraph_capture_sizes: Numbers | None = Field(None, description="batch sizes to capture")
    enforce_eager: bool = Field(False, description="no torch.compile, no CUDA graphs")
    speculation: Literal["off", "ngram"] = Field(
        "off", description="ngram: draft what follows where the text repeats, and check it"
    )
    speculation_tokens: int = Field(
        4, ge=1, le=MOST_DRAFTS, description="drafts that a step of the engine checks"
    )
    tool_call_parser: str | None = Field(None, description="vLLM's tool parser")
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser")
    sampling: Table = Field({}, description="sampling defaults: a table, or JSON")
