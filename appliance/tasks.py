"""Tasks that nobody awaits, and that must not outlive who began them."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

log = structlog.get_logger()


class Tasks:
    """The tasks of one owner. One that fails says so: nobody would learn of it otherwise."""

    def __init__(self) -> None:
        self._all: set[asyncio.Task[None]] = set()

    def begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run ``work`` beside everything else."""
        task = asyncio.get_running_loop().create_task(work)
        self._all.add(task)
        task.add_done_callback(self._done)
        return task

    def cancel_others(self) -> None:
        """Cancel all but the one that calls."""
        for task in self._all - {asyncio.current_task()}:
            task.cancel()

    async def end(self) -> None:
        """Cancel all, and wait until they are gone."""
        self.cancel_others()
        await asyncio.gather(*self._all, return_exceptions=True)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._all.discard(task)
        if not task.cancelled() and (fault := task.exception()) is not None:
            log.error("task.failed", task=task.get_coro().__qualname__, exc_info=fault)  # type: ignore[union-attr]
