"""The whole look at a host: every look begins at once, and each ends by its own deadline."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from appliance.checkpoint.folder import read_model_facts
from appliance.doctor.ask import Look
from appliance.doctor.clusterlook import ANSWER_S, look_at_other_box, look_at_rule
from appliance.doctor.clusterrows import joined_rows, ports_row
from appliance.doctor.composefacts import ComposeFacts
from appliance.doctor.composelook import look_at_compose
from appliance.doctor.dockerfacts import NAME, DockerFacts
from appliance.doctor.dockerlook import look_at_docker
from appliance.doctor.dockerrows import compose_rows, docker_rows
from appliance.doctor.doorrows import door_rows, port_row
from appliance.doctor.machinelook import (
    engine_status,
    look_at_clock,
    look_at_disk,
    look_at_gpus,
    look_at_port,
    running_state,
)
from appliance.doctor.machinerows import (
    BOXES,
    CHECKPOINT_BYTES,
    IMAGE_BYTES,
    STATE_BYTES,
    clock_row,
    disk_row,
    gpu_rows,
    host_rows,
)
from appliance.doctor.modelrows import (
    attached_row,
    decode_row,
    engine_row,
    memory_rows,
    model_row,
)
from appliance.doctor.row import Row, Unseen, fail, ok
from appliance.doctor.tokenizerlook import TOKENIZER_S, look_at_tokenizer
from appliance.doctor.tokenizerrows import tokenizer_row
from appliance.enginefacts import engine_facts
from appliance.errors import SettingsError
from appliance.facts import HostFacts, ModelFacts
from appliance.lan import in_container, lan_addresses
from appliance.observe import observe
from appliance.settings import Settings, load_settings
from appliance.tls import load_identity, now_utc


@dataclass(frozen=True)
class Case:
    """What is looked for: the settings, as far as they are known, and what they lead to.

    ``trouble`` is a row of its own: the container's settings cannot be read.
    """

    settings: Settings
    compose: ComposeFacts
    model_dir: Path
    trouble: Row | None = None

    @property
    def image(self) -> str:
        """The image that is wanted."""
        return self.compose.image or f"{NAME}:{self.settings.profile}"

    @property
    def ports(self) -> tuple[tuple[str, int], ...]:
        """Where it listens on this host, or will."""
        return self.compose.ports or ((self.settings.host, self.settings.port),)

    @property
    def is_boxed(self) -> bool:
        """Whether it is to run in a container."""
        return bool(self.compose.image)


def read_case(flags: Mapping[str, Any], folder: Path) -> Case:
    """Return the case of this shell's settings and the Compose files of ``folder``.

    A container's settings, where there are any, go before those of the shell, and ``flags``, of
    the command line, before both. Raises SettingsError for what is wrong in the shell.
    """
    settings = load_settings(overrides=flags)
    chosen = (settings.profile,) if "profile" in flags else ("", settings.profile)
    seen = Look("Compose", partial(look_at_compose, folder, chosen)).seen()
    compose = ComposeFacts(missing=seen.why) if isinstance(seen, Unseen) else seen
    model_dir = settings.model_dir
    if compose.model_folder and "model_dir" not in flags:
        model_dir = compose.model_folder
    try:
        inside = load_settings(overrides={**compose.settings, **flags})
    except SettingsError as error:
        return Case(settings, compose, model_dir, fail("settings", error.what, error.hint))
    return Case(inside, compose, model_dir)


def checkup(case: Case) -> Iterator[Row]:
    """Yield every row, as soon as what it needs is there: after half a minute at most."""
    settings = case.settings
    machine = partial(observe, settings.evict_cgroups, settings.cgroup_base)
    docker_look = Look("Docker", partial(look_at_docker, case.image))
    host_look = Look("the host", machine)
    state = Look("the appliance", partial(running_state, settings.state_dir))
    clock = Look("the clock", look_at_clock)
    disk = Look("the disk", partial(look_at_disk, settings.state_dir))
    ports = [Look("the port", partial(look_at_port, *port)) for port in case.ports]
    if case.trouble:
        yield case.trouble
    docker, host = docker_look.seen(), host_look.seen()
    running = _running(docker, state.seen())
    is_box = settings.profile in BOXES and settings.engine == "spawn"
    yield from docker_rows(docker, case.image, needs_gpu=is_box)
    yield from compose_rows(case.compose, is_wanted=isinstance(docker, DockerFacts))
    yield from host_rows(settings, host)
    if settings.engine_url:
        answer = Look("the engine", partial(engine_status, settings.engine_url))
        yield attached_row(settings.engine_url, answer.seen())
    else:
        yield from _engine_rows(case, docker, host, running)
    yield from _image_disk_rows(case, docker)
    if not case.is_boxed:  # whose state is in a volume, among the images
        yield disk_row("disk, state", disk.seen(), STATE_BYTES, "caches", hard=False)
    yield clock_row(clock.seen())
    for port in ports:
        yield port_row(port.seen(), running)
    yield from _door_rows(case)
    if settings.cluster_role != "off":
        yield from _cluster_rows(case)


def _cluster_rows(case: Case) -> Iterator[Row]:
    settings = case.settings
    rule = Look("the packet rule", look_at_rule)
    if case.is_boxed:  # whose state is in a volume
        other = "appliance cluster show" if settings.cluster_role == "head" else "appliance node"
        yield ok("other box", "known in the container", f"docker compose exec appliance {other}")
    else:
        look = partial(look_at_other_box, settings)
        yield from joined_rows(settings, Look("the other box", look, ANSWER_S).seen())
    yield ports_row(settings, rule.seen())


def _running(docker: DockerFacts | Unseen, live: str | Unseen) -> str:
    """Return which appliance of ours runs, for people; "" for none."""
    if live and isinstance(live, str):
        return f"an appliance runs here, {live}"
    containers = () if isinstance(docker, Unseen) else docker.containers
    names = [container.name for container in containers if container.is_running]
    return f"the container {names[0]} runs" if names else ""


def _engine_rows(
    case: Case, docker: DockerFacts | Unseen, host: HostFacts | Unseen, running: str
) -> Iterator[Row]:
    settings = case.settings
    gpus = Look("the GPU", look_at_gpus)
    look = Look("the model", partial(read_model_facts, case.model_dir))
    disk = Look("the disk", partial(look_at_disk, case.model_dir))
    tokens = partial(look_at_tokenizer, settings, case.model_dir)
    tokenizer = Look("the tokenizer", tokens, TOKENIZER_S)
    command = settings.engine_command
    yield engine_row(docker, command, shutil.which(command[0]), engine_facts(command))
    yield from gpu_rows(settings, gpus.seen())
    model: ModelFacts | Unseen = look.seen()
    if case.is_boxed and case.compose.model_folder is None:
        model = Unseen("in the image")
        yield ok("model", model.why)
    else:
        yield model_row(model, "MODEL_PATH in .env" if case.is_boxed else "")
    yield tokenizer_row(tokenizer.seen())
    if not isinstance(host, Unseen):
        yield from memory_rows(settings, host, model, running)
    if not isinstance(model, Unseen) and (row := decode_row(settings, model)):
        yield row
    is_missing = isinstance(model, Unseen) and settings.profile in BOXES
    needed = CHECKPOINT_BYTES if is_missing else 0
    yield disk_row("disk, model", disk.seen(), needed, "the checkpoint", hard=True)


def _image_disk_rows(case: Case, docker: DockerFacts | Unseen) -> Iterator[Row]:
    # an engine elsewhere has its disk elsewhere
    if isinstance(docker, Unseen) or not docker.address.startswith("unix://"):
        return
    needed = IMAGE_BYTES.get(case.settings.profile, 0) if docker.image is None else 0
    disk = Look("the disk", partial(look_at_disk, Path(docker.folder or "/")))
    yield disk_row("disk, images", disk.seen(), needed, "the image and its build", hard=False)


def _door_rows(case: Case) -> Iterator[Row]:
    settings, now = case.settings, now_utc()
    load = partial(load_identity, settings.tls_cert, settings.tls_key, now)
    # a container's certificate is in the container
    identity = None if case.is_boxed else Look("the certificate", load).seen()
    is_https = case.compose.is_https if case.is_boxed else settings.tls_cert is not None
    addresses = () if in_container() else lan_addresses()
    host, port = case.ports[0]
    yield from door_rows(host, port, identity, is_https, addresses, now)
