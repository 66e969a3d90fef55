"""Byte ranges of a file, as (offset, length) in rising order: which to ask for together. Pure."""

from collections.abc import Iterable, Iterator, Sequence

Span = tuple[int, int]


def grouped(spans: Sequence[Span], gap: int) -> Iterator[list[Span]]:
    """Yield the ranges in groups, neighbours of which have at most ``gap`` bytes between them.

    Raises ValueError where a range begins before the end of the one before it.
    """
    group: list[Span] = []
    end = 0
    for offset, length in spans:
        if length < 0 or offset < end:
            raise ValueError(f"the range at byte {offset} is not after byte {end}")
        if group and offset - end > gap:
            yield group
            group = []
        if length:
            group.append((offset, length))
            end = offset + length
    if group:
        yield group


def sifted(pieces: Iterable[bytes], spans: Sequence[Span]) -> Iterator[bytes]:
    """Yield what of ``pieces`` lies in ``spans``, in order.

    The pieces follow one another from the first range's offset to the last one's end.
    """
    place, at = spans[0][0], 0
    for piece in pieces:
        end = place + len(piece)
        while at < len(spans) and spans[at][0] < end:
            offset, length = spans[at]
            yield piece[max(offset - place, 0) : offset + length - place]
            if offset + length > end:
                break  # the rest of it is in the next piece
            at += 1
        place = end
