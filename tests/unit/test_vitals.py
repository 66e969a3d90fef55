"""What is read of the engine and the machine; each source also when it lies or is not there."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from appliance.host import memory_snapshot
from appliance.upstream import Upstream
from appliance.vitals import (
    EngineCounters,
    oom_kills,
    parse_counters,
    read_counters,
    read_power_w,
)
from tests.engines import StartFake, free_port

LABELS = ("model_name", "engine")


def engine_text(model: str = "Nikola", engines: int = 1) -> bytes:
    """Return what vLLM's own families look like, made with the library that vLLM uses."""
    registry = CollectorRegistry()
    running = Gauge("vllm:num_requests_running", "x", LABELS, registry=registry)
    waiting = Gauge("vllm:num_requests_waiting", "x", LABELS, registry=registry)
    reasons = ("engine", "reason")
    decoy = Gauge("vllm:num_requests_waiting_by_reason", "x", reasons, registry=registry)
    kv = Gauge("vllm:kv_cache_usage_perc", "x", LABELS, registry=registry)
    prompt = Counter("vllm:prompt_tokens", "x", LABELS, registry=registry)
    cached = Counter("vllm:prompt_tokens_cached", "x", LABELS, registry=registry)
    made = Counter("vllm:generation_tokens", "x", LABELS, registry=registry)
    steps = Histogram("vllm:iteration_tokens_total", "x", LABELS, registry=registry)
    for engine in range(engines):
        own = (model, str(engine))
        running.labels(*own).set(2)
        waiting.labels(*own).set(3)
        decoy.labels(str(engine), "capacity").set(70)
        kv.labels(*own).set(0.25)
        prompt.labels(*own).inc(1e7)
        cached.labels(*own).inc(99)
        made.labels(*own).inc(11)
        for _ in range(4):
            steps.labels(*own).observe(5)
    return generate_latest(registry)


# ---- the engine's counters


@pytest.mark.parametrize("engines", [1, 3])
def test_counters_are_summed_over_label_sets(engines: int) -> None:
    expected = EngineCounters(
        load=5 * engines,
        heartbeat=(4.0 * engines, 11.0 * engines, 1e7 * engines, 0.25 * engines),
    )
    assert parse_counters(engine_text(engines=engines)) == expected


@pytest.mark.parametrize("model", ["a b", "a} 9", 'a"} 9', "a\n9", "vllm:num_requests_running 9"])
def test_a_model_s_name_cannot_pass_for_a_value(model: str) -> None:
    assert parse_counters(engine_text(model)) == parse_counters(engine_text())


def test_a_family_without_labels_counts_too() -> None:
    counters = parse_counters(b"vllm:num_requests_running 2.0\nvllm:generation_tokens_total 7\n")
    assert counters == EngineCounters(2, (0.0, 7.0, 0.0, 0.0))


@pytest.mark.parametrize("value", [b"NaN", b"+Inf", b"garbage", b""])
def test_what_is_no_number_is_no_heartbeat(value: bytes) -> None:
    """NaN differs from itself: it would pass for progress for ever."""
    assert parse_counters(b"vllm:generation_tokens_total " + value) is None


@pytest.mark.parametrize("text", [b"", b"\n\n", b"<html>", b"python_info 1\n", b"vllm:other 1\n"])
def test_a_text_without_the_engine_s_counters_is_no_answer(text: bytes) -> None:
    assert parse_counters(text) is None


@given(st.binary())
def test_no_text_breaks_the_reader(text: bytes) -> None:
    parse_counters(b"vllm:num_requests_running{} " + text)
    parse_counters(text)


async def test_an_engine_tells_its_counters_and_they_move(fake_engine: StartFake) -> None:
    engine = fake_engine()
    upstream = Upstream(engine.base_url, engine.key)
    try:
        before = await read_counters(upstream)
        assert before is not None
        assert before.load == 0
        question = [{"role": "user", "content": "hi"}]
        await upstream.complete({"model": "Nikola", "messages": question}, 20)
        after = await read_counters(upstream)
        assert after is not None
        assert after.heartbeat != before.heartbeat
        assert await read_counters(upstream) == after
    finally:
        await upstream.close()


async def test_an_engine_that_is_not_there_has_no_counters() -> None:
    upstream = Upstream(f"http://127.0.0.1:{free_port()}", None)
    try:
        assert await read_counters(upstream) is None
    finally:
        await upstream.close()


