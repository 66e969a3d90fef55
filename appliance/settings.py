"""Settings: what was chosen. Frozen, and the only reader of the environment and its file.

Precedence, highest first: ``APPLIANCE_*`` variables, the TOML file, the box profile, the model
profile, the built-in default. Each value remembers which of them it came from.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping
from itertools import pairwise, permutations
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)

from appliance.errors import HostError, SettingsError
from appliance.fieldtypes import (
    Address,
    Count,
    Fraction,
    HomePath,
    Numbers,
    Seconds,
    Size,
    Table,
    Words,
    is_loopback,
    refused_flag,
)
from appliance.hostunit import UID, checked_names
from appliance.profiles import BOX_PROFILES, MODEL_PROFILES
from appliance.redaction import debug_switches
from appliance.sizes import format_size

PREFIX = "APPLIANCE_"
CONFIG_VARIABLE = "APPLIANCE_CONFIG"
_KEY = re.compile(r"[!-~]+")
SECRETS = ("api_key", "operator_key", "engine_key")
MIB, GIB = 2**20, 2**30


class Settings(BaseModel):
    """Every choice an operator can make; lengths in seconds, sizes in bytes.

    ``None`` means "leave it to the engine". Each field's description is its documentation:
    the README's table and ``appliance plan`` are made from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

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
    tool_call_parser: str | None = Field(None, description="vLLM's tool parser")
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser")
    sampling: Table = Field({}, description="sampling defaults: a table, or JSON")

    prompt_injection: bool = Field(True, description="put the path-preservation prompt first")
    prompt_file: HomePath | None = Field(
        None, description="a text to use instead of the built-in one"
    )
    max_body_bytes: Size = Field(64 * 2**20, gt=0, description="largest request body")
    max_waiting: int = Field(64, ge=0, description="requests that may queue; 429 beyond")
    queue_timeout_s: Seconds = Field(
        240.0, description="longest wait for a place of a request that is not streamed; then 503"
    )
    whole_wait_s: Seconds = Field(20.0, description="the same while the engine is not there")
    admit_wait_s: Seconds = Field(240.0, description="longest wait of a streamed request")
    head_after_s: Seconds = Field(10.0, description="a streamed request that waits: 200 after it")
    keepalive_s: Seconds = Field(15.0, description="between two keep-alives of such a request")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, data: Any) -> Any:
        # compose hands over unset variables as empty strings
        if not isinstance(data, dict):
            return data
        lan = {"host": "0.0.0.0"} if data.get("listen") == "lan" else {}  # noqa: S104
        return lan | {k: v for k, v in data.items() if v != ""}

    @field_validator("evict_cgroups")
    @classmethod
    def _evictable(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        try:
            checked = checked_names(names, UID) if names else ()
        except HostError as cause:  # it speaks of a command's flag
            what = cause.what.removeprefix("--cgroup ")
            raise ValueError(f"{what}; name one like system.slice/snapd.service") from None
        for outer, inner in permutations(checked, 2):
            if inner.startswith(f"{outer}/"):  # pushed out twice, and counted twice
                raise ValueError(f"{outer} holds {inner}: name one of them")
        return checked

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "attach" and not self.engine_url:
            raise ValueError(
                "APPLIANCE_ENGINE=attach needs APPLIANCE_ENGINE_URL, "
                "for example http://127.0.0.1:8000"
            )
        if self.engine == "spawn" and self.engine_url:
            raise ValueError(
                f"APPLIANCE_ENGINE_URL={self.engine_url} is for APPLIANCE_ENGINE=attach only"
            )
        self._check_door()
        for name in SECRETS:
            secret = getattr(self, name)
            if secret and not _KEY.fullmatch(secret.get_secret_value()):
                raise ValueError(
                    f"{PREFIX}{name.upper()} must be printable ASCII without blanks: "
                    "it travels in a header"
                )
        keys = [k.get_secret_value() for k in (self.api_key, self.operator_key) if k]
        if len(keys) == 2 and keys[0] == keys[1]:
            raise ValueError(
                "APPLIANCE_API_KEY and APPLIANCE_OPERATOR_KEY must differ: "
                "one is for clients, one for you"
            )
        self._check_memory()
        if refused := refused_flag(self.engine_extra_args):
            raise ValueError(f"APPLIANCE_ENGINE_EXTRA_ARGS must not hold {refused}")
        return self

    def _check_door(self) -> None:
        if self.listen == "lan" and is_loopback(self.host):
            raise ValueError(
                f"APPLIANCE_LISTEN=lan, but nobody on the network reaches APPLIANCE_HOST="
                f"{self.host}: unset one of them"
            )
        if (self.tls_cert is None) != (self.tls_key is None):
            there, missing = ("CERT", "KEY") if self.tls_cert else ("KEY", "CERT")
            raise ValueError(
                f"APPLIANCE_TLS_{there} is set and APPLIANCE_TLS_{missing} is not: "
                "HTTPS takes both; appliance cert makes a pair"
            )

    def _check_memory(self) -> None:
        for upper, lower in pairwise(FLOORS):
            if getattr(self, upper) < getattr(self, lower):
                raise ValueError(
                    f"{_sized(self, upper)} is below {_sized(self, lower)}: "
                    "warn, stop, kill and emergency come in this order as memory falls"
                )
        if self.memory_force and not self.memory_guards:
            raise ValueError(
                "APPLIANCE_MEMORY_FORCE=on needs APPLIANCE_MEMORY_GUARDS=on: "
                "who overrides the plan keeps the guards"
            )
        least = BOX_PROFILES[self.profile].rows["memory_emergency"].value
        if self.memory_force and self.memory_emergency < least:
            raise ValueError(
                f"APPLIANCE_MEMORY_FORCE=on needs APPLIANCE_MEMORY_EMERGENCY={format_size(least)} "
                f"at least, not {format_size(self.memory_emergency)}: the box may freeze below it"
            )

    def origin(self, name: str) -> str:
        """Return where the value of field ``name`` came from."""
        return self._origins.get(name, "default")


FLOORS = ("memory_warn_floor", "memory_stop_floor", "memory_kill_floor", "memory_emergency")


def _sized(settings: Settings, name: str) -> str:
    return f"{PREFIX}{name.upper()}={format_size(getattr(settings, name))}"


def load_settings(
    environ: Mapping[str, str] | None = None, overrides: Mapping[str, Any] | None = None
) -> Settings:
    """Read settings from the environment, the file that it names, and the profiles.

    ``overrides`` are the command line's, above everything. Raises SettingsError naming the
    variable, the value and an accepted one.
    """
    environ = os.environ if environ is None else environ
    chosen: dict[str, tuple[Any, str]] = {}
    config = environ.get(CONFIG_VARIABLE)
    if config:
        chosen |= {k: (v, f"file {config}") for k, v in _read_file(Path(config)).items() if v != ""}
    chosen |= _read_environment(environ)
    chosen |= {k: (v, "command line") for k, v in (overrides or {}).items() if v != ""}
    layered = {**_profile_rows(chosen), **chosen}
    try:
        settings = Settings(**{name: value for name, (value, _) in layered.items()})
    except ValidationError as cause:
        raise SettingsError(_explain(cause, layered), _HINT) from None
    _refuse_talk(settings, environ)
    settings._origins.update({name: origin for name, (_, origin) in layered.items()})
    return settings


def _refuse_talk(settings: Settings, environ: Mapping[str, str]) -> None:
    """Refuse what would make the engine log prompts, unless that is asked for."""
    switches = debug_switches(settings.engine_extra_args, environ)
    if switches and not settings.engine_debug and settings.engine == "spawn":
        raise SettingsError(
            f"{', '.join(switches)} would make the engine log what people ask it",
            "leave it out, or set APPLIANCE_ENGINE_DEBUG=on while you look for a fault",
        )


_HINT = "appliance plan --settings lists every setting with its meaning"
_USERINFO = re.compile(r"//[^/\s]*@")


def _profile_rows(chosen: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    rows: dict[str, tuple[Any, str]] = {}
    for field, profiles in (("model_profile", MODEL_PROFILES), ("profile", BOX_PROFILES)):
        name = chosen.get(field, (Settings.model_fields[field].default, ""))[0]
        profile = profiles.get(name) if isinstance(name, str) else None
        if profile is None:
            raise SettingsError(
                f"{PREFIX}{field.upper()}={name!r} is no {field.replace('_', ' ')}",
                f"use one of: {', '.join(profiles)}",
            )
        kind = "box" if field == "profile" else "model"
        for key, row in profile.rows.items():
            rows[key] = (row.value, f"{kind} profile {profile.name}: {row.source}".rstrip(": "))
    return rows


def _read_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    chosen: dict[str, tuple[Any, str]] = {}
    for variable, value in environ.items():
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        name = variable.removeprefix(PREFIX).lower()
        secret = name.removesuffix("_file")
        if name.endswith("_file") and secret in SECRETS:
            if value:
                chosen[secret] = (_read_secret(variable, Path(value)), variable)
        elif name in Settings.model_fields:
            chosen.setdefault(name, (value, variable))
        else:
            raise SettingsError(f"{variable} is no setting", _nearest(variable))
    return {name: entry for name, entry in chosen.items() if entry[0] != ""}


def _nearest(variable: str) -> str:
    known = [PREFIX + name.upper() for name in Settings.model_fields]
    near = difflib.get_close_matches(variable, known, n=1)
    return f"did you mean {near[0]}?" if near else _HINT


def _read_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as cause:
        raise SettingsError(
            f"{CONFIG_VARIABLE}={path}: {cause.strerror}", "name an existing TOML file, or unset it"
        ) from cause
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as cause:
        raise SettingsError(
            f"{path} is no TOML: {cause}", "write lines like port = 9000"
        ) from cause
    for name in table:
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: {name} is no setting", _nearest(PREFIX + name.upper()))
    return table


def _read_secret(variable: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(
            f"{variable}={path} cannot be read: {cause}", "name a file with the key"
        ) from None  # a decoding error holds what it could not decode: the key
    if not secret:
        raise SettingsError(f"{variable}={path} is empty", "put the key on its first line")
    return secret


def _explain(error: ValidationError, layered: Mapping[str, tuple[Any, str]]) -> str:
    lines = []
    for issue in error.errors():
        name = str(issue["loc"][0]) if issue["loc"] else ""
        message = issue["msg"].removeprefix("Value error, ")
        if not name:
            lines.append(message)
            continue
        value, origin = layered.get(name, (issue.get("input"), "default"))
        shown = "(hidden)" if name in SECRETS else _USERINFO.sub("//(hidden)@", repr(value))
        shown = shown if len(shown) < 200 else f"{shown[:200]}..."
        where = origin if origin.startswith(PREFIX) else f"{name} ({origin})"
        lines.append(f"{where}={shown}: {message}")
    return "; ".join(lines)
