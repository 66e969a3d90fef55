"""The bytes of the new checkpoint, wherever they come from: read, or made of what is read."""

from collections.abc import Iterator, Sequence

from appliance.checkpoint.plan import Made, Piece, chunks, read_group
from appliance.checkpoint.source import Source


def content_of(source: Source, name: str, group: Sequence[Piece], most: int) -> Iterator[bytes]:
    """Yield a group's bytes in order; of one long range ``most`` at a time."""
    first = group[0]
    if isinstance(first, Made):
        # it needs numpy, and nothing else here does
        from appliance.checkpoint.quantise.encode import encoded

        yield from encoded(source, name, first)
    elif len(group) > 1:
        yield read_group(source, name, group)
    else:
        for part in chunks([first], most):
            yield source.read(name, *part)
