"""How many bytes of requests may be held at once: each is in memory until it is answered. Pure."""

from appliance.errors import RequestError
from appliance.sizes import format_size

TIMES_LARGEST = 8  # so many of the largest bodies may be held at once


class Intake:
    """Counts the bytes of all bodies that are read or under way, at most ``most_bytes``."""

    def __init__(self, most_bytes: int) -> None:
        self._most_bytes = most_bytes
        self.held_bytes = 0

    def take(self, size: int) -> None:
        """Take in ``size`` bytes. Raises RequestError 429 where there is no room for them."""
        if self.held_bytes + size > self._most_bytes:
            raise RequestError(
                429,
                "too_many_bytes",
                f"{format_size(self.held_bytes)} of other requests are held already, of "
                f"{format_size(self._most_bytes)} that may be",
                "retry in a few seconds, send less at once, or raise APPLIANCE_MAX_BODY_BYTES",
            )
        self.held_bytes += size

    def let_go(self, size: int) -> None:
        """Forget bytes that were taken in."""
        self.held_bytes -= size
