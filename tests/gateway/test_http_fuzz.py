"""Bad HTTP clients by the thousand: no 5xx of ours, no leak, no stuck place."""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import engines
from tests.appliances import ApplianceProcess, running_process
from tests.gateway.attack import play
from tests.gateway.rawhttp import KINDS, Case, Maker
from tests.gateway.vitals import all_calm, look

CASES = 1500
LONG_S = 600.0
CLIENTS = 6


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """Run one appliance for the storms."""
    with running_process(tmp_path_factory.mktemp("fuzz") / "box", max_num_seqs=4) as box:
        engines.shared_groups.add(box.process.pid)
        box.until("ready")
        yield box
    engines.shared_groups.discard(box.process.pid)


def wrong(box: ApplianceProcess, case: Case) -> str:
    """Play a case; return what is wrong with what came, "" when nothing is."""
    answered = play(box.base_url, case)
    statuses = answered.statuses
    if any(status >= 500 for status in statuses):
        return f"{statuses} for {case}: {answered.data[:300]!r}"
    if case.replies is not None and statuses != [200] * case.replies:
        return f"{statuses}, not {case.replies} times 200, for {case}: {answered.data[:300]!r}"
    return ""


def storm(box: ApplianceProcess, maker: Maker, count: int) -> tuple[Counter[str], list[str]]:
    """Play so many cases, several at a time; return how many of each kind, and what was wrong."""
    cases = [maker.next() for _ in range(count)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        faults = [fault for fault in pool.map(lambda case: wrong(box, case), cases) if fault]
    return Counter(case.name for case in cases), faults


@pytest.mark.parametrize("kind", KINDS, ids=[kind.__name__ for kind in KINDS])
def test_a_bad_client_of_each_kind_leaves_nothing_behind(
    target: ApplianceProcess, kind: Callable[[Maker], Case]
) -> None:
    before = look(target)
    maker = Maker(target.key("client"), random.Random(kind.__name__))  # noqa: S311 - no secret
    faults = [fault for _ in range(12) if (fault := wrong(target, kind(maker)))]
    assert not faults, "\n".join(faults)
    all_calm(target, before)


def test_a_storm_of_bad_clients_leaves_nothing_behind(target: ApplianceProcess) -> None:
    before = look(target)
    maker = Maker(target.key("client"), random.Random(7))  # noqa: S311 - no secret
    kinds, faults = storm(target, maker, CASES)
    assert not faults, f"{len(faults)} of {CASES}:\n" + "\n".join(faults[:20])
    assert len(kinds) >= len(KINDS)
    after = all_calm(target, before)
    print(f"\n{CASES} bad clients: {before} -> {after}")


@pytest.mark.long
@pytest.mark.timeout(900)
def test_ten_minutes_of_bad_clients_leave_nothing_behind(target: ApplianceProcess) -> None:
    seed = random.SystemRandom().randrange(2**32)
    maker = Maker(target.key("client"), random.Random(seed))  # noqa: S311 - no secret
    storm(target, maker, CASES)  # what the first thousands cost is no leak
    before = look(target)
    end, played = time.monotonic() + LONG_S, 0
    while time.monotonic() < end:
        _, faults = storm(target, maker, CASES)
        assert not faults, f"seed {seed}:\n" + "\n".join(faults[:20])
        played += CASES
    after = all_calm(target, before, growth=16 * 2**20)
    print(f"\nseed {seed}: {played} bad clients in {LONG_S:.0f} s: {before} -> {after}")
