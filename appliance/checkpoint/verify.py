"""Compares a pruned checkpoint with its source: every tensor, every byte, every number."""

import threading
from dataclasses import dataclass, field
from functools import partial

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.census import Census
from appliance.checkpoint.content import content_of
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.faults import RemoteError
from appliance.checkpoint.headers import Header, Tensor, parse_header, read_header
from appliance.checkpoint.jobs import Stopped, side_by_side
from appliance.checkpoint.plan import ShardPlan, groups
from appliance.checkpoint.prune import PrunePlan
from appliance.checkpoint.scalars import PairedScales, read_scalars, strange
from appliance.checkpoint.source import BUFFER_BYTES, LocalSource, Source
from appliance.checkpoint.tensornames import roles_of

REMOTE_STEP_BYTES = 16 * 2**20  # each step is a request
MOST_PROBLEMS = 200


@dataclass
class Verification:
    """What was compared, and what is wrong (empty: nothing)."""

    files: int = 0
    tensors: int = 0
    compared_bytes: int = 0
    scalars: int = 0
    tensors_an_expert: int = 0
    format_name: str = ""
    problems: list[str] = field(default_factory=list)

    def wrong(self, what: str) -> None:
        """Remember one thing that is wrong; the list does not grow without end."""
        if len(self.problems) < MOST_PROBLEMS:
            self.problems.append(what)


class Verifier:
    """Compares ``pruned`` with what ``plan`` takes from ``source``."""

    def __init__(self, source: Source, pruned: Source, plan: PrunePlan, bar: Bar) -> None:
        self._source, self._pruned, self._plan, self._bar = source, pruned, plan, bar
        self._found = Verification()
        self._lock, self._pairs, self._stop = threading.Lock(), PairedScales(), threading.Event()
        self._step = BUFFER_BYTES if isinstance(source, LocalSource) else REMOTE_STEP_BYTES
        mask = plan.wanted.rules.mask
        self._census = Census(len(mask.deleted), mask.retained)

    def verify(self, jobs: int) -> Verification:
        """Compare everything, ``jobs`` files at a time.

        Raises RemoteError when a server does not give the source: that is no difference.
        """
        found, plan = self._found, self._plan
        names = {*self._pruned.names()}
        wanted = {*plan.files, *plan.texts}
        for name in sorted(wanted - names):
            found.wrong(f"{name} is missing")
        for name in sorted(names - wanted):
            found.wrong(f"{name} is not of the source")
        for name in sorted(plan.texts.keys() & names):
            self._same_text(name, plan.texts[name])
        there = [file for name, file in plan.files.items() if name in names]
        side_by_side([partial(self._file, file) for file in there], jobs, self._end)
        for problem in self._census.problems():
            found.wrong(problem)
        found.tensors = self._census.tensors
        found.tensors_an_expert = len(self._census.parts())
        found.format_name = self._census.format_name()
        return found

    def _end(self) -> None:
        self._stop.set()
        self._source.stop()

    def _same_text(self, name: str, text: bytes) -> None:
        size = self._pruned.size(name)
        self._found.files += 1
        if size != len(text) or self._pruned.read(name, 0, size) != text:
            self._found.wrong(f"{name} is not what it should be: written by hand since?")

    def _file(self, plan: ShardPlan) -> None:
        """Compare one copied file. What is wrong with it is noted, never raised."""
        try:
            header = self._same_head(plan) if plan.head else None
            if self._pruned.size(plan.name) != plan.size:
                raise CheckpointError(
                    f"{plan.name} has {self._pruned.size(plan.name):,} bytes, not {plan.size:,}"
                )
            self._same_bytes(plan, header)
            self._count(files=1)
        except RemoteError:
            raise
        except CheckpointError as cause:
            self._note(cause.what)

    def _same_head(self, plan: ShardPlan) -> Header:
        """Compare names, types, shapes and places, and count them. Return the header."""
        header = read_header(self._pruned, plan.name)
        if self._pruned.read(plan.name, 0, header.data_start) != plan.head:
            wanted = parse_header(plan.head[8:], plan.size)
            raise CheckpointError(f"{plan.name} {_difference(header.tensors, wanted.tensors)}")
        with self._lock:
            experts = self._plan.wanted.rules.mask.retained
            self._census.add(header.tensors, roles_of(header.tensors, experts))
        self._scales(plan.name, header)
        return header

    def _same_bytes(self, plan: ShardPlan, header: Header | None) -> None:
        position = len(plan.head)
        for group in groups(plan.ranges):
            for wanted in content_of(self._source, plan.name, group, self._step):
                if self._stop.is_set():
                    raise Stopped
                there = self._pruned.read(plan.name, position, len(wanted))
                if wanted != there:
                    at = position + _first_difference(wanted, there)
                    holder = _holder(header, at) if header else ""
                    raise CheckpointError(f"{plan.name} {holder} differs at byte {at:,}")
                position += len(wanted)
                self._bar.add(len(wanted))
        self._count(compared_bytes=position - len(plan.head))

    def _scales(self, name: str, header: Header) -> None:
        values = list(read_scalars(self._pruned, name, header))
        self._count(scalars=len(values))
        with self._lock:
            for tensor, value in values:
                if what := strange(value):
                    self._found.wrong(f"{tensor} {what}: {value}")
                if differing := self._pairs.add(tensor, value):
                    self._found.wrong(differing)

    def _note(self, what: str) -> None:
        with self._lock:
            self._found.wrong(what)

    def _count(self, *, files: int = 0, compared_bytes: int = 0, scalars: int = 0) -> None:
        with self._lock:
            self._found.files += files
            self._found.compared_bytes += compared_bytes
            self._found.scalars += scalars


def _difference(there: tuple[Tensor, ...], wanted: tuple[Tensor, ...]) -> str:
    lacking, added = {*wanted} - {*there}, {*there} - {*wanted}
    for what, some in (("lacks, or has changed,", lacking), ("adds", added)):
        if some:
            return f"{what} {min(some).name} and {len(some) - 1} other tensors"
    return "has a header that is spelled or ordered in another way"


def _first_difference(first: bytes, second: bytes) -> int:
    return next(at for at, (a, b) in enumerate(zip(first, second, strict=True)) if a != b)


def _holder(header: Header, at: int) -> str:
    """Return the tensor that holds a byte of the file, "" outside all."""
    place = at - header.data_start
    return next((t.name for t in header.tensors if t.start <= place < t.stop), "")
