"""The 17 known defects of reasoning parsers for this model, one named law each; then properties."""

import itertools
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fakes.transformers_jinja import render
from tests.fakes.vllm_stub import (
    HOMES,
    SPECIAL,
    Delta,
    FakeTokenizer,
    ReasoningParserManager,
    load_plugin,
    spelled,
    stream,
    whole,
)

TOKENIZER = FakeTokenizer()
HEAD = "]~!b[]~b]system\nS[e~[\n]~b]user\nHi[e~[\n"
ON, OFF, BARE = (HEAD + "]~b]ai\n" + end for end in ("<think>\n", "<think>\n\n</think>\n\n", ""))
CALL = '<minimax:tool_call>\n<invoke name="f">\n</invoke>\n</minimax:tool_call>'
SWITCHED_OFF = {"chat_template_kwargs": {"enable_thinking": False}}
REQUEST = SimpleNamespace(chat_template_kwargs=None)


@pytest.fixture(params=HOMES, ids=["new-home", "old-home"])
def parser_class(request: pytest.FixtureRequest) -> Any:
    load_plugin(request.param)
    return ReasoningParserManager.registered["minimax_m2_optthink"]


PARSER: Any = load_plugin().MiniMaxM2OptThinkReasoningParser


def new_parser(**kwargs: Any) -> Any:
    return PARSER(TOKENIZER, **kwargs)


def token_deltas(text: str) -> list[Delta]:
    return [(TOKENIZER.decode([token]), [token]) for token in TOKENIZER.encode(text)]


def both_ways(prompt: str, answer: str, **kwargs: Any) -> tuple[str | None, str | None]:
    """Parse token by token and as a whole; they must agree."""
    prompt_ids = TOKENIZER.encode(prompt)
    streamed = stream(new_parser(**kwargs), prompt_ids, token_deltas(answer)).channels
    assert streamed == whole(new_parser(**kwargs), prompt_ids, answer)
    return streamed


# -- the table ------------------------------------------------------------------------------------


def test_01_it_loads_whichever_home_delta_message_has(parser_class: Any) -> None:
    message = parser_class(TOKENIZER).extract_reasoning_streaming("", "", "ab", [], [], [1, 2])
    assert (message.reasoning, message.content) == ("ab", None)


def test_02_an_answer_without_thinking_is_content_where_the_prompt_has_no_tags() -> None:
    assert both_ways(BARE, "Hello", **SWITCHED_OFF) == (None, "Hello")


def test_03_a_closed_block_in_the_history_changes_nothing() -> None:
    history = ON + "old</think>\n\nsaid[e~[\n]~b]user\nMore[e~[\n]~b]ai\n"
    assert both_ways(history, "Hello", **SWITCHED_OFF) == (None, "Hello")
    assert both_ways(history, "plan</think>Hello") == ("plan", "Hello")
    assert both_ways(history + "<think>\n", "plan</think>Hello") == ("plan", "Hello")


def test_04_a_closed_block_in_the_prompt_makes_the_answer_content() -> None:
    assert both_ways(OFF, "Hello\n\nworld\n", **SWITCHED_OFF) == (None, "Hello\n\nworld\n")
    assert both_ways(OFF, "Hello") == (None, "Hello")


def test_05_a_start_tag_that_the_model_repeats_does_not_leak() -> None:
    for answer in ("<think>abc</think>x", "\n<think>\nabc\n</think>\n\nx"):
        assert both_ways(ON, answer) == ("abc", "x")
    one_delta = [("<think>abc", [SPECIAL["<think>"], *spelled("abc")])]
    assert stream(new_parser(), TOKENIZER.encode(ON), one_delta).channels == ("abc", None)


def test_06_text_that_lags_behind_its_ids_is_not_lost() -> None:
    ids = TOKENIZER.encode("abc</think>hello")
    lagging = [("ab", ids[:4]), ("c</th", ids[4:6]), ("ink>hello", ids[6:])]
    answer = stream(new_parser(), TOKENIZER.encode(ON), lagging)
    assert answer.channels == ("abc", "hello")
    assert TOKENIZER.decode(answer.handed_ids) == "hello"


