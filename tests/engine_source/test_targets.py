"""What the compiler is told: architectures, jobs, and what of the environment passes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unglitched_vllm.source.preflight import SOURCES
from unglitched_vllm.source.targets import (
    BYTES_PER_JOB,
    GIB,
    TARGETS,
    compile_environment,
    job_count,
    overruled,
)

SPARK = TARGETS["spark"]


def compiling(base: dict[str, str], target: str = "spark") -> dict[str, str]:
    return compile_environment(base, TARGETS[target], version="1+x.2", epoch=99, jobs=3)


def test_a_spark_is_12_1_and_a_thor_is_11_0() -> None:
    assert {name: t.arch_list for name, t in TARGETS.items()} == {"spark": "12.1", "thor": "11.0"}


def test_no_target_names_one_chip_of_a_family_or_ptx() -> None:
    assert all(t.arch_list.replace(".", "").isdigit() for t in TARGETS.values())


def test_the_target_decides_whatever_the_environment_says() -> None:
    env = compiling({"TORCH_CUDA_ARCH_LIST": "12.0a"})
    assert env["TORCH_CUDA_ARCH_LIST"] == "12.1"
    assert "12.0a is not used" in overruled({"TORCH_CUDA_ARCH_LIST": "12.0a"}, SPARK)


@pytest.mark.parametrize("base", [{}, {"TORCH_CUDA_ARCH_LIST": "12.1"}], ids=["unset", "same"])
def test_nothing_is_said_where_nothing_is_overruled(base: dict[str, str]) -> None:
    assert overruled(base, SPARK) == ""


def test_every_local_source_passes() -> None:
    base = {name: f"/sources/{name}" for name in SOURCES}
    assert base.items() <= compiling(base).items()
    assert len(SOURCES) == 10


def test_the_operator_s_jobs_win_over_ours() -> None:
    assert compiling({})["MAX_JOBS"] == "3"
    assert compiling({"MAX_JOBS": "7"})["MAX_JOBS"] == "7"


def test_all_that_is_dated_bears_the_release_s_date() -> None:
    env = compiling({"SOURCE_DATE_EPOCH": "1"})
    assert env["SOURCE_DATE_EPOCH"] == "99"
    assert env["VLLM_VERSION_OVERRIDE"] == "1+x.2"


def test_the_boxes_use_all_their_processors() -> None:
    assert job_count(110 * GIB, 20) == 20  # a Spark
    assert job_count(110 * GIB, 14) == 14  # a Thor


def test_a_laptop_compiles_one_file_at_a_time() -> None:
    assert job_count(7 * GIB, 16) == 1
    assert job_count(0, 16) == 1


@given(st.integers(0, 2**40), st.integers(1, 512))
def test_jobs_never_ask_for_more_than_there_is(available: int, cpus: int) -> None:
    jobs = job_count(available, cpus)
    assert 1 <= jobs <= cpus
    assert jobs == 1 or jobs * BYTES_PER_JOB <= available
