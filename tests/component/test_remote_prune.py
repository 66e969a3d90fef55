"""A checkpoint is pruned straight from a hub: the same bytes, and only what stays is fetched."""

import json
import os
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.layout import read_layout
from appliance.checkpoint.maskfile import check_mask
from appliance.checkpoint.plan import Rules, groups
from appliance.checkpoint.prune import Wanted, make_plan
from appliance.checkpoint.source import LocalSource
from appliance.checkpoint.verify import REMOTE_STEP_BYTES
from tests.checkpointbox import Shape, build, contents, tensors_of, write_mask
from tests.fakes.rangeserver import COMMIT, Fault, Hub, hub

ROOT = Path(__file__).parents[2]
REPO = "owner/Original"
REFERENCE = "owner/Pruned"
# experts large enough that nobody would read through one that goes
SHAPE = Shape(form="nvfp4", layers=3, experts=8, hidden=512, inner=512, shards=3)
KEPT = 6
HEADER_REQUESTS = 2  # its length, itself
AFTER_ITS_HEADER = [Fault(), Fault(), Fault()]  # its length, itself, and some tensors
JSONS = 60_000  # config, index and what lies beside; the listing


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with hub() as there:
        monkeypatch.setenv("HF_ENDPOINT", there.api.url)
        monkeypatch.setenv("HF_TOKEN", "hf_SecretSecret")
        yield there


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, a mask, and what the one becomes by the other on this disk."""
    folder = tmp_path_factory.mktemp("built")
    build(folder / "source", SHAPE)
    mask = write_mask(folder / "mask.json", SHAPE, KEPT)
    words = [str(folder / "source"), str(folder / "pruned"), "--deleted-experts-file", str(mask)]
    assert main(words) == 0
    return folder


@pytest.fixture
def source(there: Hub, built: Path) -> Path:
    publish(there, built / "source", REPO)
    return built / "source"


@pytest.fixture
def mask(built: Path) -> Path:
    return built / "mask.json"


@pytest.fixture
def pruned(built: Path) -> Path:
    return built / "pruned"


def publish(there: Hub, folder: Path, repository: str) -> None:
    there.add(repository, contents(folder))


def headers_bytes(folder: Path) -> int:
    return sum(8 + struct.unpack("<Q", path.read_bytes()[:8])[0] for path in shards(folder))


def shards(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.safetensors"))


def routers_bytes(folder: Path) -> int:
    tensors = tensors_of(folder).items()
    return sum(len(data) for name, (*_, data) in tensors if ".gate." in name or "e_score" in name)


def from_hub(out: Path, mask: Path, *flags: str, name: str = f"hf://{REPO}") -> int:
    return main([name, str(out), "--deleted-experts-file", str(mask), *flags])


def test_pruned_from_a_hub_is_pruned_from_a_folder_and_fetches_what_stays(
    there: Hub, source: Path, pruned: Path, mask: Path, tmp_path: Path
) -> None:
    assert from_hub(tmp_path / "out", mask) == 0
    assert contents(tmp_path / "out") == contents(pruned)
    stays = sum(len(data) for _, _, data in tensors_of(pruned).values())
    whole = sum(path.stat().st_size for path in shards(source))
    fetched = sum(there.storage.sent[there.large(REPO, path.name)] for path in shards(source))
    assert fetched <= stays + headers_bytes(source) + routers_bytes(source)
    assert fetched < 0.8 * whole, "a quarter of the experts was not asked for"
    assert {one.headers.get("Authorization") for one in there.storage.asked} == {None}


def test_a_comparison_with_a_hub_asks_once_for_what_stands_together(
    there: Hub, source: Path, pruned: Path, mask: Path
) -> None:
    opened = LocalSource(source)
    content = check_mask(json.loads(mask.read_text()), SHAPE.layers, SHAPE.experts, KEPT, "")
    plan = make_plan(opened, read_layout(opened), Wanted(Rules(content)))
    opened.close()
    assert from_hub(pruned, mask, "--verify") == 0
    for path in shards(source):
        runs = len(list(groups(plan.files[path.name].ranges)))
        assert len(there.storage.requests(there.large(REPO, path.name))) == runs + HEADER_REQUESTS
        assert all(part.length <= REMOTE_STEP_BYTES for part in plan.files[path.name].ranges)


def test_a_mask_is_found_from_the_routers_alone(
    there: Hub, source: Path, pruned: Path, mask: Path, tmp_path: Path
) -> None:
    publish(there, pruned, REFERENCE)
    found = tmp_path / "deleted_experts.json"
    flags = ("--compare-with", f"hf://{REFERENCE}", "--save-deleted-experts", str(found))
    assert main([f"hf://{REPO}", str(tmp_path / "out"), *flags, "--dry-run"]) == 0
    assert json.loads(found.read_text()) == json.loads(mask.read_text())
    routers = routers_bytes(source) + routers_bytes(pruned)
    headers = 3 * headers_bytes(source) + 2 * headers_bytes(pruned)  # layout, routers, plan
    assert there.storage.sent_bytes <= routers + headers + 2 * JSONS
    assert not (tmp_path / "out").exists()


FAULTS = {
    "dropped": Fault(drop_after=700),
    "429": Fault(429, {"Retry-After": "0"}),
    "503": Fault(503, {"Retry-After": "0"}),
    "short": Fault(at_most=500),
    "nonsense": Fault(noise=b"\xff\n\n"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults_that_pass_leave_no_trace(
    there: Hub, source: Path, pruned: Path, mask: Path, tmp_path: Path, name: str
) -> None:
    for shard in shards(source):
        again = [Fault(), FAULTS[name]]
        there.storage.fail(there.large(REPO, shard.name), FAULTS[name], *again)
    assert from_hub(tmp_path / "out", mask, "--verify", "--jobs", "2") == 0
    assert contents(tmp_path / "out") == contents(pruned)


CLEAR: dict[str, tuple[Fault, int, str]] = {
    "changed in mid-way": (Fault(headers={"ETag": '"other"'}), 76, "is not the file that it was"),
    "another length": (Fault(headers={"Content-Range": "bytes 0-7/9"}), 76, "and has 9"),
    "compressed": (Fault(zipped=True), 76, "compressed"),
    "forbidden": (Fault(418), 76, "answers 418"),
    "redirected in the clear": (
        Fault(302, {"Location": "http://files.example/x"}),
        65,
        "would be read in the clear",
    ),
    "redirected to a file": (Fault(302, {"Location": "file:///etc/passwd"}), 65, "no https"),
}


@pytest.mark.parametrize("name", CLEAR)
def test_what_cannot_be_right_is_a_clear_error(
    there: Hub,
    source: Path,
    mask: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
) -> None:
    fault, code, says = CLEAR[name]
    path = there.large(REPO, shards(source)[1].name)
    there.storage.fail(path, *AFTER_ITS_HEADER)
    there.storage.always[path] = fault
    assert from_hub(tmp_path / "out", mask) == code
    told = capsys.readouterr().err
    assert says in told
    assert "hf_Secret" not in told
    assert not (tmp_path / "out" / "model.safetensors.index.json").exists()


def test_a_server_that_goes_away_is_gone_on_with_when_it_is_back(
    there: Hub, source: Path, pruned: Path, mask: Path, tmp_path: Path
) -> None:
    *others, last = [there.large(REPO, path.name) for path in shards(source)]
    there.storage.fail(last, *AFTER_ITS_HEADER)
    there.storage.always[last] = Fault(503, {"Retry-After": "0"})
    assert from_hub(tmp_path / "out", mask, "--jobs", "1") == 75
    assert not (tmp_path / "out" / "config.json").exists()
    del there.storage.always[last]
    before = there.storage.sent.copy()
    assert from_hub(tmp_path / "out", mask, "--resume") == 0
    assert contents(tmp_path / "out") == contents(pruned)
    anew = there.storage.sent - before
    headers = headers_bytes(source)
    assert sum(anew[path] for path in others) <= headers, "two files were there"
    missing = shards(pruned)[-1].stat().st_size
    assert anew[last] < missing - headers, "and so was the first part of the third"


def test_a_branch_that_moves_on_cannot_be_resumed_into(
    there: Hub, source: Path, mask: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = there.large(REPO, shards(source)[2].name)
    there.storage.fail(path, *AFTER_ITS_HEADER)
    there.storage.always[path] = Fault(404)
    assert from_hub(tmp_path / "out", mask) != 0
    del there.storage.always[path]
    changed = {p.relative_to(source).as_posix(): p.read_bytes() for p in shards(source)}
    changed |= {p.name: p.read_bytes() for p in source.glob("*.json")} | {"new.json": b"{}"}
    there.add(REPO, changed, commit="beef" + "0" * 36)
    assert from_hub(tmp_path / "out", mask, "--resume") == 73
    assert "was begun from another source" in capsys.readouterr().err
    assert from_hub(tmp_path / "out", mask, "--resume", name=f"hf://{REPO}@{COMMIT}") == 0


@pytest.mark.parametrize("length", [2**63, 100_000_001, 2**40])
def test_a_huge_header_is_refused_before_it_is_fetched(
    there: Hub, source: Path, mask: Path, tmp_path: Path, length: int
) -> None:
    path = there.large(REPO, shards(source)[0].name)
    content = there.storage.files[path]
    there.storage.files[path] = struct.pack("<Q", length) + content[8:]
    assert from_hub(tmp_path / "out", mask) == 65
    assert there.storage.sent[path] == 8


def test_it_runs_without_any_package_installed(
    there: Hub, source: Path, pruned: Path, mask: Path, tmp_path: Path
) -> None:
    argv = [sys.executable, "-S", str(ROOT / "extras" / "delete_experts.py"), f"hf://{REPO}"]
    argv += [str(tmp_path / "out"), "--deleted-experts-file", str(mask), "--jobs", "2"]
    done = subprocess.run(argv, env=dict(os.environ), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "out") == contents(pruned)
    assert "hf_Secret" not in done.stdout + done.stderr
