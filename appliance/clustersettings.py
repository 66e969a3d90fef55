"""What was chosen about a second box: fields alone, and what contradicts itself among them."""

import ipaddress
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from appliance.fieldtypes import Seconds, named_flag

# They are made of the settings and the node's rank.
CLUSTER_FLAGS = (
    *("--tensor-parallel-size", "--pipeline-parallel-size", "--distributed-executor-backend"),
    *("--nnodes", "--node-rank", "--master-addr", "--master-port", "--headless"),
)
_SHORT_FLAGS = ("-tp", "-pp")


def _cable_address(value: str) -> str:
    try:
        address = ipaddress.ip_address(value)
    except ValueError:
        raise ValueError("must be an IP address of the cable, for example 192.168.100.1") from None
    if address.is_loopback or address.is_unspecified or address.is_multicast:
        raise ValueError("must be the address of one box, which the other one reaches")
    return str(address)


CableAddress = Annotated[str, AfterValidator(_cable_address)]
Interface = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$")]


class ClusterSettings(BaseModel):
    """The fields of ``Settings`` that speak of a second box; alike on both but for the role."""

    cluster_role: Literal["off", "head", "worker"] = Field(
        "off", description="this box of two: head (it serves) or worker (appliance node)"
    )
    cluster_head: CableAddress | None = Field(None, description="the head's address on the cable")
    cluster_worker: CableAddress | None = Field(
        None, description="the worker's address on the cable"
    )
    cluster_interface: Interface | None = Field(
        None, description="this box's network interface of the cable"
    )
    cluster_port: int = Field(
        9001, ge=1024, le=65535, description="port at which the worker takes its head's orders"
    )
    cluster_master_port: int = Field(
        29501, ge=1024, le=65535, description="port at which the engine's two parts meet"
    )
    cluster_executor: Literal["mp", "ray"] = Field(
        "mp", description="vLLM's own executor, or a Ray that you run yourself (expected)"
    )
    cluster_execute_timeout_s: Seconds = Field(
        60.0, description="longest step of the engine over both boxes; then it ends"
    )
    cluster_patience_s: Seconds = Field(
        10.0, description="longest silence of the other box, or of the cable, that is no failure"
    )
    tensor_parallel_size: int = Field(
        1, ge=1, le=64, description="GPUs that the model is split over; a cluster: 2"
    )


def cluster_conflict(settings: ClusterSettings, engine: str, extra: Iterable[str]) -> str:
    """Return what about the cluster contradicts itself, and what to do about it; "" for nothing.

    ``engine`` is "spawn" or "attach", ``extra`` are vLLM's further flags.
    """
    if settings.cluster_role == "off":
        if settings.tensor_parallel_size > 1:
            return (
                f"APPLIANCE_TENSOR_PARALLEL_SIZE={settings.tensor_parallel_size} needs a second "
                "box: set APPLIANCE_CLUSTER_ROLE=head"
            )
        return ""
    role = f"APPLIANCE_CLUSTER_ROLE={settings.cluster_role}"
    names = ("cluster_head", "cluster_worker", "cluster_interface")
    missing = [f"APPLIANCE_{name.upper()}" for name in names if not getattr(settings, name)]
    if missing:
        return f"{role} needs {', '.join(missing)}"
    if settings.cluster_head == settings.cluster_worker:
        return f"APPLIANCE_CLUSTER_HEAD and _WORKER are both {settings.cluster_head}: two boxes"
    if engine == "attach":
        return f"{role} spawns its engine: it cannot be beside APPLIANCE_ENGINE=attach"
    if settings.tensor_parallel_size % 2:
        return (
            f"APPLIANCE_TENSOR_PARALLEL_SIZE={settings.tensor_parallel_size} cannot be split "
            f"over two boxes, as {role} does: set it to 2"
        )
    for word in extra:
        if word.partition("=")[0] in _SHORT_FLAGS or named_flag(word, CLUSTER_FLAGS):
            return f"APPLIANCE_ENGINE_EXTRA_ARGS must not hold {word} beside {role}"
    return ""
