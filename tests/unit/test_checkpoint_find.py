"""The mask of a pruned checkpoint is found again, in every format, from its routers alone."""

import io
import json
import threading
from pathlib import Path

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.headers import read_header, read_headers
from appliance.checkpoint.layout import read_layout
from appliance.checkpoint.mask import Gates
from appliance.checkpoint.source import LocalSource, Moved
from tests.checkpointbox import Shape, build, random_mask, write_json, write_mask

SHAPE = Shape(form="nvfp4", layers=5, experts=24, shards=3)


class Counting(LocalSource):
    """Counts what is read of it."""

    read_bytes = 0

    def read(self, name: str, offset: int, length: int) -> bytes:
        self.read_bytes += length
        return super().read(name, offset, length)

    def copy(
        self, name: str, offset: int, length: int, out_fd: int, out_offset: int, moved: Moved
    ) -> None:
        raise AssertionError("a mask is found without copying")


def pruned_and_found(tmp: Path, shape: Shape, retained: int) -> dict[str, list[int]]:
    """Prune by a mask, find it again by the pruned checkpoint, prune by that; return it."""
    source, reference, again = build(tmp / "source", shape), tmp / "ref", tmp / "again"
    mask, found = write_mask(tmp / "mask.json", shape, retained), tmp / "deleted_experts.json"
    assert main([str(source), str(reference), "--deleted-experts-file", str(mask)]) == 0
    numbers = (
        "--num-original-experts",
        str(shape.experts),
        "--num-retained-experts",
        str(retained),
    )
    flags = ("--compare-with", str(reference), "--save-deleted-experts", str(found), *numbers)
    assert main([str(source), str(again), *flags, "--verify"]) == 0
    for path in sorted(reference.glob("*.safetensors")):
        assert (again / path.name).read_bytes() == path.read_bytes()
    content: dict[str, list[int]] = json.loads(found.read_text())
    return content


@pytest.mark.parametrize("form", ["bf16", "fp8", "nvfp4", "compressed"])
def test_what_was_deleted_is_found_again(tmp_path: Path, form: str) -> None:
    shape = Shape(form=form, layers=5, experts=24, shards=3)
    assert pruned_and_found(tmp_path, shape, 18) == random_mask(shape, 18)


@pytest.mark.long
def test_the_real_structure_gives_62_layers_of_64_deleted_experts(tmp_path: Path) -> None:
    shape = Shape(form="nvfp4")
    found = pruned_and_found(tmp_path, shape, 192)
    assert found == random_mask(shape, 192)
    assert [len(ids) for ids in found.values()] == [64] * 62


def test_a_reference_in_another_format_is_read_for_its_gates_only(tmp_path: Path) -> None:
    form = Shape(form="compressed", layers=5, experts=18, shards=2, seed=9)
    source, reference = build(tmp_path / "source", SHAPE), build(tmp_path / "reference", form)
    mask = write_mask(tmp_path / "mask.json", SHAPE, 18)
    assert main([str(source), str(tmp_path / "p"), "--deleted-experts-file", str(mask)]) == 0
    graft_gates(tmp_path / "p", reference)
    out, saved = tmp_path / "out", tmp_path / "found.json"
    flags = ["--compare-with", str(reference), "--save-deleted-experts", str(saved)]
    assert main([str(source), str(out), *flags]) == 0
    assert json.loads(saved.read_text()) == random_mask(SHAPE, 18)


def graft_gates(donor: Path, into: Path) -> None:
    """Give a checkpoint another's routers, byte by byte."""
    there, here = LocalSource(donor), LocalSource(into)
    donors = Gates(there, read_layout(there))
    gates = Gates(here, read_layout(here))
    for places, kinds in ((donors.weights, gates.weights), (donors.biases, gates.biases)):
        for layer, place in kinds.items():
            data = there.read(places[layer].shard, places[layer].offset, place.tensor.size)
            with (into / place.shard).open("r+b") as file:
                file.seek(place.offset)
                file.write(data)
    there.close()
    here.close()


def test_only_headers_and_gates_are_read(tmp_path: Path) -> None:
    shape = Shape(layers=3, experts=8, hidden=256, inner=256, shards=2)
    source = Counting(build(tmp_path / "source", shape))
    gates = Gates(source, read_layout(source))
    for layer in range(3):
        gates.rows(layer)
    weights = sum(p.stat().st_size for p in (tmp_path / "source").glob("*.safetensors"))
    assert source.read_bytes < weights / 50
    source.close()