def test_07_a_tool_call_ends_reasoning_without_an_end_tag() -> None:
    assert both_ways(ON, "plan\n" + CALL) == ("plan", CALL)
    answer = stream(new_parser(), TOKENIZER.encode(ON), token_deltas("plan\n" + CALL))
    assert answer.handed_ids[0] == SPECIAL["<minimax:tool_call>"]
    assert new_parser().is_reasoning_end_streaming([], [SPECIAL["<minimax:tool_call>"]])


def test_08_a_literal_end_tag_in_an_answer_stays() -> None:
    answer = "the </think> tag closes it"
    assert both_ways(OFF, answer, **SWITCHED_OFF) == (None, answer)
    assert both_ways(ON, "plan</think>" + answer) == ("plan", answer)


def test_09_a_literal_start_tag_in_an_answer_stays() -> None:
    answer = "abc <think> literal"
    assert both_ways(OFF, answer, **SWITCHED_OFF) == (None, answer)
    assert both_ways(ON, "plan</think>" + answer) == ("plan", answer)


def test_10_a_second_start_tag_in_reasoning_deletes_nothing() -> None:
    assert both_ways(ON, "one <think> two</think>x") == ("one <think> two", "x")


def test_11_reasoning_tokens_are_counted_where_the_prompt_opened_the_block() -> None:
    parser = new_parser()
    count = parser.count_reasoning_tokens
    assert count(TOKENIZER.encode("abcd</think>hello")) == 4
    assert count(TOKENIZER.encode("<think>abcd</think>hello")) == 4
    assert count(TOKENIZER.encode("abcd" + CALL)) == 4
    assert count(TOKENIZER.encode("abcd")) == 4
    assert count([]) == 0
    parser.is_reasoning_end(TOKENIZER.encode(OFF))
    assert count(TOKENIZER.encode("a </think> b")) == 0


@pytest.mark.parametrize(
    ("answer", "channels"),
    [
        ("", (None, None)),
        ("\n", (None, None)),
        ("\n\nplan\n", ("plan", None)),
        ("plan\n<", ("plan\n<", None)),
        ("</think>", (None, None)),
        ("</think>\n\n", (None, None)),
        ("\n\n</think>\n\nx\n", (None, "x\n")),
        ("a\n\nb\n</think>\n\n\nx", ("a\n\nb", "x")),
        ("<thin", ("<thin", None)),
        ("a\n</thin", ("a\n</thin", None)),
    ],
)
def test_12_empty_channels_are_none_and_outer_newlines_drop_in_both_ways(
    answer: str, channels: tuple[str | None, str | None]
) -> None:
    assert both_ways(ON, answer) == channels


@pytest.mark.parametrize("name", ["enable_thinking", "thinking"])
@pytest.mark.parametrize(
    "value", [False, "false", "False", "no", "off", "0", 0, 0.0, None, "none", "", "null"]
)
def test_13_every_spelling_of_off_is_off(name: str, value: Any) -> None:
    kwargs = {"chat_template_kwargs": {name: value}}
    assert new_parser(**kwargs).extract_reasoning("Hello", REQUEST) == (None, "Hello")
    assert both_ways(BARE, "Hello", **kwargs) == (None, "Hello")


@pytest.mark.parametrize("value", [True, "true", "yes", 1, "on"])
def test_13_every_other_value_is_on(value: Any) -> None:
    kwargs = {"chat_template_kwargs": {"enable_thinking": value, "tools": []}}
    assert new_parser(**kwargs).extract_reasoning("a</think>b", REQUEST) == ("a", "b")


