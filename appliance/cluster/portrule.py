"""The packet rule of a node: the engine's ports are the other node's alone. Pure.

vLLM's and torch's own connections have no key, and their ports listen on every address: one that
is fixed, and others that the kernel picks from its range. So whoever is not the peer, on the
cable, gets no answer there. It is a table of its own: no other table is looked at or changed.
Only what opens a connection is dropped, so replies to this machine's own connections pass, and
no connection is tracked.
"""

import hashlib
import ipaddress
import json
import re
from dataclasses import dataclass

from appliance.errors import SettingsError

UNIT = "unglitched-ports.service"
TABLE = "inet unglitched"
NFT = "/usr/sbin/nft"
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}")
_MARK = "# for: "


@dataclass(frozen=True)
class Closed:
    """Which ports are closed, to all but ``peer`` on ``interface``."""

    interface: str
    peer: str
    ports: tuple[int, ...]  # the node's orders, torch's meeting point
    picked: tuple[int, int]  # the range of which the kernel picks, both ends in it

    @property
    def shown(self) -> str:
        """The ports, for people and for nft."""
        return ", ".join([*map(str, self.ports), f"{self.picked[0]}-{self.picked[1]}"])


def checked(interface: str, peer: str, ports: tuple[int, ...], picked: tuple[int, int]) -> Closed:
    """Return the rule's values. Raises SettingsError for one that nft would read otherwise."""
    if not _INTERFACE.fullmatch(interface):
        raise SettingsError(
            f"--cable {interface!r} is no name of a network interface", "ip -br link lists them"
        )
    try:
        address = ipaddress.ip_address(peer)
    except ValueError:
        raise SettingsError(
            f"--peer {peer!r} is no IP address", "name the other box's on the cable"
        ) from None
    low, high = picked
    single = tuple(sorted({port for port in ports if not low <= port <= high}))
    if not 1024 <= low <= high <= 65535 or not all(1024 <= port <= 65535 for port in single):
        raise SettingsError(
            f"the ports {single} and {low}-{high} are not all within 1024 and 65535",
            "look at net.ipv4.ip_local_port_range: below 1024 are the machine's own services",
        )
    return Closed(interface, str(address), single, picked)


def rule_text(closed: Closed) -> str:
    """Return what nft loads, in one transaction: the table anew, whatever was in it."""
    family = "ip6" if ":" in closed.peer else "ip"
    opening = f"tcp flags & (syn | ack) == syn tcp dport {{ {closed.shown} }}"
    return f"""\
# Written by appliance host install, taken away by appliance host remove.
{_MARK}{json.dumps([closed.interface, closed.peer, closed.ports, closed.picked])}
table {TABLE}
delete table {TABLE}
table {TABLE} {{
    chain input {{
        type filter hook input priority filter; policy accept;
        iifname "lo" accept
        iifname "{closed.interface}" {family} saddr {closed.peer} accept
        {opening} counter drop comment "{digest(closed)}"
    }}
}}
"""


def parse_rule(text: str) -> Closed | None:
    """Return what a file of ours closes; None when it is none of ours."""
    lines = [line for line in text.splitlines() if line.startswith(_MARK)]
    try:
        interface, peer, ports, picked = json.loads(lines[0].removeprefix(_MARK))
        return checked(interface, peer, tuple(ports), (picked[0], picked[1]))
    except (IndexError, ValueError, TypeError, SettingsError):
        return None


def digest(closed: Closed) -> str:
    """Return the mark that the rule carries: another one's is told apart."""
    values = json.dumps([closed.interface, closed.peer, closed.ports, closed.picked])
    return "unglitched " + hashlib.sha256(values.encode()).hexdigest()[:16]


def is_in_force(closed: Closed, listed: str) -> bool:
    """Whether what ``nft -j list table`` printed is the table of this rule, whole."""
    try:
        found = json.loads(listed)["nftables"]
        hooks = [item["chain"].get("hook") for item in found if "chain" in item]
        comments = [item["rule"].get("comment") for item in found if "rule" in item]
    except (ValueError, KeyError, TypeError, AttributeError):
        return False
    return hooks == ["input"] and comments == [None, None, digest(closed)]


def unit_text(closed: Closed, file: str) -> str:
    """Return the unit that sets the rule before the network is up, and at its stop removes it."""
    return f"""\
# Written by appliance host install, taken away by appliance host remove.
#
# The ports {closed.shown} (TCP) answer {closed.peer} on {closed.interface} alone.

[Unit]
Description=Unglitched: closes the engine's ports to all but the other box
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target shutdown.target
Conflicts=shutdown.target
# That service empties every table when it starts and when it stops.
After=local-fs.target nftables.service
PartOf=nftables.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={NFT} -f {file}
ExecReload={NFT} -f {file}
ExecStop=-{NFT} delete table {TABLE}
CapabilityBoundingSet=CAP_NET_ADMIN
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateDevices=yes
RestrictAddressFamilies=AF_NETLINK
MemoryDenyWriteExecute=yes

[Install]
WantedBy=multi-user.target
"""
