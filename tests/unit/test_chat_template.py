"""Each rule of extras/chat_template.jinja, held to the exact bytes."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jinja2.exceptions import TemplateError

from tests.fakes.transformers_jinja import Message, render

DEFAULT_SYSTEM = (
    "You are a helpful assistant. Your name is MiniMax-M2.7 and is built by MiniMax."  # the card's
)
HEAD = f"]~!b[]~b]system\n{DEFAULT_SYSTEM}[e~[\n"
HI = "]~b]user\nHi[e~[\n"
OPEN = "]~b]ai\n<think>\n"
CLOSED = "]~b]ai\n<think>\n\n</think>\n\n"
USER: Message = {"role": "user", "content": "Hi"}


def history(*messages: Message) -> str:
    """What stands behind the default head."""
    rendered = render(messages, add_generation_prompt=False)
    assert rendered.startswith(HEAD)
    return rendered.removeprefix(HEAD)


def call(arguments: Any, name: str = "f") -> dict[str, Any]:
    return {"id": "1", "type": "function", "function": {"name": name, "arguments": arguments}}


def parameters(arguments: Any) -> str:
    """What one call's arguments become."""
    rendered = history({"role": "assistant", "content": "", "tool_calls": [call(arguments)]})
    start = ']~b]ai\n\n<minimax:tool_call>\n<invoke name="f">\n'
    end = "</invoke>\n</minimax:tool_call>[e~[\n"
    assert rendered.startswith(start)
    assert rendered.endswith(end)
    return rendered[len(start) : -len(end)]


# -- the head -------------------------------------------------------------------------------------


def test_a_prompt_begins_with_one_mark_and_the_default_system_text() -> None:
    assert render([USER]) == HEAD + HI + OPEN


def test_model_identity_replaces_the_default_system_text() -> None:
    rendered = render([USER], model_identity="I am Nikola.")
    assert rendered == "]~!b[]~b]system\nI am Nikola.[e~[\n" + HI + OPEN


def test_a_system_message_replaces_the_default_text() -> None:
    rendered = render([{"role": "system", "content": "Be brief."}, USER])
    assert rendered == "]~!b[]~b]system\nBe brief.[e~[\n" + HI + OPEN


@pytest.mark.parametrize("content", ["", None, [], [{"type": "text", "text": ""}]])
def test_an_empty_system_message_leaves_the_default_text(content: Any) -> None:
    assert render([{"role": "system", "content": content}, USER]) == HEAD + HI + OPEN


def test_system_and_developer_messages_are_joined_into_the_head_wherever_they_stand() -> None:
    rendered = render(
        [
            {"role": "system", "content": "One"},
            USER,
            {"role": "developer", "content": [{"type": "text", "text": "Two"}]},
            {"role": "system", "content": ""},
            {"role": "system", "content": "Three"},
        ]
    )
    assert rendered == "]~!b[]~b]system\nOne\n\nTwo\n\nThree[e~[\n" + HI + OPEN


def test_date_and_location_follow_the_system_text() -> None:
    system = {"role": "system", "content": "S", "current_date": "2026-11-23"}
    assert render([system]).startswith("]~!b[]~b]system\nS\nCurrent date: 2026-11-23[e~[\n")
    system["current_location"] = "Split"
    assert render([system]).startswith(
        "]~!b[]~b]system\nS\nCurrent date: 2026-11-23\nCurrent location: Split[e~[\n"
    )


TOOLS_BLOCK = """S

# Tools
You may call one or more tools to assist with the user query.
Here are the tools available in JSONSchema format:

<tools>
<tool>{"name": "read", "description": "čita <datoteku> & 'put'"}</tool>
<tool>{"name": "bare"}</tool>
</tools>

When making tool calls, use XML format to invoke tools and pass parameters:

<minimax:tool_call>
<invoke name="tool-name-1">
<parameter name="param-key-1">param-value-1</parameter>
<parameter name="param-key-2">param-value-2</parameter>
...
</invoke>
</minimax:tool_call>[e~[
"""


def test_tools_are_listed_as_plain_json_in_either_shape() -> None:
    wrapped = {
        "type": "function",
        "function": {"name": "read", "description": "čita <datoteku> & 'put'"},
    }
    system = {"role": "system", "content": "S"}
    rendered = render([system], [wrapped, {"name": "bare"}], add_generation_prompt=False)
    assert rendered == "]~!b[]~b]system\n" + TOOLS_BLOCK


def test_no_tools_leave_no_trace() -> None:
    assert render([USER], []) == render([USER], None) == HEAD + HI + OPEN


# -- thinking on and off --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value",
    [False, "false", "False", " FALSE ", "no", "off", "0", 0, 0.0, "none", None, "", "null"],
)
@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
def test_thinking_off_closes_the_block_in_the_prompt(name: str, value: Any) -> None:
    assert render([USER], **{name: value}) == HEAD + HI + CLOSED


