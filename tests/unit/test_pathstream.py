"""The guard in a stream: what is mended, what passes, and when."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.pathguard import Judged, PathGuard
from appliance.pathhistory import read_all
from appliance.pathrepair import Action, Mode, Why
from appliance.paths import skeleton
from appliance.pathstream import PathFilter
from appliance.pathtools import read_tools
from appliance.sse import split_events
from tests.pathevents import (
    CHAT,
    MESSAGES,
    RESPONSES,
    ROUTES,
    arguments,
    chunk,
    cut,
    dumped,
    reply,
    stream,
    whole_arguments,
)

LISTED = (
    "src/components/Button.tsx", "src/components/Input.tsx", "docs/Release Notes.md",
    "docker-compose.yml", "src/größe/Maß.ts", "scenes/forest_platform.tscn", "data/emoji-😀.json",
)  # fmt: skip
ROOT = "/w/my app"
LIST_CALL = {"name": "list_files", "arguments": '{"path":"."}'}
REQUEST: dict[str, Any] = {
    "tools": [
        {"type": "function", "function": {"name": name, "parameters": {}}}
        for name in ("read_file", "write_file", "delete_file", "list_files", "run_command")
    ],
    "messages": [
        {"role": "user", "content": f"<env>\nWorking directory: {ROOT}\n</env>\nGo on."},
        {
            "role": "assistant",
            "tool_calls": [{"id": "1", "type": "function", "function": LIST_CALL}],
        },
        {"role": "tool", "tool_call_id": "1", "content": "\n".join(LISTED)},
    ],
}
LEDGER = read_all(dumped(REQUEST))
TOOLS = read_tools(REQUEST["tools"])
GLITCHED = "src/components/Butt on. tsx"
MEANT = "src/components/Button.tsx"


def guard(mode: Mode = Mode.REPAIR) -> PathGuard:
    return PathGuard(mode, TOOLS, LEDGER)


class Story:
    """One stream through the guard: what came out at each step, and what was found."""

    def __init__(
        self, route: str, pieces: Sequence[bytes], mode: Mode = Mode.REPAIR, *, late: int = 0
    ) -> None:
        self.judged: list[Judged] = []
        self.opened = 0
        self.filter = PathFilter(route, mode, self._opened, self.judged.append)
        self._mode = mode
        self.out: list[bytes] = []
        for piece in pieces:
            self.out.append(self.filter.apply(piece))
            if self.opened and late >= 0:
                if late == 0:
                    self.out.append(self.filter.know(guard(mode)))
                late -= 1
        if self.opened and late >= 0:
            self.out.append(self.filter.know(guard(mode)))
        self.out.append(self.filter.rest())

    def _opened(self) -> None:
        self.opened += 1

    @property
    def bytes(self) -> bytes:
        return b"".join(self.out)


def one_call(
    route: str, told: dict[str, Any], at: Sequence[int] = (), name: str = "read_file"
) -> list[bytes]:
    text = json.dumps(told, ensure_ascii=False)
    return stream(route, [(name, cut(text, at))])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("at", [(), (3, 9, 14, 22, 31), tuple(range(80))], ids=["1", "6", "each"])
def test_a_glitch_is_mended_however_its_arguments_come(route: str, at: tuple[int, ...]) -> None:
    events = one_call(route, {"path": GLITCHED, "offset": 3}, at)
    story = Story(route, events)
    assert [json.loads(told) for told in arguments(route, [story.bytes])] == [
        {"path": MEANT, "offset": 3}
    ]
    assert [one.finding.action for one in story.judged] == [Action.MENDED]
    assert story.bytes.count(b'"unglitched":{"paths_mended":1}') == 1


def test_a_responses_stream_tells_the_mended_arguments_each_time() -> None:
    story = Story(RESPONSES, one_call(RESPONSES, {"path": GLITCHED}, (4, 15)))
    told = whole_arguments([story.bytes])
    assert [json.loads(one) for one in told] == [{"path": MEANT}] * 3
    assert len(story.judged) == 1


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("mode", [Mode.OFF, Mode.OBSERVE])
def test_what_may_not_be_changed_passes_at_once_and_as_it_came(route: str, mode: Mode) -> None:
    events = one_call(route, {"path": GLITCHED}, (5, 12))
    story = Story(route, events, mode, late=2)
    assert [piece for piece in story.out if piece] == events
    assert [one.finding.action for one in story.judged] == (
        [Action.OBSERVED] if mode is Mode.OBSERVE else []
    )


@pytest.mark.parametrize("route", ROUTES)
def test_a_stream_without_a_glitch_is_not_changed_in_repair(route: str) -> None:
    events = one_call(route, {"path": MEANT, "text": 'a 😀 " \\ b'}, tuple(range(0, 60, 7)))
    assert Story(route, events).bytes == b"".join(events)


@pytest.mark.parametrize("route", ROUTES)
def test_text_alone_opens_no_ledger_and_passes_as_the_same_object(route: str) -> None:
    events = stream(route, [])
    story = Story(route, events)
    assert story.opened == 0
    assert all(a is b for a, b in zip(story.out, events, strict=False))


def test_the_ledger_is_asked_for_once_and_only_when_a_call_opens() -> None:
    events = stream(CHAT, [("read_file", ['{"path": "a"}']), ("read_file", ['{"path": "b"}'])])
    story = Story(CHAT, events[:2])
    assert story.opened == 0
    assert Story(CHAT, events).opened == 1


@pytest.mark.parametrize("late", [0, 1, 3, 99])
@pytest.mark.parametrize("route", ROUTES)
def test_a_ledger_that_comes_late_changes_nothing_but_the_time(route: str, late: int) -> None:
    events = one_call(route, {"path": GLITCHED, "more": ["x", {"y": "z"}]}, (4, 9, 20))
    assert Story(route, events, late=late).bytes == Story(route, events).bytes


def test_only_the_value_that_may_be_mended_is_held_back() -> None:
    pieces = [
        '{"content": "lo',
        "ng ",
        'text", "pa',
        'th": ',
        '"src/com',
        "ponents/",
        'Input.tsx"',
        "}",
    ]
    events = stream(CHAT, [("read_file", pieces)])
    watched = PathFilter(CHAT, Mode.REPAIR, lambda: None)
    assert watched.apply(b"".join(events[:3])) == b""
    assert watched.know(guard()) == b"".join(events[:3])
    out = [watched.apply(event) for event in events[3:]]
    assert out == [*events[3:7], b"", b"", b"".join(events[7:10]), *events[10:]]


@pytest.mark.parametrize("tool", ["delete_file", "run_command", "frobnicate"])
def test_what_is_never_mended_is_never_held_back(tool: str) -> None:
    events = one_call(CHAT, {"path": GLITCHED}, tuple(range(0, 40, 3)), tool)
    story = Story(CHAT, events)
    assert [piece for piece in story.out if piece] == events
    assert [one.finding.action for one in story.judged] == [Action.LEFT]


def test_repair_commands_mends_the_path_of_a_deletion_but_no_command() -> None:
    command = {"command": "rm docker- compose. yml"}
    events = one_call(CHAT, {"path": GLITCHED, **command}, (), "delete_file")
    story = Story(CHAT, events, Mode.REPAIR_COMMANDS)
    assert json.loads(arguments(CHAT, [story.bytes])[0]) == {"path": MEANT, **command}


def test_nested_arguments_and_lists_are_mended_in_their_places() -> None:
    told = {
        "files": [{"path": GLITCHED, "line": 1}, {"path": MEANT}],
        "options": {"paths": ["docker- compose.yml", "src"], "path": None},
    }
    story = Story(CHAT, one_call(CHAT, told, tuple(range(0, 120, 11))))
    assert json.loads(arguments(CHAT, [story.bytes])[0]) == {
        "files": [{"path": MEANT, "line": 1}, {"path": MEANT}],
        "options": {"paths": ["docker-compose.yml", "src"], "path": None},
    }
    assert b'"paths_mended":2' in story.bytes


def test_two_values_in_one_piece_are_both_mended() -> None:
    text = json.dumps({"a": 1, "paths": ["src//größe/Maß.ts", "data/emoji-😀 .json", "x"]})
    for cuts in ((), (text.index("data") - 1,), (text.index(" .json"),)):
        story = Story(CHAT, stream(CHAT, [("read_file", cut(text, cuts))]))
        assert json.loads(arguments(CHAT, [story.bytes])[0]) == {
            "a": 1,
            "paths": ["src/größe/Maß.ts", "data/emoji-😀.json", "x"],
        }


@pytest.mark.parametrize("ascii_only", [False, True])
def test_escapes_and_surrogates_stay_valid_json(ascii_only: bool) -> None:
    told = {"note": 'a "quote" \\ 😀 \u2028', "path": "data/emoji- 😀.json"}
    text = json.dumps(told, ensure_ascii=ascii_only)
    for places in ((), tuple(range(0, 120, 5))):
        events = stream(CHAT, [("read_file", cut(text, places))], ascii_only=ascii_only)
        story = Story(CHAT, events)
        assert json.loads(arguments(CHAT, [story.bytes])[0]) == {
            **told,
            "path": "data/emoji-😀.json",
        }


def test_a_value_that_never_closes_passes_as_it_came() -> None:
    events = stream(CHAT, [("read_file", ['{"path": "src/compo', "nents/Butt on"])])
    assert Story(CHAT, events).bytes == b"".join(events)


def test_a_stream_that_breaks_off_loses_nothing() -> None:
    events = one_call(CHAT, {"path": GLITCHED}, tuple(range(0, 40, 3)))
    for end in range(len(events)):
        story = Story(CHAT, events[:end])
        assert len(split_events(story.bytes)) == end


def test_a_call_that_cannot_be_read_passes_with_all_behind_it() -> None:
    odd = b'data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"func\n\n'
    events = one_call(CHAT, {"path": GLITCHED}, (5, 10, 20))
    mixed = [*events[:4], odd, *events[4:]]
    assert Story(CHAT, mixed).bytes == b"".join(mixed)


def test_a_very_long_value_is_let_go() -> None:
    told = {"path": "a/" * 200_000}
    events = one_call(CHAT, told, tuple(range(0, 400_000, 4000)))
    assert Story(CHAT, events).bytes == b"".join(events)


def test_two_choices_that_take_turns_keep_their_order() -> None:
    def part(index: int, piece: str, name: str | None = None) -> bytes:
        function = {"arguments": piece} | ({"name": name} if name else {})
        choice = {"index": index, "delta": {"tool_calls": [{"index": 0, "function": function}]}}
        return b"data: " + dumped({"id": "c", "choices": [choice]}) + b"\n\n"

    texts = ['{"path": "' + GLITCHED + '"}', '{"path": "docker- compose.yml"}']
    events = [part(0, "", "read_file"), part(1, "", "read_file")]
    for at in range(0, 40, 5):
        events += [part(i, text[at : at + 5]) for i, text in enumerate(texts) if text[at : at + 5]]
    out = split_events(Story(CHAT, events).bytes)
    told = {0: "", 1: ""}
    for event in out:
        choice = json.loads(event[6:])["choices"][0]
        told[choice["index"]] += choice["delta"]["tool_calls"][0]["function"]["arguments"]
    assert [json.loads(told[i])["path"] for i in (0, 1)] == [MEANT, "docker-compose.yml"]
    assert len(out) == len(events)


@pytest.mark.parametrize("route", ROUTES)
def test_a_whole_reply_is_mended_in_the_value_alone(route: str) -> None:
    told = {"path": f"{ROOT}/docs/ReleaseNotes.md", "note": 'a "b" é', "n": [1.50, None]}
    body = reply(route, [("read_file", told), ("delete_file", told)])
    found: list[Judged] = []
    out = PathFilter(route, Mode.REPAIR, lambda: None, found.append).mend_whole(body, guard())
    value = json.loads(out)
    assert value.pop("unglitched") == {"paths_mended": 1}
    mended = {**told, "path": f"{ROOT}/docs/Release Notes.md"}
    assert dumped(value) == reply(route, [("read_file", mended), ("delete_file", told)])
    assert [one.finding.action for one in found] == [Action.MENDED, Action.LEFT]


@pytest.mark.parametrize("route", ROUTES)
def test_a_whole_reply_that_is_mended_is_not_mended_again(route: str) -> None:
    body = reply(route, [("read_file", {"path": GLITCHED})])
    once = PathFilter(route, Mode.REPAIR, lambda: None).mend_whole(body, guard())
    assert PathFilter(route, Mode.REPAIR, lambda: None).mend_whole(once, guard()) == once


@pytest.mark.parametrize("body", [b"", b"no json", b"[]", b'{"choices":[{"message":3}]}'])
@pytest.mark.parametrize("route", ROUTES)
def test_a_reply_of_another_shape_passes(route: str, body: bytes) -> None:
    assert PathFilter(route, Mode.REPAIR, lambda: None).mend_whole(body, guard()) == body


# ---- laws

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
PATHS = st.sampled_from([*LISTED, GLITCHED, "docker- compose. yml", "src/Components/Input.tsx",
                         "src//größe/Maß.ts", "new/file.ts", "data/emoji-😀 .json"])  # fmt: skip
VALUES = st.recursive(
    st.one_of(TEXTS, PATHS, st.integers(), st.none(), st.booleans()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(["path", "paths", "text", "x", "cwd"]), inner, max_size=3),
    ),
    max_leaves=8,
)
TOLD = st.dictionaries(st.sampled_from(["path", "filePath", "content", "files", "é"]), VALUES)
CALLS = st.lists(
    st.tuples(st.sampled_from(["read_file", "write_file", "delete_file"]), TOLD), max_size=3
)
PLACES = st.lists(st.integers(0, 300), max_size=30)


@st.composite
def streams(draw: st.DrawFn) -> tuple[str, list[bytes], list[tuple[str, dict[str, Any]]]]:
    route, calls = draw(st.sampled_from(ROUTES)), draw(CALLS)
    ascii_inner, ascii_outer = draw(st.booleans()), draw(st.booleans())
    texts = [json.dumps(told, ensure_ascii=ascii_inner) for _, told in calls]
    parts = [(name, cut(text, draw(PLACES))) for (name, _), text in zip(calls, texts, strict=True)]
    return route, stream(route, parts, ascii_only=ascii_outer), calls


@given(streams(), st.lists(st.integers(1, 5), max_size=30), st.integers(0, 20))
def test_any_grouping_of_the_events_gives_the_same_bytes(
    story: tuple[str, list[bytes], Any], sizes: list[int], late: int
) -> None:
    route, events, _ = story
    pieces, rest = [], list(events)
    for size in sizes:
        pieces.append(b"".join(rest[:size]))
        rest = rest[size:]
    pieces = [piece for piece in [*pieces, b"".join(rest)] if piece]
    assert Story(route, pieces, late=late).bytes == Story(route, events).bytes


@given(streams())
def test_observing_and_off_change_no_byte(story: tuple[str, list[bytes], Any]) -> None:
    route, events, _ = story
    for mode in (Mode.OFF, Mode.OBSERVE):
        assert Story(route, events, mode).bytes == b"".join(events)


def walk(value: Any) -> list[str]:
    if isinstance(value, dict):
        return [text for one in value.values() for text in walk(one)]
    if isinstance(value, list):
        return [text for one in value for text in walk(one)]
    return [value] if isinstance(value, str) else []


@given(streams())
def test_arguments_stay_the_json_that_they_were_but_for_their_paths(
    story: tuple[str, list[bytes], list[tuple[str, dict[str, Any]]]],
) -> None:
    route, events, calls = story
    told = arguments(route, [Story(route, events).bytes])
    for text, (_, before) in zip(told, calls, strict=True):
        after = json.loads(text)
        assert len(walk(after)) == len(walk(before))
        for a, b in zip(walk(after), walk(before), strict=True):
            assert a == b or (a in LISTED and skeleton(a) == skeleton(b.replace("//", "/")))


@given(streams())
def test_repair_is_idempotent(story: tuple[str, list[bytes], Any]) -> None:
    route, events, _ = story
    once = Story(route, events).bytes
    again = Story(route, split_events(once))
    assert again.bytes == once
    assert all(one.finding.action is not Action.MENDED for one in again.judged)


@given(streams())
def test_a_stream_and_its_whole_reply_are_mended_alike(
    story: tuple[str, list[bytes], list[tuple[str, dict[str, Any]]]],
) -> None:
    route, events, calls = story
    streamed = [json.loads(one) for one in arguments(route, [Story(route, events).bytes])]
    body = PathFilter(CHAT, Mode.REPAIR, lambda: None).mend_whole(reply(CHAT, calls), guard())
    made = json.loads(body)["choices"][0]["message"]["tool_calls"]
    assert [json.loads(call["function"]["arguments"]) for call in made] == streamed


def test_every_route_of_the_guard_is_tested() -> None:
    assert set(ROUTES) == {CHAT, MESSAGES, RESPONSES}
    assert chunk({}).startswith(b"data: ")


def test_a_value_that_could_not_be_held_to_its_end_is_told_as_left() -> None:
    head, tail = GLITCHED[:20], GLITCHED[20:]
    events = stream(CHAT, [("read_file", ['{"path": "' + head, tail + '"}'])])
    events.insert(4, chunk({}, "stop"))  # another choice's end
    told: list[Judged] = []
    watched = PathFilter(CHAT, Mode.REPAIR, lambda: None, told.append)
    first = watched.apply(b"".join(events[:3])) + watched.know(guard())
    out = first + b"".join(watched.apply(event) for event in events[3:]) + watched.rest()
    assert out == b"".join(events)
    assert watched.mended == 0
    assert [(one.finding.action, one.finding.why) for one in told] == [(Action.LEFT, Why.PASSED)]
