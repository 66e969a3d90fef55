"""Runaway streams: a loop ends, however it is cut; what only looks like one does not."""

import json
from collections.abc import Sequence
from typing import Any

import pytest
from anthropic.types import RawMessageDeltaEvent
from hypothesis import example, given
from hypothesis import strategies as st
from openai.types.chat import ChatCompletionChunk
from openai.types.responses import ResponseIncompleteEvent

from appliance.runaway import (
    LEAST_CHARACTERS,
    LONGEST,
    LOOK_EACH,
    Repetition,
    RunawayPolicy,
    RunawayWatch,
    StreamText,
    characters_of,
)
from appliance.sse import event_data, split_events

CHAT, COMPLETIONS = "/v1/chat/completions", "/v1/completions"
MESSAGES, RESPONSES = "/v1/messages", "/v1/responses"
THOUGHT = "response.reasoning_text.delta"
REPEATS = 64


def chat(said: str, name: str = "content", index: int = 0, reason: str | None = None) -> bytes:
    choice = {"index": index, "delta": {name: said}, "logprobs": None, "finish_reason": reason}
    chunk = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "Nikola"}
    data = json.dumps({**chunk, "choices": [choice]}, ensure_ascii=False, separators=(",", ":"))
    return b"data: " + data.encode() + b"\n\n"


