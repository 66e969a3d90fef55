"""However a body is read, what the engine gets means the same: by three ways, one result."""

import json
from random import Random
from typing import Any

import msgspec
import pytest

from appliance.conversation import Reading, beginning, by_pieces, go_on, read
from appliance.errors import RequestError
from appliance.history import Mended
from appliance.openai import ROUTES, RelayRoute
from appliance.prompt import PromptPolicy
from appliance.seen import Beginning
from appliance.wirebody import parse_body
from tests import randombodies

POLICY = PromptPolicy("Keep pfad “ü” names.")
OFF = PromptPolicy("")
USER = {"role": "user", "content": "hi"}
SYSTEM = {"role": "system", "content": "Be kind."}


def route(path: str) -> RelayRoute:
    return next(one for one in ROUTES if one.path == path)


CHAT, MESSAGES, RESPONSES = map(route, ("/v1/chat/completions", "/v1/messages", "/v1/responses"))
READING = Reading(CHAT, POLICY)


def plainly(body: bytes, policy: PromptPolicy) -> dict[str, Any]:
    """Return what the engine should get of a chat, by the simplest means."""
    fields: dict[str, Any] = json.loads(body)
    fields["messages"] = policy.apply_to_messages(Mended(fields["messages"]).messages)
    return fields


def text(random: Random, messages: list[Any], tools: bool = True) -> tuple[str, str, str]:
    """Return a chat's body in three: to its messages, the messages, and what follows."""
    before = f'{{"model":{randombodies.space(random)}"Nikola","max_tokens":7,"messages":'
    inner = randombodies.rendered(random, messages)
    after = ',"tools":[{"type":"function","function":{"name":"read"}}],"stream":true}'
    return before, inner, after if tools else "}"


