"""What a reply's ``usage`` tells of its tokens, in each of the three APIs' words. Pure."""

import re
from dataclasses import dataclass

_START = re.compile(rb'"usage":\s*(?=\{)')
_BRACE = re.compile(rb"[{}]")
_COUNT = re.compile(rb'"(\w+)":\s*(\d{1,12})(?!\d)')

_PROMPT = (b"prompt_tokens", b"input_tokens")
_COMPLETION = (b"completion_tokens", b"output_tokens")
_CACHED = (b"cached_tokens", b"cache_read_input_tokens")


@dataclass(frozen=True)
class Usage:
    """Tokens; ``cached`` of the prompt's were not computed anew."""

    prompt: int
    completion: int
    cached: int


def find_usage(reply: bytes) -> Usage | None:
    """Return what ``reply``, the last bytes of a stream or a whole body, tells; None for nothing.

    Of a number that is told more than once, the last counts. Text that only speaks of usage is
    no match: within a string its quotes are escaped.
    """
    if reply.find(b'"usage"') < 0:
        return None
    counts: dict[bytes, int] = {}
    for start in _START.finditer(reply):
        end = _end_of_object(reply, start.end())
        for name, count in _COUNT.findall(reply, start.end(), end):
            counts[name] = int(count)
    if not counts:
        return None
    return Usage(*(_first(counts, names) for names in (_PROMPT, _COMPLETION, _CACHED)))


def _end_of_object(text: bytes, start: int) -> int:
    depth = 0
    for brace in _BRACE.finditer(text, start):
        depth += 1 if brace[0] == b"{" else -1
        if depth == 0:
            return brace.end()
    return len(text)


def _first(counts: dict[bytes, int], names: tuple[bytes, ...]) -> int:
    return next((counts[name] for name in names if name in counts), 0)
