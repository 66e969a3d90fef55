"""What comes before a spawn: the order of it, the eviction, and what does not fit."""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.errors import DoesNotFit
from appliance.facts import Evictable, HostFacts, SwapDevice
from appliance.host import find_extras
from appliance.metrics import Metrics
from appliance.preparation import Preparation
from appliance.settings import load_settings
from appliance.supervisor import Order
from appliance.swap import Swap
from tests.checkpoints import TINY, write_checkpoint

GIB = 2**30
ORDER = Order("key", "token", 0)
GROUP = "user.slice/user-1000.slice"
SMALL = HostFacts("x86_64", 2, 8 * GIB, 2 * GIB, swap=(SwapDevice("/swap", "file", 16 * GIB),))
ROOMY = replace(SMALL, memory_available_bytes=6 * GIB)
FULL = replace(SMALL, evictable=(Evictable(GROUP, 5 * GIB),))


class World:
    """A made-up machine that is looked at again and again, and a helper that notes its calls."""

    def __init__(self, folder: Path, *looks: HostFacts, freed: int = 7) -> None:
        self.folder = folder
        self.calls = folder / "calls.txt"
        self.metrics = Metrics()
        self.asked: list[Sequence[str]] = []
        self._looks = iter(looks)
        report = {
            "schema": "force_swap/1",
            "mechanisms": [{"name": "memory.reclaim", "freed_memfree": freed}],
        }
        script = folder / "helper.py"
        script.write_text(
            f"import sys\nopen({str(self.calls)!r}, 'a').write(' '.join(sys.argv[1:]) + '\\n')\n"
            f"print({json.dumps(report)!r})\n"
        )
        self.helper = Swap((sys.executable, "-S", str(script)), folder / "lock")

    def look(self, cgroups: Sequence[str], _base: Path) -> HostFacts:
        self.asked.append(tuple(cgroups))
        return next(self._looks)

    def preparation(self, swap: Swap | None) -> Preparation:
        settings = load_settings(
            {
                "APPLIANCE_PROFILE": "demo",
                "APPLIANCE_MODEL_DIR": str(write_checkpoint(self.folder / "model", **TINY)),
                "APPLIANCE_EVICT_CGROUPS": GROUP,
            }
        )
        return Preparation(
            settings,
            find_extras(),
            self.folder,
            self.metrics,
            {"PATH": "/bin"},
            swap,
            lambda: None,
            resettle_s=0,
            look=self.look,
        )

    def called(self) -> list[str]:
        lines = self.calls.read_text().splitlines() if self.calls.exists() else []
        return [line.split()[0] for line in lines]


async def test_a_machine_with_room_is_asked_for_no_eviction(tmp_path: Path) -> None:
    world = World(tmp_path, ROOMY)
    plan = await world.preparation(world.helper).prepare(ORDER)
    assert world.called() == ["drop-cache"]
    assert plan.memory is not None
    assert plan.memory.deficit_bytes == 0
    assert b'appliance_memory_plan_bytes{part="kv_cache"} 1.073741824e+09' in world.metrics.text()


async def test_what_is_missing_is_evicted_and_the_machine_looked_at_again(tmp_path: Path) -> None:
    world = World(tmp_path, FULL, ROOMY, freed=3 * GIB)
    await world.preparation(world.helper).prepare(ORDER)
    assert world.called() == ["drop-cache", "evict"]
    assert f"--cgroup {GROUP}" in world.calls.read_text()
    freed = b'appliance_memory_freed_bytes_total{mechanism="memory.reclaim"} 6.44245'
    assert freed in world.metrics.text(), "both calls count"


async def test_an_eviction_that_did_not_help_does_not_fit(tmp_path: Path) -> None:
    world = World(tmp_path, FULL, FULL)
    with pytest.raises(DoesNotFit) as caught:
        await world.preparation(world.helper).prepare(ORDER)
    assert caught.value.shortfalls
    assert world.called().count("evict") == 1, "no second eviction of the same pages"


async def test_without_the_helper_nothing_is_thought_to_be_evictable(tmp_path: Path) -> None:
    world = World(tmp_path, SMALL)
    with pytest.raises(DoesNotFit):
        await world.preparation(None).prepare(ORDER)
    assert world.asked == [()]
    assert world.called() == []


async def test_a_helper_that_fails_at_the_cache_ends_no_start(tmp_path: Path) -> None:
    world = World(tmp_path, ROOMY)
    plan = await world.preparation(Swap(("/no/such/force_swap",), tmp_path / "lock")).prepare(ORDER)
    assert plan.api_key == "key"


async def test_a_helper_that_fails_at_the_eviction_leaves_the_plan_to_say_what_is_short(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, FULL, FULL)
    with pytest.raises(DoesNotFit):
        await world.preparation(Swap(("/no/such/force_swap",), tmp_path / "lock")).prepare(ORDER)


async def test_the_deficit_is_no_demand_for_a_helper_when_it_is_off(tmp_path: Path) -> None:
    world = World(tmp_path, ROOMY)
    assert await world.preparation(None).drop_cache() == 0
