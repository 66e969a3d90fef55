"""The bytes of the new checkpoint, wherever they come from: read, or made of what is read."""

from collections.abc import Iterator

from appliance.checkpoint.plan import Made, Range, chunks, read_group
from appliance.checkpoint.source import Source


def content_of(source: Source, name: str, group: Made | list[Range], most: int) -> Iterator[bytes]:
    """Yield a group's bytes in order; of one long range ``most`` at a time."""
    if isinstance(group, Made):
        from appliance.checkpoint.quantise.encode import (
            encoded,
        )  # needs numpy, and nothing else does

        yield from encoded(source, name, group)
    elif len(group) > 1:
        yield read_group(source, name, group)
    else:
        for part in chunks(group, most):
            yield source.read(name, *part)
