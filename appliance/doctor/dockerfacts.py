"""What a Docker engine tells of itself, of our image and of our containers. Pure."""

import io
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.enginefacts import EngineFacts

Json = Mapping[str, Any]
NAME = "unglitched"  # of the image, whatever its tag
_TITLE = "org.opencontainers.image.title"
_LONGEST = 120  # characters of a health check's output


@dataclass(frozen=True)
class Image:
    """An image that is there. ``architecture`` is in Docker's words: arm64, amd64."""

    name: str
    id: str
    architecture: str
    size_bytes: int
    version: str  # as its label says


@dataclass(frozen=True)
class Container:
    """One of our containers. ``health`` is "" where the image has no health check."""

    name: str
    state: str  # created, running, paused, restarting, exited, dead
    health: str  # healthy, unhealthy, starting
    exit_code: int
    was_oom_killed: bool
    error: str  # why it could not be started
    last_check: str  # what its newest health check printed
    image_id: str
    ports: tuple[tuple[str, int], ...]  # published: address and port of the host
    engine: EngineFacts | None = None  # as its build wrote it down

    @property
    def is_running(self) -> bool:
        """Whether its processes are there."""
        return self.state in ("running", "paused", "restarting")


@dataclass(frozen=True)
class DockerFacts:
    """An engine that answers."""

    address: str
    version: str
    api_version: tuple[int, ...]
    architecture: str  # x86_64, aarch64
    runtimes: tuple[str, ...]
    devices: tuple[str, ...]  # by CDI: nvidia.com/gpu=all
    folder: str  # where images and volumes are
    is_rootless: bool
    image: Image | None
    containers: tuple[Container, ...]


def docker_facts(
    address: str,
    version: Json,
    info: Json,
    image: Image | None,
    containers: Sequence[Container],
) -> DockerFacts:
    """Return the facts of an engine's /version and /info; a field that is missing is empty."""
    numbers = _text(version, "ApiVersion").split(".")
    return DockerFacts(
        address=address,
        version=_text(version, "Version"),
        api_version=tuple(int(n) for n in numbers if n.isdecimal()),
        architecture=_text(info, "Architecture"),
        runtimes=tuple(sorted(_dict(info, "Runtimes"))),
        devices=tuple(_text(row, "ID") for row in _rows(info, "DiscoveredDevices")),
        folder=_text(info, "DockerRootDir"),
        is_rootless=any("rootless" in str(option) for option in _list(info, "SecurityOptions")),
        image=image,
        containers=tuple(containers),
    )


def image_of(name: str, inspected: Json) -> Image:
    """Return the facts of an image's inspect."""
    labels = _dict(_dict(inspected, "Config"), "Labels")
    return Image(
        name=name,
        id=_text(inspected, "Id"),
        architecture=_text(inspected, "Architecture"),
        size_bytes=_number(inspected, "Size"),
        version=_text(labels, "org.opencontainers.image.version"),
    )


def is_ours(listed: Json) -> bool:
    """Tell whether a row of the engine's list of containers is a container of our image."""
    title = _text(_dict(listed, "Labels"), _TITLE)
    image = _text(listed, "Image").rpartition("/")[2].partition("@")[0].partition(":")[0]
    return NAME in (image, title.lower())


def container_of(inspected: Json, engine: EngineFacts | None) -> Container:
    """Return the facts of a container's inspect, and its ``engine``."""
    state = _dict(inspected, "State")
    health = _dict(state, "Health")
    checks = _rows(health, "Log")
    status = _text(health, "Status")
    return Container(
        name=_text(inspected, "Name").removeprefix("/"),
        state=_text(state, "Status"),
        health="" if status == "none" else status,
        exit_code=_number(state, "ExitCode"),
        was_oom_killed=state.get("OOMKilled") is True,
        error=_text(state, "Error"),
        last_check=_line(_text(checks[-1], "Output")) if checks else "",
        image_id=_text(inspected, "Image"),
        ports=tuple(_ports(_dict(_dict(inspected, "NetworkSettings"), "Ports"))),
        engine=engine,
    )


def file_in(archive: bytes) -> bytes:
    """Return the first file of a tar, as the engine sends one; b"" where there is none."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            files = (tar.extractfile(member) for member in tar)
            return next((file.read() for file in files if file is not None), b"")
    except (tarfile.TarError, OSError, EOFError):
        return b""


def _ports(ports: Json) -> list[tuple[str, int]]:
    found = []
    for inside in sorted(ports):
        for row in _rows(ports, inside):
            number = _text(row, "HostPort")
            if inside.endswith("/tcp") and number.isdecimal():
                found.append((_text(row, "HostIp"), int(number)))
    return found


def _line(text: str) -> str:
    shown = " ".join(text.split())
    return shown if len(shown) <= _LONGEST else shown[:_LONGEST] + "…"


def _text(value: Json, name: str) -> str:
    found = value.get(name)
    return found if isinstance(found, str) else ""


def _number(value: Json, name: str) -> int:
    found = value.get(name)
    return found if isinstance(found, int) else 0


def _dict(value: Json, name: str) -> Json:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _list(value: Json, name: str) -> list[Any]:
    found = value.get(name)
    return found if isinstance(found, list) else []


def _rows(value: Json, name: str) -> list[Json]:
    return [row for row in _list(value, name) if isinstance(row, dict)]
