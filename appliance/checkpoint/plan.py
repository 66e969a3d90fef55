"""What each file of the new checkpoint takes from where: headers in, byte ranges out. Pure.

What is quantised is a range, too: its bytes are named by the matrix that they are made of.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import Recipe
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


class Made(NamedTuple):
    """``length`` bytes that ``recipe`` makes of the matrix at ``offset`` of a source file.

    The first ``done`` bytes of what it makes are not among them: an earlier run has written them.
    """

    offset: int
    length: int
    recipe: Recipe
    done: int = 0


Piece = Range | Made


@dataclass(frozen=True)
class Rules:
    """What changes: the mask's experts go, so do the KV offsets unless they are to be kept.

    ``recipes`` has what is quantised, by the tensor's name.
    """

    mask: Mask
    keep_kv_bias: bool = False
    recipes: Mapping[str, Recipe] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardPlan:
    """One output file: ``head``, then the source file's ``ranges`` one after another.

    ``tensors`` are in the header's order; ``offsets`` names the dropped KV offsets. A file that
    is copied whole has no head.
    """

    name: str
    head: bytes
    ranges: tuple[Piece, ...]
    tensors: tuple[Tensor, ...]
    offsets: tuple[str, ...]

    @property
    def data_bytes(self) -> int:
        """Return the bytes of its tensors."""
        return sum(piece.length for piece in self.ranges)

    @property
    def size(self) -> int:
        """Return the file's length."""
        return len(self.head) + self.data_bytes


class _New(NamedTuple):
    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int


class _Kept(NamedTuple):
    """What becomes of one tensor of the source: it as it was, renamed, cut, or several."""

    tensors: tuple[_New, ...]
    ranges: list[Piece]


def plan_shard(name: str, header: Header, roles: Mapping[str, Role], rules: Rules) -> ShardPlan:
    """Return what becomes of one shard, whose tensors are what ``roles`` says.

    The tensors stay in the order of the source, so that each keeps its alignment and that what
    stands together is copied together. Raises CheckpointError for what is not understood.
    """
    placed: dict[str, list[Tensor]] = {}
    ranges: list[Piece] = []
    dropped: list[str] = []
    end = 0
    for tensor in sorted(header.tensors, key=attrgetter("start", "stop")):
        role = roles[tensor.name]
        kept = _keep(tensor, role, header.data_start, rules)
        if kept is None:
            if isinstance(role, Offset):
                dropped.append(tensor.name)
            continue
        ranges += kept.ranges
        placed[tensor.name] = []
        for new, dtype, shape, length in kept.tensors:
            placed[tensor.name].append(Tensor(new, dtype, shape, end, end + length))
            end += length
    tensors = tuple(new for old in header.tensors for new in placed.get(old.name, ()))
    head = render_header(tensors, header.metadata)
    return ShardPlan(name, head, tuple(merged(ranges)), tensors, tuple(dropped))


def _keep(tensor: Tensor, role: Role, data_start: int, rules: Rules) -> _Kept | None:
    mask, start = rules.mask, data_start + tensor.start
    if recipe := rules.recipes.get(tensor.name):
        return _quantised(tensor.name, recipe, start)
    name, shape, ranges = tensor.name, tensor.shape, [Range(start, tensor.size)]
    match role:
        case Expert(layer, number, head, part):
            _check_known(tensor, layer, number, mask)
            new = mask.new_number(layer, number)
            if new is None:
                return None
            name = f"{head}{new}.{part}"
        case Router(layer):
            _check_known(tensor, layer, 0, mask)
            stride = tensor.size // mask.original
            ranges = [Range(start + row * stride, stride) for row in mask.kept(layer)]
            shape = (mask.retained, *tensor.shape[1:])
        case Offset() if not rules.keep_kv_bias:
            return None
    size = sum(part.length for part in ranges)
    return _Kept((_New(name, tensor.dtype, shape, size),), [*ranges])


def _quantised(name: str, recipe: Recipe, start: int) -> _Kept:
    stem = name.removesuffix("weight")
    parts = (_New(stem + p.suffix, p.dtype, p.shape, p.size) for p in recipe.parts)
    return _Kept(tuple(parts), [Made(start, recipe.size, recipe)])


def merged(ranges: Iterable[Piece]) -> Iterator[Piece]:
    """Yield the ranges with neighbours joined and empty ones left out."""
    last: Piece = Range(0, 0)
    for part in ranges:
        if isinstance(last, Range) and isinstance(part, Range) and part.offset == sum(last):
            last = Range(last.offset, last.length + part.length)
            continue
        if last.length:
            yield last
        last = part
    if last.length:
        yield last


def _check_known(tensor: Tensor, layer: int, number: int, mask: Mask) -> None:
    if layer >= len(mask.deleted) or number >= mask.original:
        raise CheckpointError(
            f"{tensor.name} is outside the {len(mask.deleted)} layers of {mask.original} experts "
            "that config.json tells of",
            "this checkpoint is not of the kind that is understood",
            code="checkpoint_experts",
        )


def after(ranges: Iterable[Piece], count: int) -> Iterator[Piece]:
    """Yield what is left of the ranges when their first ``count`` bytes are done."""
    for part in ranges:
        done = min(count, part.length)
        count -= done
        left = part.length - done
        if left and isinstance(part, Made):
            yield part._replace(length=left, done=part.done + done)
        elif left:
            yield Range(part.offset + done, left)


def chunks(ranges: Iterable[Range], most: int) -> Iterator[Range]:
    """Yield the ranges cut into pieces of at most ``most`` bytes."""
    for offset, length in ranges:
        for done in range(0, length, most):
            yield Range(offset + done, min(most, length - done))


def groups(ranges: Iterable[Piece]) -> Iterator[list[Piece]]:
    """Yield the ranges in groups that one read can fetch: small ones with small gaps between.

    What is made stands alone.

    Scales and rows of a router come by the thousand, of 4 bytes to 12 KiB each: a call for each,
    or over a network a request, would take longer than all experts.
    """
    group: list[Piece] = []
    for part in ranges:
        if group and not (
            isinstance(part, Range)
            and isinstance(group[0], Range)
            and part.length <= SMALL_BYTES
            and group[-1].length <= SMALL_BYTES
            and 0 <= part.offset - (group[-1].offset + group[-1].length) <= GAP_BYTES
            and part.offset + part.length - group[0].offset <= SPAN_BYTES
        ):
            yield group
            group = []
        group.append(part)
    if group:
        yield group


def read_group(source: Source, name: str, group: Sequence[Piece]) -> bytes:
    """Return the bytes of a group's ranges, one after another, by one read."""
    first, last = group[0].offset, group[-1].offset + group[-1].length
    block = source.read(name, first, last - first)
    if len(group) == 1:
        return block
    places = ((part.offset - first, part.length) for part in group)
    return b"".join(block[start : start + size] for start, size in places)
