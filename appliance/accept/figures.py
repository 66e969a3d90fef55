"""Speeds from the moments of a stream. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Timing:
    """One streamed answer: moments in seconds of one clock, and the tokens that its usage tells."""

    sent: float
    first: float  # the first piece of text, whatever its kind
    last: float
    prompt_tokens: int
    completion_tokens: int

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token, the way through the appliance included."""
        return self.first - self.sent

    @property
    def prefill_tok_s(self) -> float:
        """Tokens of the prompt by second, until the first of the answer."""
        return _rate(self.prompt_tokens, self.ttft_s)

    @property
    def decode_tok_s(self) -> float:
        """Tokens by second once the first is there; 0 for an answer of one."""
        return _rate(self.completion_tokens - 1, self.last - self.first)


def alone(timing: Timing) -> dict[str, Any]:
    """Return the figures of one answer."""
    return {
        "prompt_tokens": timing.prompt_tokens,
        "completion_tokens": timing.completion_tokens,
        "ttft_s": round(timing.ttft_s, 3),
        "prefill_tok_s": round(timing.prefill_tok_s, 1),
        "decode_tok_s": round(timing.decode_tok_s, 2),
    }


def together(timings: Sequence[Timing]) -> dict[str, Any]:
    """Return the figures of answers that ran at once: all of them by second, and each."""
    tokens = sum(timing.completion_tokens for timing in timings)
    spent = max(t.last for t in timings) - min(t.first for t in timings)
    each = sum(timing.decode_tok_s for timing in timings) / len(timings)
    return {
        "streams": len(timings),
        "decode_tok_s": round(_rate(tokens - len(timings), spent), 2),
        "decode_each_tok_s": round(each, 2),
        "slowest_ttft_s": round(max(timing.ttft_s for timing in timings), 3),
    }


def _rate(count: int, seconds: float) -> float:
    return max(0, count) / seconds if seconds > 0 else 0.0
