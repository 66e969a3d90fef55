"""Settings: what was chosen. Frozen, and the only reader of the environment and its file.

Precedence, highest first: ``APPLIANCE_*`` variables, the TOML file, the box profile, the model
profile, the built-in default. Each value remembers which of them it came from.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    ValidationError,
    model_validator,
)

from appliance.errors import SettingsError
from appliance.profiles import BOX_PROFILES, MODEL_PROFILES
from appliance.sizes import parse_size

PREFIX = "APPLIANCE_"
CONFIG_VARIABLE = "APPLIANCE_CONFIG"
SECRETS = ("api_key", "operator_key", "engine_key")
_FALSE_WORDS = {"off": False, "no": False, "on": True, "yes": True}


def _words(value: Any) -> Any:
    """Split a comma- or space-separated string; a list passes."""
    return tuple(value.replace(",", " ").split()) if isinstance(value, str) else value


def _switch(value: Any) -> Any:
    return _FALSE_WORDS.get(value.lower(), value) if isinstance(value, str) else value


def _none_if_empty(value: Any) -> Any:
    return None if value == "" else value


Size = Annotated[int, BeforeValidator(parse_size)]
Words = Annotated[tuple[str, ...], BeforeValidator(_words)]
Numbers = Annotated[tuple[int, ...], BeforeValidator(_words)]
Switch = Annotated[bool, BeforeValidator(_switch)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Settings(BaseModel):
    """Every choice an operator can make; lengths in seconds, sizes in bytes.

    ``None`` means "leave it to the engine". Each field's description is its documentation:
    the README's table and ``appliance plan`` are made from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    profile: str = Field("spark", description="box profile: spark, thor or demo")
    model_profile: str = Field("nikola", description="model profile: nikola, qwen3.5-122b or custom")
    model_dir: Path = Field(Path("/models/Nikola"), description="the checkpoint's folder")
    served_model_name: str = Field("Nikola", min_length=1, description="the name clients ask for")

    host: str = Field("127.0.0.1", description="address to listen on; 0.0.0.0 for the network")
    port: int = Field(9000, ge=0, le=65535, description="port to listen on; 0 picks a free one")
    state_dir: Path = Field(
        Path("~/.local/state/unglitched"), description="folder for keys, socket and lock"
    )
    api_key: SecretStr | None = Field(None, description="client key; generated if not given")
    operator_key: SecretStr | None = Field(None, description="operator key; generated likewise")
    log_format: Literal["console", "json"] = Field("console", description="the appliance's log")

    engine: Literal["spawn", "attach"] = Field("spawn", description="start vLLM, or use a running one")
    engine_command: Words = Field(("vllm",), min_length=1, description="how vLLM's CLI is started")
    engine_url: str | None = Field(None, description="attach: the engine's base URL")
    engine_key: SecretStr | None = Field(None, description="attach: the engine's API key")
    engine_extra_args: Words = Field((), description="further vLLM flags, appended as they are")
    start_timeout_s: Seconds = Field(3600.0, description="longest time from spawn to ready")
    stop_timeout_s: Seconds = Field(20.0, description="from SIGTERM to SIGKILL of the engine")

    gpu_memory_utilization: Fraction | None = Field(None, description="vLLM's memory fraction")
    max_model_len: Count | None = Field(None, description="context in tokens")
    max_num_seqs: Count = Field(2, description="requests that run at once")
    max_num_batched_tokens: Count | None = Field(None, description="prefill chunk in tokens")
    kv_cache_dtype: str = Field("auto", description="KV cache type")
    attention_backend: str | None = Field(None, description="vLLM's attention backend")
    moe_backend: str | None = Field(None, description="vLLM's kernels for NVFP4 experts")
    load_format: str | None = Field(None, description="vLLM's weight loader")
    flashinfer_autotune: Switch | None = Field(None, description="tune kernels at start")
    expandable_segments: Switch | None = Field(None, description="PyTorch's CUDA allocator mode")
    cudagraph_capture_sizes: Numbers | None = Field(None, description="batch sizes to capture")
    enforce_eager: Switch = Field(False, description="no torch.compile, no CUDA graphs")
    tool_call_parser: str | None = Field(None, description="vLLM's tool parser")
    reasoning_parser: str | None = Field(None, description="vLLM's reasoning parser")
    sampling: dict[str, int | float] = Field({}, description="sampling defaults, as a table")

    prompt_injection: Switch = Field(True, description="put the path-preservation prompt first")
    prompt_file: Path | None = Field(None, description="a text to use instead of the built-in one")
    max_body_bytes: Size = Field(64 * 2**20, gt=0, description="largest request body")
    max_waiting: int = Field(64, ge=0, description="requests that may queue; 429 beyond")
    queue_timeout_s: Seconds = Field(240.0, description="longest wait in the queue; then 503")

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, data: Any) -> Any:
        # compose hands over unset variables as empty strings
        return {k: v for k, v in data.items() if v != ""} if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.engine == "attach" and not self.engine_url:
            raise ValueError("engine=attach needs engine_url, for example http://127.0.0.1:8000")
        if self.engine == "spawn" and self.engine_url:
            raise ValueError(f"engine_url={self.engine_url} is for engine=attach only")
        if self.engine_url and urlsplit(self.engine_url).scheme not in ("http", "https"):
            raise ValueError(f"engine_url={self.engine_url!r} must start with http:// or https://")
        keys = [k.get_secret_value() for k in (self.api_key, self.operator_key) if k]
        if len(keys) == 2 and keys[0] == keys[1]:
            raise ValueError("api_key and operator_key must differ: one is for clients, one for you")
        for argument in self.engine_extra_args:
            if _is_owned(argument):
                raise ValueError(
                    f"engine_extra_args must not hold {argument}: the appliance decides that"
                )
        return self

    def origin(self, name: str) -> str:
        """Return where the value of field ``name`` came from."""
        return self._origins.get(name, "default")


