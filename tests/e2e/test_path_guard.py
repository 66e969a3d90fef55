"""The guard of paths over the real engine, whose tiny model glitches them without the prompt."""

import json
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from appliance.demo.conversations import (
    PATH_CASES,
    UNLISTED_PATH,
    Conversation,
    PathCase,
    conversations,
)
from appliance.openai import GUARD_HEADER, INJECTION_HEADER
from tests.appliances import CHAT, ApplianceProcess
from tests.asking import deltas, parse_event
from tests.engines import MODEL, wait_until

pytestmark = pytest.mark.engine

# The plain and the streamed reply, with the model's thinking and without it.
WAYS = [(streams, thinks) for streams in (False, True) for thinks in ("on", "off")]
every_way = pytest.mark.parametrize(("streams", "thinks"), WAYS)
every_case = pytest.mark.parametrize("case", PATH_CASES, ids=lambda case: case.name)
COUNTED = {
    "appliance_path_glitches_total": "action",
    "appliance_path_constraints_total": "outcome",
}
CONVERSATIONS = {one.name: one for one in conversations()}


class Told:
    """What the guard has counted since it was made."""

    def __init__(self, appliance: ApplianceProcess) -> None:
        self._appliance = appliance
        self._before = self._counts()

    def _counts(self) -> dict[str, float]:
        with self._appliance.http() as http:
            text = http.get("/metrics").text
        counts: dict[str, float] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                if word := sample.labels.get(COUNTED.get(sample.name, "")):
                    counts[word] = counts.get(word, 0) + sample.value
        return counts

    def since(self) -> dict[str, float]:
        """Return what was counted, but for what was not."""
        now = self._counts()
        return {word: more for word in now if (more := now[word] - self._before.get(word, 0))}

    def comes_to(self, **counts: float) -> None:
        """Wait until it is so: what is only counted is counted behind the reply."""
        wait_until(lambda: self.since() == counts, 10, f"{counts}, not {self.since()}")


@pytest.fixture
def told(wide: ApplianceProcess) -> Told:
    return Told(wide)


def asked(name: str, thinks: str) -> Conversation:
    return CONVERSATIONS[f"{name}-{thinks}/none"]


def path_read(
    appliance: ApplianceProcess,
    conversation: Conversation,
    mode: str,
    *,
    streams: bool,
    **more: Any,
) -> str:
    """Return the path that the reply's one tool call reads; the prompt is left out."""
    body = {**conversation.request(MODEL), "stream": streams, **more}
    headers = {INJECTION_HEADER: "off", GUARD_HEADER: mode}
    with appliance.http() as http:
        reply = http.post(CHAT, json=body, headers=headers)
    assert reply.status_code == 200, reply.text
    if streams:
        events = [parse_event(one)[1] for one in reply.text.strip().split("\n\n")]
        parts = deltas([json.loads(one) for one in events if one != "[DONE]"])
    else:
        parts = [reply.json()["choices"][0]["message"]]
    calls = [call["function"] for part in parts for call in part.get("tool_calls") or []]
    assert "".join(call.get("name") or "" for call in calls) == "read_file"
    arguments = json.loads("".join(call.get("arguments") or "" for call in calls))
    assert list(arguments) == ["path"]
    return str(arguments["path"])


@every_way
@every_case
def test_a_glitch_passes_unchanged_in_off(
    wide: ApplianceProcess, told: Told, case: PathCase, streams: bool, thinks: str
) -> None:
    said = asked(f"file-{case.name}", thinks)
    assert path_read(wide, said, "off", streams=streams) == case.glitched
    assert told.since() == {}


@every_way
@every_case
def test_a_glitch_is_counted_and_passes_in_observe(
    wide: ApplianceProcess, told: Told, case: PathCase, streams: bool, thinks: str
) -> None:
    said = asked(f"file-{case.name}", thinks)
    assert path_read(wide, said, "observe", streams=streams) == case.glitched
    told.comes_to(observed=1)


@every_way
@every_case
def test_a_glitch_is_mended_in_repair(
    wide: ApplianceProcess, told: Told, case: PathCase, streams: bool, thinks: str
) -> None:
    said = asked(f"file-{case.name}", thinks)
    assert path_read(wide, said, "repair", streams=streams) == case.path
    told.comes_to(mended=1)


@every_way
@every_case
def test_the_engine_itself_writes_the_exact_path_in_constrain(
    wide: ApplianceProcess, told: Told, case: PathCase, streams: bool, thinks: str
) -> None:
    said = asked(f"file-{case.name}", thinks)
    assert path_read(wide, said, "constrain", streams=streams) == case.path
    told.comes_to(added=1)


@every_way
def test_a_file_that_no_listing_holds_is_read_in_constrain(
    wide: ApplianceProcess, told: Told, streams: bool, thinks: str
) -> None:
    said = asked("file-unlisted", thinks)
    assert path_read(wide, said, "constrain", streams=streams) == UNLISTED_PATH
    told.comes_to(added=1)


@pytest.mark.parametrize("streams", [False, True])
def test_a_client_that_chose_a_format_is_not_constrained(
    wide: ApplianceProcess, told: Told, streams: bool
) -> None:
    said = asked("file-case", "off")
    case = PATH_CASES[0]
    body = {"response_format": {"type": "text"}}
    assert path_read(wide, said, "constrain", streams=streams, **body) == case.glitched
    told.comes_to(observed=1, unfit=1)
