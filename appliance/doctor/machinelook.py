"""Looks at the host: GPUs, disks, clock, ports, and whether an appliance runs here."""

import shutil
from datetime import UTC, datetime
from pathlib import Path

import httpx

from appliance.doctor.ask import ask
from appliance.doctor.machinefacts import (
    Clock,
    Disk,
    Gpus,
    Port,
    parse_cards,
    parse_synchronized,
)
from appliance.errors import HostError, SettingsError
from appliance.host import bind, control_socket

SMI = ("nvidia-smi", "--query-gpu=name,driver_version,compute_cap,clocks.sm,clocks.max.sm",
       "--format=csv,noheader,nounits")  # fmt: skip
TIMEDATECTL = ("timedatectl", "show", "--property=NTPSynchronized", "--value")
LIVE_S = 3.0


def look_at_gpus() -> Gpus:
    """Return the GPUs."""
    answer = ask(SMI)
    if answer.why:
        return Gpus(why=answer.why)
    cards = parse_cards(answer.text)
    return Gpus(cards, "" if cards else "nvidia-smi names no GPU")


def look_at_disk(path: Path) -> Disk:
    """Return the free space where ``path`` is, or would be made. Raises OSError."""
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    usage = shutil.disk_usage(there)
    return Disk(path, usage.free, usage.total)


def look_at_clock() -> Clock:
    """Return the time, and whether it is kept right."""
    answer = ask(TIMEDATECTL)
    return Clock(datetime.now(UTC), parse_synchronized(answer.text))


def look_at_port(host: str, port: int) -> Port:
    """Return whether the port can be had: it is taken for a moment."""
    try:
        with bind(host, port):
            return Port(host, port)
    except (HostError, SettingsError) as error:
        return Port(host, port, error.what, error.hint)


def engine_status(url: str) -> int:
    """Return how an engine that somebody else runs answers for its health."""
    return httpx.get(f"{url}/health", timeout=LIVE_S, trust_env=False).status_code


def running_state(state_dir: Path) -> str:
    """Return the engine's state of the appliance of this state folder; "" where none runs."""
    path = control_socket(state_dir)
    if not path.exists():
        return ""
    with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), timeout=LIVE_S) as client:
        try:
            told = client.get("http://appliance/health").json()
        except (httpx.HTTPError, ValueError):
            return ""
    state = told.get("state") if isinstance(told, dict) else None
    return state if isinstance(state, str) else ""
