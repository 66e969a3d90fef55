"""The fake engine as a process: how it starts, and how it ends, in health and in each fault."""

import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests import engines
from tests.asking import read_head
from tests.engines import EngineHandle, StartFake, wait_until
from tests.fakes.engine_mind import NONSENSE
from tests.unit.test_fake_engine import content, raw, refused, runs


def grandchild(engine: EngineHandle) -> int:
    wait_until(lambda: "grandchild" in engine.log.read_text(), 10, "the grandchild to be named")
    return int(engine.log.read_text().split("grandchild ")[1].split()[0])


# Starting


def test_ready_after_binds_the_port_but_refuses_until_then(fake_engine: StartFake) -> None:
    started = time.monotonic()
    engine = fake_engine("--ready-after", "0.7")
    assert time.monotonic() - started >= 0.7
    assert engine.before_ready == {"refused"}


def test_the_port_is_taken_before_it_answers(fake_engine: StartFake) -> None:
    engine = fake_engine("--never-ready", ready=False)
    port = int(engine.base_url.rpartition(":")[2])

    def taken() -> bool:
        with socket.socket() as sock:
            try:
                sock.bind(("127.0.0.1", port))
            except OSError:
                return True
        return False

    wait_until(taken, 10, "the port to be bound")
    assert refused(engine)


def test_never_ready_refuses_and_lives(fake_engine: StartFake) -> None:
    engine = fake_engine("--never-ready", ready=False)
    with pytest.raises(AssertionError, match="in vain"):
        engine.wait_ready(within_s=1)
    assert engine.process.poll() is None


def test_faults_may_stand_before_and_behind_serve_and_unknown_flags_are_ignored(
    tmp_path: Path,
) -> None:
    log = tmp_path / "engine.log"
    ignored = ["--cudagraph-capture-sizes", "1", "2", "--override-generation-config", "{}"]
    command = [*engines.fake_argv("--exit-code", "3", "--exit-after", "60"), *ignored, "--garbage"]
    with engines.running(command, log) as engine:
        engine.wait_ready(within_s=20)
        assert content(engine) == NONSENSE


def test_exit_code_ends_the_process_with_that_code(fake_engine: StartFake) -> None:
    engine = fake_engine("--exit-code", "7", ready=False)
    assert engine.process.wait(timeout=10) == 7


def test_a_negative_exit_code_is_a_signal(fake_engine: StartFake) -> None:
    engine = fake_engine("--exit-code", "-9", ready=False)
    assert engine.process.wait(timeout=10) == -signal.SIGKILL


def test_busy_load_computes_without_a_word_and_then_serves(fake_engine: StartFake) -> None:
    engine = fake_engine("--busy-load", "0.5")
    used = Path(f"/proc/{engine.pid}/stat").read_text().rpartition(")")[2].split()
    assert int(used[11]) > 5  # ticks of 10 ms
    assert engine.log.read_text().splitlines() == ["INFO:     Application startup complete."]


def test_each_life_takes_its_line_of_faults_and_without_one_is_well(
    fake_engine: StartFake, tmp_path: Path
) -> None:
    file = tmp_path / "lives.txt"
    file.write_text("--exit-code 3 --never-ready\n\n--garbage\n")
    first = fake_engine("--lives", str(file), ready=False)
    assert first.process.wait(timeout=10) == 3
    second = fake_engine("--lives", str(file))
    third = fake_engine("--lives", str(file))
    fourth = fake_engine("--lives", str(file))
    said = [content(engine) == NONSENSE for engine in (second, third, fourth)]
    assert said == [False, True, False]


def test_shared_memory_goes_with_an_engine_that_ends_in_order(fake_engine: StartFake) -> None:
    engine = fake_engine("--shared-memory")
    segment = Path("/dev/shm") / engine.log.read_text().split("segment ")[1].split()[0]
    assert segment.exists()
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(timeout=10) == 0
    assert not segment.exists()


def test_exit_after_lets_it_serve_first(fake_engine: StartFake) -> None:
    engine = fake_engine("--exit-code", "0", "--exit-after", "0.8")
    assert engine.process.wait(timeout=10) == 0
    assert refused(engine)


def test_log_lines_are_printed_before_readiness(fake_engine: StartFake, tmp_path: Path) -> None:
    lines = tmp_path / "lines.txt"
    lines.write_text("Loading safetensors checkpoint shards:  50%\nE Traceback: boom\n")
    engine = fake_engine("--log-lines", str(lines))
    log = engine.log.read_text().splitlines()
    assert log[:2] == ["Loading safetensors checkpoint shards:  50%", "Traceback: boom"]


# Ending


def test_sigterm_ends_an_idle_engine_with_zero(fake_engine: StartFake) -> None:
    engine = fake_engine()
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(timeout=10) == 0


def test_sigterm_does_not_wait_for_a_stalled_stream(fake_engine: StartFake) -> None:
    engine = fake_engine("--stall-after", "1")
    with raw(engine, stream=True) as sock:
        read_head(sock)
        engine.process.send_signal(signal.SIGTERM)
        assert engine.process.wait(timeout=10) == 0


def test_drain_forever_waits_for_the_last_client(fake_engine: StartFake) -> None:
    engine = fake_engine("--drain-forever", "--stall-after", "0")
    with raw(engine), engine.client() as client:
        wait_until(lambda: runs(client) == 1, 10, "the request to run")
        engine.process.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            engine.process.wait(timeout=2)
    assert engine.process.wait(timeout=10) == 0


def test_a_deaf_engine_survives_sigterm_and_still_answers(fake_engine: StartFake) -> None:
    engine = fake_engine("--deaf-to-sigterm")
    engine.process.send_signal(signal.SIGTERM)
    assert content(engine)
    assert engine.process.poll() is None


def test_an_engine_deaf_until_ready_loses_an_early_sigterm_only(fake_engine: StartFake) -> None:
    engine = fake_engine("--deaf-until-ready", "--ready-after", "1.0", ready=False)
    status = Path(f"/proc/{engine.pid}/status")
    bit = 1 << (signal.SIGTERM - 1)

    def ignores_sigterm() -> bool:
        ignored = status.read_text().split("SigIgn:")[1].split()[0]
        return bool(int(ignored, 16) & bit)

    wait_until(ignores_sigterm, 10, "the engine to ignore SIGTERM")
    engine.process.send_signal(signal.SIGTERM)
    engine.wait_ready(within_s=20)
    engine.process.send_signal(signal.SIGTERM)
    assert engine.process.wait(timeout=10) == 0


def test_a_grandchild_outlives_the_engine_in_its_group(fake_engine: StartFake) -> None:
    engine = fake_engine("--fork-grandchild")
    pid = grandchild(engine)
    engine.process.send_signal(signal.SIGTERM)
    engine.process.wait(timeout=10)
    assert engines.group_members(engine.pgid) == {pid}
    assert pid in engines.leaked(set())  # an orphan is found by its inherited mark


def test_a_grandchild_holds_the_pipes_open(fake_engine: StartFake) -> None:
    engine = fake_engine("--fork-grandchild")
    fds = [Path(f"/proc/{grandchild(engine)}/fd/{fd}").readlink() for fd in (1, 2)]
    assert fds == [engine.log, engine.log]
