"""What Compose makes of the folder's files. Pure."""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from appliance.doctor.dockerfacts import NAME
from appliance.profiles import BOX_PROFILES

PREFIX = "APPLIANCE_"
# What a container's settings say of its inside is nothing about the host.
_INSIDE = ("model_dir", "state_dir", "host", "port", "tls_cert", "tls_key", "prompt_file",
           "cgroup_base", "config")  # fmt: skip


@dataclass(frozen=True)
class ComposeFacts:
    """Compose, and the service of ours in the folder's files.

    ``folder`` is None where there are no files; ``trouble`` says why they could not be read.
    """

    version: str = ""  # "" for none
    missing: str = ""  # why there is none
    folder: Path | None = None
    trouble: str = ""
    image: str = ""
    platform: str = ""
    ports: tuple[tuple[str, int], ...] = ()  # address and port of the host
    model_folder: Path | None = None
    settings: Mapping[str, str] = field(default_factory=dict)  # of the container, by field
    is_https: bool = False
    unpinned: tuple[str, ...] = ()


def read_config(text: str, profile: str) -> dict[str, Any]:
    """Return the fields of ComposeFacts that ``compose config --format json`` tells.

    Raises ValueError for what is no such JSON.
    """
    config = json.loads(text)
    services = config.get("services") if isinstance(config, dict) else None
    if not isinstance(services, dict):
        raise ValueError("compose config names no services")
    rows = {name: row for name, row in services.items() if isinstance(row, dict)}
    unpinned = tuple(sorted({name for row in rows.values() for name in _unpinned(row)}))
    ours = _ours(rows, profile)
    if ours is None:
        return {"unpinned": unpinned}
    folders = _binds(ours)
    image = str(ours.get("image") or "")
    settings = _settings(ours)
    if (tag := image.rpartition(":")[2]) in BOX_PROFILES:
        settings.setdefault("profile", tag)  # which is set inside the image, then
    return {
        "image": image,
        "platform": str(ours.get("platform") or ""),
        "ports": tuple(_ports(ours)),
        "model_folder": folders.get(settings.get("model_dir", "/models/Nikola")),
        "is_https": bool(settings.get("tls_cert")),
        "settings": {n: v for n, v in settings.items() if n not in _INSIDE and v},
        "unpinned": unpinned,
    }


def _ours(rows: Mapping[str, dict[str, Any]], profile: str) -> dict[str, Any] | None:
    images = {str(row.get("image") or ""): row for row in rows.values()}
    found = [row for image, row in images.items() if image.startswith(f"{NAME}:")]
    return images.get(f"{NAME}:{profile}") or (found[0] if found else None)


def _unpinned(service: dict[str, Any]) -> Iterator[str]:
    """Yield what this service takes by a tag, which may mean something else tomorrow."""
    build = service.get("build")
    if isinstance(build, dict):
        arguments = build.get("args")
        for name, value in arguments.items() if isinstance(arguments, dict) else ():
            if name.endswith("_DIGEST") and not value:
                yield name
    elif (image := str(service.get("image") or "")) and not _is_known(image):
        yield image


def _is_known(image: str) -> bool:
    return "@sha256:" in image or image.startswith(f"{NAME}:")  # pinned, or built here


def _ports(service: dict[str, Any]) -> Iterator[tuple[str, int]]:
    for row in _rows(service, "ports"):
        if re.fullmatch(r"\d+", str(row.get("published") or "")):
            yield str(row.get("host_ip") or "0.0.0.0"), int(row["published"])  # noqa: S104


def _binds(service: dict[str, Any]) -> dict[str, Path]:
    binds = [row for row in _rows(service, "volumes") if row.get("type") == "bind"]
    return {str(row.get("target")): Path(str(row["source"])) for row in binds if row.get("source")}


def _rows(service: dict[str, Any], name: str) -> list[dict[str, Any]]:
    found = service.get(name)
    return [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []


def _settings(service: dict[str, Any]) -> dict[str, str]:
    environment = service.get("environment")
    rows = environment.items() if isinstance(environment, dict) else ()
    return {
        name.removeprefix(PREFIX).lower(): str(value)
        for name, value in rows
        if name.startswith(PREFIX) and value is not None and not name.endswith("_FILE")
    }
