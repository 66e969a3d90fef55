"""Two boxes that do not belong together are told so before an engine is started on either."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.boxes import Pair, pair
from tests.cluster.wires import Wires, wired
from tests.engines import CHECKPOINT, ENGINE_PYTHON
from tests.fault.table import Faults

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(120)]

WITHIN_S = 60.0


@pytest.fixture(scope="module")
def wires() -> Iterator[Wires]:
    with wired() as made:
        yield made


def refused(two: Pair, faults: Faults, name: str) -> str:
    """Wait for the refusal; return its message, of which clients see the code alone."""
    two.head.until(1, "starting", "failed", within_s=WITHIN_S)
    status, health = two.head.health()
    first, last = two.head.transitions[0], two.head.transitions[-1]
    assert (status, health["state"]) == (503, "failed"), two.head.appliance.err
    assert not two.worker.leaders()
    assert not two.head.leaders()
    clients = f"503, {health['reason']}; no engine was started"
    faults.row(name, last.at - first.at, None, clients)
    with two.head.appliance.http() as client:
        message: str = client.get("/health").json()["message"]
    assert time.time() > last.at
    return message


def test_a_worker_with_another_checkpoint_is_refused(
    wires: Wires, tmp_path: Path, faults: Faults
) -> None:
    other = tmp_path / "model"
    shutil.copytree(CHECKPOINT, other)
    config = other / "config.json"
    config.write_text(config.read_text() + "\n")
    with pair(tmp_path, wires, on_worker={"model_dir": other}) as two:
        assert "checkpoint: " in refused(two, faults, "another checkpoint on the worker")


def test_a_worker_with_another_engine_is_refused(
    wires: Wires, tmp_path: Path, faults: Faults
) -> None:
    folder = tmp_path / "engine"
    (folder / "lib/python3.11/site-packages/vllm-0.31.0.dist-info").mkdir(parents=True)
    (folder / "bin").mkdir()
    program = folder / "bin" / "vllm"
    program.write_text(f'#!/bin/sh\nexec {ENGINE_PYTHON.parent}/vllm "$@"\n')
    program.chmod(0o755)
    with pair(tmp_path, wires, on_worker={"engine_command": program}) as two:
        assert "0.31.0 on the worker" in refused(two, faults, "another vLLM on the worker")


def test_a_head_with_a_wrong_key_is_refused(wires: Wires, tmp_path: Path, faults: Faults) -> None:
    with pair(tmp_path, wires, key="00" * 32) as two:
        assert "key" in refused(two, faults, "a wrong cluster key")
