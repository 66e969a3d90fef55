"""What the rest of the appliance sees of an engine, whoever runs it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from appliance.launch import LaunchPlan
from appliance.lifecycle import Reason
from appliance.logs import EngineLog
from appliance.upstream import Upstream

OUTPUT_SUSPECT = "output_suspect"  # the warm-up's answer was wrong


@dataclass(frozen=True)
class Snapshot:
    """The engine at one moment. ``since`` is a Unix time in seconds.

    ``is_coming`` says that readiness is to be expected without anybody's doing; ``progress`` is
    for people, ``fraction`` (0 to 1) for bars. ``degraded`` names what is wrong while it serves.
    """

    state: str
    reason: Reason
    since: float
    spawn: int = 0
    is_ready: bool = False
    is_coming: bool = False
    progress: str = ""
    fraction: float | None = None
    degraded: tuple[str, ...] = ()
    last_lines: tuple[str, ...] = ()
    max_model_len: int | None = None


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

    def request_start(self) -> None:
        """Ask for the engine; returns at once."""

    def request_stop(self) -> None:
        """Ask for no engine; returns at once."""
