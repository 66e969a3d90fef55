"""Asks the Docker engine, through its SDK."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from docker.context import ContextAPI
from docker.errors import DockerException, NotFound
from docker.utils import kwargs_from_env

import docker
from appliance.doctor.dockerfacts import (
    Container,
    DockerFacts,
    Image,
    container_of,
    docker_facts,
    file_in,
    image_of,
    is_ours,
)
from appliance.doctor.row import Unseen
from appliance.enginefacts import EngineFacts, read_engine_facts

CALL_S = 4.0
DEFAULT = "unix:///var/run/docker.sock"
_ANY = "1.41"  # for the one question that every engine answers
ENGINE_JSON = "/opt/engine/ENGINE.json"
_FILE_BYTES = 2**20
_CAUSES: tuple[tuple[type[OSError], str, str], ...] = (
    (FileNotFoundError, "there is no socket", "install Docker; or do without: appliance run"),
    (PermissionError, "this user may not use it", "sudo usermod -aG docker $USER; log in again"),
    (ConnectionRefusedError, "nobody answers there", "sudo systemctl start docker"),
    (TimeoutError, "it does not answer in time", "sudo systemctl restart docker"),
)


def look_at_docker(image: str, call_s: float = CALL_S) -> DockerFacts | Unseen:
    """Return what the engine of DOCKER_HOST, or of Docker's own context, tells.

    ``call_s`` is for each call; how long all of them take, the look's own deadline says.
    """
    address = DEFAULT
    try:
        given = kwargs_from_env()
        address = given.pop("base_url", None) or _context_address() or address
        _knock(address, call_s)
        options = {"base_url": address, "timeout": call_s, **given}
        # Asked apart: the SDK's own way (version="auto") leaves its socket open when it fails.
        with contextlib.closing(docker.DockerClient(version=_ANY, **options)) as client:
            version = _object(client.version(api_version=False))
        spoken = str(version.get("ApiVersion") or _ANY)
        with contextlib.closing(docker.DockerClient(version=spoken, **options)) as client:
            return _facts(client, version, address, image)
    except (DockerException, OSError, ValueError) as fault:
        return unseen(address, fault)


def unseen(address: str, fault: Exception) -> Unseen:
    """Return why the engine at ``address`` could not be asked. Pure."""
    if "timed out" in str(fault):
        fault = TimeoutError()
    for kind, why, hint in _CAUSES:
        if isinstance(fault, kind):
            return Unseen(f"{address}: {why}", hint)
    return Unseen(f"{address}: {' '.join(str(fault).split())[:160]}", "docker version")


def _knock(address: str, within_s: float) -> None:
    """Connect to a unix socket. Raises OSError, whose kind the SDK would hide in a text."""
    kind, _, path = address.partition("://")
    if kind in ("unix", "http+unix"):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(within_s)
            probe.connect(path or DEFAULT.partition("://")[2])


def _context_address() -> str:
    """Return where the chosen context of Docker's command line is: that of a rootless engine."""
    context = ContextAPI.get_current_context()
    return str(context.Host or "") if context else ""


def _object(answer: Any) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ValueError("what answers there is no Docker engine")
    return answer


def _facts(client: Any, version: dict[str, Any], address: str, image: str) -> DockerFacts:
    info = _object(client.info())
    containers = tuple(_containers(client))
    return docker_facts(address, version, info, _image(client, image), containers)


def _image(client: Any, name: str) -> Image | None:
    try:
        return image_of(name, client.images.get(name).attrs)
    except NotFound:
        return None


def _containers(client: Any) -> Iterator[Container]:
    for listed in client.api.containers(all=True):
        if is_ours(listed):
            with contextlib.suppress(NotFound):  # it went meanwhile
                found = client.api.inspect_container(listed["Id"])
                yield container_of(found, _engine(client, listed["Id"]))


def _engine(client: Any, container: str) -> EngineFacts | None:
    """Return what the build of the container's engine wrote down; None where it did not."""
    try:
        pieces, about = client.api.get_archive(container, ENGINE_JSON)
    except NotFound:
        return None
    with contextlib.closing(pieces), TemporaryDirectory() as folder:
        if about.get("size", 0) > _FILE_BYTES:
            return None
        file = Path(folder) / "ENGINE.json"
        file.write_bytes(file_in(b"".join(pieces)))
        return read_engine_facts(file)
