"""A minute, or twenty, of everyday life: nobody waits for ever, nothing grows."""

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from tests.accept.stage import staged
from tests.engines import wait_until
from tests.fakes.script import Turn
from tests.gateway.soak import Soak
from tests.gateway.vitals import MIB, SETTLE_S, is_idle, look

ANSWER = Turn(
    "Some thought. " * 10, "one two three four five six seven " * 12, faults={"chunk_delay": 0.005}
)
BOX: dict[str, Any] = {
    "max_num_seqs": 4,
    "restart_backoff_s": 0.1,
    "restart_backoff_cap_s": 0.5,  # an engine that is killed each minute would be left alone soon
    "restart_max_failures": 100_000,
    "drain_timeout_s": 1,
    "keepalive_s": 1,
    "head_after_s": 1,
    "whole_wait_s": 5,
}
SAYS = ("--repeat", "--chars-per-token", "32")  # a megabyte fits
FINE = {"whole", "broken", "left", "429", "502", "503"}


def soak(folder: Path, length_s: float, seed: int, growth: int) -> None:
    """Live for so long, and hold what was seen to the laws."""
    with staged(folder, "--ready-after", "0.5", *SAYS, **BOX) as stage:
        stage.script.play(ANSWER)
        life = Soak(stage, length_s, random.Random(seed))  # noqa: S311 - no secret
        before = look(stage.appliance)
        asyncio.run(life.run())
        print(
            f"\nseed {seed}, {length_s:.0f} s: {dict(life.ended)}, restarts {dict(life.restarts)}"
        )
        print(f"RSS MiB: {[size // MIB for size in life.rss[:: max(1, len(life.rss) // 20)]]}")
        assert life.hung == []
        assert set(life.ended) <= FINE, life.ended
        for kind in ("whole", "broken", "left"):
            assert life.ended[kind], f"nothing was {kind}: {life.ended}"
        assert sum(life.restarts.values()) >= 3
        stage.appliance.until("ready")
        wait_until(lambda: is_idle(stage.appliance), SETTLE_S, "every place to be free again")
        few = before.files + 8
        wait_until(
            lambda: look(stage.appliance).files <= few, SETTLE_S, f"at most {few} open files"
        )
        assert life.growth() < growth, life.rss


@pytest.mark.timeout(180)
def test_a_minute_of_everyday_life_leaves_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    soak(tmp_path_factory.mktemp("soak"), 60.0, seed=11, growth=16 * MIB)


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_twenty_minutes_of_everyday_life_leave_nothing_behind(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    seed = random.SystemRandom().randrange(2**32)
    soak(tmp_path_factory.mktemp("soak"), 1200.0, seed, growth=4 * MIB)