def test_14_of_two_ends_the_first_counts_everywhere() -> None:
    ids = TOKENIZER.encode("a</think>b</think>c")
    parser = new_parser()
    assert TOKENIZER.decode(parser.extract_content_ids(ids)) == "b</think>c"
    assert parser.is_reasoning_end(ids)
    assert parser.count_reasoning_tokens(ids) == 1
    assert both_ways(ON, "a</think>b</think>c") == ("a", "b</think>c")


def test_15_an_end_tag_in_ordinary_tokens_ends_reasoning_too() -> None:
    text = "plan</think>\n\nHello"
    answer = stream(
        new_parser(),
        TOKENIZER.encode(ON),
        [(c, [t]) for c, t in zip(text, spelled(text), strict=True)],
    )
    assert answer.channels == ("plan", "Hello")
    assert TOKENIZER.decode(answer.handed_ids) == "H"


@pytest.mark.parametrize(
    ("prompt", "switch", "channels"),
    [
        (ON, False, ("plan", "Hi")),
        (OFF, True, (None, "plan</think>Hi")),
        (BARE + "I say", True, (None, "plan</think>Hi")),
        (ON + "so far</think>\n\nI say", True, (None, "plan</think>Hi")),
        (ON + "so far", False, ("plan", "Hi")),
        (ON + "so far<minimax:tool_call>", True, (None, "plan</think>Hi")),
        (BARE, True, ("plan", "Hi")),
        (BARE, False, (None, "plan</think>Hi")),
    ],
)
def test_16_the_prompt_decides_over_the_switch(
    prompt: str, switch: bool, channels: tuple[str | None, str | None]
) -> None:
    kwargs = {"chat_template_kwargs": {"enable_thinking": switch}}
    assert both_ways(prompt, "plan</think>Hi", **kwargs) == channels
    parser = new_parser(**kwargs)
    parser.set_prompt_token_ids(TOKENIZER.encode(prompt))
    assert parser.extract_reasoning("plan</think>Hi", REQUEST) == channels


def test_17_the_tags_are_kept_in_the_text_and_named_to_vllm() -> None:
    parser = new_parser()
    request = SimpleNamespace(skip_special_tokens=True)
    assert parser.adjust_request(request) is request
    assert request.skip_special_tokens is False
    assert (parser.reasoning_start_str, parser.reasoning_end_str) == ("<think>", "</think>")


def test_17_the_constructor_of_vllm_sees_a_legacy_parser_and_the_stream_an_engine() -> None:
    parser = new_parser()
    assert not parser.engine_based_streaming
    parser.extract_reasoning_streaming("", "", "a", [], [], [1])
    assert parser.engine_based_streaming


# -- what vLLM relies on --------------------------------------------------------------------------


@pytest.mark.parametrize("kwargs", [{}, SWITCHED_OFF])
def test_our_own_template_and_the_parser_agree(kwargs: dict[str, Any]) -> None:
    switches = kwargs.get("chat_template_kwargs", {})
    prompt_ids = TOKENIZER.encode(render([{"role": "user", "content": "Hi"}], **switches))
    assert new_parser(**kwargs).is_reasoning_end(prompt_ids) is bool(switches)
    assert new_parser().is_reasoning_end(prompt_ids) is bool(switches)


def test_without_constructor_arguments_the_request_tells_the_switch() -> None:
    request = SimpleNamespace(chat_template_kwargs={"thinking": False})
    assert new_parser().extract_reasoning("Hi", request) == (None, "Hi")
    assert new_parser().extract_reasoning("Hi", SimpleNamespace()) == ("Hi", None)


def test_a_tokenizer_without_the_tags_is_refused_at_start_up() -> None:
    with pytest.raises(ValueError, match=r"no token </think>.*Serve a MiniMax-M2 checkpoint"):
        PARSER(FakeTokenizer({"<think>": 1}))


def test_the_grammar_opens_at_the_first_end_of_a_draft_of_several_tokens() -> None:
    """As the engine core asks: the shortest draft that ends reasoning."""
    draft = TOKENIZER.encode("ab</think>c" + CALL)
    parser = new_parser()
    ends = [n for n in range(len(draft) + 1) if parser.is_reasoning_end_streaming([], draft[:n])]
    assert ends[0] == 3
    assert not parser.is_reasoning_end_streaming(draft, spelled("later"))


