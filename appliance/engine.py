"""What the rest of the appliance sees of an engine, whoever runs it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from appliance.launch import LaunchPlan
from appliance.logs import EngineLog
from appliance.restart import Reason
from appliance.upstream import Upstream


class Request(StrEnum):
    """What may be asked of an engine. ``END`` is the appliance's own end: a drain, not kept."""

    START = "start"
    STOP = "stop"
    DRAIN = "drain"
    RESTART = "restart"
    RESET = "reset"
    END = "end"


OUTPUT_SUSPECT = "output_suspect"  # the warm-up's answer was wrong


@dataclass(frozen=True)
class Snapshot:
    """The engine at one moment. ``since`` is a Unix time in seconds.

    ``is_coming`` says that readiness is to be expected without anybody's doing, ``is_idle`` that
    the next request brings it; ``progress`` is for people, ``fraction`` (0 to 1) for bars.
    ``degraded`` names what is wrong while it serves. ``next`` says what happens by itself, at
    ``next_at`` (Unix time) where that is known. ``rung`` counts the safer plans taken.
    ``is_short`` says that memory is: nobody more is let in. ``memory`` is the memory plan as
    JSON values, or what of it did not fit.
    """

    state: str
    reason: Reason
    since: float
    spawn: int = 0
    is_ready: bool = False
    is_coming: bool = False
    is_idle: bool = False
    progress: str = ""
    fraction: float | None = None
    degraded: tuple[str, ...] = ()
    last_lines: tuple[str, ...] = ()
    max_model_len: int | None = None
    next: str = ""
    next_at: float | None = None
    rung: int = 0
    is_short: bool = False
    memory: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Traffic:
    """What the relay carries now, for those who watch the engine.

    ``running`` requests hold a place, ``sending`` of them wait for their own client to read, and
    not for the engine; ``largest_bytes`` is the largest body among them, ``chunks`` counts what
    has come from the engine since the appliance began.
    """

    running: int = 0
    sending: int = 0
    waiting: int = 0
    largest_bytes: int = 0
    chunks: int = 0


Listener = Callable[[Snapshot], None]


class Engine(Protocol):
    """A supervised or an attached engine."""

    log: EngineLog
    states: tuple[str, ...]

    @property
    def snapshot(self) -> Snapshot:
        """The engine now."""

    @property
    def upstream(self) -> Upstream:
        """The engine's HTTP side. Raises EngineNotReady when there is none."""

    @property
    def plan(self) -> LaunchPlan | None:
        """The command of the current spawn, if we spawn it."""

    def listen(self, listener: Listener) -> Callable[[], None]:
        """Call ``listener`` on each change; return how to stop that."""

    async def run(self) -> None:
        """Look after the engine until cancelled; then end what was started."""

    def request(self, what: Request) -> None:
        """Ask for a change; returns at once."""

    def begin(self) -> None:
        """Start with the appliance, if it is wanted."""

    def idled(self) -> None:
        """Be told that no request runs any more."""

    def expected_s(self) -> float:
        """Return in how many seconds it will be ready, as far as is known; 0 when it is."""