# --trust-remote-code would run a checkpoint's own Python, --config could smuggle it in; the
# rest is the supervisor's.
_OWNED_FLAGS = ("--trust-remote-code", "--config", "--host", "--port", "--api-key", "--uds", "--model")


def _is_owned(argument: str) -> bool:
    # vLLM's parser takes underscores for dashes, and argparse takes unique prefixes
    flag = argument.partition("=")[0].replace("_", "-")
    return flag.startswith("--") and any(owned.startswith(flag) for owned in _OWNED_FLAGS)


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
        chosen |= {k: (v, f"file {config}") for k, v in _read_file(Path(config)).items()}
    chosen |= _read_environment(environ)
    chosen |= {k: (v, "command line") for k, v in (overrides or {}).items()}
    layered = {**_profile_rows(chosen), **chosen}
    try:
        settings = Settings(**{name: value for name, (value, _) in layered.items()})
    except ValidationError as cause:
        raise SettingsError(_explain(cause, layered), _HINT) from None
    settings._origins.update({name: origin for name, (_, origin) in layered.items()})
    return settings


_HINT = "appliance plan --settings lists every setting with its meaning"


def _profile_rows(chosen: Mapping[str, tuple[Any, str]]) -> dict[str, tuple[Any, str]]:
    rows: dict[str, tuple[Any, str]] = {}
    for field, profiles in (("model_profile", MODEL_PROFILES), ("profile", BOX_PROFILES)):
        name = chosen.get(field, (Settings.model_fields[field].default, ""))[0]
        profile = profiles.get(name or Settings.model_fields[field].default)
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
        raise SettingsError(f"{path} is no TOML: {cause}", 'write lines like port = 9000') from cause
    for name in table:
        if name not in Settings.model_fields:
            raise SettingsError(f"{path}: {name} is no setting", _nearest(PREFIX + name.upper()))
    return table


def _read_secret(variable: str, path: Path) -> str:
    try:
        secret = path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(f"{variable}={path} cannot be read: {cause}", "name a file with the key") from cause
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
        shown = "(hidden)" if name in SECRETS else repr(value)
        where = origin if origin.startswith(PREFIX) else f"{name} ({origin})"
        lines.append(f"{where}={shown}: {message}")
    return "; ".join(lines)
