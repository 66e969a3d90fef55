"""The shapes of vLLM 0.32's answers that the appliance relies on, whole and streamed."""

import json
from collections.abc import Iterator

import httpx
import pytest

from appliance import probes
from appliance.demo import conversations as known
from tests.asking import GREETING, Json, ask, chat, chat_chunks, deltas, stream, typed_events
from tests.engines import MODEL

TOOLS = [probes.READ_FILE]


# Chat completions


def test_a_whole_chat_answer_has_the_keys_we_rely_on(client: httpx.Client) -> None:
    answer = chat(client)
    assert answer["id"].startswith("chatcmpl-")
    assert answer["object"] == "chat.completion"
    assert answer["model"] == MODEL
    (choice,) = answer["choices"]
    assert choice["index"] == 0
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == known.GREETING_ANSWER
    assert choice["message"]["reasoning"].strip() == known.ANSWER_REASONING
    assert "tool_calls" not in choice["message"]
    assert "reasoning_content" not in choice["message"]


def test_usage_adds_up(client: httpx.Client) -> None:
    usage = chat(client)["usage"]
    assert usage["prompt_tokens"] > 0
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert 0 < usage["completion_tokens_details"]["reasoning_tokens"] < usage["completion_tokens"]


def test_a_chat_stream_is_role_then_reasoning_then_content_then_the_end(
    client: httpx.Client,
) -> None:
    chunks = chat_chunks(client)
    first, *middle, last = deltas(chunks)
    assert first == {"role": "assistant", "content": ""}
    kinds = ["reasoning" if delta.get("reasoning") else "content" for delta in middle]
    assert kinds == sorted(kinds, reverse=True)
    assert set(kinds) == {"reasoning", "content"}
    assert all("role" not in delta for delta in [*middle, last])
    content = "".join(delta.get("content") or "" for delta in [*middle, last])
    reasoning = "".join(delta.get("reasoning") or "" for delta in middle)
    assert content == known.GREETING_ANSWER
    assert reasoning.strip() == known.ANSWER_REASONING


def test_only_the_last_chat_chunk_has_a_finish_reason(client: httpx.Client) -> None:
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chat_chunks(client)]
    assert reasons == [None] * (len(reasons) - 1) + ["stop"]


def test_all_chunks_of_a_stream_share_id_model_and_time(client: httpx.Client) -> None:
    chunks = chat_chunks(client)
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert {chunk["model"] for chunk in chunks} == {MODEL}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1


