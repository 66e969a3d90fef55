"""Who wants to hear of something: called one after another, until they ask to be left alone."""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Listeners(Generic[T]):
    """The listeners of one kind of news."""

    def __init__(self) -> None:
        self._all: list[Callable[[T], None]] = []

    def __len__(self) -> int:
        return len(self._all)

    def add(self, listener: Callable[[T], None]) -> Callable[[], None]:
        """Call ``listener`` with all news from now on; return how to stop that."""
        self._all.append(listener)
        return lambda: self._all.remove(listener)

    def tell(self, news: T) -> None:
        """Call each with ``news``; one may come or go meanwhile."""
        for listener in list(self._all):
            listener(news)
