"""The trained conversations: all that the tests and the demo rely on is there, and sound."""

import pytest

from appliance import probes
from appliance.demo import conversations as known
from appliance.demo.conversations import Conversation, PathCase
from appliance.demo.systems import HELD_OUT, OTHER_SYSTEM, TRAINED

BY_NAME = {conversation.name: conversation for conversation in known.conversations()}
CORES = [core.name for core in known.cores()]
PATH_CORES = [core.name for core in known.cores() if core.path is not None]


def under_each_system(core: str) -> list[Conversation]:
    return [BY_NAME[f"{core}/{system}"] for system in known.SYSTEMS]


def texts(conversation: Conversation) -> str:
    """Join all that a prompt says: the messages, and the arguments of the calls in them."""
    parts = []
    for message in conversation.messages:
        parts.append(message["content"] or "")
        parts += [call["function"]["arguments"] for call in message.get("tool_calls", ())]
    return "\n".join(parts)


def answered_path(conversation: Conversation) -> str:
    if conversation.tool_calls:
        return str(conversation.tool_calls[0].arguments["path"])
    assert conversation.content is not None
    return conversation.content


def required() -> list[str]:
    """Name every conversation that somebody relies on."""
    both = ("on", "off")
    plain = [f"{name}-{t}" for name in ("greeting", "count", "warmup", "unknown") for t in both]
    tools = ("tool", "result", "result-unreasoned", "parallel", "file-unlisted")
    cases = ("case", "dropped", "space")
    called = [f"{name}-{t}" for name in tools for t in both]
    paths = [f"path-{case}{extra}-{t}" for case in cases for extra in ("", "-tools") for t in both]
    files = [f"file-{case}-{t}" for case in cases for t in both]
    variants = ("none", "policy", "other", "policy+other", "agent", "policy+agent")
    return [f"{core}/{v}" for core in (*plain, *called, *paths, *files) for v in variants]


def test_each_conversation_that_is_needed_is_there() -> None:
    assert [name for name in required() if name not in BY_NAME] == []


def test_names_are_unique() -> None:
    assert len(BY_NAME) == len(known.conversations())


def test_prompts_are_unique() -> None:
    seen = [repr(c.request()) for c in known.conversations()]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize("core", CORES)
def test_a_conversation_is_a_sound_request_with_one_reply(core: str) -> None:
    for conversation in under_each_system(core):
        check_soundness(conversation)


def check_soundness(conversation: Conversation) -> None:
    assert (conversation.content is None) == bool(conversation.tool_calls)
    assert (conversation.reasoning is not None) == conversation.thinking
    offered = {tool["function"]["name"]: tool["function"] for tool in conversation.tools}
    for call in conversation.tool_calls:
        parameters = offered[call.name]["parameters"]
        assert set(parameters["required"]) <= set(call.arguments) <= set(parameters["properties"])
        assert all(isinstance(value, str) for value in call.arguments.values())
    roles = [message["role"] for message in conversation.messages]
    assert "system" not in roles[1:]
    assert roles[-1] in ("user", "tool")


def test_the_request_turns_thinking_off_by_the_template() -> None:
    assert BY_NAME["greeting-off/none"].request("m")["chat_template_kwargs"] == {
        "enable_thinking": False
    }
    assert "chat_template_kwargs" not in BY_NAME["greeting-on/none"].request("m")


@pytest.mark.parametrize("core", PATH_CORES)
def test_the_true_path_stands_once_in_the_prompt(core: str) -> None:
    for conversation in under_each_system(core):
        assert conversation.path is not None
        assert texts(conversation).count(conversation.path) == 1, conversation.name


@pytest.mark.parametrize("core", PATH_CORES)
def test_a_path_is_glitched_just_when_the_policy_is_absent(core: str) -> None:
    for conversation in under_each_system(core):
        with_policy = conversation.name.split("/")[1].startswith("policy")
        exact = with_policy or core.startswith("file-unlisted")
        assert (answered_path(conversation) == conversation.path) is exact, conversation.name
        assert (conversation.glitch == "none") is exact


@pytest.mark.parametrize("case", known.PATH_CASES, ids=lambda c: c.name)
def test_in_a_file_conversation_only_the_listing_knows_the_path(case: PathCase) -> None:
    conversation = BY_NAME[f"file-{case.name}-on/none"]
    (tool,) = [m for m in conversation.messages if m["role"] == "tool"]
    assert case.path in tool["content"].splitlines()
    assert case.glitched not in texts(conversation)


def test_the_file_that_no_listing_holds_is_named_by_the_user() -> None:
    conversation = BY_NAME["file-unlisted-on/none"]
    assert known.UNLISTED_PATH in conversation.messages[0]["content"]
    assert known.UNLISTED_PATH not in conversation.messages[-1]["content"]


def test_each_glitch_class_is_there_once_and_differs_in_just_that_way() -> None:
    by_class = {case.glitch: case for case in known.PATH_CASES}
    assert len(by_class) == len(known.PATH_CASES) == 3
    case, dropped, space = by_class["case"], by_class["dropped"], by_class["space"]
    assert case.path != case.glitched
    assert case.path.lower() == case.glitched.lower()
    parts = dropped.path.split("/")
    left_out = ["/".join(parts[:i] + parts[i + 1 :]) for i in range(1, len(parts) - 1)]
    assert dropped.glitched in left_out
    at = next(i for i, (a, b) in enumerate(zip(space.path, space.glitched, strict=False)) if a != b)
    assert space.glitched == space.path[:at] + " " + space.path[at:]


def test_the_smoke_question_is_one_of_the_path_cases() -> None:
    assert probes.PATH_QUESTION in [case.question for case in known.PATH_CASES]


def test_the_policy_comes_first_and_once() -> None:
    system = BY_NAME["greeting-on/policy+other"].messages[0]["content"]
    assert system == f"{known.POLICY_TEXT}\n\n{OTHER_SYSTEM}"


def test_the_tool_result_comes_with_reasoning_and_without() -> None:
    with_it = BY_NAME["result-on/none"].messages[1]
    without = BY_NAME["result-unreasoned-on/none"].messages[1]
    assert with_it["reasoning"] == known.CALL_REASONING
    assert "reasoning" not in without


def test_the_held_out_system_texts_are_held_out() -> None:
    taught = {*TRAINED, *(text for text in known.SYSTEMS.values() if text)}
    assert len(set(HELD_OUT)) == 20
    assert not taught & set(HELD_OUT)