def test_a_doubtful_mask_writes_nothing_unless_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", SHAPE)
    foreign = build(tmp_path / "foreign", Shape(layers=5, experts=18, shards=3, seed=77))
    out, saved = tmp_path / "out", tmp_path / "found.json"
    flags = ["--compare-with", str(foreign), "--save-deleted-experts", str(saved)]
    assert main([str(source), str(out), *flags]) == 1
    said = capsys.readouterr()
    assert "in doubt in 5 of 5 layers" in said.err
    assert "--allow-ambiguous" in said.err
    assert "DOUBT" in said.out
    assert not out.exists()
    assert not saved.exists()
    assert main([str(source), str(out), *flags, "--allow-ambiguous", "--verify"]) == 0
    assert [len(ids) for ids in json.loads(saved.read_text()).values()] == [6] * 5


def test_a_reference_with_other_layers_or_experts_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", SHAPE)
    other = build(tmp_path / "other", Shape(layers=4, experts=18, shards=3))
    assert main([str(source), str(tmp_path / "out"), "--compare-with", str(other)]) == 1
    assert "has 4 layers, and" in capsys.readouterr().err
    wider = build(tmp_path / "wider", Shape(layers=5, experts=18, shards=3))
    flags = ["--compare-with", str(wider), "--num-retained-experts", "17"]
    assert main([str(source), str(tmp_path / "out"), *flags]) == 1
    assert "has 18 router rows in layer 0" in capsys.readouterr().err


def test_a_reference_without_plain_gates_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", SHAPE)
    reference = build(tmp_path / "ref", Shape(layers=5, experts=18, shards=1))
    path = reference / "model-00001-of-00001.safetensors"
    path.write_bytes(path.read_bytes().replace(b"gate.weight", b"gate.weighs"))
    index = json.loads((reference / "model.safetensors.index.json").read_text())
    index["weight_map"] = {
        name.replace("gate.weight", "gate.weighs"): shard
        for name, shard in index["weight_map"].items()
    }
    write_json(reference / "model.safetensors.index.json", index)
    assert main([str(source), str(tmp_path / "out"), "--compare-with", str(reference)]) == 65
    assert "no router weights of layer 0" in capsys.readouterr().err


class Meeting(LocalSource):
    """Gives nothing before so many reads wait for it: whoever reads one by one never gets it."""

    def __init__(self, folder: Path, jobs: int) -> None:
        super().__init__(folder)
        self.together = threading.Barrier(jobs, timeout=20)

    def read(self, name: str, offset: int, length: int) -> bytes:
        if name.endswith(".safetensors"):
            self.together.wait()
        return super().read(name, offset, length)


def test_headers_and_routers_are_read_side_by_side(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape = Shape(layers=4, experts=8, shards=2)
    folder = build(tmp_path / "source", shape)
    source = Meeting(folder, 2)
    names = read_layout(source).shards
    plain = LocalSource(folder)
    assert [*read_headers(source, names, 2)] == [read_header(plain, name) for name in names]
    plain.close()
    monkeypatch.setattr("appliance.checkpoint.job.open_source", lambda _: source)
    flags = ["--compare-with", str(folder), "--jobs", "2", "--dry-run", "--allow-ambiguous"]
    assert main([str(folder), str(tmp_path / "out"), *flags]) == 0


def test_while_a_mask_is_found_something_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    source, reference = build(tmp_path / "source", SHAPE), str(tmp_path / "reference")
    mask = write_mask(tmp_path / "mask.json", SHAPE, 18)
    assert main([str(source), reference, "--deleted-experts-file", str(mask)]) == 0
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    flags = ["--compare-with", reference, "--dry-run", "--report", str(tmp_path / "report.json")]
    assert main([str(source), str(tmp_path / "out"), *flags]) == 0
    told = [line.partition(" [")[0].strip("\r") for line in out.getvalue().split("\n")]
    assert told[:-1] == [
        f"reading headers of {source}",
        f"reading headers of {reference}",
        "comparing routers",
        "reading headers",
        "reading scales",
    ]
