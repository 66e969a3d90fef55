"""What a reply's ``usage`` tells of its tokens, in each of the three APIs' words. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeGuard

import msgspec

from appliance.openai import NO_JSON
from appliance.sse import event_data, event_start, split_events

_APART = ("cache_read_input_tokens", "cache_creation_input_tokens")  # from input_tokens
_NAMES = ("prompt_tokens", "input_tokens", "completion_tokens", "output_tokens", *_APART)


@dataclass(frozen=True)
class Usage:
    """Tokens; ``cached`` of the prompt's were not computed anew."""

    prompt: int
    completion: int
    cached: int


class _Reply(msgspec.Struct, gc=False):
    usage: Any = None
    response: Any = None  # a responses stream's last event holds the whole
    message: Any = None  # a messages stream's first one


_REPLY = msgspec.json.Decoder(_Reply)


def find_usage(reply: bytes) -> Usage | None:
    """Return what ``reply``, the last events of a stream or a whole body, tells; None for nothing.

    Of a number that is told more than once, the last counts. What a tool is called with, or a
    text says, may look like a usage: only the reply's own is read.
    """
    if reply.find(b'"usage"') < 0:
        return None
    counts: dict[str, int] = {}
    for told in _usages(reply):
        counts |= {name: told[name] for name in _NAMES if _is_count(told.get(name))}
        for details in ("prompt_tokens_details", "input_tokens_details"):
            inner = told.get(details)
            cached = inner.get("cached_tokens") if isinstance(inner, dict) else None
            if _is_count(cached):
                counts["cached_tokens"] = cached
    return _summed(counts) if counts else None


def _usages(reply: bytes) -> Iterator[dict[str, Any]]:
    for text in _documents(reply):
        try:
            found = _REPLY.decode(text)
        except NO_JSON:
            continue
        for holder in (found.message, found.response):
            if isinstance(holder, dict) and isinstance(holder.get("usage"), dict):
                yield holder["usage"]
        if isinstance(found.usage, dict):
            yield found.usage


def _documents(reply: bytes) -> Iterator[bytes]:
    if reply.lstrip()[:1] == b"{":
        yield reply
        return
    for event in split_events(reply[event_start(reply, reply.find(b'"usage"')) :]):
        if b'"usage"' in event:
            yield event_data(event)


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _summed(counts: dict[str, int]) -> Usage:
    """Return the tokens. Anthropic's prompt leaves out what was read from or put into a cache."""
    cached = counts.get("cached_tokens", counts.get("cache_read_input_tokens", 0))
    prompt = counts.get("prompt_tokens", counts.get("input_tokens", 0))
    return Usage(
        prompt + sum(counts.get(name, 0) for name in _APART),
        counts.get("completion_tokens", counts.get("output_tokens", 0)),
        cached,
    )
