"""Runs tasks side by side: the first that fails ends all, and its error is the one that is told."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Stopped(Exception):
    """Another task has failed, or a person has interrupted: end quietly."""


def side_by_side(tasks: Sequence[Callable[[], None]], jobs: int, stop: Callable[[], None]) -> None:
    """Run every task, ``jobs`` at a time.

    Raises the first error, also an interrupt, once all have ended. ``stop`` is called before: it
    must make the tasks that run end soon.
    """
    with ThreadPoolExecutor(jobs) as pool:
        work = [pool.submit(task) for task in tasks]
        try:
            wait(work, return_when=FIRST_EXCEPTION)
            failed = [future for future in work if future.done() and future.exception()]
            for future in failed[:1]:
                future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise


def in_order(
    read: Callable[[Item], Result], items: Iterable[Item], jobs: int, stop: Callable[[], None]
) -> Generator[Result, None, None]:
    """Yield what ``read`` returns of each item, in order; at most ``jobs`` are read ahead.

    Raises the first item's error, also an interrupt. ``stop`` is called before: it must make the
    reads that run end soon.
    """
    rest = iter(items)
    with ThreadPoolExecutor(jobs) as pool:
        ahead: deque[Future[Result]] = deque()
        try:
            ahead.extend(pool.submit(read, item) for item in islice(rest, jobs))
            while ahead:
                result = ahead.popleft().result()
                ahead.extend(pool.submit(read, item) for item in islice(rest, 1))
                yield result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
