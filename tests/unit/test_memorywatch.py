"""Memory of one spawn: what the floors lead to, the emergency over a real child, the load guard."""

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from appliance.child import Child, spawn
from appliance.events import Event, RanOut, RanShort
from appliance.floors import Floors, GuardPolicy, Level
from appliance.memorywatch import MEMORY_LOW, UNGUARDED, MemoryCare, MemoryWatch
from appliance.metrics import Metrics
from appliance.restart import Grade

GIB = 2**30
FLOORS = Floors(5 * GIB, 4 * GIB, 3 * GIB, 2 * GIB)
# the made-up memory falls at once: taken to go on, each step would be an emergency
POLICY = GuardPolicy(samples=3, every_s=0.01, emergency_every_s=0.01, horizon_s=0)


@dataclass
class World:
    """A made-up /proc/meminfo, a real child, and what its watch said."""

    path: Path
    child: Child
    metrics: Metrics = field(default_factory=Metrics)
    events: list[Event] = field(default_factory=list)
    levels: list[Level] = field(default_factory=list)
    drops: int = 0
    gathered: int = 0
    policy: GuardPolicy = POLICY
    watch: MemoryWatch | None = None

    def set(self, available_gib: float, free_gib: float = 1.0) -> None:
        rows = {"MemTotal": 121.0, "MemFree": free_gib, "MemAvailable": available_gib}
        text = "".join(f"{name}: {int(size * 2**20):12d} kB\n" for name, size in rows.items())
        with self.path.open("r+b" if self.path.exists() else "wb", buffering=0) as file:
            file.write(text.encode())

    async def _gather(self) -> None:
        self.gathered += 1

    async def _drop(self) -> int:
        self.drops += 1
        return 7 * GIB

    def begin(self, *, floors: Floors | None = FLOORS, load_free: int | None = None) -> MemoryWatch:
        drop = self._drop if load_free is not None else None
        care = MemoryCare(self.metrics, True, self.policy, self.path, drop, load_free)
        watch = MemoryWatch(
            4, self.child, floors, care, self.events.append, self._tell, self._gather
        )
        self.watch = watch
        return watch

    def _tell(self) -> None:
        assert self.watch is not None
        self.levels.append(self.watch.level)

    def actions(self, action: str) -> float:
        name = f'appliance_memory_guard_actions_total{{action="{action}"}}'
        rows = [line.split() for line in self.metrics.text().decode().splitlines()]
        return sum(float(row[-1]) for row in rows if row and row[0] == name)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not holds():  # noqa: ASYNC110 - what it waits for is a thread's, or a file's
            await asyncio.sleep(0.005)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    argv = [sys.executable, "-S", "-c", "import time; time.sleep(600)"]
    child = spawn(argv, {}, lambda _line: None)
    made = World(tmp_path / "meminfo", child)
    made.set(16)
    yield made
    if made.watch:
        made.watch.stop()
    assert await child.sweep()


async def test_the_floors_are_passed_in_order_and_the_last_ends_the_engine(world: World) -> None:
    watch = world.begin()
    following = asyncio.create_task(watch.watch_floors())
    await until(lambda: watch.level is Level.FINE and not world.levels)
    for gib, level in ((4.9, Level.WARN), (3.9, Level.STOP), (3.2, Level.STOP)):
        world.set(gib)
        await until(lambda level=level: watch.level is level)  # type: ignore[misc]
    assert watch.reason is not None
    assert watch.reason.code == "memory_floor"
    assert watch.degraded == (MEMORY_LOW,)
    world.set(2.97)
    await following
    assert world.levels == [Level.WARN, Level.STOP, Level.KILL]
    (event,) = world.events
    assert isinstance(event, RanShort)
    assert (event.spawn, event.reason.grade) == (4, Grade.MEMORY)
    assert "3.0 GiB" in event.reason.what
    assert watch.processes, "who held memory then"
    assert world.gathered == 1
    counted = [world.actions(action) for action in ("warn", "stop_admission", "terminate")]
    assert counted == [1, 1, 1]
    assert watch.fatal is None


async def test_memory_that_comes_back_lets_people_in_again(world: World) -> None:
    watch = world.begin()
    following = asyncio.create_task(watch.watch_floors())
    world.set(3.8)
    await until(lambda: watch.level is Level.STOP)
    world.set(9)
    await until(lambda: watch.level is Level.FINE)
    following.cancel()
    assert watch.reason is None
    assert world.actions("resume") == 1
    assert world.events == []


async def test_an_emergency_kills_the_real_child_and_is_told_as_the_cause(world: World) -> None:
    watch = world.begin()
    world.set(1.5)
    assert await world.child.wait() == -9
    watch.stop()
    assert watch.fatal is not None, "known at the latest when the guard has been stopped"
    assert (watch.fatal.code, watch.fatal.grade) == ("memory_emergency", Grade.MEMORY)
    assert "1.5 GiB" in watch.fatal.what
    assert "2.0 GiB" in watch.fatal.what
    await until(lambda: world.events)
    assert world.events == [RanOut(4, watch.fatal)]
    assert world.actions("kill") == 1


async def test_without_floors_nothing_is_guarded(world: World) -> None:
    watch = world.begin(floors=None)
    world.set(0.1)
    await watch.watch_floors()
    watch.stop()
    assert (watch.level, watch.fatal, world.events) == (Level.FINE, None, [])


async def test_low_free_memory_while_loading_drops_the_cache(world: World) -> None:
    watch = world.begin(load_free=8 * GIB)
    loading = True
    guarding = asyncio.create_task(watch.watch_load(lambda: loading))
    await until(lambda: world.drops == 1)
    assert world.actions("drop_cache") == 1
    guarding.cancel()
    loading = False


async def test_a_load_with_room_drops_the_cache_once_when_it_is_over(world: World) -> None:
    world.set(60, free_gib=50)
    watch = world.begin(load_free=8 * GIB)
    looks = iter([True, False])
    await watch.watch_load(lambda: next(looks))
    assert world.drops == 1


async def test_nobody_who_can_drop_the_cache_is_asked_to(world: World) -> None:
    await world.begin().watch_load(lambda: True)
    assert world.drops == 0


async def test_a_shortage_that_stays_ends_the_engine_so_that_somebody_is_served_again(
    world: World,
) -> None:
    world.policy = replace(POLICY, stuck_s=0.1)
    watch = world.begin()
    world.set(3.5)
    await watch.watch_floors()
    assert watch.level is Level.STOP
    (event,) = world.events
    assert isinstance(event, RanShort)
    assert "4.0 GiB" in event.reason.what


async def test_an_engine_that_is_stopped_is_left_to_end_in_order(world: World) -> None:
    watch = world.begin()
    following = asyncio.create_task(watch.watch_floors())
    world.set(4.5)
    await until(lambda: watch.level is Level.WARN)
    watch.leave()
    world.set(2.5)
    await following
    assert world.events == []


async def test_a_guard_that_cannot_be_armed_is_told(world: World) -> None:
    world.path.unlink()
    assert world.begin().degraded == (UNGUARDED,)
