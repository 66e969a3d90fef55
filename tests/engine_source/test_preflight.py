"""Before an hour of compiling, every gap is said at once, each with what to type."""

import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import pytest

from unglitched_vllm.source import preflight
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.upstream import Upstream

LOCAL = dict.fromkeys(preflight.SOURCES, "/sources")
ANSWERS = {
    "torch.__version__": "2.14.0+cu130\n",
    "nvcc --version": "Cuda compilation tools, release 13.0, V13.0.88\n",
    "-dumpfullversion": "13.3.0\n",
    "cmake --version": "cmake version 4.4.1\n",
    "import ": "",
}


def machine(changed: Mapping[str, str | None] = MappingProxyType({})) -> preflight.Ask:
    """A machine that answers as a fit one does, but for what is changed: None is not there."""
    answers = {**ANSWERS, **changed}

    def ask(command: Sequence[str]) -> str | None:
        line = " ".join(command)
        return next((answer for part, answer in answers.items() if part in line), None)

    return ask


def test_a_fit_machine_has_no_gap(upstream: Upstream) -> None:
    preflight.check(upstream.needs, LOCAL, machine())


@pytest.mark.parametrize(
    ("command", "answer", "said"),
    [
        ("torch.__version__", None, "torch 2.14.0 is not here: pip install torch==2.14.0"),
        ("torch.__version__", "2.13.0", "torch is 2.13.0, exactly 2.14.0 is needed"),
        ("nvcc --version", None, "cuda 13.0 is not here"),
        ("nvcc --version", "release 12.8, V12.8.1", "cuda is 12.8, from 13.0 is needed"),
        ("-dumpfullversion", "12.2.0", "gcc is 12.2.0, from 13 is needed: apt-get install g++-13"),
        ("cmake --version", "cmake version 3.25.1", "cmake is 3.25.1, from 3.26.1 is needed"),
        ("cmake --version", "", "cmake 3.26.1 is not here: pip install 'cmake>=3.26.1'"),
    ],
)
def test_a_gap_is_said_with_what_to_type(
    upstream: Upstream, command: str, answer: str | None, said: str
) -> None:
    (gap,) = preflight.find_gaps(upstream.needs, LOCAL, machine({command: answer}))
    assert said in gap


def test_missing_modules_are_one_gap(upstream: Upstream) -> None:
    def ask(command: Sequence[str]) -> str | None:
        return (
            None if command[-1] in {"import wheel", "import setuptools_scm"} else machine()(command)
        )

    (gap,) = preflight.find_gaps(upstream.needs, LOCAL, ask)
    assert gap.endswith("pip install setuptools-scm wheel")


def test_every_gap_is_said_at_once(upstream: Upstream) -> None:
    with pytest.raises(SourceError, match="cannot compile vLLM") as raised:
        preflight.check(upstream.needs, {"PATH": "/none"}, lambda _: None)
    assert raised.value.what.count("\n  - ") == 6
    assert "--engine wheel" in raised.value.hint


def test_git_is_needed_only_where_a_source_must_be_fetched(upstream: Upstream) -> None:
    bare = {"PATH": "/none"}
    (gap,) = preflight.find_gaps(upstream.needs, bare, machine())
    assert "apt-get install git" in gap
    assert preflight.find_gaps(upstream.needs, {**bare, **LOCAL}, machine()) == []


def test_the_compiler_asked_is_the_one_that_is_used(upstream: Upstream) -> None:
    asked: list[str] = []

    def ask(command: Sequence[str]) -> str | None:
        asked.append(command[0])
        return machine()(command)

    preflight.find_gaps(upstream.needs, {**LOCAL, "CXX": "g++-13", "CUDA_HOME": "/cuda"}, ask)
    assert {"g++-13", "/cuda/bin/nvcc"} <= set(asked)


def test_a_program_that_fails_counts_as_not_there() -> None:
    assert preflight.ask(["/no/such/program"]) is None
    assert preflight.ask([sys.executable, "-c", "raise SystemExit(1)"]) is None
    assert preflight.ask([sys.executable, "-c", "print(7)"]) == "7\n"
