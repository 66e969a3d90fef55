"""The stock aarch64 wheel, 333 MB, patched: what a Spark and a Thor get with --engine wheel."""

import json
import zipfile
from pathlib import Path

import pytest

from tests.engine_source.conftest import CACHE, locked
from tests.engine_source.test_build_sh import build
from tests.engine_source.test_wheel import recorded
from unglitched_vllm.source.patches import read_series
from unglitched_vllm.source.upstream import Upstream, sha256_of

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


def test_the_stock_wheel_is_patched_the_same_each_time(tmp_path: Path, upstream: Upstream) -> None:
    words = ("--target", "thor", "--engine", "wheel", "--work", str(CACHE), "--out")
    with locked():
        runs = [build(*words, str(tmp_path / name)) for name in ("first", "second")]
    assert [run.returncode for run in runs] == [0, 0], runs[0].stderr
    first, second = (Path(run.stdout.strip()) for run in runs)
    assert sha256_of(first) == sha256_of(second)
    with zipfile.ZipFile(first) as wheel:
        assert wheel.testzip() is None
        assert len(wheel.namelist()) > 5000
        assert recorded(first).keys() == set(wheel.namelist())
    facts = json.loads((tmp_path / "first" / "ENGINE.json").read_text())
    assert facts["patches"] == [patch.name for patch in read_series() if patch.is_python]
    assert facts["made_from"]["sha256"] == upstream.wheels["aarch64"].sha256
