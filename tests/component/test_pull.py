"""A pull brings a repository as the hub has it, whatever happens on the way."""

import hashlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.destination import WORK
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.faults import FileChanged, Unreachable
from appliance.checkpoint.folder import read_model_facts
from appliance.errors import ModelFolderError
from tests.engines import wait_until
from tests.fakes.rangeserver import Fault, Hub, git_hash, hub
from tests.pagecache import MIB, cached, fill_uncached
from tests.pulls import FILES, LARGE, REPO, SHARDS, UNWANTED, Puller, content_of, puller, stored


@pytest.fixture
def there() -> Iterator[Hub]:
    with hub() as there:
        there.add(REPO, FILES | UNWANTED)
        yield there


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "model"


@pytest.fixture
def pull(there: Hub, folder: Path) -> Puller:
    return puller(there, folder)


def test_the_folder_is_the_repository_less_what_runs_or_is_not_named(
    pull: Puller, folder: Path
) -> None:
    plan = pull()
    assert content_of(folder) == FILES
    assert read_model_facts(folder).shard_count == 3
    assert plan.left.keys() == UNWANTED.keys()
    assert plan.left["modeling_evil.py"] == "code"
    assert "pickle" in plan.left["pytorch_model.bin"]


def test_code_comes_only_when_it_is_asked_for(pull: Puller, folder: Path) -> None:
    pull(keep_code=True)
    there = content_of(folder).keys() - FILES.keys()
    assert there == {"modeling_evil.py", "pytorch_model.bin"}


def test_a_second_pull_fetches_nothing(there: Hub, pull: Puller, folder: Path) -> None:
    pull()
    asked = len(there.storage.asked)
    pull()
    assert len(there.storage.asked) == asked
    assert content_of(folder) == FILES


def test_a_pull_pushes_nobody_out_of_memory(pull: Puller, folder: Path, tmp_path: Path) -> None:
    fill_uncached(tmp_path / "probe", MIB)
    pull()
    assert sum(cached(folder / name) for name in SHARDS) < len(FILES[SHARDS[0]]) / 2


def test_what_was_changed_or_lost_since_is_fetched_again(
    there: Hub, pull: Puller, folder: Path
) -> None:
    pull()
    asked = len(there.storage.asked)
    (folder / SHARDS[0]).unlink()
    (folder / SHARDS[1]).write_bytes(bytes(len(FILES[SHARDS[1]])))
    os.utime(folder / SHARDS[2])  # read, found right, and remembered
    pull()
    assert content_of(folder) == FILES
    assert {one.path for one in there.storage.asked[asked:]} == {
        stored(there, SHARDS[0]),
        stored(there, SHARDS[1]),
    }


def test_what_something_else_has_fetched_is_adopted_where_it_is_right(
    there: Hub, pull: Puller, folder: Path
) -> None:
    folder.mkdir()
    for name in ("config.json", SHARDS[0], SHARDS[1], SHARDS[2]):
        (folder / name).write_bytes(FILES[name])
    (folder / SHARDS[1]).write_bytes(bytes(len(FILES[SHARDS[1]])))  # its size alone is right
    (folder / SHARDS[2]).write_bytes(FILES[SHARDS[2]][:-1])
    (folder / "notes.txt").write_text("mine")
    pull(adopt=True)
    assert content_of(folder) == {**FILES, "notes.txt": b"mine"}
    fetched = {one.path for one in there.storage.asked}
    assert stored(there, SHARDS[0]) not in fetched
    assert {stored(there, SHARDS[1]), stored(there, SHARDS[2])} <= fetched


# ---- faults on the way


@pytest.mark.parametrize(
    "fault",
    [
        Fault(drop_after=100_000),
        Fault(status=429, headers={"Retry-After": "0"}),
        Fault(status=503),
        Fault(at_most=1000),
        Fault(noise=b"\0"),
    ],
    ids=lambda fault: str(fault)[:40],
)
def test_a_fault_that_passes_is_not_seen_in_the_folder(
    there: Hub, pull: Puller, folder: Path, fault: Fault
) -> None:
    for name in SHARDS:
        there.storage.fail(stored(there, name), fault, fault)
    pull()
    assert content_of(folder) == FILES
    assert there.storage.sent_bytes == sum(len(FILES[name]) for name in LARGE)


def test_a_server_without_ranges_is_read_from_the_start_and_resumed_so(
    there: Hub, pull: Puller, folder: Path
) -> None:
    path = stored(there, SHARDS[1])
    there.storage.always[path] = Fault(whole=True)
    there.storage.fail(path, Fault(whole=True, drop_after=200_000))
    pull()
    assert content_of(folder) == FILES


