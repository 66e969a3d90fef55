"""speculation=ngram: what the engine is told, and what is refused beside it before it starts."""

import json
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import SettingsError
from appliance.settings import load_settings
from tests.plans import GOLDEN, plan

NGRAM = {"APPLIANCE_SPECULATION": "ngram"}
BOXES = ("spark", "thor", "demo")


def argv(box: str = "spark", **variables: str) -> list[str]:
    return list(plan(box, "nikola", **variables).argv)


def after(words: list[str], flag: str) -> list[str]:
    """Return the values of a flag."""
    rest = words[words.index(flag) + 1 :]
    end = next((n for n, word in enumerate(rest) if word.startswith("--")), len(rest))
    return rest[:end]


def refusal(**variables: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load_settings({**NGRAM, **{f"APPLIANCE_{k}": v for k, v in variables.items()}})
    assert caught.value.hint
    return caught.value.what


# ---- what the engine is told


@pytest.mark.parametrize("box", BOXES)
def test_by_itself_nothing_is_speculated(box: str) -> None:
    words = argv(box)
    assert "--speculative-config" not in words
    assert "--async-scheduling" in words


@pytest.mark.parametrize("box", BOXES)
def test_ngram_is_prompt_lookup_of_so_many_drafts(box: str) -> None:
    words = argv(box, **NGRAM, APPLIANCE_SPECULATION_TOKENS="3")
    (config,) = after(words, "--speculative-config")
    assert json.loads(config) == {"method": "ngram", "num_speculative_tokens": 3}


@pytest.mark.parametrize("box", BOXES)
def test_beside_ngram_the_engine_chooses_its_scheduling(box: str) -> None:
    assert [word for word in argv(box, **NGRAM) if "async" in word] == []


@given(st.integers(1, 128))
def test_graphs_are_captured_for_steps_of_whole_sequences_with_their_drafts(drafts: int) -> None:
    plain = [int(size) for size in after(argv(), "--cudagraph-capture-sizes")]
    chosen = {**NGRAM, "APPLIANCE_SPECULATION_TOKENS": str(drafts)}
    sizes = [int(size) for size in after(argv(**chosen), "--cudagraph-capture-sizes")]
    assert sizes == [size * (1 + drafts) for size in plain]


def test_all_else_of_the_command_is_as_without_it() -> None:
    ours = ("--speculative-config", "--async-scheduling", "--cudagraph-capture-sizes")
    plain, drafted = argv(), argv(**NGRAM)
    for words in (plain, drafted):
        for flag in set(ours) & set(words):
            start = words.index(flag)
            del words[start : start + 1 + len(after(words, flag))]
    assert plain == drafted


@pytest.mark.parametrize("version", ["0.32", "0.33"])
def test_both_versions_know_every_flag_that_is_sent_or_refused(version: str) -> None:
    known = (GOLDEN / f"vllm-{version}-flags.txt").read_text().split()
    assert {"--speculative-config", "--spec-method", "--spec-model", "--spec-tokens"} <= {*known}
    assert {"--logits-processors", "--watermark-config", "--async-scheduling"} <= {*known}


# ---- what is refused beside it


@pytest.mark.parametrize(
    "arguments",
    [
        "--speculative-config {}",
        "--speculative_config={}",
        "-sc {}",
        "-sc={}",
        "--spec-method ngram",
        "--spec-tokens 4",
        "--async-scheduling",
        "--logits-processors my.module:Class",
        "--watermark-config {}",
        "--structured-outputs-config.backend lm-format-enforcer",
    ],
)
def test_what_the_engine_would_end_at_is_refused_by_its_name(arguments: str) -> None:
    what = refusal(ENGINE_EXTRA_ARGS=f"--seed 7 {arguments}")
    named = shlex.split(arguments)[-1 if "enforcer" in arguments else 0].partition("=")[0]
    assert named.replace("_", "-") in what
    assert "APPLIANCE_SPECULATION=ngram cannot be beside" in what
    load_settings({"APPLIANCE_ENGINE_EXTRA_ARGS": arguments})  # without it, it is the operator's


@pytest.mark.parametrize(
    "arguments", ["--no-async-scheduling", "--seed 7", "--scheduling-policy x"]
)
def test_what_the_engine_takes_beside_it_is_taken(arguments: str) -> None:
    load_settings({**NGRAM, "APPLIANCE_ENGINE_EXTRA_ARGS": arguments})


def test_a_default_of_sampling_that_each_request_would_fail_with_is_refused() -> None:
    assert "min_p=0.1" in refusal(SAMPLING='{"min_p": 0.1}')
    load_settings({**NGRAM, "APPLIANCE_SAMPLING": '{"min_p": 0, "top_p": 0.9}'})
    load_settings({"APPLIANCE_SAMPLING": '{"min_p": 0.1}'})


@given(st.integers(1, 64), st.integers(1, 128), st.integers(1, 8192))
def test_adapters_need_a_step_that_holds_every_sequence_with_its_drafts(
    sequences: int, drafts: int, batch: int
) -> None:
    chosen = {
        **NGRAM,
        "APPLIANCE_ENGINE_EXTRA_ARGS": "--enable-lora",
        "APPLIANCE_MAX_NUM_SEQS": str(sequences),
        "APPLIANCE_SPECULATION_TOKENS": str(drafts),
        "APPLIANCE_MAX_NUM_BATCHED_TOKENS": str(batch),
    }
    if sequences * (1 + drafts) <= batch:
        load_settings(chosen)
        return
    with pytest.raises(SettingsError, match="--enable-lora"):
        load_settings(chosen)


@pytest.mark.parametrize("value", ["0", "129", "many"])
def test_a_number_of_drafts_that_the_engine_cannot_check_is_refused(value: str) -> None:
    assert "APPLIANCE_SPECULATION_TOKENS" in refusal(SPECULATION_TOKENS=value)


def test_another_method_is_refused_with_the_two_that_there_are() -> None:
    with pytest.raises(SettingsError, match="'off' or 'ngram'"):
        load_settings({"APPLIANCE_SPECULATION": "eagle"})
