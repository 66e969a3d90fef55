"""The fixed questions: each can fail in the way that it is there to find."""

import json

from appliance import probes


def test_the_paths_hold_what_a_model_glitches() -> None:
    for path in (probes.TOOL_PATH, probes.PATH):
        assert path.startswith("/")
        assert " " in path
        assert path != path.lower()
        assert path.count("/") >= 3


def test_a_question_holds_the_path_that_its_answer_must_repeat() -> None:
    assert probes.TOOL_PATH in probes.TOOL_QUESTION
    assert probes.PATH_QUESTION.endswith(probes.PATH)
    assert probes.WARMUP_QUESTION.endswith(probes.WARMUP_ANSWER)


def test_the_warm_up_copies_a_path_and_twenty_words() -> None:
    path, _, words = probes.WARMUP_ANSWER.partition(".json ")
    assert path.startswith("/opt/Nikola/Model Zoo/")
    assert len(words.split()) == len(set(words.split())) == 20


def test_the_count_runs_from_1_to_200() -> None:
    numbers = [int(word) for word in probes.COUNT_ANSWER.split(" ")]
    assert numbers == list(range(1, 201))


def test_the_read_tool_is_a_function_that_requires_a_path() -> None:
    function = json.loads(json.dumps(probes.READ_FILE))["function"]
    assert function["name"] == "read_file"
    assert function["parameters"]["required"] == ["path"]
    assert "path" in function["parameters"]["properties"]


def test_a_user_message_is_what_openai_calls_one() -> None:
    assert probes.user("hi") == {"role": "user", "content": "hi"}
