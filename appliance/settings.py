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
from typing import Any, Self

from pydantic import (
    ConfigDict,
    PrivateAttr,
    ValidationError,
    field_validator,
    model_validator,
)

from appliance.boxsettings import BoxSettings
from appliance.clustersettings import ClusterSettings, cluster_conflict
from appliance.errors import HostError, SettingsError
from appliance.fieldtypes import is_loopback, refused_flag
from appliance.gatewaysettings import GatewaySettings
from appliance.hostunit import UID, checked_names
from appliance.profiles import BOX_PROFILES, MODEL_PROFILES
from appliance.redaction import debug_switches
from appliance.sizes import format_size
from appliance.speculation import refused_beside

PREFIX = "APPLIANCE_"
CONFIG_VARIABLE = "APPLIANCE_CONFIG"
_KEY = re.compile(r"[!-~]+")
SECRETS = ("api_key", "operator_key", "engine_key")


class Settings(ClusterSettings, GatewaySettings, BoxSettings):
    """Every choice an operator can make; lengths in seconds, sizes in bytes.

    ``None`` means "leave it to the engine". Each field's description is its documentation:
    the README's table and ``appliance plan`` are made from it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    _origins: dict[str, str] = PrivateAttr(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _blank_is_unset(cls, data: Any) -> Any:
        # compose hands over unset variables as empty strings
        if not isinstance(data, dict):
            return data
        implied: dict[str, Any] = {}
        if data.get("listen") == "lan":
            implied["host"] = "0.0.0.0"  # noqa: S104
        if data.get("cluster_role") in ("head", "worker"):
            implied["tensor_parallel_size"] = 2
        return implied | {k: v for k, v in data.items() if v != ""}

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
        if conflict := cluster_conflict(self, self.engine, self.engine_extra_args):
            raise ValueError(conflict)
        self._check_speculation()
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

    def _check_speculation(self) -> None:
        if self.speculation == "off":
            return
        batch = (self.max_num_seqs, self.max_num_batched_tokens)
        chosen = (self.engine_extra_args, self.sampling, self.speculation_tokens)
        if refused := refused_beside(*chosen, *batch):
            raise ValueError(
                f"APPLIANCE_SPECULATION={self.speculation} cannot be beside {refused}; "
                "leave one of them out"
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