@pytest.mark.parametrize("policy", [POLICY, OFF], ids=["prompt", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_plain_and_unpacked_bodies_arrive_as_what_they_mean(
    seed: int, policy: PromptPolicy
) -> None:
    random = randombodies.seeded(seed)
    in_place = 0
    for _ in range(500):
        messages = [randombodies.message(random) for _ in range(random.randrange(5))]
        body = "".join(text(random, messages)).encode()
        draft, start = read(parse_body(body), Reading(CHAT, policy))
        in_place += start is not None
        assert json.loads(draft.encode()) == plainly(body, policy), body
    assert in_place > 150


def begun(body: bytes, reading: Reading) -> Beginning | None:
    fields = parse_body(body)
    draft, start = read(fields, reading)
    raw = fields.get(reading.name)
    if start is None or raw is None:
        return None
    del draft
    return beginning(body, raw, start, reading)


@pytest.mark.parametrize("policy", [POLICY, OFF], ids=["prompt", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_a_body_that_goes_on_is_read_as_if_it_were_new(seed: int, policy: PromptPolicy) -> None:
    random = randombodies.seeded(seed)
    reading = Reading(CHAT, policy)
    went_on = 0
    for _ in range(500):
        messages = [randombodies.message(random) for _ in range(1 + random.randrange(3))]
        before, inner, after = text(random, messages)
        known = begun((before + inner + after).encode(), reading)
        if known is None:
            continue
        more = [randombodies.message(random) for _ in range(random.randrange(3))]
        came = "".join(
            f"{randombodies.space(random)},{randombodies.rendered(random, one)}" for one in more
        )
        longer = f"{before}{inner.rstrip()[:-1].rstrip()}{came}]{after}".encode()
        assert longer.startswith(known.text)
        result = go_on(longer, known, reading)
        fresh, _ = read(parse_body(longer), reading)
        if result is not None:
            went_on += 1
            assert json.loads(result[0].encode()) == json.loads(fresh.encode()), longer
        assert json.loads(fresh.encode()) == plainly(longer, policy)
    assert went_on > 150


def in_pieces(body: bytes, reading: Reading, size: int) -> tuple[bytes, Beginning] | None:
    steps = by_pieces(body, reading, size)
    while True:
        try:
            next(steps)
        except StopIteration as end:
            if end.value is None:
                return None
            draft, found = end.value
            assert found is not None  # these bodies are short
            return draft.encode(), found


@pytest.mark.parametrize("policy", [POLICY, OFF], ids=["prompt", "none"])
@pytest.mark.parametrize("seed", range(3))
def test_a_body_read_in_pieces_is_read_as_if_it_were_not(seed: int, policy: PromptPolicy) -> None:
    random = randombodies.seeded(seed)
    reading = Reading(CHAT, policy)
    cut = 0
    for _ in range(700):
        messages = [randombodies.message(random) for _ in range(random.randrange(7))]
        body = "".join(text(random, messages)).encode()
        if random.random() < 0.2:
            at = random.randrange(len(body))
            body = (
                body[:at] + random.choice((b"]", b"}", b"", b",", b"\xff", b'"')) + body[at + 1 :]
            )
        try:
            fresh = read(parse_body(body), reading)[0].encode()
        except RequestError:
            fresh = b""
        found = in_pieces(body, reading, random.randrange(80))
        if found is not None:
            cut += 1
            assert fresh, body
            assert json.loads(found[0]) == json.loads(fresh), body
            again = go_on(body, found[1], reading)
            assert again is not None
            assert json.loads(again[0].encode()) == json.loads(fresh)
            assert found[1].text.rstrip().endswith(b"}")
    assert cut > 100


def test_a_cut_in_a_wrong_place_is_no_cut() -> None:
    function = {"name": "f", "arguments": "{}"}
    calls = [{"role": "x", "id": "c", "type": "function", "function": function}] * 3
    messages = [USER, {"role": "assistant", "tool_calls": calls}, USER]
    body = json.dumps({"messages": messages}).encode()
    expected = plainly(body, POLICY)
    assert json.loads(read(parse_body(body), READING)[0].encode()) == expected
    for size in range(0, len(body), 7):
        found = in_pieces(body, READING, size)
        assert found is None or json.loads(found[0]) == expected


@pytest.mark.parametrize("seed", range(3))
def test_random_bytes_behind_a_known_beginning_never_pass_for_what_they_are_not(seed: int) -> None:
    random = randombodies.seeded(seed)
    head = b'{"model":"Nikola","messages":[{"role":"user","content":"x"}'
    known = begun(head + b"]}", READING)
    assert known is not None
    message, late = b'{"role":"user","content":"y"}', b'{"role":"system","content":"s"}'
    marks = [b",", b"]", b"}", b"]}", b"[", b"0", b" ", b"\xff", b".5", b'"a":1', message, late]
    marks += [b"," + message, b'],"a":1}', b'"messages":', b'"messages":[]']
    good = 0
    for _ in range(20_000):
        body = head + b"".join(random.choice(marks) for _ in range(random.randrange(7)))
        try:
            fresh = read(parse_body(body), READING)[0].encode()
        except RequestError:
            fresh = b""
        result = go_on(body, known, READING)
        if result is not None:
            good += 1
            assert fresh, body
            assert json.loads(result[0].encode()) == json.loads(fresh), body
    assert good > 50


def test_what_has_begun_is_kept_and_what_stands_twice_is_not() -> None:
    one = b'{"a":1,"messages":[{"role":"user","content":"x"} ] ,"b":2}'
    known = begun(one, READING)
    assert known is not None
    assert known.text == b'{"a":1,"messages":[{"role":"user","content":"x"}'
    assert list(known.fields) == ["a"]
    again = one[:-1] + b',"mess\\u0061ges":[{"role":"user","content":"x"} ]}'
    assert begun(again, READING) is None
    assert go_on(again, known, READING) is None
    assert begun(b'{"messages":[]}', READING) is None
    late = b'{"a":"' + b"x" * 5000 + b'","messages":[{"role":"user","content":"x"}]}'
    assert begun(late, READING) is None


def test_a_field_behind_the_messages_wins_over_the_same_before_them() -> None:
    body = b'{"model":"a","messages":[{"role":"user","content":"x"}],"model":"b"}'
    known = begun(body, READING)
    assert known is not None
    result = go_on(body, known, READING)
    assert result is not None
    assert result[0].value("model") == "b"


def test_a_system_message_that_comes_late_is_where_the_prompt_goes() -> None:
    messages = [USER, SYSTEM]
    body = json.dumps({"messages": messages}).encode()
    assert json.loads(read(parse_body(body), READING)[0].encode()) == plainly(body, POLICY)
    known = begun(b'{"messages": [' + json.dumps(USER).encode() + b"]}", READING)
    assert known is not None
    assert go_on(body, known, READING) is None


def test_a_beginning_grows_with_its_conversation_in_large_steps() -> None:
    head = b'{"messages":[{"role":"user","content":"x"}'
    known = begun(head + b"]}", READING)
    assert known is not None
    for size, has_grown in ((10, False), (200_000, True)):
        more = b',{"role":"user","content":"%b"}' % (b"y" * size)
        result = go_on(head + more + b"]}", known, READING)
        assert result is not None
        assert result[1].text == (head + more if has_grown else head)


@pytest.mark.parametrize(
    ("to", "body", "prompt"),
    [
        (MESSAGES, {"messages": [USER], "system": "s"}, "system"),
        (RESPONSES, {"input": [{"role": "user", "content": "x"}], "instructions": "s"}, ""),
        (RESPONSES, {"input": "hi", "instructions": "s"}, ""),
    ],
)
def test_the_other_routes_keep_their_prompt_in_a_field(
    to: RelayRoute, body: dict[str, Any], prompt: str
) -> None:
    name = prompt or "instructions"
    raw = json.dumps(body).encode()
    reading = Reading(to, POLICY)
    expected = {**body, name: f"{POLICY.text}\n\ns"}
    assert json.loads(read(parse_body(raw), reading)[0].encode()) == expected
    known = begun(raw, reading)
    if known is not None:
        result = go_on(raw, known, reading)
        assert result is not None
        assert json.loads(result[0].encode()) == expected


def test_tokenize_counts_reasoning_under_its_newer_name() -> None:
    said = {"role": "assistant", "content": "x", "reasoning_content": "why"}
    body = json.dumps({"messages": [SYSTEM, said]}).encode()
    sent = read(parse_body(body), Reading(route("/tokenize"), POLICY))[0].value("messages")
    assert sent[1]["reasoning"] == "why"
    chat = read(parse_body(body), READING)[0].value("messages")
    assert chat[1] == said  # the engine does it for a chat itself


def test_contents_that_nest_without_end_are_refused() -> None:
    deep = b'{"input":' + b"[" * 900 + b'{"type":"image_url"}' + b"]" * 900 + b"}"
    with pytest.raises(RequestError) as caught:
        read(parse_body(deep), Reading(RESPONSES, POLICY))
    assert caught.value.code in ("invalid_json", "unsupported_content")
    assert msgspec.json.decode(deep)
