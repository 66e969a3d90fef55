"""0001: vLLM 0.33's own Python, patched, under our reasoning parser and with tools offered."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.contract import test_parser_in_engine as contract
from tests.engine_source.conftest import patched_copy, unpack

CHECK = Path(contract.__file__).with_name("parser_in_engine_check.py")
LITERAL = "the </think> and <think> tags"
pytestmark = [
    pytest.mark.engine,
    pytest.mark.skipif(not contract.ENGINE_PYTHON.exists(), reason="no CPU engine: make setup"),
]

# As the contract's cases: prompt, answer, kwargs, tools offered, (reasoning, content, calls).
TOOLED: dict[str, tuple[str, str, dict[str, Any], bool, list[Any]]] = {
    "off": (contract.OFF, LITERAL, contract.NO_THINKING, True, [None, LITERAL, []]),
    "on": (contract.ON, f"plan</think>{LITERAL}", {}, True, ["plan", LITERAL, []]),
    "before a call": (
        contract.ON,
        f"plan</think>close it by </think>{contract.CALL}",
        {},
        True,
        ["plan", "close it by </think>", [contract.READ]],
    ),
}
CASES = {**contract.CASES, **{f"literal tags and tools, {k}": v for k, v in TOOLED.items()}}


def ask(tree: Path) -> dict[str, Any]:
    """Put every case to the Python of ``tree``, over the packages of the demo's engine."""
    cases = [
        dict(zip(("prompt", "answer", "kwargs", "tools"), case, strict=False))
        for case in CASES.values()
    ]
    done = subprocess.run(
        [str(contract.ENGINE_PYTHON), str(CHECK)],
        env={**os.environ, "PYTHONPATH": str(tree), "VLLM_PLUGINS": "", "HF_HUB_OFFLINE": "1"},
        input=json.dumps({"cases": cases, "conversations": [], "draft": "ab</think>cd"}),
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


@pytest.fixture(scope="module")
def python(sdist: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """vLLM's Python, all of it, as it comes; and CMakeLists.txt for the other patches."""
    return unpack(sdist, tmp_path_factory.mktemp("python"), "vllm/", "CMakeLists.txt")


@pytest.fixture(scope="module")
def patched(python: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return ask(patched_copy(python, tmp_path_factory.mktemp("ours")))


@pytest.mark.parametrize("name", TOOLED)
def test_a_literal_end_tag_survives_tools(patched: dict[str, Any], name: str) -> None:
    at = list(CASES).index(f"literal tags and tools, {name}")
    for streamed in patched["stream"][at]:
        assert streamed[:3] == TOOLED[name][4]


@pytest.mark.parametrize("name", CASES)
def test_every_case_of_the_parser_holds_in_the_patched_release(
    patched: dict[str, Any], name: str
) -> None:
    at = list(CASES).index(name)
    for parted in (patched["whole"][at], *patched["stream"][at]):
        assert parted[:3] == CASES[name][4]


@pytest.mark.long
def test_the_stock_release_still_needs_0001(python: Path) -> None:
    stock = ask(python)
    for name, case in TOOLED.items():
        at = list(CASES).index(f"literal tags and tools, {name}")
        assert all(streamed[:3] != case[4] for streamed in stock["stream"][at]), name
