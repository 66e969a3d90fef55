"""Runs tasks side by side: the first that fails ends all, and its error is the one that is told."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait


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
