"""``appliance logs``: the engine's lines, the last ones or as they come, over any restart."""

import json
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from appliance.errors import HostError
from appliance.operator import Operator

ALL = 2000  # lines; the appliance keeps no more
AGAIN_S = 1.0
REMEMBERED = 50  # lines, by which a log is known again

Line = dict[str, Any]


@dataclass(frozen=True)
class News:
    """What is new in a log: its lines, and what a reader must know of the joint before them."""

    lines: Sequence[Line]
    note: str = ""


def news_of(kept: Sequence[Line], seen: Sequence[Line]) -> News:
    """Return what a log, as far as it is kept, holds after the lines that were ``seen`` last.

    Numbers count from 1 in each life of the appliance: where an equal number has another text,
    it is another life.
    """
    if not seen or not kept:
        return News(kept)
    last, first = seen[-1]["number"], kept[0]["number"]
    texts = {line["number"]: line["text"] for line in kept}
    both = [line for line in seen if line["number"] in texts]
    if any(texts[line["number"]] != line["text"] for line in both) or kept[-1]["number"] < last:
        return News(kept, "the appliance was started anew, its log begins again")
    note = f"{first - last - 1} lines came meanwhile that are not kept any more"
    return News(kept[max(0, last - first + 1) :], note if first > last + 1 else "")


def show_tail(operator: Operator, count: int, *, as_json: bool = False) -> None:
    """Print the engine's last ``count`` lines."""
    for line in _tail(operator, count):
        _print(line, as_json=as_json)


def follow(
    operator: Operator,
    count: int,
    *,
    as_json: bool,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Print the last ``count`` lines, then each line as it comes; never returns by itself.

    What is no line of the engine (changes of its state, a lost appliance) goes to stderr. Raises
    HostError when the appliance does not answer in the beginning; later it is waited for.
    """
    reader = Follower(count, as_json=as_json)
    while True:
        try:
            reader.read(operator)
        except HostError as error:
            if not reader.begun:
                raise
            reader.lost(error)
        pause(AGAIN_S)


class Follower:
    """Reads one event stream after the other, and knows which lines have been printed.

    ``begun`` says that the appliance has answered once.
    """

    def __init__(self, count: int, *, as_json: bool) -> None:
        self._count = count
        self._as_json = as_json
        self._seen: deque[Line] = deque(maxlen=REMEMBERED)
        self.begun = False
        self._lost = False
        self._state = ""

    def read(self, operator: Operator) -> None:
        """Print what comes until the stream ends. Raises HostError when it breaks."""
        with operator.events() as events:
            if self._lost:
                _note("the appliance answers again")
            self._lost = False
            # the stream is open: what comes from here on is in it, what came before is not
            self._catch_up(operator)
            for name, value in events:
                if name == "status":
                    self._status(value)
                elif name == "log":
                    self._line(operator, value)
        self.lost(HostError("it has ended"))

    def lost(self, error: HostError) -> None:
        """Say once that the appliance is gone."""
        if not self._lost:
            _note(f"lost the appliance ({error.what}); waiting for it, Ctrl-C ends this")
        self._lost = True

    def _catch_up(self, operator: Operator) -> None:
        if self.begun:
            self._tell(news_of(_tail(operator, ALL), self._seen))
            return
        tail = _tail(operator, max(self._count, 1))  # the last one is known at least
        self.begun = True
        if self._count:
            self._tell(News(tail))
        else:
            self._seen.extend(tail)

    def _line(self, operator: Operator, line: Line) -> None:
        if line in self._seen:
            return  # it was in the tail already
        if line["number"] == (self._seen[-1]["number"] if self._seen else 0) + 1:
            self._tell(News([line]))
        else:  # the stream leaves lines out for a slow reader; or it is another life's first line
            self._catch_up(operator)

    def _status(self, status: dict[str, Any]) -> None:
        if self._state and status["state"] != self._state:
            why = status.get("message") or status.get("reason") or ""
            _note(f"engine {status['state']}, spawn {status['spawn']}{why and ': '}{why}")
        self._state = status["state"]

    def _tell(self, news: News) -> None:
        if news.note:
            _note(news.note)
        for line in news.lines:
            _print(line, as_json=self._as_json)
            self._seen.append(line)


def _tail(operator: Operator, count: int) -> list[Line]:
    lines: list[Line] = operator.call("GET", f"/logs?lines={count}")["lines"]
    return lines


def _print(line: Line, *, as_json: bool) -> None:
    print(json.dumps(line) if as_json else line["text"], flush=True)


def _note(text: str) -> None:
    print(f"-- {text}", file=sys.stderr, flush=True)
