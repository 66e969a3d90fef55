"""The tokenizer check: the program that reads the reference, and the engine that is asked."""

import asyncio
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.errors import UpstreamError
from appliance.tokenizercheck import (
    ENOUGH,
    Reference,
    check,
    compare,
    digest,
    engine_python,
    ids_of,
    read_reference,
)
from appliance.tokenizerdrift import Drift, prompts, texts_of
from tests.appliance_tasks import eventually
from tests.engines import ROOT
from tests.idreaders import BYTES, VERSIONS, Tokens, ids, program, write_folder

ASKED = prompts()
ALONE = [path for prompt in ASKED for path in prompt.paths]


REFERENCE = Reference({text: digest(ids(text)) for text in texts_of(ASKED)}, VERSIONS)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


# ---- the comparison


async def test_an_engine_that_reads_alike_is_asked_sixty_times_and_no_more() -> None:
    tokens = Tokens()
    drift = await compare(tokens, REFERENCE, ASKED)
    assert drift == Drift(1000, 0, "", VERSIONS)
    assert len(tokens.asked) == 60


@settings(max_examples=25, deadline=None)
@given(wrong=st.sets(st.sampled_from(ALONE), max_size=30))
def test_each_path_that_differs_is_counted_once(wrong: set[str]) -> None:
    tokens = Tokens(lambda text: any(path in wrong for path in text.split("\n")))
    drift = asyncio.run(compare(tokens, REFERENCE, ASKED))
    assert (drift.compared, drift.mismatches) == (1000, len(wrong))
    assert not wrong or drift.example in wrong


async def test_an_engine_that_reads_nothing_alike_is_soon_left_alone() -> None:
    tokens = Tokens(lambda text: True)
    drift = await compare(tokens, REFERENCE, ASKED)
    assert ENOUGH <= drift.mismatches == drift.compared < 1.5 * ENOUGH
    assert len(tokens.asked) < 1.5 * ENOUGH
    assert drift.why == "the rest was not asked for"


async def test_lines_that_differ_only_together_are_not_overlooked() -> None:
    drift = await compare(Tokens(lambda text: "\n" in text), REFERENCE, ASKED)
    assert (drift.compared, drift.mismatches) == (1000, 20)


async def test_an_engine_that_breaks_off_leaves_what_was_compared() -> None:
    async def ask(text: str) -> Sequence[int]:
        if text == ASKED[30].text:
            raise UpstreamError("the engine did not answer /tokenize: ReadError")
        return ids(text)

    drift = await compare(ask, REFERENCE, ASKED)
    assert (drift.compared, drift.mismatches) == (30, 0)
    assert drift.why == "the engine did not answer /tokenize: ReadError"


async def test_an_engine_that_hangs_costs_no_more_than_its_time() -> None:
    async def ask(text: str) -> Sequence[int]:
        await asyncio.Event().wait()
        return ()

    drift = await compare(ask, REFERENCE, ASKED, 0.05)
    assert not drift.is_known
    assert "longer than 0.05 s" in drift.why


@pytest.mark.parametrize(
    ("status", "told"),
    [(503, {"tokens": [1]}), (200, {"count": 3}), (200, []), (200, {"tokens": 3}), (404, None)],
)
def test_what_is_no_answer_of_tokenize_is_refused(status: int, told: object) -> None:
    with pytest.raises(UpstreamError, match=f"answers {status}"):
        ids_of(status, told)


# ---- the reference


def test_a_digest_stands_for_the_ids_on_both_sides() -> None:
    theirs = runpy.run_path(str(ROOT / "appliance" / "rawtokenizer.py"))["digest"]
    different: tuple[list[int], ...] = ([], [1], [1, 2], [12], [2, 1], [200_063, 0])
    assert [theirs(one) for one in different] == [digest(one) for one in different]
    assert len({digest(one) for one in different}) == len(different)


async def test_the_reference_is_what_the_engines_python_tells(folder: Path) -> None:
    found = await read_reference(program(folder, BYTES), folder / "tokenizer.json", ["/ä", "b"])
    assert found == Reference({text: digest(ids(text)) for text in ("/ä", "b")}, VERSIONS)


async def test_a_python_without_the_library_says_so(folder: Path) -> None:
    found = await read_reference(Path(sys.executable), folder / "tokenizer.json", ["x"])
    assert found.why == f"{sys.executable} has no tokenizers library"


@pytest.mark.parametrize(
    "body",
    [
        "",
        "import sys; sys.exit(3)",
        "print('no JSON')",
        "print('[]')",
        "print('{}')",
        'print(\'{"versions": {}, "ids": [[1]]}\')',  # one text of two
        'print(\'{"versions": 3, "why": "x"}\')',
    ],
)
async def test_a_python_that_tells_nothing_of_use_is_named(folder: Path, body: str) -> None:
    python = program(folder, body)
    found = await read_reference(python, folder / "tokenizer.json", ["a", "b"])
    assert found.why.startswith(f"{python} rawtokenizer.py ended with ")
    assert found.digests == {}


async def test_a_python_that_hangs_is_killed(folder: Path) -> None:
    python = program(folder, "import time\nwhile True: time.sleep(1)")
    found = await read_reference(python, folder / "tokenizer.json", ["a"], 0.2)
    assert "within 0.2 s" in found.why  # and the leak check finds nobody


async def test_a_check_that_is_cancelled_leaves_no_program(folder: Path) -> None:
    mark = folder / "begun"
    body = f"import time\nopen({str(mark)!r}, 'w')\nwhile True: time.sleep(1)"
    task = asyncio.create_task(check(Tokens(), program(folder, body), folder))

    async def begun() -> bool:
        return mark.exists()

    await eventually(begun, "the program to begin")
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()


async def test_a_python_that_is_not_there_is_named(folder: Path) -> None:
    found = await read_reference(folder / "none", folder / "tokenizer.json", ["a"])
    assert found.why == f"{folder / 'none'} cannot be started: No such file or directory"


async def test_a_model_without_the_file_is_not_compared(tmp_path: Path) -> None:
    tokens = Tokens()
    drift = await check(tokens, program(tmp_path, BYTES), tmp_path)
    assert drift.why == f"there is no {tmp_path / 'tokenizer.json'}"
    assert tokens.asked == []


@pytest.mark.parametrize(
    ("first", "found"),
    [
        ("#!{folder}/python3.11", "python3.11"),
        ("#!/usr/bin/env {folder}/python3.11", "python3.11"),
        ("#!/bin/sh", "python3"),  # pip's way around a long path: look beside it
        ("#!", "python3"),
        ("\x7fELF", "python3"),
    ],
)
def test_the_engines_python_is_the_one_that_its_command_names(
    tmp_path: Path, first: str, found: str
) -> None:
    program(tmp_path, "", "python3.11")
    program(tmp_path, "", "python3")
    vllm = program(tmp_path, "", "vllm")
    vllm.write_text(first.format(folder=tmp_path) + "\n")
    assert engine_python([str(vllm), "serve"]) == tmp_path / found


def test_a_command_that_is_a_python_is_that_python() -> None:
    assert engine_python([sys.executable, "-m", "vllm"]) == Path(sys.executable)


@pytest.mark.parametrize("command", [[], ["no-such-engine"], ["/"]])
def test_a_command_that_is_not_here_has_no_python(command: list[str]) -> None:
    assert engine_python(command) is None
