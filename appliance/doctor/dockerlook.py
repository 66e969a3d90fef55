"""Asks the Docker engine, through its SDK."""

import contextlib
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

CALL_S = 4  # each call; how long the whole takes, the look's own deadline says
ENGINE_JSON = "/opt/engine/ENGINE.json"
_FILE_BYTES = 2**20
# What the SDK's words for "it did not work" hold, why that is, and what to type.
_CAUSES = (
    ("FileNotFoundError", "there is no socket", "install Docker; or do without: appliance run"),
    (
        "PermissionError",
        "this user may not use it",
        "sudo usermod -aG docker $USER, and log in again",
    ),
    ("ConnectionRefused", "nobody answers there", "sudo systemctl start docker"),
    ("timed out", "it does not answer in time", "sudo systemctl restart docker"),
)


def look_at_docker(image: str) -> DockerFacts | Unseen:
    """Return what the engine of DOCKER_HOST, or of Docker's own context, tells."""
    address = "unix:///var/run/docker.sock"
    try:
        given = kwargs_from_env()
        address = given.pop("base_url", None) or _context_address() or address
        with contextlib.closing(
            docker.DockerClient(base_url=address, version="auto", timeout=CALL_S, **given)
        ) as client:
            return _facts(client, address, image)
    except (DockerException, OSError, ValueError) as fault:
        return unseen(address, str(fault))


def unseen(address: str, said: str) -> Unseen:
    """Return why the engine at ``address`` could not be asked, by what the SDK said. Pure."""
    for word, why, hint in _CAUSES:
        if word in said:
            return Unseen(f"{address}: {why}", hint)
    return Unseen(f"{address}: {' '.join(said.split())[:160]}", "docker version")


def _context_address() -> str:
    """Return where the chosen context of Docker's command line is: that of a rootless engine."""
    context = ContextAPI.get_current_context()
    return str(context.Host or "") if context else ""


def _facts(client: Any, address: str, image: str) -> DockerFacts:
    version, info = client.version(), client.info()
    if not (isinstance(version, dict) and isinstance(info, dict)):
        raise ValueError("what answers there is no Docker engine")
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
