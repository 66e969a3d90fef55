"""Parser and template under the real vLLM of .demo/engine, and the fake beside it."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import vllm_stub
from tests.fakes.transformers_jinja import render

ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = ROOT / ".demo" / "engine" / "bin" / "python"

pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not ENGINE_PYTHON.exists(), reason="no CPU engine here: make setup"),
]

USER = {"role": "user", "content": "Hi"}
ON = render([USER])
OFF = render([USER], enable_thinking=False)
BARE = OFF.removesuffix("<think>\n\n</think>\n\n")
INVOKE = '<invoke name="read">\n<parameter name="path">My Dir/č.ts</parameter>\n</invoke>\n'
CALL = f"<minimax:tool_call>\n{INVOKE}</minimax:tool_call>"
READ = ["read", '{"path": "My Dir/č.ts"}']
NO_THINKING = {"enable_thinking": False}

# name: prompt, answer, chat_template_kwargs, tools offered, (reasoning, content, calls)
CASES: dict[str, tuple[str, str, dict[str, Any], bool, list[Any]]] = {
    "thinking on": (
        ON,
        "plan\n</think>\n\nHello\n\nworld",
        {},
        False,
        ["plan", "Hello\n\nworld", []],
    ),
    "thinking on, tools offered": (ON, "plan\n</think>\n\nHello", {}, True, ["plan", "Hello", []]),
    "thinking off": (OFF, "Hello\n\nworld", NO_THINKING, False, [None, "Hello\n\nworld", []]),
    "thinking off by the alias": (OFF, "Hello", {"thinking": "off"}, True, [None, "Hello", []]),
    "thinking off, bare prompt": (BARE, "Hello", NO_THINKING, False, [None, "Hello", []]),
    "a call after thinking": (ON, f"plan\n</think>\n\n{CALL}", {}, True, ["plan", None, [READ]]),
    "a call without an end tag": (ON, f"plan\n{CALL}", {}, True, ["plan", None, [READ]]),
    "a call without thinking": (OFF, CALL, NO_THINKING, True, [None, None, [READ]]),
    "words, then a call": (ON, f"plan</think>ok{CALL}", {}, True, ["plan", "ok", [READ]]),
    "two calls": (
        ON,
        f"plan</think><minimax:tool_call>\n{INVOKE}{INVOKE}</minimax:tool_call>",
        {},
        True,
        ["plan", None, [READ, READ]],
    ),
    "a call begun twice, as a forced grammar makes it": (
        ON,
        f"plan<minimax:tool_call>\n{CALL}",
        {},
        True,
        ["plan", None, [READ]],
    ),
    "a start tag repeated": (ON, "<think>\nplan\n</think>\n\nHi", {}, True, ["plan", "Hi", []]),
    "literal tags, thinking on": (
        ON,
        "plan</think>the </think> and <think> tags",
        {},
        False,
        ["plan", "the </think> and <think> tags", []],
    ),
    "literal tags, thinking off": (
        OFF,
        "the </think> and <think> tags",
        NO_THINKING,
        False,
        [None, "the </think> and <think> tags", []],
    ),
    "the prompt is open, the switch is off": (ON, "a</think>b", NO_THINKING, True, ["a", "b", []]),
    "the prompt is closed, the switch is on": (OFF, "Hi", {}, True, [None, "Hi", []]),
    "an answer continued": (BARE + "I say", " more", {}, True, [None, " more", []]),
    "cut short in reasoning": (ON, "half a plan\n</th", {}, True, ["half a plan\n</th", None, []]),
    "cut short in the newlines": (ON, "plan\n</think>\n\n", {}, True, ["plan", None, []]),
}

CONVERSATIONS: list[dict[str, Any]] = [
    {"messages": [USER], "kwargs": {}},
    {"messages": [USER], "kwargs": {"enable_thinking": "false"}},
    {
        "messages": [
            {"role": "system", "content": "S"},
            {"role": "user", "content": [{"type": "text", "text": "č"}]},
            {
                "role": "assistant",
                "content": None,
                "reasoning": "R",
                "tool_calls": [
                    {"function": {"name": "f", "arguments": '{"a": "\\u010d", "b": 1}'}}
                ],
            },
            {"role": "tool", "content": "ok"},
            {"role": "developer", "content": "D"},
        ],
        "kwargs": {"tools": [{"type": "function", "function": {"name": "f", "x": "<č>"}}]},
    },
]


@pytest.fixture(scope="module")
def engine() -> dict[str, Any]:
    """What the real vLLM makes of everything above, asked once."""
    cases = [
        dict(zip(("prompt", "answer", "kwargs", "tools"), case, strict=False))
        for case in CASES.values()
    ]
    given = {"cases": cases, "conversations": CONVERSATIONS, "draft": "ab</think>cd"}
    done = subprocess.run(
        [str(ENGINE_PYTHON), str(Path(__file__).with_name("parser_in_engine_check.py"))],
        env={**os.environ, "VLLM_PLUGINS": "", "HF_HUB_OFFLINE": "1"},
        input=json.dumps(given),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


@pytest.mark.parametrize("name", CASES)
def test_a_whole_answer_is_parted(engine: dict[str, Any], name: str) -> None:
    assert engine["whole"][list(CASES).index(name)][:3] == CASES[name][4]


@pytest.mark.parametrize("name", CASES)
def test_a_stream_is_parted_the_same_however_it_is_cut(engine: dict[str, Any], name: str) -> None:
    for streamed in engine["stream"][list(CASES).index(name)]:
        assert streamed[:3] == CASES[name][4]


@pytest.mark.parametrize("name", CASES)
def test_reasoning_tokens_do_not_depend_on_streaming(engine: dict[str, Any], name: str) -> None:
    at = list(CASES).index(name)
    counts = {streamed[3] for streamed in engine["stream"][at]}
    assert counts == {engine["whole"][at][3]}
    assert (counts == {0}) == (CASES[name][4][0] is None)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case[3]])
def test_the_fake_parts_as_the_engine_does(engine: dict[str, Any], name: str) -> None:
    prompt, answer, kwargs, _, _ = CASES[name]
    tokenizer = vllm_stub.FakeTokenizer()
    plugin = vllm_stub.load_plugin()

    def parser() -> Any:
        return plugin.MiniMaxM2OptThinkReasoningParser(tokenizer, chat_template_kwargs=kwargs)

    prompt_ids = tokenizer.encode(prompt)
    deltas = [(tokenizer.decode([token]), [token]) for token in tokenizer.encode(answer)]
    at = list(CASES).index(name)
    assert list(vllm_stub.whole(parser(), prompt_ids, answer)) == engine["whole"][at][:2]
    streamed = vllm_stub.stream(parser(), prompt_ids, deltas)
    assert list(streamed.channels) == engine["stream"][at][0][:2]


def test_the_grammar_begins_behind_the_end_of_reasoning(engine: dict[str, Any]) -> None:
    assert engine["constrained_from"] == len("ab") + 1


def test_vllm_hands_the_template_lists_and_both_switches(engine: dict[str, Any]) -> None:
    assert engine["content_format"] == "openai"
    assert {"enable_thinking", "thinking", "model_identity"} <= set(engine["template_kwargs"])
    assert engine["takes_developer"] is True


def test_transformers_renders_what_the_unit_tests_render(engine: dict[str, Any]) -> None:
    for talk, rendered in zip(CONVERSATIONS, engine["rendered"], strict=True):
        assert rendered == render(talk["messages"], **talk["kwargs"])
