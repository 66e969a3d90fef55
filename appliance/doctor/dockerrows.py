"""What the doctor thinks of Docker, of our image and of our containers. Pure."""

from collections.abc import Iterator, Sequence

from appliance.doctor.composefacts import ComposeFacts
from appliance.doctor.dockerfacts import Container, DockerFacts, Image
from appliance.doctor.row import Row, Unseen, fail, ok, warn
from appliance.sizes import format_size

OLDEST_API = (1, 41)  # of Docker 20.10, the oldest that the image was built and run with
WANTED_API = (1, 44)  # of Docker 25, as compose.yaml wants it
OLDEST_COMPOSE = (2, 24)  # the first that takes an .env that may be missing
_NAMES = {"x86_64": "amd64", "aarch64": "arm64"}
_MEANT = {
    0: "it was stopped",
    1: "it failed",
    75: "its port or its state folder was taken",
    78: "its settings are wrong, or the model does not fit",
    137: "it was killed",
    143: "it was stopped before it could end in order",
}


def docker_rows(docker: DockerFacts | Unseen, name: str, *, needs_gpu: bool) -> Iterator[Row]:
    """Yield what there is to say of the container path; ``name`` is the image that is wanted."""
    if isinstance(docker, Unseen):
        yield warn("docker", f"no engine: {docker.why}", docker.next)
        for row in ("image", "container"):
            yield warn(row, "not known without Docker", "appliance run does without")
        return
    yield _engine_row(docker)
    if needs_gpu:
        yield _runtime_row(docker)
    yield _image_row(docker, name)
    yield from _container_rows(docker, name)


def _engine_row(docker: DockerFacts) -> Row:
    api = ".".join(map(str, docker.api_version))
    rootless = ", rootless" if docker.is_rootless else ""
    value = f"{docker.version} (API {api}{rootless}) at {docker.address}"
    if docker.api_version < OLDEST_API:
        return fail("docker", f"{value} is older than 20.10", "install a newer Docker engine")
    if docker.api_version < WANTED_API:
        return warn("docker", f"{value} is older than 25", "install a newer Docker engine")
    return ok("docker", value)


def _runtime_row(docker: DockerFacts) -> Row:
    if "nvidia" in docker.runtimes:
        return ok("nvidia runtime", "registered")
    if found := [device for device in docker.devices if device.startswith("nvidia.com/gpu")]:
        return ok("nvidia runtime", f"by CDI: {found[0]}")
    return fail(
        "nvidia runtime",
        f"not registered; there are: {', '.join(docker.runtimes) or 'none'}",
        "sudo nvidia-ctk runtime configure --runtime=docker && sudo systemctl restart docker",
    )


def _image_row(docker: DockerFacts, name: str) -> Row:
    image = docker.image
    make = "make image-demo" if name.endswith(":demo") else "make image"
    if image is None:
        return warn("image", f"{name} is not there", make)
    machine = _NAMES.get(docker.architecture, docker.architecture)
    value = " ".join(
        filter(None, (name, image.version, image.architecture, format_size(image.size_bytes)))
    )
    if image.architecture != machine:
        return fail("image", f"{value}, and this engine runs {machine}", f"{make}, on this machine")
    return ok("image", value)


def _container_rows(docker: DockerFacts, name: str) -> Iterator[Row]:
    if not docker.containers:
        yield ok("container", "none", "docker compose up -d --wait")
    for container in docker.containers:
        yield _container_row(container, docker.image)


def _container_row(container: Container, image: Image | None) -> Row:
    name, logs = f"container {container.name}", f"docker logs --tail 50 {container.name}"
    state = container.state
    if not container.is_running:
        return _ended_row(container, name, logs)
    if state == "paused":
        return warn(name, "paused", f"docker unpause {container.name}")
    if state == "restarting":
        return fail(name, f"starts again and again; exit code {container.exit_code}", logs)
    if container.health == "unhealthy":
        said = f": {container.last_check}" if container.last_check else ""
        return fail(name, f"running, unhealthy{said}", logs)
    if container.health == "starting":
        return warn(name, "running, its engine is not ready yet", logs)
    value = "running, healthy" if container.health else "running, without a health check"
    if image is not None and image.id != container.image_id:
        return warn(name, f"{value}, of an older build than {image.name}", "docker compose up -d")
    return ok(name, value)


def _ended_row(container: Container, name: str, logs: str) -> Row:
    code = container.exit_code
    if container.error:
        return fail(name, f"could not be started: {container.error}", logs)
    if container.state == "created":
        return warn(name, "made, and never started", "docker compose up -d --wait")
    if container.was_oom_killed:
        memory = "its cgroup had no memory left: the kernel killed it"
        return fail(name, f"{container.state} with {code}: {memory}", logs)
    why = _MEANT.get(code, "it failed")
    value = f"{container.state} with {code}: {why}"
    if code in (0, 143):
        return warn(name, value, "docker compose up -d --wait")
    return fail(name, value, logs)


def compose_rows(compose: ComposeFacts, *, is_wanted: bool) -> Iterator[Row]:
    """Yield what there is to say of Compose. ``is_wanted``: there is an engine to use it with."""
    if not compose.version:
        level = fail if is_wanted and compose.folder else warn
        yield level("compose", compose.missing, "install the package docker-compose-plugin")
        return
    numbers = compose.version.split(".")[:2]
    if tuple(int(n) for n in numbers if n.isdecimal()) < OLDEST_COMPOSE:
        old = f"{compose.version} cannot read compose.yaml: it wants 2.24 or newer"
        yield (fail if is_wanted and compose.folder else warn)(
            "compose", old, "install the package docker-compose-plugin"
        )
        return
    yield ok("compose", compose.version)
    if compose.trouble:
        level = fail if is_wanted else warn
        yield level("compose file", compose.trouble, "compare .env with .env.example")
    elif compose.folder:
        yield ok("compose file", str(compose.folder))
        yield _pin_row(compose.unpinned)


def _pin_row(unpinned: Sequence[str]) -> Row:
    if not unpinned:
        return ok("digests", "all bases and images are pinned")
    value = f"not pinned: {', '.join(unpinned)}"
    return warn("digests", value, "make pin, on a machine with a network")
