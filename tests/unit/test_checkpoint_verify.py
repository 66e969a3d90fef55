"""Verifying: whatever is changed in a pruned checkpoint is seen, and said with its name."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.checkpoint.command import main
from tests.checkpointbox import Shape, build, tensors_of, write_mask

SHAPE = Shape(form="nvfp4", layers=2, experts=4, shards=2)
SHARD = "model-00001-of-00002.safetensors"


class Pair:
    """A miniature, its pruned copy, and the command that compares them."""

    def __init__(self, folder: Path) -> None:
        self.source = build(folder / "source", SHAPE)
        self.pruned = folder / "pruned"
        self.report = folder / "report.json"
        mask = write_mask(folder / "mask.json", SHAPE, 3)
        flags = ["--deleted-experts-file", str(mask), "--report", str(self.report)]
        self.argv = [str(self.source), str(self.pruned), *flags]
        assert main(self.argv) == 0

    def problems(self) -> list[str]:
        """Verify; return what is wrong."""
        code = main([*self.argv, "--verify"])
        found: list[str] = json.loads(self.report.read_text())["verification"]["problems"]
        assert code == (1 if found else 0)
        return found

    def place(self, name: str) -> tuple[Path, int]:
        """Return the file and the offset of a tensor's first byte."""
        for path in sorted(self.pruned.glob("*.safetensors")):
            raw = path.read_bytes()
            start = 8 + struct.unpack("<Q", raw[:8])[0]
            entry = json.loads(raw[8:start]).get(name)
            if entry:
                return path, start + entry["data_offsets"][0]
        raise AssertionError(name)

    def overwrite(self, name: str, content: bytes) -> None:
        """Change the first bytes of a tensor."""
        path, offset = self.place(name)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(content)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return Pair(tmp_path_factory.mktemp("pair"))


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


def test_what_was_pruned_is_as_the_source_and_everything_is_counted(pair: Pair) -> None:
    assert pair.problems() == []
    said = json.loads(pair.report.read_text())["verification"]
    tensors = tensors_of(pair.pruned)
    assert said["tensors"] == len(tensors)
    assert said["tensors_an_expert"] == 12
    assert said["format_name"] == "ModelOpt NVFP4"
    assert said["scalars"] == sum(shape == () for _, shape, _ in tensors.values())
    copied = sum(p.stat().st_size for p in pair.pruned.rglob("*.*") if p.suffix != ".json")
    heads = sum(
        8 + int.from_bytes(p.read_bytes()[:8], "little") for p in pair.pruned.glob("*.safetensors")
    )
    small = sum(
        (pair.pruned / n).stat().st_size for n in ("tokenizer.json", "generation_config.json")
    )
    assert said["compared_bytes"] == copied - heads + small


@settings(
    max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
@given(data=st.data())
def test_any_one_flipped_bit_is_seen(shared: Pair, data: st.DataObject) -> None:
    files = sorted(path for path in shared.pruned.rglob("*") if path.is_file())
    path = data.draw(st.sampled_from(files))
    content = path.read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = bytes([content[at] ^ 1 << data.draw(st.integers(0, 7))])
    path.write_bytes(content[:at] + changed + content[at + 1 :])
    try:
        problems = shared.problems()
    finally:
        path.write_bytes(content)
    assert problems
    assert any(path.name in problem for problem in problems)


def test_a_changed_byte_is_told_with_its_tensor(pair: Pair) -> None:
    name = "model.layers.1.block_sparse_moe.experts.2.w2.weight"
    old = tensors_of(pair.pruned)[name][2]
    pair.overwrite(name, bytes([old[0] ^ 255]))
    (problem,) = pair.problems()
    assert name in problem


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "a missing shard": (lambda out: (out / SHARD).unlink(), f"{SHARD} is missing"),
    "a missing side file": (
        lambda out: (out / "tokenizer.json").unlink(),
        "tokenizer.json is missing",
    ),
    "a stranger": (lambda out: (out / "x.py").write_text(""), "x.py is not of the source"),
    "a cut shard": (lambda out: cut(out / SHARD), SHARD),
    "a longer side file": (lambda out: longer(out / "tokenizer.json"), "tokenizer.json has"),
    "an edited config": (lambda out: longer(out / "config.json"), "config.json is not what"),
    "no header": (lambda out: (out / SHARD).write_bytes(b"PK"), "no safetensors file"),
}


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def longer(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


@pytest.mark.parametrize("case", CHANGES)
def test_a_changed_folder_is_told(pair: Pair, case: str) -> None:
    change, says = CHANGES[case]
    change(pair.pruned)
    assert any(says in problem for problem in pair.problems())


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_a_scale_that_cannot_be_right_is_told(tmp_path: Path, value: float) -> None:
    pair = Pair(tmp_path)
    name = "model.layers.0.block_sparse_moe.experts.1.w1.input_scale"
    for folder in (pair.source, pair.pruned):
        pair.pruned = folder  # the same in both: the bytes do not differ, the number is wrong
        for expert in range(3 if folder != pair.source else 4):
            pair.overwrite(name.replace("experts.1", f"experts.{expert}"), struct.pack("<f", value))
    assert any("w1.input_scale is not" in problem for problem in pair.problems())


def test_gate_and_up_projection_must_share_their_global_scale(tmp_path: Path) -> None:
    pair = Pair(tmp_path)
    name = "model.layers.0.block_sparse_moe.experts.0.w3.weight_scale_2"
    pair.overwrite(name, struct.pack("<f", 3.5))
    problems = pair.problems()
    assert any("w3.weight_scale_2 is 3.5, and that of w1 is" in problem for problem in problems)
