"""What the relay asks the engine in the mode ``constrain``: when, with what, and when not."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest

from appliance.exchange import Exchange
from appliance.metrics import Metrics
from appliance.openai import GUARD_HEADER, RelayRoute
from appliance.pathconstraint import LATE_S, PathConstraints
from appliance.pathhistory import Reader
from appliance.pathrepair import Mode
from tests.component.test_engine_replies import plain
from tests.component.test_path_guard import GLITCHED, MEANT, open_gate
from tests.engines import MODEL
from tests.pathevents import CHAT, MESSAGES, reply
from tests.relays import Box, Mortal, front

PATH = {"type": "object", "properties": {"path": {"type": "string"}}}
LISTED = f"src/components/Input.tsx\n{MEANT}\ndocs/Notes.md"
GLITCHED_REPLY = plain("200 OK", reply(CHAT, [("read_file", {"path": GLITCHED})]))
Message = dict[str, Any]


def tool(name: str, schema: dict[str, Any] = PATH) -> dict[str, Any]:
    return {"type": "function", "function": {"name": name, "parameters": schema}}


def called(name: str, result: str, **arguments: Any) -> list[Message]:
    """Return a finished call of a history."""
    function = {"name": name, "arguments": json.dumps(arguments)}
    call = {"id": name, "type": "function", "function": function}
    return [
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": result},
    ]


def user(text: str) -> Message:
    return {"role": "user", "content": text}


LISTING = called("list_files", LISTED, path=".")
TOOLS = [tool("read_file"), tool("write_file"), tool("run_command"), tool("list_files")]


def asked(*messages: Message, **more: Any) -> dict[str, Any]:
    said = [user("Open the button."), *(messages or LISTING)]
    return {"model": MODEL, "messages": said, "tools": TOOLS, **more}


@dataclass
class Hearing(Mortal):
    """An engine of bytes that notes what it is asked, and may refuse a response format."""

    refuses: bool = False
    bodies: list[dict[str, Any]] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        length = int(head.partition("content-length: ")[2].split()[0])
        self.bodies.append(json.loads(await reader.readexactly(length)))
        is_refused = self.refuses and "response_format" in self.bodies[-1]
        writer.write(plain("400 Bad Request", b"{}") if is_refused else self.reply)
        await writer.drain()
        writer.close()


async def ask(box: Box, body: dict[str, Any], route: str = CHAT, mode: str = "constrain") -> bytes:
    told = await box.client.post(route, json=body, headers={GUARD_HEADER: mode})
    assert told.status_code == 200, told.text
    return told.content


def outcome(box: Box, word: str) -> float:
    return box.count("path_constraints", outcome=word)


async def test_a_request_that_reads_is_asked_with_the_grammar_and_else_as_it_came() -> None:
    engine = Hearing(reply=GLITCHED_REPLY)
    async with front(open_gate(), engine=engine) as box:
        await ask(box, asked())
        (body,) = engine.bodies
        tag = body.pop("response_format")
        assert body == asked()
        assert tag["type"] == "structural_tag"
        assert tag["format"]["triggers"] == [
            '<invoke name="list_files">', '<invoke name="read_file">',
        ]  # fmt: skip
        assert '"Button.tsx"' in json.dumps(tag).replace("\\", "")
        assert outcome(box, "added") == 1


async def test_the_reply_is_observed_beside_it_and_not_changed() -> None:
    async with front(open_gate(), engine=Hearing(reply=GLITCHED_REPLY)) as box:
        assert await ask(box, asked()) == reply(CHAT, [("read_file", {"path": GLITCHED})])

        def is_counted() -> bool:
            return box.count("path_glitches", kind="inserted_space", action="observed") == 1

        await box.sees(is_counted, "the glitch to be counted")


@pytest.mark.parametrize(
    ("why", "body"),
    [
        ("unfit", asked(response_format={"type": "json_object"})),
        ("unfit", asked(structured_outputs={"regex": "a"})),
        ("unfit", asked(tool_choice="required")),
        ("none", asked(user("What now?"))),
        ("none", asked(*LISTING, user("I have made a new file. Read it."))),
        ("none", asked(*LISTING, *called("run_command", "done", command="make"))),
        ("none", asked(*called("list_files", LISTED, path=".", pattern="*.tsx"))),
        ("none", asked(*called("find_files", LISTED, path="."))),
        ("none", asked(*called("list_files", "Error: no such folder", path="src"))),
        ("none", asked(*called("read_file", LISTED, path="list.txt"))),
        ("none", {**asked(), "tools": [tool("write_file"), tool("run_command")]}),
        ("none", {**asked(), "tools": [tool("read_file", {}), tool("list_files", {})]}),
        ("incomplete", asked(*called("list_files", LISTED + "\n... (truncated)", path="."))),
        ("incomplete", asked(*called("list_files", LISTED + "\n[12 more]", path="."))),
        ("incomplete", asked(*called("list_files", LISTED, path=".", limit=3))),
        ("windows", asked(*called("list_files", "C:\\a\\b.c\nC:\\a\\d.c", path="C:\\a"))),
        ("many", asked(*called("list_files", "\n".join(f"f{n}.c" for n in range(1001)), path="."))),
    ],
)  # fmt: skip
async def test_where_it_is_not_safe_the_request_goes_up_as_it_came_and_is_counted(
    why: str, body: dict[str, Any]
) -> None:
    engine = Hearing(reply=GLITCHED_REPLY)
    async with front(open_gate(), engine=engine) as box:
        await ask(box, body)
        assert engine.bodies == [body]
        assert outcome(box, why) == 1
        assert outcome(box, "added") == 0


@pytest.mark.parametrize("mode", [mode.value for mode in Mode if mode is not Mode.CONSTRAIN])
async def test_no_other_mode_adds_anything(mode: str) -> None:
    engine = Hearing(reply=GLITCHED_REPLY)
    async with front(open_gate(), engine=engine) as box:
        await ask(box, asked(), mode=mode)
        assert engine.bodies == [asked()]
        assert "path_constraints_total{" not in box.metrics.text().decode()


async def test_another_api_is_not_constrained() -> None:
    answer = plain("200 OK", reply(MESSAGES, [("read_file", {"path": MEANT})]))
    engine = Hearing(reply=answer)
    async with front(open_gate(), engine=engine) as box:
        body = {"model": MODEL, "messages": [user("Hi")], "max_tokens": 9}
        await ask(box, body, MESSAGES)
        assert engine.bodies == [body]


async def test_a_server_may_be_set_to_it() -> None:
    engine = Hearing(reply=GLITCHED_REPLY)
    async with front(open_gate(), engine=engine, path_mode=Mode.CONSTRAIN) as box:
        await box.client.post(CHAT, json=asked())
        assert "response_format" in engine.bodies[0]


async def test_an_engine_that_refuses_it_is_asked_again_without_and_never_again_with() -> None:
    engine = Hearing(reply=GLITCHED_REPLY, refuses=True)
    async with front(open_gate(), engine=engine) as box:
        await ask(box, asked())
        assert ["response_format" in body for body in engine.bodies] == [True, False]
        assert engine.bodies[1] == asked()
        assert outcome(box, "refused") == 1
        await ask(box, asked(*LISTING, *called("read_file", "x", path=MEANT)))
        assert len(engine.bodies) == 3
        assert "response_format" not in engine.bodies[2]


def exchange(body: dict[str, Any], ttft_s: float) -> Exchange:
    one = Exchange(RelayRoute("POST", CHAT, gated=True), {}, "1", streaming=True, status=200)
    one.path_mode, one.body, one.ttft_s = Mode.CONSTRAIN, json.dumps(body).encode(), ttft_s
    one.queued_s = 100.0
    return one


async def outcomes(*turns: tuple[dict[str, Any], float]) -> list[bool]:
    """Return which requests of a conversation were constrained, told each one's first byte."""
    constraints = PathConstraints(Metrics(), Reader(lambda: 0.0))
    found = []
    for body, first_s in turns:
        one = exchange(body, 100.0 + first_s)
        made = await constraints.make(one)
        assert made is not None
        found.append(made.is_added)
        made.note(one)
    return found


PLAIN = asked(user("What now?"))
NEXT = asked(*LISTING, *called("list_files", "docs/Notes.md\ndocs/Old.md", path="docs"))


async def test_a_late_first_byte_with_a_new_grammar_ends_it_for_that_conversation() -> None:
    first = {**PLAIN, "messages": asked()["messages"][:2]}
    late = 1.0 + LATE_S + 0.1
    assert await outcomes((first, 1.0), (asked(), late), (asked(), 1.0)) == [False, True, False]
    assert await outcomes((first, 1.0), (asked(), 1.1), (NEXT, 1.1)) == [False, True, True]


async def test_what_is_late_with_a_known_grammar_is_not_the_grammars_fault() -> None:
    turns = [(asked(), 1.0), (asked(), 1.0), (asked(), 9.0), (asked(), 1.0)]
    assert await outcomes(*turns) == [True, True, True, True]


async def test_another_conversation_goes_on() -> None:
    first = {**PLAIN, "messages": asked()["messages"][:2]}
    other = {**asked(), "messages": [user("Something else."), *LISTING]}
    assert await outcomes((first, 1.0), (asked(), 9.0), (other, 9.0)) == [False, True, True]
