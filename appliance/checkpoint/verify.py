"""Compares a pruned checkpoint with its source: every tensor, every byte, every number."""

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.census import Census
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.headers import Header, read_header, render_header
from appliance.checkpoint.plan import ShardPlan, chunks, groups, read_group
from appliance.checkpoint.prune import PrunePlan, plan_file
from appliance.checkpoint.scalars import read_scalars, strange
from appliance.checkpoint.source import Source

CHUNK_BYTES = 2**20
MOST_PROBLEMS = 200
# The gate and the up projection are one matrix in vLLM: they must share one scale.
_SHARED = ("weight_scale_2", "weight_global_scale")


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
        self._lock = threading.Lock()
        mask = plan.wanted.rules.mask
        self._census = Census(len(mask.deleted), mask.retained)

    def verify(self, jobs: int) -> Verification:
        """Compare everything, ``jobs`` files at a time."""
        found, plan = self._found, self._plan
        names = {*self._pruned.names()}
        wanted = {*plan.sizes, *plan.texts}
        for name in sorted(wanted - names):
            found.wrong(f"{name} is missing")
        for name in sorted(names - wanted):
            found.wrong(f"{name} is not of the source")
        for name in sorted(plan.texts.keys() & names):
            self._same_text(name, plan.texts[name])
        with ThreadPoolExecutor(jobs, "verify") as pool:
            work = [pool.submit(self._file, name) for name in plan.sizes if name in names]
            for future in work:
                future.result()
        for problem in self._census.problems():
            found.wrong(problem)
        found.tensors = self._census.tensors
        found.tensors_an_expert = len(self._census.parts())
        found.format_name = self._census.format_name()
        return found

    def _same_text(self, name: str, text: bytes) -> None:
        size = self._pruned.size(name)
        self._found.files += 1
        if size != len(text) or self._pruned.read(name, 0, size) != text:
            self._found.wrong(f"{name} is not what it should be: written by hand since?")

    def _file(self, name: str) -> None:
        """Compare one copied file. What is wrong is noted, never raised."""
        try:
            plan = plan_file(self._source, name, self._plan)
            if plan.head:
                self._shard(name, plan)
            elif self._pruned.size(name) != plan.size:
                raise CheckpointError(f"{name} has not the length of the source's")
            self._same_bytes(name, plan, len(plan.head))
            self._count(files=1)
        except CheckpointError as cause:
            self._note(cause.what)

    def _shard(self, name: str, plan: ShardPlan) -> None:
        header = read_header(self._pruned, name)
        if header.tensors != plan.tensors:
            raise CheckpointError(f"{name} {_difference(header, plan)}")
        if render_header(header.tensors, header.metadata) != plan.head:
            raise CheckpointError(f"the header of {name} is spelled in another way")
        with self._lock:
            self._census.add(header.tensors)
        self._scales(name, header)

    def _same_bytes(self, name: str, plan: ShardPlan, position: int) -> None:
        """Compare all ranges; one line tells where the first byte differs."""
        for group in groups(chunks(plan.ranges, CHUNK_BYTES)):
            wanted = read_group(self._source, name, group)
            there = self._pruned.read(name, position, len(wanted))
            if wanted != there:
                byte = next(
                    i
                    for i, pair in enumerate(zip(wanted, there, strict=True))
                    if pair[0] != pair[1]
                )
                at = position + byte
                raise CheckpointError(f"{name} {_holder(plan, at)} differs at byte {at:,}")
            self._bar.add(len(wanted))
            self._count(compared_bytes=len(wanted))
            position += len(wanted)

    def _scales(self, name: str, header: Header) -> None:
        values = dict(read_scalars(self._pruned, name, header))
        self._count(scalars=len(values))
        for tensor, value in values.items():
            if what := strange(value):
                self._note(f"{tensor} {what}: {value}")
            stem, _, part = tensor.rpartition(".")
            if part in _SHARED and stem.endswith(".w1"):
                other = values.get(f"{stem[:-3]}.w3.{part}", value)
                if other != value:
                    self._note(f"{tensor} is {value}, and w3 has {other}")

    def _note(self, what: str) -> None:
        with self._lock:
            self._found.wrong(what)

    def _count(self, *, files: int = 0, compared_bytes: int = 0, scalars: int = 0) -> None:
        with self._lock:
            self._found.files += files
            self._found.compared_bytes += compared_bytes
            self._found.scalars += scalars


def _difference(header: Header, plan: ShardPlan) -> str:
    there, wanted = set(header.tensors), set(plan.tensors)
    if there == wanted:
        return "has its tensors in another order"
    return next(
        f"{what} {min(some).name}, as {len(some)} tensors"
        for what, some in (("lacks, or has changed,", wanted - there), ("adds", there - wanted))
        if some
    )


def _holder(plan: ShardPlan, at: int) -> str:
    """Return the tensor that holds a byte of the file, "" outside all."""
    place = at - len(plan.head)
    return next((t.name for t in plan.tensors if t.start <= place < t.stop), "")