def test_a_wrong_hash_is_fetched_once_more_and_then_told(
    there: Hub, pull: Puller, folder: Path
) -> None:
    path, right = stored(there, SHARDS[1]), FILES[SHARDS[1]]
    there.storage.put(path, bytes([right[0] ^ 1]) + right[1:])
    with pytest.raises(CheckpointError) as caught:
        pull()
    assert f"{SHARDS[1]} came 2 times with sha256" in caught.value.what
    assert hashlib.sha256(right).hexdigest()[:12] in caught.value.what
    assert caught.value.exit_code == 65
    assert len(there.storage.requests(path)) == 2
    assert SHARDS[1] not in content_of(folder), "a corrupt shard never has its name"
    assert "config.json" not in content_of(folder)
    with pytest.raises(ModelFolderError):
        read_model_facts(folder)
    there.storage.put(path, right)
    pull()
    assert content_of(folder) == FILES


def test_a_wrong_hash_of_a_small_file_is_told_too(there: Hub, pull: Puller, folder: Path) -> None:
    there.api.put(there.small(REPO, "docs/card.md"), b"# Card")
    with pytest.raises(CheckpointError, match=r"docs/card\.md came 2 times with sha1"):
        pull()


def test_bytes_that_rot_while_it_is_interrupted_are_found(
    there: Hub, pull: Puller, folder: Path
) -> None:
    there.storage.always[stored(there, SHARDS[2])] = Fault(status=503)
    with pytest.raises(Unreachable):
        pull()
    (folder / WORK / f"{SHARDS[2]}.part").write_bytes(bytes(1000))
    del there.storage.always[stored(there, SHARDS[2])]
    pull()
    assert content_of(folder) == FILES


def test_a_shard_that_changes_in_mid_way_is_refused(there: Hub, pull: Puller, folder: Path) -> None:
    path = stored(there, SHARDS[0])
    there.storage.fail(path, Fault(drop_after=100_000))
    there.storage.always[path] = Fault(headers={"ETag": '"another"'})
    with pytest.raises(FileChanged):
        pull()
    assert SHARDS[0] not in content_of(folder)


# ---- killed

DRIVER = """
import sys
import threading
from pathlib import Path
from appliance.checkpoint.bar import Bar
from appliance.checkpoint.hub import parse_hub_name
from appliance.checkpoint.pull import Pull, plan_pull
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import parse_url
url, repo, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
web = Web()
plan = plan_pull(web, parse_url(url), parse_hub_name(repo), folder)
Pull(web, plan, folder, jobs=2).run(Bar("fetching", plan.total_bytes))
"""


def child(there: Hub, folder: Path) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-c", DRIVER, there.api.url, REPO, str(folder)]
    return subprocess.Popen(argv, cwd=Path(__file__).parents[2])


@pytest.mark.parametrize("moment", [0, 1000, 150_000, 399_000])
def test_after_kill_9_it_is_gone_on_with_and_no_byte_comes_twice(
    there: Hub, folder: Path, moment: int
) -> None:
    hold = threading.Event()
    path = stored(there, SHARDS[1])
    there.storage.fail(path, Fault(hold=hold, hold_after=moment))
    process = child(there, folder)
    part = folder / WORK / f"{SHARDS[1]}.part"
    try:
        wait_until(lambda: part.exists() and part.stat().st_size == moment, 60, "the moment")
        wait_until(lambda: (folder / SHARDS[0]).exists(), 60, "another shard to be there")
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait(20)
        hold.set()
    assert SHARDS[1] not in content_of(folder)
    assert "config.json" not in content_of(folder)
    kept = {name for name in LARGE if name in content_of(folder)}
    asked = len(there.storage.asked)
    assert child(there, folder).wait(60) == 0
    assert content_of(folder) == FILES
    again = there.storage.asked[asked:]
    assert not {stored(there, name) for name in kept} & {one.path for one in again}
    (rest,) = [one for one in again if one.path == path]
    assert rest.headers["Range"] == f"bytes={moment}-{len(FILES[SHARDS[1]]) - 1}"


def test_the_interrupt_of_a_person_ends_it_soon_and_in_order(there: Hub, folder: Path) -> None:
    hold = threading.Event()
    there.storage.fail(stored(there, SHARDS[1]), Fault(hold=hold, hold_after=1000))
    command = "import sys; from appliance.cli import main; sys.exit(main())"
    argv = [sys.executable, "-c", command, "model", "pull", REPO, "--out", str(folder)]
    env = {**os.environ, "HF_ENDPOINT": there.api.url}
    process = subprocess.Popen(argv, env=env, stderr=subprocess.PIPE, text=True)
    part = folder / WORK / f"{SHARDS[1]}.part"
    wait_until(lambda: part.exists() and part.stat().st_size == 1000, 60, "the moment")
    process.send_signal(signal.SIGINT)
    told = process.communicate(timeout=20)[1]
    hold.set()
    assert process.returncode == 130
    assert "Traceback" not in told
    assert child(there, folder).wait(60) == 0
    assert content_of(folder) == FILES


def test_the_fakes_hashes_are_gits() -> None:
    assert git_hash(b"") == "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