def named(kind: str, **more: Any) -> bytes:
    data = json.dumps({"type": kind, **more}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def message(said: str, kind: str = "text") -> bytes:
    delta = {"type": f"{kind}_delta", kind: said}
    return named("content_block_delta", index=1, delta=delta)


def completion(said: str) -> bytes:
    choice = {"index": 0, "text": said, "logprobs": None, "finish_reason": None}
    data = {"id": "t-1", "object": "text_completion", "created": 7, "choices": [choice]}
    return f"data: {json.dumps(data, separators=(',', ':'))}\n\n".encode()


class Story:
    """One watched stream: what it was ended for, after how many pieces, and how."""

    def __init__(
        self, pieces: Sequence[bytes], path: str = CHAT, repeats: int = REPEATS,
        thinking_budget: int | None = None,
    ) -> None:  # fmt: skip
        self.kinds: list[str] = []
        self.pieces = 0
        self.end: bytes | None = None
        watch = RunawayPolicy(repeats, thinking_budget).watch(path, self.kinds.append)
        assert isinstance(watch, RunawayWatch)
        for piece in pieces:
            self.pieces += 1
            self.end = watch.feed(piece)
            if self.end is not None:
                break


def values(end: bytes | None) -> list[Any]:
    assert end is not None
    data = [event_data(event) for event in split_events(end)]
    return [json.loads(text) if text != b"[DONE]" else "[DONE]" for text in data]


WORDS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@example(word="\\", size=1, together=1)
@given(WORDS, st.integers(1, 7), st.integers(1, 3))
def test_a_loop_is_ended_however_its_text_is_cut_and_its_events_come_together(
    word: str, size: int, together: int
) -> None:
    text = word * (2 * max(REPEATS, LEAST_CHARACTERS // len(word) + 1))
    text += word * (LOOK_EACH * size * together // len(word) + 1)
    events = [chat(text[at : at + size]) for at in range(0, len(text), size)]
    pieces = [b"".join(events[at : at + together]) for at in range(0, len(events), together)]
    story = Story(pieces)
    assert story.kinds == ["loop"]
    passed = min(len(text), story.pieces * size * together)
    enough = max(REPEATS * len(word), LEAST_CHARACTERS)
    assert enough <= passed <= enough + 2 * LOOK_EACH * size * together + 2 * len(word)


def test_a_loop_whose_events_come_by_the_hundred_is_seen_at_once() -> None:
    flood = b"".join([chat("again ")] * 500)
    story = Story([flood] * 3)
    assert (story.kinds, story.pieces) == (["loop"], 1)


@given(st.randoms(use_true_random=False), st.sampled_from([CHAT, COMPLETIONS, MESSAGES]))
def test_a_text_that_goes_on_and_does_not_repeat_itself_passes(random: Any, path: str) -> None:
    event = {CHAT: chat, COMPLETIONS: completion, MESSAGES: message}[path]
    words = [event(f" {random.getrandbits(32):x}\n") for _ in range(5 * LOOK_EACH)]
    assert Story(words, path).kinds == []


@pytest.mark.parametrize("text", ["-" * 1_900, "| --- " * 63 + "|", "0, " * 600, "  " * 900])
def test_a_short_repetition_is_no_loop(text: str) -> None:
    rest = [chat(f" {n}") for n in range(10 * LOOK_EACH)]
    assert Story([*(chat(text[at : at + 3]) for at in range(0, len(text), 3)), *rest]).kinds == []


def test_a_loop_of_long_pieces_needs_all_its_repeats() -> None:
    piece = "".join(chr(ord("a") + n % 26) + str(n) for n in range(60))
    assert LEAST_CHARACTERS / REPEATS < len(piece) < LONGEST
    few = Story([chat(piece)] * (REPEATS - 1) + [chat("")] * 2 * LOOK_EACH)
    assert few.kinds == []
    assert Story([chat(piece)] * (REPEATS + LOOK_EACH)).kinds == ["loop"]


def test_a_loop_that_begins_after_a_long_text_is_seen() -> None:
    text = [chat(f" {n}") for n in range(20_000)]
    story = Story([*text, *[chat("again ")] * 1_000])
    assert story.kinds == ["loop"]
    assert story.pieces > 20_000


@pytest.mark.parametrize("name", ["content", "reasoning"])
def test_a_loop_is_seen_in_thought_and_answer_and_where_one_turns_into_the_other(
    name: str,
) -> None:
    before = [chat(f" {n}", "reasoning") for n in range(100)]
    assert Story([*before, *[chat("so so ", name)] * 800]).kinds == ["loop"]


def test_a_loop_in_a_tools_arguments_is_seen() -> None:
    call = '{"index":0,"function":{"arguments":"\\\\u0041 \\"x\\" "}}'
    events = [chat("").replace(b'"content":""', f'"tool_calls":[{call}]'.encode())] * 1_000
    assert Story(events).kinds == ["loop"]


def twice(said: str) -> bytes:
    event, text = chat(said, "reasoning"), json.dumps(said, ensure_ascii=False).encode()
    return event.replace(text, text + b',"reasoning_content":' + text)


def test_a_loop_is_seen_where_the_reasoning_has_both_names() -> None:
    assert Story([twice("hm ")] * 1_500).kinds == ["loop"]
    assert Story([twice("hm ")] * 600).kinds == []  # 1,800 characters, said twice


@given(st.lists(WORDS, min_size=3, max_size=20), st.booleans())
def test_the_text_of_events_is_read_as_it_stands(words: list[str], is_twice: bool) -> None:
    text = StreamText((b'"content":"', b'"reasoning":"'))
    event = twice if is_twice else chat
    spelled = b"".join(json.dumps(word, ensure_ascii=False).encode()[1:-1] for word in words)
    for _ in range(2):  # learned, then cut
        assert text.of([event(word) for word in words]) == spelled


@pytest.mark.parametrize(("piece", "count"), [("\n", 1_990), ("\U0001f600", 1_990), ("ü\t", 990)])
def test_characters_count_and_not_how_they_are_spelled(piece: str, count: int) -> None:
    dull = [chat(f" {n}") for n in range(3 * LOOK_EACH)]
    assert Story([*[chat(piece)] * count, *dull]).kinds == []
    assert Story([*[chat(piece)] * (count + 20 + LOOK_EACH), *dull]).kinds == ["loop"]


def test_without_a_limit_nothing_is_watched() -> None:
    assert RunawayPolicy(0, None).watch(CHAT, print) is None
    assert RunawayPolicy(64, 100).watch("/v1/models", print) is None


def test_a_loop_alone_does_not_end_where_only_thoughts_are_counted() -> None:
    assert Story([chat("a ")] * 5_000, repeats=0, thinking_budget=10_000).kinds == []


@given(st.binary(max_size=40), st.binary(min_size=1, max_size=8), st.integers(1, 400))
def test_what_is_repeated_is_found_exactly(head: bytes, piece: bytes, times: int) -> None:
    loop = Repetition(3)
    text = head + piece * times
    loop.add(text)
    assert loop.is_one == _is_loop(text, 3)


def _is_loop(text: bytes, repeats: int) -> bool:
    """Tell the same by trying each length."""
    for period in range(1, LONGEST + 1):
        size = max(repeats, -(-LEAST_CHARACTERS // characters_of(text[-period:]))) * period
        run = text[-size:]
        if len(run) == size and run[period:] == run[:-period] and size > LONGEST:
            return True
    return False


# ---- thoughts


def test_a_thought_beyond_its_budget_ends_the_stream() -> None:
    story = Story([chat(f" {n}", "reasoning") for n in range(2_000)], thinking_budget=500)
    assert story.kinds == ["thinking"]
    assert 500 < story.pieces <= 500 + 2 * LOOK_EACH


def test_pieces_of_several_tokens_are_reckoned_by_their_length() -> None:
    words = [chat(f" {n:0100}", "reasoning") for n in range(200)]
    assert Story(words, thinking_budget=1_000).kinds == ["thinking"]


def test_an_answer_is_no_thought_and_one_that_has_begun_is_not_ended() -> None:
    thought = [chat(f" {n}", "reasoning") for n in range(LOOK_EACH - 1)]
    answer = [chat(f" {n}") for n in range(500)]
    assert Story([*thought, *answer], thinking_budget=LOOK_EACH - 10).kinds == []


@pytest.mark.parametrize(
    ("path", "event"),
    [
        (MESSAGES, lambda n: message(f" {n}", "thinking")),
        (RESPONSES, lambda n: named(THOUGHT, sequence_number=n, delta=f" {n}")),
    ],
    ids=["messages", "responses"],
)  # fmt: skip
def test_the_thoughts_of_other_routes_are_counted_too(path: str, event: Any) -> None:
    events = [event(n) for n in range(500)]
    assert Story(events, path, thinking_budget=100).kinds == ["thinking"]


# ---- the end


@pytest.mark.parametrize("already", [1, 2])
def test_a_stream_that_ends_itself_is_not_ended_twice(already: int) -> None:
    loop = [chat("again ")] * 6 * LOOK_EACH
    assert Story(loop).pieces == len(loop)
    assert Story(loop).kinds == ["loop"]
    tail = [chat("", reason="stop"), b"data: [DONE]\n\n"][:already]
    assert Story([*loop[:-already], *tail]).kinds == []


def test_a_chat_ends_with_length_under_its_own_id_and_done() -> None:
    last = chat("again ")
    end = Story([last] * 1_000).end
    assert end is not None
    assert end.startswith(last)  # what the engine said is not lost
    first, chunk, done = values(end)
    assert ChatCompletionChunk.model_validate(chunk).choices[0].finish_reason == "length"
    assert chunk["choices"] == [{"index": 0, "delta": {}, "finish_reason": "length"}]
    assert {chunk[name] == first[name] for name in ("id", "object", "created", "model")} == {True}
    assert done == "[DONE]"


def test_each_choice_of_a_chat_is_ended() -> None:
    events = [chat("again ", index=n % 2) for n in range(2_000)]
    _, chunk, _ = values(Story(events).end)
    assert [choice["index"] for choice in chunk["choices"]] == [0, 1]


def test_a_completion_ends_with_length() -> None:
    _, chunk, done = values(Story([completion("again ")] * 1_000, COMPLETIONS).end)
    assert chunk["choices"] == [
        {"index": 0, "text": "", "logprobs": None, "finish_reason": "length"}
    ]
    assert (chunk["id"], done) == ("t-1", "[DONE]")


def test_a_message_ends_its_block_and_tells_max_tokens() -> None:
    _, block, delta, stop = values(Story([message("again ")] * 1_000, MESSAGES).end)
    assert block == {"type": "content_block_stop", "index": 1}
    told = RawMessageDeltaEvent.model_validate(delta)
    assert told.delta.stop_reason == "max_tokens"
    assert told.usage.output_tokens > LEAST_CHARACTERS / len("again ")
    assert stop == {"type": "message_stop"}


def test_a_response_ends_incomplete_under_its_own_id() -> None:
    begun = {"id": "r-1", "object": "response", "created_at": 7, "model": "Nikola", "output": [],
             "parallel_tool_calls": True, "tool_choice": "auto", "tools": [],
             "status": "in_progress"}  # fmt: skip
    created = named("response.created", sequence_number=0, response=begun)
    deltas = [
        named("response.output_text.delta", sequence_number=n, delta="again ")
        for n in range(1, 1_000)
    ]
    story = Story([created, *deltas], RESPONSES)
    _, event = values(story.end)
    told = ResponseIncompleteEvent.model_validate(event)
    assert (told.response.id, told.response.status) == ("r-1", "incomplete")
    assert told.response.incomplete_details is not None
    assert told.response.incomplete_details.reason == "max_output_tokens"
    assert told.sequence_number == story.pieces
