"""What each file of the pruned checkpoint takes from where: headers in, byte ranges out. Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.headers import Header, Tensor, render_header
from appliance.checkpoint.maskfile import Mask
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensornames import Expert, Offset, Role, Router

SMALL_BYTES = 256 * 2**10
GAP_BYTES = 64 * 2**10
SPAN_BYTES = 4 * 2**20


class Range(NamedTuple):
    """Bytes of a source file: ``length`` of them from ``offset`` on."""

    offset: int
    length: int


@dataclass(frozen=True)
class Rules:
    """What goes: the mask's experts, and the KV offsets unless they are to be kept."""

    mask: Mask
    keep_kv_bias: bool = False


@dataclass(frozen=True)
class ShardPlan:
    """One output file: ``head``, then the source file's ``ranges`` one after another.

    ``tensors`` are in the header's order; ``offsets`` names the dropped KV offsets. A file that
    is copied whole has no head.
    """

    name: str
    head: bytes
    ranges: tuple[Range, ...]
    tensors: tuple[Tensor, ...]
    offsets: tuple[str, ...]

    @property
    def data_bytes(self) -> int:
        """Return the bytes of its tensors."""
        return sum(length for _, length in self.ranges)

    @property
    def size(self) -> int:
        """Return the file's length."""
        return len(self.head) + self.data_bytes


class _Kept(NamedTuple):
    name: str
    shape: tuple[int, ...]
    ranges: list[Range]


def plan_shard(name: str, header: Header, roles: Mapping[str, Role], rules: Rules) -> ShardPlan:
    """Return what becomes of one shard, whose tensors are what ``roles`` says.

    The tensors stay in the order of the source, so that each keeps its alignment and that what
    stands together is copied together. Raises CheckpointError for what is not understood.
    """
    placed: dict[str, Tensor] = {}
    ranges: list[Range] = []
    dropped: list[str] = []
    end = 0
    for tensor in sorted(header.tensors, key=attrgetter("start", "stop")):
        role = roles[tensor.name]
        kept = _keep(tensor, role, header.data_start, rules)
        if kept is None:
            if isinstance(role, Offset):
                dropped.append(tensor.name)
            continue
        length = sum(part.length for part in kept.ranges)
        placed[tensor.name] = Tensor(kept.name, tensor.dtype, kept.shape, end, end + length)
        ranges += kept.ranges
        end += length
    tensors = tuple(placed[old.name] for old in header.tensors if old.name in placed)
    head = render_header(tensors, header.metadata)
    return ShardPlan(name, head, tuple(merged(ranges)), tensors, tuple(dropped))


def _keep(tensor: Tensor, role: Role, data_start: int, rules: Rules) -> _Kept | None:
    mask, start = rules.mask, data_start + tensor.start
    match role:
        case Expert(layer, number, head, part):
            _check_known(tensor, layer, number, mask)
            new = mask.new_number(layer, number)
            if new is None:
                return None
            return _Kept(f"{head}{new}.{part}", tensor.shape, [Range(start, tensor.size)])
        case Router(layer):
            _check_known(tensor, layer, 0, mask)
            stride = tensor.size // mask.original
            rows = [Range(start + row * stride, stride) for row in mask.kept(layer)]
            return _Kept(tensor.name, (mask.retained, *tensor.shape[1:]), rows)
        case Offset() if not rules.keep_kv_bias:
            return None
    return _Kept(tensor.name, tensor.shape, [Range(start, tensor.size)])


def merged(ranges: list[Range]) -> Iterator[Range]:
    """Yield the ranges with neighbours joined and empty ones left out."""
    offset = length = 0
    for part in ranges:
        if part.offset == offset + length and length:
            length += part.length
            continue
        if length:
            yield Range(offset, length)
        offset, length = part
    if length:
        yield Range(offset, length)


def _check_known(tensor: Tensor, layer: int, number: int, mask: Mask) -> None:
    if layer >= len(mask.deleted) or number >= mask.original:
        raise CheckpointError(
            f"{tensor.name} is outside the {len(mask.deleted)} layers of {mask.original} experts "
            "that config.json tells of",
            "this checkpoint is not of the kind that is understood",
            code="checkpoint_experts",
        )


def after(ranges: Iterable[Range], count: int) -> Iterator[Range]:
    """Yield what is left of the ranges when their first ``count`` bytes are done."""
    for offset, length in ranges:
        done = min(count, length)
        count -= done
        if done < length:
            yield Range(offset + done, length - done)


def chunks(ranges: Iterable[Range], most: int) -> Iterator[Range]:
    """Yield the ranges cut into pieces of at most ``most`` bytes."""
    for offset, length in ranges:
        for done in range(0, length, most):
            yield Range(offset + done, min(most, length - done))


def groups(ranges: Iterable[Range]) -> Iterator[list[Range]]:
    """Yield the ranges in groups that one read can fetch: small ones with small gaps between.

    Scales and rows of a router come by the thousand, of 4 bytes to 12 KiB each: a call for each,
    or over a network a request, would take longer than all experts.
    """
    group: list[Range] = []
    for part in ranges:
        if group and not (
            part.length <= SMALL_BYTES
            and group[-1].length <= SMALL_BYTES
            and 0 <= part.offset - (group[-1].offset + group[-1].length) <= GAP_BYTES
            and part.offset + part.length - group[0].offset <= SPAN_BYTES
        ):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def read_group(source: Source, name: str, group: list[Range]) -> bytes:
    """Return the bytes of a group's ranges, one after another, by one read."""
    first, last = group[0].offset, group[-1].offset + group[-1].length
    block = source.read(name, first, last - first)
    if len(group) == 1:
        return block
    return b"".join(block[start - first : start - first + size] for start, size in group)