def test_ids_are_handed_over_although_their_text_came_later() -> None:
    """vLLM's tool parser finds a call by its id; an id that ran ahead must not be forgotten."""
    ids = TOKENIZER.encode("a</think>\n" + CALL)
    held_back = [("a</think>\n", ids[:5]), ("<minimax:tool_call>", ids[5:8]), ("\n", [])]
    answer = stream(new_parser(), TOKENIZER.encode(ON), held_back)
    assert SPECIAL["<minimax:tool_call>"] in answer.handed_ids


def test_asking_about_generated_ids_does_not_touch_the_prompt_state() -> None:
    parser = new_parser()
    parser.is_reasoning_end(TOKENIZER.encode(ON))
    assert parser.is_reasoning_end(TOKENIZER.encode("a</think>b"))
    assert not parser.is_reasoning_end(TOKENIZER.encode("ab"))
    assert parser.extract_reasoning("a</think>b", REQUEST) == ("a", "b")


def test_a_reparse_after_a_stream_gives_the_same() -> None:
    parser = new_parser()
    prompt_ids = TOKENIZER.encode(ON)
    streamed = stream(parser, prompt_ids, token_deltas("a</think>b")).channels
    assert parser.extract_reasoning("a</think>b", REQUEST) == streamed


# -- properties -----------------------------------------------------------------------------------

PIECES = st.sampled_from(
    [
        "<think>",
        "</think>",
        "<minimax:tool_call>",
        "\n",
        "\n\n",
        "<",
        "</",
        "</th",
        "ink>",
        "a",
        "č ",
    ]
)
ANSWERS = st.lists(PIECES, max_size=9).map("".join)


def rechunked(text: str, cuts: Sequence[int]) -> list[Delta]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    pieces = [text[a:b] for a, b in itertools.pairwise(places)]
    return [(piece, spelled(piece)) for piece in pieces]


@pytest.mark.parametrize("tag", ["</think>", "<minimax:tool_call>", "<think>"])
def test_every_way_to_cut_a_tag_gives_the_same(tag: str) -> None:
    text = tag + "b" if tag == "<think>" else "a" + tag + "b"
    prompt_ids = TOKENIZER.encode(ON)
    expected = whole(new_parser(), prompt_ids, text)
    inside = range(1, len(text))
    twice = list(itertools.combinations(inside, 2)) + [(cut,) for cut in inside] + [tuple(inside)]
    for cuts in twice:
        answer = stream(new_parser(), prompt_ids, rechunked(text, cuts))
        assert answer.channels == expected, cuts


@settings(deadline=None)  # timing never decides a test
@given(ANSWERS, st.lists(st.integers(0, 99)), st.sampled_from([ON, OFF, BARE]), st.booleans())
def test_rechunking_changes_nothing(
    answer: str, cuts: list[int], prompt: str, switch: bool
) -> None:
    kwargs = {"chat_template_kwargs": {"enable_thinking": switch}}
    prompt_ids = TOKENIZER.encode(prompt)
    streamed = stream(new_parser(**kwargs), prompt_ids, rechunked(answer, cuts))
    assert streamed.channels == whole(new_parser(**kwargs), prompt_ids, answer)


@settings(deadline=None)
@given(ANSWERS)
def test_without_thinking_an_answer_is_passed_to_the_letter(answer: str) -> None:
    assert both_ways(OFF, answer) == (None, answer or None)


@settings(deadline=None)
@given(st.text(alphabet="ab\n<", max_size=20), ANSWERS)
def test_reasoning_and_content_add_up_to_the_answer(reasoning: str, content: str) -> None:
    parts = both_ways(ON, f"{reasoning}</think>{content}")
    assert parts == (reasoning.strip("\n") or None, content.lstrip("\n") or None)
