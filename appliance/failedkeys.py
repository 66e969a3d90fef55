"""What a wrong key costs whoever guesses: time, and a count that an alert can see."""

import asyncio

from appliance.metrics import Metrics

MOST_DELAYED = 64  # further ones are answered at once: they must not pile up here


class FailedKeys:
    """Holds up who has shown a wrong key, for ``delay_s``. Nobody else waits for that."""

    def __init__(self, metrics: Metrics, delay_s: float) -> None:
        self._metrics = metrics
        self._delay_s = delay_s
        self._delayed = 0

    async def hold(self, *, is_guess: bool) -> None:
        """Count a failure; return when it may be told. A missing key is no guess.

        Raises CancelledError when the server ends meanwhile.
        """
        self._metrics.key_failures.inc()
        if not is_guess or not self._delay_s or self._delayed >= MOST_DELAYED:
            return
        self._delayed += 1
        try:
            await asyncio.sleep(self._delay_s)
        finally:
            self._delayed -= 1