@pytest.mark.parametrize("value", [True, "true", "True", "yes", "on", 1, "1", "high"])
def test_thinking_on_opens_the_block(value: object) -> None:
    assert render([USER], enable_thinking=value) == HEAD + HI + OPEN


def test_either_switch_turns_thinking_off() -> None:
    assert render([USER], enable_thinking=True, thinking=False).endswith(CLOSED)
    assert render([USER], enable_thinking=False, thinking=True).endswith(CLOSED)


def test_without_a_generation_prompt_nothing_is_opened() -> None:
    assert render([USER], add_generation_prompt=False, enable_thinking=False) == HEAD + HI


# -- content --------------------------------------------------------------------------------------


def test_text_parts_are_joined_without_a_separator() -> None:
    parts = [{"type": "text", "text": "a"}, "b", {"type": "input_text", "text": "\n\nc"}]
    assert history({"role": "user", "content": parts}) == "]~b]user\nab\n\nc[e~[\n"


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("content", [None, "", [], [{"type": "text", "text": None}]])
def test_null_content_prints_nothing(role: str, content: Any) -> None:
    spoken = {"user": "user", "assistant": "ai"}[role]
    assert history({"role": role, "content": content}) == f"]~b]{spoken}\n[e~[\n"


def test_absent_content_prints_nothing() -> None:
    assert history({"role": "assistant"}) == "]~b]ai\n[e~[\n"


def test_a_refusal_is_text() -> None:
    refusal = [{"type": "refusal", "refusal": "No."}]
    assert history({"role": "assistant", "content": refusal}) == "]~b]ai\nNo.[e~[\n"


@pytest.mark.parametrize("kind", ["image_url", "image", "input_audio", "video", "file"])
def test_a_part_that_is_not_text_is_refused_by_its_name(kind: str) -> None:
    with pytest.raises(TemplateError, match=f"reads text only.*{kind}"):
        render([{"role": "user", "content": [{"type": kind}]}])


def test_an_unknown_role_is_refused_by_its_name() -> None:
    with pytest.raises(TemplateError, match="not narrator"):
        render([{"role": "narrator", "content": "x"}])


# -- reasoning in the history ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        {"content": "A", "reasoning_content": "R"},
        {"content": "A", "reasoning": "R"},
        {"content": "A", "reasoning": "R", "reasoning_content": "R"},
        {"content": "A", "reasoning": "R", "reasoning_content": ""},
        {"content": [{"type": "thinking", "thinking": "R"}, {"type": "text", "text": "A"}]},
        {"content": [{"type": "reasoning", "text": "R"}, {"type": "text", "text": "A"}]},
        {"content": "<think>\nR\n</think>\n\nA"},
        {"content": "<think>R</think>A"},
        {"content": "R\n</think>\n\nA"},
    ],
)
def test_reasoning_after_the_last_user_message_is_kept_under_any_name(message: Message) -> None:
    rendered = history(USER, {"role": "assistant", **message})
    assert rendered == HI + "]~b]ai\n<think>\nR\n</think>\n\nA[e~[\n"


def test_reasoning_before_the_last_user_message_is_dropped() -> None:
    said = {"role": "assistant", "content": "A", "reasoning": "R"}
    assert history(USER, said, USER) == HI + "]~b]ai\nA[e~[\n" + HI


def test_reasoning_inside_a_tool_loop_is_kept() -> None:
    step = {"role": "assistant", "content": "", "reasoning": "R", "tool_calls": [call({})]}
    rendered = history(USER, step, {"role": "tool", "content": "ok"}, step)
    assert rendered.count("<think>\nR\n</think>\n\n") == 2


def test_a_system_message_in_between_does_not_move_the_last_user_message() -> None:
    said = {"role": "assistant", "content": "A", "reasoning": "R"}
    rendered = render([USER, {"role": "system", "content": "S"}, said], add_generation_prompt=False)
    assert rendered.endswith(HI + "]~b]ai\n<think>\nR\n</think>\n\nA[e~[\n")


def test_empty_reasoning_opens_no_block() -> None:
    said = {"role": "assistant", "content": "A", "reasoning": "", "reasoning_content": None}
    assert history(USER, said) == HI + "]~b]ai\nA[e~[\n"


@pytest.mark.parametrize(
    "answer",
    [
        "the `</think>` tag closes it",
        "```\n<think>\nx\n</think>\n```",
        "it is <think>x</think> here",
        "write </think>",
    ],
)
def test_an_answer_that_speaks_of_the_tags_keeps_its_words(answer: str) -> None:
    assert history({"role": "assistant", "content": answer}) == f"]~b]ai\n{answer}[e~[\n"


