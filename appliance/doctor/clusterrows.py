"""What the doctor thinks of a cluster: the other box, and who reaches the engine's ports. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from appliance.cluster.compare import Compared, Verdict
from appliance.cluster.portrule import Closed
from appliance.doctor.row import Level, Row, Unseen, fail, ok, warn
from appliance.settings import Settings

_LEVELS = {Verdict.FINE: Level.OK, Verdict.WARNS: Level.WARN, Verdict.BREAKS: Level.FAIL}


@dataclass(frozen=True)
class Rule:
    """The packet rule of this host: what is kept, and whether the kernel has it (None: unseen)."""

    kept: Closed | None
    is_set: bool | None = None


@dataclass(frozen=True)
class Joined:
    """The other box, for a head: where, and both side by side. For a worker: its head's name."""

    other: str
    compared: tuple[Compared, ...] = ()


def joined_rows(settings: Settings, joined: Joined | Unseen | None) -> Iterator[Row]:
    """Yield whether the two boxes are joined, and what of them differs."""
    if settings.cluster_role == "worker":
        yield _head_row(joined)
        return
    if isinstance(joined, Unseen):
        yield fail("worker", joined.why, joined.next)
    elif joined is None:
        steps = "appliance node on the worker shows a code; here: appliance cluster join CODE"
        yield fail("worker", "none has joined", steps)
    else:
        yield from _compared_rows(joined.other, joined.compared)


def _head_row(joined: Joined | Unseen | None) -> Row:
    if isinstance(joined, Unseen):
        return fail("head", joined.why, joined.next)
    if joined is None:
        return warn("head", "none has joined", "appliance node shows a code for it")
    return ok("head", f"{joined.other} has joined")


def _compared_rows(address: str, compared: Sequence[Compared]) -> Iterator[Row]:
    differing = [row for row in compared if row.verdict is not Verdict.FINE]
    if not differing:
        yield ok("worker", f"{address}, alike in {len(compared)} things")
    else:
        yield ok("worker", f"{address} answers")
    for row in differing:
        value = f"{row.name}: {row.head} here, {row.worker} on the worker"
        yield Row("boxes differ", _LEVELS[row.verdict], value, row.next)


def ports_row(settings: Settings, rule: Rule | Unseen) -> Row:
    """Return whether the engine's ports are closed to all but the other box."""
    is_head = settings.cluster_role == "head"
    peer = settings.cluster_worker if is_head else settings.cluster_head
    cable = settings.cluster_interface
    step = f"sudo appliance host install --cable {cable} --peer {peer}"
    if isinstance(rule, Unseen):
        return warn("cluster ports", rule.why, rule.next)
    kept = rule.kept
    if kept is None:
        return warn("cluster ports", "the engine's own ports answer whoever reaches this box", step)
    if (kept.interface, kept.peer) != (cable, peer):
        value = f"closed to all but {kept.peer} on {kept.interface}, and the other box is {peer}"
        return fail("cluster ports", f"{value} on {cable}", step)
    missing = {settings.cluster_port, settings.cluster_master_port} - set(kept.ports)
    if open_ports := sorted(p for p in missing if not kept.picked[0] <= p <= kept.picked[1]):
        return warn("cluster ports", f"{', '.join(map(str, open_ports))} are not closed", step)
    if rule.is_set is False:
        return warn("cluster ports", "the rule is installed, and the kernel does not have it", step)
    value = f"TCP {kept.shown} answer {kept.peer} alone"
    if rule.is_set is None:
        return ok("cluster ports", f"{value}, as installed", "sudo appliance host status looks")
    return ok("cluster ports", value)