def test_usage_comes_in_a_chunk_without_choices_when_asked_for(client: httpx.Client) -> None:
    chunks = chat_chunks(client, stream_options={"include_usage": True})
    assert chunks[-1]["choices"] == []
    usage = chunks[-1]["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    assert all(not chunk.get("usage") for chunk in chunks[:-1])
    assert usage["completion_tokens"] == chat(client)["usage"]["completion_tokens"]


def test_without_asking_there_is_no_usage_in_a_stream(client: httpx.Client) -> None:
    assert all(not chunk.get("usage") for chunk in chat_chunks(client))


def test_continuous_usage_stands_in_every_chunk_and_grows(client: httpx.Client) -> None:
    options = {"include_usage": True, "continuous_usage_stats": True}
    counts = [
        chunk["usage"]["completion_tokens"] for chunk in chat_chunks(client, stream_options=options)
    ]
    assert counts[0] == 0
    assert counts == sorted(counts)


def test_thinking_off_leaves_no_reasoning(client: httpx.Client) -> None:
    off = {"chat_template_kwargs": {"enable_thinking": False}}
    message = chat(client, **off)["choices"][0]["message"]
    assert message["reasoning"] is None
    assert message["content"] == known.GREETING_ANSWER
    assert not any(delta.get("reasoning") for delta in deltas(chat_chunks(client, **off)))


@pytest.mark.parametrize(
    ("route", "off"),
    [
        ("/v1/chat/completions", {"reasoning_effort": "none"}),
        ("/v1/responses", {"reasoning": {"effort": "none"}}),
        ("/v1/messages", {"thinking": {"type": "disabled"}}),
    ],
)
def test_each_api_has_its_own_word_for_thinking_off(
    client: httpx.Client, route: str, off: Json
) -> None:
    text = json.dumps(ask(client, route, **off))
    assert known.GREETING_ANSWER in text
    assert known.ANSWER_REASONING not in text


def test_a_limit_ends_with_length(client: httpx.Client) -> None:
    answer = chat(client, max_tokens=3)
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3
    assert chat_chunks(client, max_tokens=3)[-1]["choices"][0]["finish_reason"] == "length"


ASKED = [
    *("greeting-on/policy", "greeting-off/agent", "count-off/policy", "warmup-on/policy"),
    *("warmup-off/none", "path-case-on/none", "path-case-on/policy", "path-dropped-off/none"),
    *("path-dropped-off/policy+agent", "result-on/policy", "unknown-on/none"),
]


@pytest.mark.parametrize("name", ASKED)
def test_taught_questions_get_the_taught_answer(client: httpx.Client, name: str) -> None:
    (taught,) = (case for case in known.conversations() if case.name == name)
    message = chat(client, **taught.request(MODEL))["choices"][0]["message"]
    assert message["content"] == taught.content
    assert (message["reasoning"] or "").strip() == (taught.reasoning or "")
    pieces = deltas(chat_chunks(client, **taught.request(MODEL)))
    assert "".join(delta.get("content") or "" for delta in pieces) == taught.content


# Tools


def test_a_tool_call_carries_valid_json(client: httpx.Client) -> None:
    question = [probes.user(probes.TOOL_QUESTION)]
    (choice,) = chat(client, messages=question, tools=TOOLS)["choices"]
    assert choice["finish_reason"] == "tool_calls"
    assert not choice["message"]["content"]
    (call,) = choice["message"]["tool_calls"]
    assert call["id"]
    assert call["type"] == "function"
    assert call["function"]["name"] == "read_file"
    assert json.loads(call["function"]["arguments"]) == {"path": probes.TOOL_PATH}


def test_a_streamed_tool_call_names_first_and_its_arguments_join_to_json(
    client: httpx.Client,
) -> None:
    question = [probes.user(probes.TOOL_QUESTION)]
    chunks = chat_chunks(client, messages=question, tools=TOOLS)
    calls = [call for delta in deltas(chunks) for call in delta.get("tool_calls", [])]
    first, *rest = calls
    assert first["id"]
    assert first["type"] == "function"
    assert first["index"] == 0
    assert first["function"]["name"] == "read_file"
    assert not any(call.get("id") or call["function"].get("name") for call in rest)
    assert {call["index"] for call in rest} == {0}
    arguments = "".join(call["function"].get("arguments") or "" for call in calls)
    assert json.loads(arguments) == {"path": probes.TOOL_PATH}
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"
    assert not any(delta.get("content") for delta in deltas(chunks))


def test_parallel_tool_calls_are_told_apart_by_index(client: httpx.Client) -> None:
    question = [probes.user(known.PARALLEL_QUESTION)]
    chunks = chat_chunks(client, messages=question, tools=TOOLS)
    arguments = {0: "", 1: ""}
    for delta in deltas(chunks):
        for call in delta.get("tool_calls", []):
            arguments[call["index"]] += call["function"].get("arguments") or ""
    paths = [json.loads(text)["path"] for text in arguments.values()]
    assert paths == list(known.PARALLEL_PATHS)


def test_a_tool_result_is_taken_and_answered(client: httpx.Client) -> None:
    messages = [probes.user(probes.TOOL_QUESTION)]
    said = chat(client, messages=messages, tools=TOOLS)["choices"][0]["message"]
    call_id = said["tool_calls"][0]["id"]
    result = {"role": "tool", "tool_call_id": call_id, "content": probes.TOOL_RESULT}
    (choice,) = chat(client, messages=[*messages, said, result], tools=TOOLS)["choices"]
    assert choice["finish_reason"] == "stop"
    assert choice["message"]["content"] == known.TOOL_ANSWER


# Completions


def test_a_whole_completion_has_text_and_usage(client: httpx.Client) -> None:
    answer = ask(client, "/v1/completions", max_tokens=5, ignore_eos=True)
    assert answer["id"].startswith("cmpl-")
    assert answer["object"] == "text_completion"
    (choice,) = answer["choices"]
    assert isinstance(choice["text"], str)
    assert choice["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 5


def test_a_completion_stream_ends_with_a_reason_usage_and_done(client: httpx.Client) -> None:
    options = {"max_tokens": 5, "ignore_eos": True, "stream_options": {"include_usage": True}}
    events = stream(client, "/v1/completions", **options)
    assert events[-1] == ("", "[DONE]")
    *chunks, usage = [json.loads(data) for _, data in events[:-1]]
    reasons = [chunk["choices"][0]["finish_reason"] for chunk in chunks]
    assert reasons[-1] == "length"
    assert set(reasons[:-1]) <= {None}
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == 5


# Responses


def test_a_whole_response_has_a_reasoning_item_and_a_message(client: httpx.Client) -> None:
    answer = ask(client, "/v1/responses")
    assert answer["id"].startswith("resp_")
    assert answer["object"] == "response"
    assert answer["status"] == "completed"
    reasoning, message = answer["output"]
    assert reasoning["type"] == "reasoning"
    assert reasoning["content"][0]["text"].strip() == known.ANSWER_REASONING
    assert message["type"] == "message"
    assert message["content"][0]["type"] == "output_text"
    assert message["content"][0]["text"] == known.GREETING_ANSWER
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]


def test_response_events_are_numbered_and_come_in_order(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/responses")
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    once = [name for name, after in _with_next(events) if name != after]
    assert once == [
        *("response.created", "response.in_progress"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.reasoning_text.delta", "response.reasoning_text.done"),
        *("response.content_part.done", "response.output_item.done"),
        *("response.output_item.added", "response.content_part.added"),
        *("response.output_text.delta", "response.output_text.done"),
        *("response.content_part.done", "response.output_item.done"),
        "response.completed",
    ]


def _with_next(events: list[Json]) -> Iterator[tuple[str, str]]:
    names = [event["type"] for event in events]
    yield from zip(names, [*names[1:], ""], strict=True)


def test_response_deltas_join_to_the_text_of_the_completed_response(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/responses")
    parts = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    assert "".join(parts) == known.GREETING_ANSWER
    last = events[-1]["response"]
    assert last["output"][-1]["content"][0]["text"] == known.GREETING_ANSWER
    assert last["id"] == events[0]["response"]["id"]
    assert last["usage"]["output_tokens"] > 0


def test_a_response_calls_tools_as_items(client: httpx.Client) -> None:
    function = {"type": "function", **probes.READ_FILE["function"]}
    asked = {"input": probes.TOOL_QUESTION, "tools": [function]}
    call = ask(client, "/v1/responses", **asked)["output"][-1]
    assert call["type"] == "function_call"
    assert call["name"] == "read_file"
    assert call["call_id"]
    assert json.loads(call["arguments"]) == {"path": probes.TOOL_PATH}
    events = typed_events(client, "/v1/responses", **asked)
    name = "response.function_call_arguments"
    parts = "".join(e["delta"] for e in events if e["type"] == f"{name}.delta")
    (done,) = (e for e in events if e["type"] == f"{name}.done")
    assert json.loads(parts) == json.loads(done["arguments"]) == {"path": probes.TOOL_PATH}


# Messages


def test_a_whole_message_has_thinking_and_text_blocks(client: httpx.Client) -> None:
    answer = ask(client, "/v1/messages")
    assert answer["type"] == "message"
    assert answer["role"] == "assistant"
    assert answer["stop_reason"] == "end_turn"
    thinking, text = answer["content"]
    assert thinking["type"] == "thinking"
    assert thinking["thinking"].strip() == known.ANSWER_REASONING
    assert text == {"type": "text", "text": known.GREETING_ANSWER}
    assert {"input_tokens", "output_tokens"} <= answer["usage"].keys()


def test_message_events_come_in_order_and_join_to_the_text(client: httpx.Client) -> None:
    events = typed_events(client, "/v1/messages")
    once = [name for name, after in _with_next(events) if name != after]
    block = ["content_block_start", "content_block_delta", "content_block_stop"]
    assert once == ["message_start", *block, *block, "message_delta", "message_stop"]
    said = [e["delta"] for e in events if e["type"] == "content_block_delta"]
    text = "".join(delta["text"] for delta in said if delta["type"] == "text_delta")
    assert text == known.GREETING_ANSWER
    assert events[0]["message"]["role"] == "assistant"
    assert events[0]["message"]["usage"]["input_tokens"] > 0
    assert events[-2]["delta"]["stop_reason"] == "end_turn"
    assert events[-2]["usage"]["output_tokens"] > 0


def test_a_message_calls_tools_with_an_input_object(client: httpx.Client) -> None:
    function = probes.READ_FILE["function"]
    tool = {"name": function["name"], "input_schema": function["parameters"]}
    asked = {"messages": [probes.user(probes.TOOL_QUESTION)], "tools": [tool], "max_tokens": 200}
    call = {"type": "tool_use", "name": "read_file", "input": {"path": probes.TOOL_PATH}}
    answer = ask(client, "/v1/messages", **asked)
    assert answer["stop_reason"] == "tool_use"
    assert answer["content"][-1].items() >= call.items()
    events = typed_events(client, "/v1/messages", **asked)
    parts = [e["delta"].get("partial_json", "") for e in events if "index" in e and "delta" in e]
    assert json.loads("".join(parts)) == call["input"]


def test_counted_tokens_are_the_input_tokens(client: httpx.Client) -> None:
    asked = {"model": MODEL, "messages": GREETING}
    counted = client.post("/v1/messages/count_tokens", json=asked)
    assert counted.status_code == 200
    for _ in range(2):  # the second time the prefix cache has some of them, which are told apart
        usage = ask(client, "/v1/messages")["usage"]
        told = usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)
        assert counted.json()["input_tokens"] == told


# Tokens


def test_tokens_of_a_text_turn_back_into_it(client: httpx.Client) -> None:
    text = probes.WARMUP_ANSWER
    told = client.post("/tokenize", json={"model": MODEL, "prompt": text}).json()
    assert told["count"] == len(told["tokens"])
    assert told["max_model_len"] == client.get("/v1/models").json()["data"][0]["max_model_len"]
    back = client.post("/detokenize", json={"model": MODEL, "tokens": told["tokens"]}).json()
    assert back == {"prompt": text}


def test_messages_can_be_tokenized(client: httpx.Client) -> None:
    told = client.post("/tokenize", json={"model": MODEL, "messages": GREETING}).json()
    assert told["count"] == len(told["tokens"]) > 0
