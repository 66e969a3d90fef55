"""Looks at this node for the comparison: engine, checkpoint, driver, cable, memory."""

import hashlib
import os
import platform
import re
import shutil
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance import __version__
from appliance.cluster.peer import NodeFacts
from appliance.enginefacts import engine_facts
from appliance.host import memory_snapshot
from appliance.settings import Settings

MOST_HEADER_BYTES = 100 * 2**20  # safetensors' own bound
_SHOWN = 120

# What each box's own engine is started with, and both must have alike.
SHAPING = (
    *("profile", "model_profile", "tensor_parallel_size", "max_model_len", "max_num_seqs"),
    *("max_num_batched_tokens", "kv_cache_dtype", "attention_backend", "moe_backend"),
    *("enforce_eager", "cudagraph_capture_sizes", "speculation", "speculation_tokens"),
    *("engine_extra_args", "cluster_head", "cluster_worker", "cluster_port"),
    *("cluster_master_port", "cluster_executor", "cluster_execute_timeout_s"),
)


@dataclass(frozen=True)
class Places:
    """Where the kernel tells of itself."""

    net: Path = Path("/sys/class/net")
    infiniband: Path = Path("/sys/class/infiniband")
    nvidia: Path = Path("/proc/driver/nvidia")


def look_at_node(settings: Settings, places: Places | None = None) -> NodeFacts:
    """Return what is seen of this node; reads headers, never weights. Never raises."""
    places = places or Places()
    facts, memory = engine_facts(settings.engine_command), memory_snapshot()
    interface = settings.cluster_interface or ""
    return NodeFacts(
        appliance_version=__version__,
        engine_version=facts.vllm or installed_engine(settings.engine_command),
        patches=tuple(sorted(facts.patches)),
        checkpoint=checkpoint_identity(settings.model_dir),
        machine=platform.machine(),
        accelerator=_accelerator(places.nvidia),
        driver=_driver(places.nvidia),
        interface=interface,
        mtu=_number(places.net / interface / "mtu") if interface else None,
        link_mbps=_number(places.net / interface / "speed") if interface else None,
        rdma_devices=_rdma(places.infiniband),
        memory_total_bytes=memory.get("MemTotal", 0),
        memory_available_bytes=memory.get("MemAvailable", 0),
        engine_settings=shaping(settings),
    )


def shaping(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return the settings that both nodes must have alike, as (variable, value)."""
    chosen = settings.model_dump(mode="json", include=set(SHAPING))
    rows = ((name, "" if chosen[name] is None else str(chosen[name])) for name in SHAPING)
    return tuple((f"APPLIANCE_{name.upper()}", _short(value)) for name, value in rows)


def _short(value: str) -> str:
    if len(value) <= _SHOWN:
        return value
    return f"{value[: _SHOWN - 20]}… {hashlib.sha256(value.encode()).hexdigest()[:16]}"


def checkpoint_identity(folder: Path) -> str:
    """Return the SHA-256 of a checkpoint's config, index and shards' headers; "" for none.

    Two folders of one identity hold tensors of the same names, types and places. A flipped byte
    of a weight is not seen: for that there is appliance model verify.
    """
    digest = hashlib.sha256()
    try:
        shards = sorted(path for path in folder.iterdir() if path.suffix == ".safetensors")
        for name in ("config.json", "model.safetensors.index.json"):
            path = folder / name
            digest.update(hashlib.sha256(path.read_bytes() if path.exists() else b"").digest())
        for shard in shards:
            digest.update(hashlib.sha256(os.fsencode(shard.name)).digest())
            digest.update(hashlib.sha256(_header(shard)).digest())
            digest.update(shard.stat().st_size.to_bytes(8))
    except (OSError, ValueError, struct.error):
        return ""
    return digest.hexdigest() if shards else ""


def _header(shard: Path) -> bytes:
    with shard.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        if size > MOST_HEADER_BYTES:
            raise ValueError(f"{shard} has a header of {size} bytes")
        return file.read(size)


def installed_engine(command: Sequence[str]) -> str:
    """Return the version of vLLM beside the engine's program; "" where none is seen."""
    program = shutil.which(command[0]) if command else None
    if program is None:
        return ""
    for path in (Path(program), Path(program).resolve()):
        found = path.absolute().parent.parent.glob("lib/python3*/site-packages/vllm-*.dist-info")
        for folder in sorted(found):
            return folder.name.removeprefix("vllm-").removesuffix(".dist-info")
    return ""


def _accelerator(nvidia: Path) -> str:
    for file in sorted(nvidia.glob("gpus/*/information")):
        for line in _text(file).splitlines():
            if line.startswith("Model:"):
                return line.partition(":")[2].strip()
    return ""


def _driver(nvidia: Path) -> str:
    found = re.search(r"\s(\d+\.\d+(\.\d+)?)\s", _text(nvidia / "version"))
    return found.group(1) if found else ""


def _rdma(infiniband: Path) -> tuple[str, ...]:
    states = sorted(infiniband.glob("*/ports/*/state"))
    active = [file for file in states if "ACTIVE" in _text(file)]
    return tuple(dict.fromkeys(file.parents[2].name for file in active))


def _number(file: Path) -> int | None:
    text = _text(file).strip()
    return int(text) if text.isdecimal() else None  # a link that is down says -1, or nothing


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
