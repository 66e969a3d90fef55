"""A crowd that comes while the engine goes and comes back: everybody gets a clear end."""

import asyncio
import resource
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.appliances import CONTROL, NO_TLS, ApplianceProcess, RunAppliance
from tests.fault.clients import QUICK, Heard, ask
from tests.fault.table import Faults

WITHIN_S = 120.0
PLACES, QUEUE = 8, 100
CROWD: dict[str, Any] = {
    **QUICK,
    "max_num_seqs": PLACES,
    "max_waiting": QUEUE,
    "drain_timeout_s": 20,
    "queue_timeout_s": 60,
    "whole_wait_s": 60,
}


@pytest.fixture
def many_files() -> Iterator[None]:
    """Let this process, and what it starts, hold a socket for each client."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before[1], before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


async def crowd(box: ApplianceProcess, count: int, fault: str) -> tuple[list[Heard], float]:
    """Let ``count`` clients ask while the fault happens; return what they heard, and its length."""
    came = asyncio.Event()
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=0)
    headers = {"authorization": f"Bearer {box.key('client')}"}
    async with httpx.AsyncClient(
        base_url=box.base_url,
        headers=headers,
        limits=limits,
        timeout=WITHIN_S,
        trust_env=False,
        verify=NO_TLS,
    ) as http:

        async def one(number: int) -> Heard:
            heard = await ask(http, stream=number % 2 == 0)
            came.set()
            return heard

        tasks = [asyncio.create_task(one(number)) for number in range(count)]
        await came.wait()  # the engine is at work
        began = time.monotonic()
        await asyncio.to_thread(strike, box, fault)
        async with asyncio.timeout(WITHIN_S):
            heard = await asyncio.gather(*tasks)
    return heard, time.monotonic() - began


def strike(box: ApplianceProcess, fault: str) -> None:
    if fault == "crash":
        box.fake.be(exit_code=0)
        return
    with box.http("operator") as http:
        assert http.post(f"{CONTROL}/restart").status_code == 202


def told(heard: Heard) -> str:
    """Say in a word what somebody got."""
    if heard.is_true:
        return "answered"
    if heard.is_turned_away:
        return f"told {heard.status}"
    if (heard.status, heard.code) == (502, "upstream_error"):
        return "told 502"
    return "cut" if heard.status == 200 and heard.is_cut else "left in the dark"


@pytest.mark.usefixtures("many_files")
@pytest.mark.parametrize(
    ("count", "fault"),
    [
        (200, "restart"),
        (200, "crash"),
        pytest.param(1000, "restart", marks=pytest.mark.long),
        pytest.param(1000, "crash", marks=pytest.mark.long),
    ],
)
async def test_a_crowd_during_a_restart_gets_true_answers_or_a_clear_later(
    run: RunAppliance, faults: Faults, count: int, fault: str
) -> None:
    box = run("--chunk-delay", "0.005", **CROWD)
    await asyncio.to_thread(box.until, "ready")
    heard, took_s = await crowd(box, count, fault)
    found = Counter(map(told, heard))
    # Who was inside a crashed engine cannot be saved, nor who came as it fell. All others are
    # as well off as with a restart.
    hurt = found["told 502"] + found["cut"]
    assert hurt <= (2 * PLACES if fault == "crash" else 0), found
    assert found["left in the dark"] == 0, found
    assert found["answered"] >= (PLACES if fault == "crash" else PLACES + QUEUE), found
    assert found["answered"] + found["told 503"] + found["told 429"] + hurt == count, found
    status = await asyncio.to_thread(box.until, "ready")
    assert status["spawn"] == 2
    assert (status["requests"]["running"], status["requests"]["waiting"]) == (0, 0)
    seen = ", ".join(f"{number} {what}" for what, number in sorted(found.items()))
    faults.row(f"{fault} with {count} clients", None, took_s, seen)
