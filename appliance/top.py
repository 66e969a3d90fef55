"""``appliance top``: reads the control API and draws what it tells, again and again or once."""

import json
import os
import select
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from queue import Empty, SimpleQueue
from typing import Any

from rich.console import Console
from rich.live import Live

from appliance.errors import HostError
from appliance.operator import Operator
from appliance.topframe import LINES, Frame, told
from appliance.topview import render

REFRESH_S = 0.25
AGAIN_S = 1.0
FIGURES_WITHIN_S = 3.0  # they come once a second
SELDOM_S = 10.0  # between two looks at what no event tells: budget, incidents
ONCE_ROWS = 40  # where no terminal says how many it has

Event = tuple[str, Any]
KEYS = "q leaves"
_LEAVE = ("q", "Q")


def print_frame(operator: Operator, console: Console, *, as_json: bool) -> int:
    """Print one look; 0 when the engine is ready, 1 when not. Raises HostError."""
    frame = Frame()
    for name, value in _seldom(operator, with_past=True):
        frame = told(frame, name, value)
    with suppress(HostError), operator.events(FIGURES_WITHIN_S) as events:
        for name, value in events:
            frame = told(frame, name, value)
            if name == "figures":
                break
    if as_json:
        print(json.dumps(asdict(frame), indent=2))
    else:
        rows = console.height if console.is_terminal else ONCE_ROWS
        console.print(render(frame, console.width, rows, time.time()))
    return 0 if frame.status and frame.status.get("status") == "ready" else 1


def watch(connect: Callable[[], Operator], console: Console) -> int:
    """Draw until a key says q; return 0. Raises HostError when nobody answers at first."""
    frame = Frame()
    with connect() as operator:
        for name, value in _seldom(operator, with_past=True):
            frame = told(frame, name, value)
    events: SimpleQueue[Event] = SimpleQueue()
    # A thread with a client of its own: it hangs in a read when we leave, and ends with us.
    threading.Thread(target=_read, args=(connect(), events.put), daemon=True).start()
    with _keys() as pressed, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            with suppress(Empty):
                while True:
                    frame = told(frame, *events.get_nowait())
            drawn = render(frame, console.width, console.height, time.time(), KEYS)
            live.update(drawn, refresh=True)
            if pressed(REFRESH_S) in _LEAVE:
                return 0


def _read(operator: Operator, tell: Callable[[Event], None]) -> None:
    """Tell what the event stream tells, and what has to be asked for; never returns."""
    while True:
        try:
            with operator.events() as events:
                looked_at = -SELDOM_S
                for event in events:
                    tell(event)
                    if event[0] == "status" or time.monotonic() - looked_at > SELDOM_S:
                        looked_at = time.monotonic()
                        for asked in _seldom(operator, with_past=False):
                            tell(asked)
            tell(("lost", "it has ended"))
        except HostError as error:
            tell(("lost", error.what))
        time.sleep(AGAIN_S)


def _seldom(operator: Operator, *, with_past: bool) -> Iterator[Event]:
    """Yield what no event tells. Raises HostError when nobody answers."""
    yield "status", operator.call("GET", "/status")
    yield "incidents", operator.call("GET", "/incidents")["incidents"]
    yield "budget", operator.call("GET", "/budget")
    if with_past:
        for figures in operator.call("GET", "/figures")["figures"]:
            yield "figures", figures
        for line in operator.call("GET", f"/logs?lines={LINES}")["lines"]:
            yield "log", line


@contextmanager
def _keys() -> Iterator[Callable[[float], str]]:
    """Yield what waits for a key, so many seconds: it returns the key, or "" for none."""
    if not sys.stdin.isatty():
        yield _wait
        return
    terminal = sys.stdin.fileno()
    before = termios.tcgetattr(terminal)

    def pressed(seconds: float) -> str:
        ready, _, _ = select.select([terminal], [], [], seconds)
        return os.read(terminal, 1).decode("ascii", "replace") if ready else ""

    try:
        tty.setcbreak(terminal)
        yield pressed
    finally:
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _wait(seconds: float) -> str:
    time.sleep(seconds)
    return ""
