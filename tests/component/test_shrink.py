"""``appliance model shrink``: prunes and quantises in one pass, from a folder or from a hub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance.checkpoint.command import main as prune
from appliance.checkpoint.quantisecommand import main as quantise
from appliance.cli import main
from tests.checkpointbox import Shape, build, contents, tensors_of, write_mask
from tests.fakes.rangeserver import Hub, hub

REPO = "owner/Original"
# experts large enough that nobody would read through one that goes
SHAPE = Shape(form="nvfp4", layers=3, experts=8, hidden=512, inner=512, heads=4, shards=3)
KEPT = 6


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a source, a mask, and what the two commands make one after the other."""
    folder = tmp_path_factory.mktemp("built")
    build(folder / "source", SHAPE)
    mask = write_mask(folder / "mask.json", SHAPE, KEPT)
    words = [str(folder / "source"), str(folder / "pruned"), "--deleted-experts-file", str(mask)]
    assert prune(words) == 0
    assert quantise([str(folder / "pruned"), str(folder / "both"), "--lm-head"]) == 0
    return folder


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch, built: Path) -> Iterator[Hub]:
    with hub() as there:
        monkeypatch.setenv("HF_ENDPOINT", there.api.url)
        paths = [path for path in (built / "source").rglob("*") if path.is_file()]
        files = {p.relative_to(built / "source").as_posix(): p.read_bytes() for p in paths}
        there.add(REPO, files)
        yield there


def shrink(source: str, out: Path, built: Path, *flags: str) -> int:
    mask = str(built / "mask.json")
    words = ["model", "shrink", source, str(out), "--deleted-experts-file", mask, "--lm-head"]
    return main([*words, *flags])


def test_one_pass_makes_what_the_two_commands_make(built: Path, tmp_path: Path) -> None:
    assert shrink(str(built / "source"), tmp_path / "out", built, "--verify") == 0
    assert contents(tmp_path / "out") == contents(built / "both")


def test_from_a_hub_it_makes_the_same_and_fetches_no_expert_that_goes(
    there: Hub, built: Path, tmp_path: Path
) -> None:
    assert shrink(f"hf://{REPO}", tmp_path / "out", built) == 0
    assert contents(tmp_path / "out") == contents(built / "both")
    shards = sorted((built / "source").glob("*.safetensors"))
    fetched = sum(there.storage.sent[there.large(REPO, path.name)] for path in shards)
    stays = tensors_of(built / "pruned")
    twice = sum(
        len(data)
        for name, (_, _, data) in stays.items()
        if "_proj.weight" in name or "head" in name
    )
    whole = sum(path.stat().st_size for path in shards)
    assert fetched < whole * KEPT / SHAPE.experts + 2 * twice
    assert fetched < sum(len(data) for _, _, data in stays.values()) + 2 * twice + 300_000


def test_help_teaches_both_halves(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["model", "shrink", "--help"])
    assert end.value.code == 0
    told = capsys.readouterr().out
    assert "  appliance model shrink SRC DST" in told
    assert "--deleted-experts-file" in told
    assert "--keep-above" in told


def test_errors_are_one_message_and_an_exit_code(
    built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert shrink(str(built / "both"), tmp_path / "out", built) == 1  # the mask is of 8 experts
    assert shrink(str(tmp_path / "nothing"), tmp_path / "out", built) == 66
    assert "appliance model shrink: " in capsys.readouterr().err
