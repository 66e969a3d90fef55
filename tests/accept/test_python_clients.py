"""The OpenAI and the Anthropic client, over two gaps with keep-alives, and over faults."""

import json
import re
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from tests.accept.gaps import CALL, CONTENT, QUESTION, REASONING, gappy
from tests.accept.stage import Stage
from tests.engines import MODEL
from tests.fakes.script import Turn

USER = {"role": "user", "content": QUESTION}
WRITE = {
    "name": "write",
    "description": "Write a file.",
    "parameters": {"type": "object", "properties": {"path": {"type": "string"}}},
}
NO_RETRY = 0
BROKEN = "peer closed connection|Connection error"


@pytest.fixture
def oai(gappy_stage: Stage) -> Iterator[openai.OpenAI]:
    box = gappy_stage.appliance
    url, key = f"{box.base_url}/v1", box.key("client")
    with openai.OpenAI(base_url=url, api_key=key, max_retries=NO_RETRY) as client:
        yield client


@pytest.fixture
def claude(gappy_stage: Stage) -> Iterator[anthropic.Anthropic]:
    box = gappy_stage.appliance
    url, key = box.base_url, box.key("client")
    with anthropic.Anthropic(base_url=url, api_key=key, max_retries=NO_RETRY) as client:
        yield client


def streamed_chat(client: openai.OpenAI) -> tuple[str, str, str, str, str | None]:
    """Return reasoning, content, a call's name, its arguments and the finish reason."""
    messages: Any = [USER]
    tools: Any = [{"type": "function", "function": WRITE}]
    with client.chat.completions.create(
        model=MODEL, messages=messages, tools=tools, stream=True
    ) as stream:
        choices = [chunk.choices[0] for chunk in stream if chunk.choices]
    deltas = [choice.delta for choice in choices]
    functions = [
        call.function for delta in deltas for call in delta.tool_calls or [] if call.function
    ]
    return (
        "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas),
        "".join(delta.content or "" for delta in deltas),
        "".join(function.name or "" for function in functions),
        "".join(function.arguments or "" for function in functions),
        choices[-1].finish_reason,
    )


def test_openais_client_gets_a_whole_chat_over_two_gaps(
    gappy_stage: Stage, oai: openai.OpenAI
) -> None:
    gappy_stage.script.play(gappy(calls=True))
    reasoning, content, name, arguments, finish = streamed_chat(oai)
    assert (reasoning, content) == (REASONING, CONTENT)
    assert (name, json.loads(arguments)) == CALL
    assert finish == "tool_calls"


def test_openais_own_stream_helper_takes_it_too(gappy_stage: Stage, oai: openai.OpenAI) -> None:
    gappy_stage.script.play(gappy(calls=True))
    messages: Any = [USER]
    tools: Any = [{"type": "function", "function": {**WRITE, "strict": False}}]
    with oai.chat.completions.stream(model=MODEL, messages=messages, tools=tools) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    message = final.choices[0].message
    assert message.content == CONTENT
    assert message.tool_calls is not None
    assert json.loads(message.tool_calls[0].function.arguments) == CALL[1]
    assert "tool_calls.function.arguments.done" in kinds


def test_openais_client_gets_a_whole_completion_over_two_gaps(
    gappy_stage: Stage, oai: openai.OpenAI
) -> None:
    gappy_stage.script.play(gappy())
    with oai.completions.create(
        model=MODEL, prompt=QUESTION, max_tokens=1000, stream=True
    ) as stream:
        text = "".join(chunk.choices[0].text for chunk in stream if chunk.choices)
    assert text.endswith(CONTENT)


def test_openais_client_gets_a_whole_response_over_two_gaps(
    gappy_stage: Stage, oai: openai.OpenAI
) -> None:
    gappy_stage.script.play(gappy())
    with oai.responses.create(model=MODEL, input=QUESTION, stream=True) as stream:
        events = list(stream)
    said = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(said) == CONTENT
    assert events[-1].type == "response.completed"
    assert events[-1].response.output_text == CONTENT


