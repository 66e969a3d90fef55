"""By which addresses the machine is reached on its network."""

import contextlib
import fcntl
import socket
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

from appliance.fieldtypes import is_loopback

_SIOCGIFADDR = 0x8915
_SOME_HOST = ("192.0.2.1", 9)  # of the documents' own network: nothing is sent there
_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))
_LOCAL = ("localhost", "127.0.0.1", "::1")


def in_container(marks: tuple[Path, ...] = _MARKS) -> bool:
    """Tell whether this is a container, whose own addresses lead nobody to it."""
    return any(mark.exists() for mark in marks)


def lan_addresses(net: Path = Path("/sys/class/net")) -> tuple[str, ...]:
    """Return this machine's IPv4 addresses: the one of its default route first.

    Those of bridges and of virtual interfaces are left out: they lead to containers.
    """
    return tuple(dict.fromkeys((*_towards_the_world(), *_of_cards(net))))


def machine_names(*, is_boxed: bool) -> tuple[str, ...]:
    """Return by which names and addresses this machine is reached, loopback included.

    ``is_boxed``: in a container, whose own name and addresses nobody outside knows.
    """
    if is_boxed:
        return _LOCAL
    name = socket.gethostname().lower()
    mdns = () if "." in name else (f"{name}.local",)
    return tuple(dict.fromkeys((name, *mdns, *lan_addresses(), *_LOCAL)))


def lan_urls(scheme: str, port: int, addresses: Sequence[str]) -> str:
    """Return where others on the network find the appliance, for people.

    Without addresses (a container's own lead nobody to it) a word stands for them.
    """
    return " ".join(f"{scheme}://{host}:{port}" for host in addresses or ("ADDRESS-OF-THIS-BOX",))


def _towards_the_world() -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(_SOME_HOST)  # picks a route and an address, and sends nothing
        except OSError:
            return
        address = str(probe.getsockname()[0])
    if not is_loopback(address):
        yield address


def _of_cards(net: Path) -> Iterator[str]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            if (net / name / "device").exists():
                request = struct.pack("256s", name.encode()[:15])
                with contextlib.suppress(OSError):  # it has no address
                    reply = fcntl.ioctl(probe, _SIOCGIFADDR, request)
                    yield socket.inet_ntoa(reply[20:24])