def test_the_history_of_a_tool_step_repeats_the_prompt_and_the_answer() -> None:
    """A cached prefix stays valid: the next prompt begins with this one and what was generated."""
    prompt = render([USER])
    step = {"role": "assistant", "content": "A", "reasoning": "R"}
    following = render([USER, step, {"role": "tool", "content": "ok"}])
    assert following.startswith(prompt + "R\n</think>\n\nA[e~[\n")


# -- tool calls -----------------------------------------------------------------------------------

ARGUMENTS = {
    "path": "src/My Dir/čaj.ts",
    "count": 3,
    "nested": {"a": [1, "č"]},
    "flag": True,
    "nothing": None,
    "quoted": 'say "x\\n"\n\ttab / slash \\ 😀',
    "empty": "",
}
RENDERED = (
    '<parameter name="path">src/My Dir/čaj.ts</parameter>\n'
    '<parameter name="count">3</parameter>\n'
    '<parameter name="nested">{"a": [1, "č"]}</parameter>\n'
    '<parameter name="flag">true</parameter>\n'
    '<parameter name="nothing">null</parameter>\n'
    '<parameter name="quoted">say "x\\n"\n\ttab / slash \\ 😀</parameter>\n'
    '<parameter name="empty"></parameter>\n'
)


def test_strings_are_verbatim_and_other_arguments_are_json() -> None:
    assert parameters(ARGUMENTS) == RENDERED


def test_arguments_in_a_json_string_render_as_the_object_does() -> None:
    assert parameters(json.dumps(ARGUMENTS, ensure_ascii=False)) == RENDERED


def test_escaped_characters_are_unescaped() -> None:
    only_text = {key: value for key, value in ARGUMENTS.items() if isinstance(value, str)}
    assert parameters(json.dumps(only_text)) == parameters(only_text)


@settings(deadline=None)  # timing never decides a test
@given(st.dictionaries(st.text(min_size=1), st.text()))
def test_any_strings_survive_the_way_through_a_json_string(arguments: dict[str, str]) -> None:
    assert parameters(json.dumps(arguments)) == parameters(arguments)


@settings(deadline=None)
@given(st.text(alphabet='{}[]":,\\u0d8 \nabc'))
def test_no_argument_string_crashes_the_template(text: str) -> None:
    parameters(text)
    parameters('{"a": "' + text)


@pytest.mark.parametrize(
    ("source", "value"),
    [('"\\ud83d\\ude00"', "😀"), ('"\\ud83d!"', "\ufffd!"), ('"\\ude00"', "\ufffd")],
)
def test_half_a_surrogate_pair_becomes_a_replacement_character(source: str, value: str) -> None:
    assert parameters('{"a": ' + source + "}") == f'<parameter name="a">{value}</parameter>\n'


@pytest.mark.parametrize("arguments", [None, "", "  ", "[1, 2]", '"text"', "42", {}, "{}", "{oops"])
def test_arguments_that_are_no_object_give_no_parameters(arguments: Any) -> None:
    assert parameters(arguments) == ""


def test_two_calls_share_one_block_and_either_shape_is_taken() -> None:
    bare = {"name": "g", "arguments": {"k": "v"}}
    rendered = history({"role": "assistant", "content": "A", "tool_calls": [call({}), bare]})
    assert rendered == (
        ']~b]ai\nA\n<minimax:tool_call>\n<invoke name="f">\n</invoke>\n'
        '<invoke name="g">\n<parameter name="k">v</parameter>\n</invoke>\n'
        "</minimax:tool_call>[e~[\n"
    )


def test_an_empty_list_of_calls_is_no_call() -> None:
    said = {"role": "assistant", "content": "A", "tool_calls": []}
    assert history(said) == "]~b]ai\nA[e~[\n"


# -- tool results ---------------------------------------------------------------------------------


def test_a_run_of_tool_results_shares_one_turn() -> None:
    rendered = history(
        {"role": "tool", "content": "one"},
        {"role": "system", "content": ""},
        {"role": "tool", "content": None},
        USER,
        {"role": "tool", "content": "three"},
    )
    assert rendered == (
        "]~b]tool\n<response>one</response>\n<response></response>[e~[\n"
        + HI
        + "]~b]tool\n<response>three</response>[e~[\n"
    )


def test_an_orphan_tool_result_is_rendered() -> None:
    assert history({"role": "tool", "content": "x"}) == "]~b]tool\n<response>x</response>[e~[\n"


def test_each_part_of_a_tool_result_is_a_response() -> None:
    parts = [{"type": "text", "text": "a"}, {"output": "b"}, "c", {"rows": [1]}]
    assert history({"role": "tool", "content": parts}) == (
        "]~b]tool\n<response>a\n</response>\n<response>b\n</response>\n<response>c\n</response>"
        '\n<response>{"rows": [1]}\n</response>[e~[\n'
    )


def test_a_template_without_messages_is_a_head() -> None:
    assert render([]) == HEAD + OPEN