def test_anthropics_client_gets_a_whole_message_over_two_gaps(
    gappy_stage: Stage, claude: anthropic.Anthropic
) -> None:
    gappy_stage.script.play(gappy(calls=True))
    messages: Any = [USER]
    tools: Any = [{"name": "write", "input_schema": WRITE["parameters"]}]
    with claude.messages.stream(
        model=MODEL, max_tokens=1000, messages=messages, tools=tools
    ) as stream:
        final = stream.get_final_message()
    thinking, text, call = final.content
    assert thinking.type == "thinking"
    assert thinking.thinking == REASONING
    assert text.type == "text"
    assert text.text == CONTENT
    assert call.type == "tool_use"
    assert (call.name, call.input) == CALL
    assert final.stop_reason == "tool_use"


def test_a_stream_that_breaks_is_an_error_to_either_client(
    gappy_stage: Stage, oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    torn = Turn(REASONING, CONTENT, faults={"tear_after": 8})
    messages: Any = [USER]
    gappy_stage.script.play(torn)
    with pytest.raises(Exception, match=BROKEN):
        streamed_chat(oai)
    gappy_stage.script.play(torn)
    with (
        pytest.raises(Exception, match=BROKEN),
        claude.messages.stream(model=MODEL, max_tokens=1000, messages=messages) as stream,
    ):
        stream.get_final_message()


def test_a_503_of_the_engine_is_retried_by_openais_client(gappy_stage: Stage) -> None:
    gappy_stage.script.play(Turn(status=503), Turn(REASONING, CONTENT))
    box = gappy_stage.appliance
    url, key = f"{box.base_url}/v1", box.key("client")
    with openai.OpenAI(base_url=url, api_key=key, max_retries=1) as client:
        _, content, *_ = streamed_chat(client)
    assert content == CONTENT
    assert gappy_stage.script.left() == 0


def test_a_503_of_the_engine_has_an_envelope_and_a_retry_after(
    gappy_stage: Stage, oai: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    gappy_stage.script.play(Turn(status=503), Turn(status=503))
    with pytest.raises(openai.InternalServerError) as refused:
        streamed_chat(oai)
    assert refused.value.status_code == 503
    assert int(refused.value.response.headers["retry-after"]) >= 1
    assert isinstance(refused.value.body, dict)
    assert refused.value.body["message"]
    messages: Any = [USER]
    with pytest.raises(anthropic.APIStatusError) as refusal:
        claude.messages.create(model=MODEL, max_tokens=1000, messages=messages)
    assert refusal.value.status_code == 503
    assert int(refusal.value.response.headers["retry-after"]) >= 1


def test_a_prompt_that_does_not_fit_is_a_400_that_names_the_limit(
    gappy_stage: Stage, oai: openai.OpenAI
) -> None:
    gappy_stage.script.play(Turn(content="never said"))
    limit = gappy_stage.appliance.status()["max_model_len"]
    messages: Any = [{"role": "user", "content": "wide " * (limit * 5 // 4)}]
    with pytest.raises(openai.BadRequestError) as refused:
        oai.chat.completions.create(model=MODEL, messages=messages, stream=True)
    assert refused.value.code == "context_length_exceeded"
    assert re.search(rf"context length is (only )?{limit} tokens", str(refused.value))
    assert gappy_stage.script.left() == 1


def test_an_asked_length_beyond_half_of_the_context_is_left_to_the_engine(
    gappy_stage: Stage, oai: openai.OpenAI
) -> None:
    gappy_stage.script.play(Turn(content=CONTENT), Turn(content=CONTENT))
    limit = gappy_stage.appliance.status()["max_model_len"]
    messages: Any = [USER]
    for asked in (limit, limit // 2):
        reply = oai.chat.completions.create(model=MODEL, messages=messages, max_tokens=asked)
        assert reply.choices[0].message.content == CONTENT
    for note in gappy_stage.script.noted():
        assert note["body"].get("max_tokens") is None
