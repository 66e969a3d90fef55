"""What the real Kilo makes of a stream that ends before its answer does: why ours end as they do.

Kilo is asked as its editor asks it, by an endpoint of the test's own in the appliance's place. What
it makes of a break is not what one would think: see each row. A row that changes with a version
of Kilo's is a reason to look at how the relay ends what the engine broke off.
"""

import pytest

from tests.accept.kilo.conftest import KiloAt
from tests.accept.kilo.editor import TURN_S, Session, served
from tests.accept.kilo.endings import PATH, TEXT, Endpoint, endpoint
from tests.accept.stage import Stage
from tests.engines import wait_until

pytestmark = pytest.mark.timeout(900)
AGAIN = "asked again, as if nothing had been"
ON = "the model is told of the torn call, and goes on"
WHOLE = "taken for one answer; the task goes on"
ERROR = "the turn ends with an error"
CUT = "the turn ends as if it were whole"
# It asks kilo.ai and two others whether there is a network. Where there is none it waits for a
# click; `kilo run` clicks for itself, three times: after 5, 10 and 20 s.
OFFLINE = "waits for the network"

KNOWN = {
    ("before a word", "broken off"): OFFLINE,
    ("before a word", "reset"): OFFLINE,
    ("before a word", "an end without a reason"): CUT,
    ("before a word", "an error event"): AGAIN,
    ("in thought", "broken off"): ERROR,
    ("in thought", "reset"): ERROR,
    ("in thought", "an end without a reason"): CUT,
    ("in thought", "length"): CUT,
    ("in thought", "tool_calls"): CUT,
    ("in thought", "an error event"): ERROR,
    ("in thought", "the answer anew"): WHOLE,
    ("in text", "broken off"): ERROR,
    ("in text", "an end without a reason"): CUT,
    ("in text", "length"): CUT,
    ("in text", "an error event"): ERROR,
    ("in text", "the answer anew"): WHOLE,
    ("in a call", "broken off"): ERROR,
    ("in a call", "an end without a reason"): ON,
    ("in a call", "length"): ON,
    ("in a call", "tool_calls"): ON,
    ("in a call", "an error event"): ERROR,
}


def test_a_torn_stream_ends_as_is_known_of_each_ending(
    kilo_at: KiloAt, shared_stage: Stage
) -> None:
    shared_stage.script.play()
    with endpoint() as ours:
        kilo = kilo_at(shared_stage, options={"baseURL": f"http://127.0.0.1:{ours.port}/v1"})
        seen = {}
        with served(kilo) as http:
            for window, ending in KNOWN:
                ours.play(window, ending)
                (kilo.workspace / PATH).unlink(missing_ok=True)
                session = Session(http, kilo)
                session.begin("Write it.")
                seen[window, ending] = outcome(session, ours)
                wrote = (kilo.workspace / PATH).exists()
                assert wrote == (seen[window, ending] in (AGAIN, ON, WHOLE))
                assert not wrote or (kilo.workspace / PATH).read_text() == TEXT  # never a torn one
                kilo.tale.kinds["turn"] += len(ours.asked)
    assert seen == KNOWN


def outcome(session: Session, ours: Endpoint) -> str:
    """Wait for the turn's end; return what came of it."""
    wait_until(lambda: len(ours.asked) > 0, TURN_S, "the first request")
    ended = ("idle", "offline")
    wait_until(lambda: session.status in ended, TURN_S, f"the end of {ours.window}, {ours.ending}")
    if session.status == "offline":
        session.abort()
        return OFFLINE
    kept = "the turn to be kept"  # it is idle a moment before
    wait_until(lambda: "completed" in session.turns[-1]["time"], TURN_S, kept)
    if session.turns[-1].get("error"):
        return ERROR
    if len(ours.asked) == 1:
        return CUT
    roles = [message["role"] for message in ours.asked[1]]
    if "assistant" not in roles:
        return AGAIN
    return ON if "Invalid" in str(ours.asked[1][-1]["content"]) else WHOLE
