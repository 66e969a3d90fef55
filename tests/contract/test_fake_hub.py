"""The hub of the tests is one: the Hub's own client fetches from it what our pull fetches."""

import subprocess
from pathlib import Path

import pytest

from tests.engines import ENGINE_PYTHON, require_real
from tests.fakes.rangeserver import hub
from tests.pulls import FILES, REPO, content_of, puller

FETCH = "import sys, huggingface_hub as h; h.snapshot_download(sys.argv[1], local_dir=sys.argv[2])"


@pytest.mark.engine
def test_the_hubs_own_client_fetches_the_same(tmp_path: Path) -> None:
    require_real()  # its environment has that client
    with hub() as there:
        there.add(REPO, FILES)
        env = {"PATH": "/usr/bin:/bin", "HF_ENDPOINT": there.api.url, "HF_HOME": str(tmp_path)}
        env |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_XET": "1"}
        argv = [str(ENGINE_PYTHON), "-c", FETCH, REPO, str(tmp_path / "theirs")]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        puller(there, tmp_path / "ours")()
    theirs = content_of(tmp_path / "theirs")
    own = {name: theirs[name] for name in theirs if not name.startswith(".cache/")}
    assert own == content_of(tmp_path / "ours") == FILES
