"""What the doctor thinks of the door: the port, who reaches it, and over what. Pure."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from appliance.doctor.machinefacts import Port
from appliance.doctor.row import Row, Unseen, fail, ok, warn
from appliance.fieldtypes import is_loopback
from appliance.lan import lan_urls
from appliance.tls import Identity


def port_row(port: Port | Unseen, owner: str) -> Row:
    """Return whether the port can be had. ``owner``: what of ours has it now; "" for nothing."""
    if isinstance(port, Unseen):
        return warn("port", port.why, "ss -ltn")
    value = f"{port.port} on {port.host}"
    if not port.holder:
        return ok("port", f"{value} is free")
    if owner:
        return ok("port", f"{value}: {owner}")
    return fail("port", port.holder, port.hint)


def door_rows(
    host: str, port: int, identity: Identity | Unseen | None, is_https: bool,
    addresses: Sequence[str], now: datetime,
) -> Iterator[Row]:  # fmt: skip
    """Yield who reaches the appliance, and over what."""
    scheme = "https" if is_https else "http"
    if is_loopback(host):
        yield ok("network", "this machine alone", "APPLIANCE_LISTEN=lan opens it to the network")
    elif is_https:
        yield ok("network", lan_urls(scheme, port, addresses))
    else:
        yield warn(
            "network",
            f"{lan_urls(scheme, port, addresses)}: whoever is there can read keys and prompts",
            "appliance cert, then APPLIANCE_TLS_CERT and APPLIANCE_TLS_KEY as it says",
        )
    if isinstance(identity, Unseen):
        yield fail("certificate", identity.why, identity.next)
    elif identity is not None:
        told = identity.warnings(now)
        for what, hint in told:
            yield warn("certificate", what, hint)
        if not told:
            days = identity.days_left(now)
            yield ok("certificate", f"{identity.cert}, valid for {days} days")
