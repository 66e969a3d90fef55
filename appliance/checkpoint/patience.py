"""How often a server is asked again, and after how long. Pure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


@dataclass(frozen=True)
class Patience:
    """When to ask again, and when to give up: lengths in seconds.

    ``tries`` are in a row without one new byte; whoever gets on has them all again.
    """

    tries: int = 8
    first_s: float = 1.0
    longest_s: float = 60.0
    obeyed_s: float = 600.0  # the longest Retry-After that is waited for

    def pause_s(self, failures: int, retry_after_s: float | None, chance: float) -> float | None:
        """Return how long to wait after so many ``failures`` in a row; None: give up.

        ``chance``, 0 to 1, spreads those who failed together. A server's own word counts as it is.
        """
        if failures >= self.tries:
            return None
        if retry_after_s is not None:
            return retry_after_s if retry_after_s <= self.obeyed_s else None
        longest = min(self.first_s * 2.0 ** (failures - 1), self.longest_s)
        return longest * (0.5 + chance / 2)


_WINDOW = re.compile(r";\s*t=(\d{1,9})(?!\d)")


def rate_limit_s(text: str | None) -> float | None:
    """Return when a RateLimit header (``"api";r=0;t=55``) lets go on, in seconds; None: unsaid."""
    match = _WINDOW.search(text or "")
    return float(match[1]) if match else None


def retry_after_s(text: str | None, now: float) -> float | None:
    """Return a Retry-After header in seconds from ``now`` (Unix time); None if it says nothing."""
    if not text:
        return None
    if text.isascii() and text.isdecimal():
        return float(text[:9])
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - datetime.fromtimestamp(now, UTC)).total_seconds())
