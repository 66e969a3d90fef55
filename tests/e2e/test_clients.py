"""The OpenAI and the Anthropic client, each pointed at the appliance over the real engine."""

import json
from typing import Any

import anthropic
import openai
import pytest

from appliance.openai import INJECTION_HEADER
from appliance.probes import (
    GREETING,
    PATH,
    PATH_QUESTION,
    READ_FILE,
    TOOL_PATH,
    TOOL_QUESTION,
    TOOL_RESULT,
    user,
)
from tests.appliances import ApplianceProcess

pytestmark = pytest.mark.engine

MODEL = "Nikola"
GREEDY = {"temperature": 0}
THINKING_OFF = {"chat_template_kwargs": {"enable_thinking": False}}


@pytest.fixture
def openai_client(wide: ApplianceProcess) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{wide.base_url}/v1", api_key=wide.key("client"), max_retries=0)


@pytest.fixture
def anthropic_client(wide: ApplianceProcess) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=wide.base_url, api_key=wide.key("client"), max_retries=0)


def test_openais_client_streams_reasoning_before_content(openai_client: openai.OpenAI) -> None:
    messages: Any = [user(GREETING)]
    with openai_client.chat.completions.create(
        model=MODEL, messages=messages, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    reasoning = [getattr(delta, "reasoning", None) or "" for delta in deltas]
    content = [delta.content or "" for delta in deltas]
    assert "".join(reasoning)
    assert "Nikola" in "".join(content)
    assert [getattr(delta, "reasoning_content", None) or "" for delta in deltas] == reasoning
    last_reasoning = max(i for i, text in enumerate(reasoning) if text)
    assert last_reasoning < min(i for i, text in enumerate(content) if text.strip())


def test_openais_client_streams_a_tool_call_and_sends_its_result_back(
    openai_client: openai.OpenAI,
) -> None:
    asked: Any = [user(TOOL_QUESTION)]
    tools: Any = [READ_FILE]
    with openai_client.chat.completions.create(
        model=MODEL, messages=asked, tools=tools, temperature=0, stream=True
    ) as stream:
        deltas = [chunk.choices[0].delta for chunk in stream if chunk.choices]
    pieces = [call for delta in deltas for call in delta.tool_calls or []]
    name = "".join(p.function.name or "" for p in pieces if p.function)
    arguments = "".join(p.function.arguments or "" for p in pieces if p.function)
    assert name == "read_file"
    assert json.loads(arguments) == {"path": TOOL_PATH}

    function = {"name": name, "arguments": arguments}
    call = {"id": pieces[0].id, "type": "function", "function": function}
    reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
    history: Any = [
        *asked,
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": reasoning,
            "tool_calls": [call],
        },
        {"role": "tool", "tool_call_id": pieces[0].id, "content": TOOL_RESULT},
    ]
    reply = openai_client.chat.completions.create(
        model=MODEL, messages=history, tools=tools, temperature=0
    )
    assert (reply.choices[0].message.content or "").strip()
    assert reply.choices[0].finish_reason == "stop"


def test_anthropics_client_streams_thinking_then_text(
    anthropic_client: anthropic.Anthropic,
) -> None:
    messages: Any = [user(GREETING)]
    with anthropic_client.messages.stream(
        model=MODEL, max_tokens=1024, messages=messages, extra_body=GREEDY
    ) as stream:
        final = stream.get_final_message()
    kinds = [block.type for block in final.content]
    assert kinds == ["thinking", "text"]
    assert "Nikola" in final.content[1].text  # type: ignore[union-attr]


def test_anthropics_client_streams_a_tool_call(anthropic_client: anthropic.Anthropic) -> None:
    function = READ_FILE["function"]
    tool: Any = {
        "name": function["name"],
        "description": function["description"],
        "input_schema": function["parameters"],
    }
    messages: Any = [user(TOOL_QUESTION)]
    with anthropic_client.messages.stream(
        model=MODEL, max_tokens=1024, messages=messages, tools=[tool], extra_body=GREEDY
    ) as stream:
        final = stream.get_final_message()
    calls = [block for block in final.content if block.type == "tool_use"]
    assert [(call.name, call.input) for call in calls] == [("read_file", {"path": TOOL_PATH})]
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("other", ["", "You are a careful reviewer of Rust code."])
def test_the_prompt_makes_the_path_exact_and_its_absence_glitches_it(
    openai_client: openai.OpenAI, other: str
) -> None:
    messages: Any = [
        *([{"role": "system", "content": other}] if other else []),
        user(PATH_QUESTION),
    ]

    def answer(injection: str) -> str:
        reply = openai_client.chat.completions.create(
            model=MODEL,
            messages=messages,
            temperature=0,
            extra_body=THINKING_OFF,
            extra_headers={INJECTION_HEADER: injection},
        )
        return (reply.choices[0].message.content or "").strip()

    assert answer("on") == PATH
    assert answer("off") != PATH


def test_the_prompt_reaches_responses_and_messages_too(
    openai_client: openai.OpenAI, anthropic_client: anthropic.Anthropic
) -> None:
    reply = openai_client.responses.create(model=MODEL, input=PATH_QUESTION, temperature=0)
    assert reply.output_text.strip() == PATH
    messages: Any = [user(PATH_QUESTION)]
    said = anthropic_client.messages.create(
        model=MODEL, max_tokens=512, messages=messages, extra_body=GREEDY
    )
    texts = [block.text for block in said.content if block.type == "text"]
    assert "".join(texts).strip() == PATH


def test_history_with_either_reasoning_name_reaches_the_template(wide: ApplianceProcess) -> None:
    call = {
        "id": "c1",
        "type": "function",
        "function": {"name": "read_file", "arguments": json.dumps({"path": TOOL_PATH})},
    }
    counts, prompts = {}, {}
    with wide.http() as http:
        for name in ("reasoning", "reasoning_content", ""):
            assistant = {"role": "assistant", "content": "", "tool_calls": [call]}
            if name:
                assistant[name] = "I should read the file first."
            tool = {"role": "tool", "tool_call_id": "c1", "content": TOOL_RESULT}
            body = {"model": MODEL, "messages": [user(TOOL_QUESTION), assistant, tool]}
            response = http.post("/tokenize", json={**body, "tools": [READ_FILE]})
            assert response.status_code == 200, response.text
            counts[name] = response.json()["count"]
            reply = http.post("/v1/chat/completions", json={**body, "tools": [READ_FILE]})
            assert reply.status_code == 200, reply.text
            prompts[name] = reply.json()["usage"]["prompt_tokens"]
    assert counts["reasoning"] == counts["reasoning_content"] > counts[""]
    assert prompts == counts
