"""What differs between the two nodes, and whether that breaks the engine. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from appliance.cluster.peer import NodeFacts
from appliance.errors import HostError
from appliance.sizes import format_size

MOST_SKEW_S = 2.0
LIKE_MEMORY = 0.05  # two boxes of one kind differ by less
UNSEEN = "not seen"


class Verdict(StrEnum):
    """What a row means for a start: BREAKS is refused before it."""

    FINE = "fine"
    WARNS = "warns"
    BREAKS = "breaks"


class NodesDiffer(HostError):
    """The nodes differ in what breaks the engine."""

    exit_code = 78  # EX_CONFIG
    code = "nodes_differ"


@dataclass(frozen=True)
class Compared:
    """One thing of both nodes, as people read it; ``next`` is what to type, "" where it is fine."""

    name: str
    head: str
    worker: str
    verdict: Verdict
    next: str = ""


def compare(head: NodeFacts, worker: NodeFacts) -> tuple[Compared, ...]:
    """Return a row for each thing that both nodes must have alike, or should."""
    return (
        *_versions(head, worker),
        _alike("checkpoint", head.checkpoint[:16], worker.checkpoint[:16], Verdict.BREAKS,
               "copy the model folder from one box to the other: rsync -a", must_see=True),
        *_settings(head, worker),
        *_boxes(head, worker),
        *_cable(head, worker),
        _clock(head, worker),
    )  # fmt: skip


def refuse(rows: tuple[Compared, ...]) -> None:
    """Raise NodesDiffer, with every row that breaks, where there is one."""
    broken = [row for row in rows if row.verdict is Verdict.BREAKS]
    if broken:
        told = "; ".join(f"{r.name}: {r.head} here, {r.worker} on the worker" for r in broken)
        steps = "; ".join(dict.fromkeys(row.next for row in broken))
        raise NodesDiffer(f"the two boxes differ: {told}", steps)


def _versions(head: NodeFacts, worker: NodeFacts) -> Iterator[Compared]:
    breaks, same = Verdict.BREAKS, "install the same release on both boxes"
    yield _alike(
        "appliance", head.appliance_version, worker.appliance_version, breaks, same, must_see=True
    )
    yield _alike("engine", head.engine_version, worker.engine_version, breaks, same)
    of_head, of_worker = (", ".join(sorted(node.patches)) or "none" for node in (head, worker))
    yield _alike("patches", of_head, of_worker, breaks, "run the same image on both boxes")


def _settings(head: NodeFacts, worker: NodeFacts) -> Iterator[Compared]:
    ours, theirs = dict(head.engine_settings), dict(worker.engine_settings)
    differing = [n for n in sorted({*ours, *theirs}) if ours.get(n, "") != theirs.get(n, "")]
    for name in differing:
        values = (ours.get(name) or "unset", theirs.get(name) or "unset")
        yield Compared(name, *values, Verdict.BREAKS, f"set {name} alike on both boxes")
    if not differing:
        yield Compared("settings", "alike", "alike", Verdict.FINE)


def _boxes(head: NodeFacts, worker: NodeFacts) -> Iterator[Compared]:
    unlike = "boxes of two kinds were never tried: expect the slower one's speed, or less"
    yield _alike("machine", head.machine, worker.machine, Verdict.WARNS, unlike)
    yield _alike("accelerator", head.accelerator, worker.accelerator, Verdict.WARNS, unlike)
    yield _alike("driver", head.driver, worker.driver, Verdict.WARNS, "update the older driver")
    sizes = [node.memory_total_bytes for node in (head, worker)]
    is_like = max(sizes) - min(sizes) <= LIKE_MEMORY * max(sizes)
    verdict = Verdict.FINE if is_like else Verdict.WARNS
    hint = "" if is_like else "the lesser box decides how much context there is"
    yield Compared("memory", format_size(sizes[0]), format_size(sizes[1]), verdict, hint)


def _cable(head: NodeFacts, worker: NodeFacts) -> Iterator[Compared]:
    yield _mtu(head, worker)
    speeds = [f"{n.link_mbps} Mb/s" if n.link_mbps else "" for n in (head, worker)]
    hint = "look at the cable and at both ends: ethtool INTERFACE"
    yield _alike("link", speeds[0], speeds[1], Verdict.WARNS, hint)
    counts = [f"{len(n.rdma_devices)} active" for n in (head, worker)]
    hint = "NCCL wants it on both boxes, or on none: rdma link"
    yield _alike("rdma", counts[0], counts[1], Verdict.WARNS, hint)


def _mtu(head: NodeFacts, worker: NodeFacts) -> Compared:
    values = [str(n.mtu) if n.mtu else f"no {n.interface or 'interface'}" for n in (head, worker)]
    if head.mtu is None or worker.mtu is None:
        hint = "name each box's own interface: APPLIANCE_CLUSTER_INTERFACE; ip -br address"
        return Compared("mtu", values[0], values[1], Verdict.BREAKS, hint)
    hint = "set both alike: ip link set INTERFACE mtu 9000"
    return _alike("mtu", values[0], values[1], Verdict.WARNS, hint)


def _clock(head: NodeFacts, worker: NodeFacts) -> Compared:
    skew_s = worker.clock_skew_s - head.clock_skew_s
    known_s = max(head.round_trip_s, worker.round_trip_s) / 2
    is_fine = abs(skew_s) <= MOST_SKEW_S + known_s
    verdict = Verdict.FINE if is_fine else Verdict.WARNS
    hint = "" if is_fine else "nothing breaks, but logs do not fit: timedatectl set-ntp true"
    return Compared("clock", f"{-skew_s:+z.1f} s", f"{skew_s:+z.1f} s", verdict, hint)


def _alike(
    name: str, head: str, worker: str, otherwise: Verdict, hint: str, *, must_see: bool = False
) -> Compared:
    """Return FINE for values that are alike, WARNS at least where one was not seen."""
    shown = (head or UNSEEN, worker or UNSEEN)
    if head and worker:
        is_fine = head == worker
        verdict = Verdict.FINE if is_fine else otherwise
    else:
        is_fine = not must_see and head == worker
        verdict = Verdict.FINE if is_fine else (otherwise if must_see else Verdict.WARNS)
    return Compared(name, *shown, verdict, "" if is_fine else hint)
