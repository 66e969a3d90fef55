"""The guard's seat: the ledger is read beside the stream, and nothing is lost or told early."""

import asyncio
import json

import pytest

from appliance.errors import RequestError
from appliance.pathguard import Judged
from appliance.pathrepair import Action, Mode
from appliance.pathseat import HEADER, PathSeat, ReplyGuard, mode_of
from tests.pathevents import CHAT, ROUTES, arguments, dumped, reply
from tests.unit.test_pathstream import GLITCHED, MEANT, REQUEST, one_call

BODY = dumped(REQUEST)


def seat(mode: Mode, route: str = CHAT) -> tuple[ReplyGuard, list[Judged]]:
    told: list[Judged] = []
    guard = PathSeat(told.append).guard(route, mode, BODY)
    assert guard is not None
    return guard, told


async def passed(guard: ReplyGuard, events: list[bytes]) -> list[bytes]:
    out: list[bytes] = []
    guard.give = lambda: out.append(guard.released())
    for event in events:
        out.append(guard.apply(event))
        await asyncio.sleep(0)
    out.append(await guard.rest())
    return [piece for piece in out if piece]


@pytest.mark.parametrize("mode", [Mode.OBSERVE, Mode.REPAIR])
async def test_a_stream_is_guarded_while_its_ledger_is_read(mode: Mode) -> None:
    guard, told = seat(mode)
    events = one_call(CHAT, {"path": GLITCHED}, (4, 9, 14))
    out = await passed(guard, events)
    said = json.loads(arguments(CHAT, out)[0])["path"]
    assert said == (MEANT if mode is Mode.REPAIR else GLITCHED)
    assert guard.mended == (mode is Mode.REPAIR)
    assert [one.finding.action for one in told] == (
        [Action.MENDED] if mode is Mode.REPAIR else [Action.OBSERVED]
    )
    assert out == events or mode is Mode.REPAIR


async def test_a_stream_without_a_call_reads_no_ledger() -> None:
    guard, _ = seat(Mode.REPAIR)
    events = one_call(CHAT, {}, ())[:2]
    assert await passed(guard, events) == events


async def test_a_stream_that_is_given_up_stops_the_reading() -> None:
    guard, _ = seat(Mode.REPAIR)
    for event in one_call(CHAT, {"path": GLITCHED}):
        guard.apply(event)
    guard.close()
    with pytest.raises(asyncio.CancelledError):
        await guard.rest()


@pytest.mark.parametrize("route", ROUTES)
async def test_a_whole_reply_is_guarded(route: str) -> None:
    guard, told = seat(Mode.REPAIR, route)
    body = await guard.whole(reply(route, [("read_file", {"path": GLITCHED})]))
    assert MEANT.encode() in body
    assert len(told) == guard.mended == 1
    assert await guard.whole(b'{"choices":[]}') == b'{"choices":[]}'


def test_nothing_is_guarded_where_it_is_off_or_no_calls_are_made() -> None:
    made = PathSeat(lambda _: None)
    assert made.guard(CHAT, Mode.OFF, BODY) is None
    assert made.guard("/v1/completions", Mode.REPAIR, BODY) is None


def test_a_request_may_choose_its_mode() -> None:
    assert mode_of({}, Mode.OBSERVE) is Mode.OBSERVE
    assert mode_of({HEADER: " Repair "}, Mode.OBSERVE) is Mode.REPAIR
    with pytest.raises(RequestError, match="is no mode of the guard"):
        mode_of({HEADER: "always"}, Mode.OBSERVE)