async def test_a_stopped_engine_has_no_counters_within_the_time_given(
    fake_engine: StartFake,
) -> None:
    engine = fake_engine()
    upstream = Upstream(engine.base_url, engine.key)
    os.kill(engine.pid, signal.SIGSTOP)
    try:
        begun = monotonic()
        assert await read_counters(upstream, within_s=0.2) is None
        assert monotonic() - begun < 4  # the upstream's own timeout is 5
        os.kill(engine.pid, signal.SIGCONT)
        assert await read_counters(upstream) is not None
    finally:
        await upstream.close()


# ---- power


def program(folder: Path, body: str) -> str:
    path = folder / "smi"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("body", "watts"),
    [
        ("echo 27.53", 27.53),
        ("echo ' 16.5'; echo 30.25; echo", 46.75),
        ("echo 0.0", 0.0),
        ("echo '[N/A]'", None),
        ("echo 30; echo '[N/A]'", None),
        ("echo '[Unknown Error]'", None),
        ("echo nan", None),
        ("echo 30; exit 9", None),
        ("echo 'no driver' >&2; exit 9", None),
        ("true", None),
    ],
)
async def test_power_is_the_sum_of_all_gpus_or_not_known(
    tmp_path: Path, body: str, watts: float | None
) -> None:
    assert await read_power_w(program(tmp_path, body)) == watts


async def test_the_program_is_asked_for_power_alone(tmp_path: Path) -> None:
    asked = 'test "$*" = "--query-gpu=power.draw --format=csv,noheader,nounits" && echo 42'
    assert await read_power_w(program(tmp_path, asked)) == 42.0


@pytest.mark.parametrize("name", ["/nowhere/nvidia-smi", "/etc/hostname", "/"])
async def test_a_program_that_cannot_run_tells_nothing(name: str) -> None:
    assert await read_power_w(name) is None


async def test_a_program_that_hangs_is_killed(tmp_path: Path) -> None:
    # that it is gone is seen by the check after each test
    assert await read_power_w(program(tmp_path, "exec tail -f /dev/null"), within_s=0.3) is None


@pytest.fixture
def helper_pid(tmp_path: Path) -> Iterator[Path]:
    """A file for the number of a process that a test leaves behind on purpose; it is ended."""
    file = tmp_path / "helper"
    yield file
    if file.exists():  # on a slow machine the time is over before the helper begins
        os.kill(int(file.read_text()), signal.SIGKILL)


async def test_a_helper_that_holds_the_pipe_does_not_hold_us(
    tmp_path: Path, helper_pid: Path
) -> None:
    body = f"tail -f /dev/null & echo $! > {helper_pid}; echo 30"
    assert await read_power_w(program(tmp_path, body), within_s=1.0) is None


# ---- memory


def test_memory_is_told_in_bytes_by_the_kernel_s_names(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text(
        "MemTotal:       127601452 kB\nMemFree:  2 kB\nMemAvailable: 3 kB\nCached: 9 kB\n"
        "SwapTotal: 8 kB\nSwapFree: 0 kB\nShmem: 5 kB\nHugePages_Total:       0\n"
    )
    assert memory_snapshot(meminfo) == {
        "MemTotal": 127601452 * 1024,
        "MemAvailable": 3072,
        "MemFree": 2048,
        "SwapFree": 0,
        "Shmem": 5120,
    }


def test_this_machine_tells_its_memory() -> None:
    snapshot = memory_snapshot()
    assert snapshot["MemTotal"] == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < snapshot["MemFree"] <= snapshot["MemTotal"]


@pytest.mark.parametrize("text", ["", "\n \n", "MemTotal:\n", "MemTotal: much kB\n", "\xff: 1\n"])
def test_a_strange_meminfo_is_an_empty_snapshot(tmp_path: Path, text: str) -> None:
    (tmp_path / "meminfo").write_text(text)
    assert memory_snapshot(tmp_path / "meminfo") == {}


def test_what_is_not_there_is_nothing(tmp_path: Path) -> None:
    assert memory_snapshot(tmp_path / "none") == {}
    assert oom_kills(tmp_path / "none") == 0


@pytest.mark.parametrize(("text", "kills"), [("a 1\noom_kill 7\nb 2\n", 7), ("a 1\n", 0), ("", 0)])
def test_oom_kills_are_the_kernel_s_count(tmp_path: Path, text: str, kills: int) -> None:
    (tmp_path / "vmstat").write_text(text)
    assert oom_kills(tmp_path / "vmstat") == kills
    assert oom_kills() >= 0
