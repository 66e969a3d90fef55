"""Checkpoints that mean harm, or are not what they seem: a test for each rule, nothing written."""

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.command import main
from appliance.checkpoint.destination import WORK
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.plain import plain_name
from tests.checkpointbox import SMALL, Piece, build, render, write_json, write_mask

INDEX = "model.safetensors.index.json"
FIRST = "model-00001-of-00003.safetensors"
GATE = "model.layers.0.block_sparse_moe.gate.weight"


def edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    write_json(path, content)


def add_tensor(source: Path, name: str, dtype: str, shape: tuple[int, ...]) -> None:
    """Add a shard with one tensor to a miniature."""
    piece = Piece(name, dtype, shape)
    (source / "more.safetensors").write_bytes(render([(piece, bytes(piece.size))]))
    edit(source / INDEX, lambda index: index["weight_map"].update({name: "more.safetensors"}))


def rename_shard(name: str) -> Callable[[Path], None]:
    def change(source: Path) -> None:
        edit(
            source / INDEX,
            lambda index: index["weight_map"].update(
                {tensor: name for tensor, shard in index["weight_map"].items() if shard == FIRST}
            ),
        )

    return change


def with_config(**changes: Any) -> Callable[[Path], None]:
    return lambda source: edit(source / "config.json", lambda config: config.update(changes))


def with_tensor(name: str, dtype: str = "BF16", shape: tuple[int, ...] = (8, 4)) -> Any:
    return lambda source: add_tensor(source, name, dtype, shape)


def ignoring(entry: str) -> Callable[[Path], None]:
    return with_config(quantization_config={"ignore": [entry]})


def fifo(source: Path) -> None:
    (source / "tokenizer.json").unlink()
    os.mkfifo(source / "tokenizer.json")


MOE = "model.layers.0.block_sparse_moe"
HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "a shard outside": (rename_shard("../../etc/x.safetensors"), "no plain relative name"),
    "an absolute shard": (rename_shard("/etc/x.safetensors"), "no plain relative name"),
    "a hidden shard": (rename_shard(".x.safetensors"), "no plain relative name"),
    "a shard with a line end": (rename_shard("a\n.safetensors"), "no plain relative name"),
    "a shard that is another file": (rename_shard("config.json"), "which is no safetensors file"),
    "a shard that is no text": (
        lambda s: edit(s / INDEX, lambda index: index["weight_map"].update(x=[1])),
        "what is no name",
    ),
    "a shard that lacks": (lambda s: (s / FIRST).unlink(), f"lacks 1 of 3 shards: {FIRST}"),
    "all experts in one": (with_tensor(f"{MOE}.experts.w1.weight"), "not known here"),
    "another expert axis": (with_tensor(f"{MOE}.other", shape=(2, 8)), "hold all experts in one"),
    "a quantised gate": (with_tensor(f"{MOE}.gate.weight_scale"), "hold all experts in one"),
    "a gate of other rows": (
        with_tensor("model.layers.9.block_sparse_moe.gate.weight", shape=(7, 2)),
        "one row for each of 8 experts",
    ),
    "a layer too many": (
        with_tensor("model.layers.9.block_sparse_moe.gate.weight"), "is outside the 3 layers"),
    "an expert too many": (with_tensor(f"{MOE}.experts.8.w1.weight"), "is outside the 3 layers"),
    "an expert spelled twice": (with_tensor(f"{MOE}.experts.01.w1.weight"), "not known here"),
    "an expert with more": (with_tensor(f"{MOE}.experts.1.w9.weight"), "differs from the rest in"),
    "an expert of a huge number": (
        with_tensor(f"{MOE}.experts.{'9' * 5000}.w1.weight"), "type, shape and place"),
    "a tensor that the index lacks": (
        lambda s: edit(s / INDEX, lambda index: index["weight_map"].pop(GATE)), "does not name"),
    "a tensor that no shard has": (
        lambda s: edit(s / INDEX, lambda index: index["weight_map"].update(ghost=FIRST)),
        "names 1 tensors that no shard has",
    ),
    "a tensor placed elsewhere": (
        lambda s: edit(s / INDEX, lambda index: index["weight_map"].update({GATE: FIRST})),
        "which model.safetensors.index.json places in",
    ),
    "an index without a map": (lambda s: write_json(s / INDEX, {}), "has no weight_map"),
    "an index that is a list": (lambda s: write_json(s / INDEX, []), "is no JSON object"),
    "an index without an end": (lambda s: (s / INDEX).write_text("{"), "is no JSON"),
    "an index without a bottom": (
        lambda s: (s / INDEX).write_text('{"a":' * 60_000), "is no JSON"),
    "a config without a bottom": (
        lambda s: (s / "config.json").write_text('{"a":' * 300 + "1" + "}" * 300), "too deep"),
    "no config": (lambda s: (s / "config.json").unlink(), "config.json"),
    "a config of other experts": (with_config(num_local_experts=9), "each of 9 experts"),
    "experts that contradict": (with_config(num_experts=9), "num_local_experts or num_experts"),
    "no number of layers": (with_config(num_hidden_layers="3"), "num_hidden_layers"),
    "a billion layers": (with_config(num_hidden_layers=10**9), "num_hidden_layers"),
    "a pattern of experts": (ignoring(r"re:.*experts\.3\..*"), "in a way not known here"),
    "a glob of experts": (ignoring("*.experts.3.w1"), "in a way not known here"),
    "a side file that never ends": (fifo, ""),
    "a weight without a header": (lambda s: (s / FIRST).write_bytes(b""), "no safetensors file"),
}  # fmt: skip


@pytest.mark.parametrize("case", HARM)
def test_what_is_not_understood_is_refused_and_nothing_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    change, says = HARM[case]
    source, out = build(tmp_path / "source", SMALL), tmp_path / "out"
    change(source)
    mask = str(write_mask(tmp_path / "mask.json", SMALL, 6))
    code = main([str(source), str(out), "--deleted-experts-file", mask])
    said = capsys.readouterr().err
    if not says:  # passed over, and not waited for
        assert code == 0
        assert not (out / "tokenizer.json").exists()
        return
    assert code in (1, 65, 66)
    assert says in said
    assert "Traceback" not in said
    assert not out.exists()


def test_a_plain_list_of_experts_is_renumbered(tmp_path: Path) -> None:
    source, out = build(tmp_path / "source", SMALL), tmp_path / "out"
    mask = tmp_path / "mask.json"
    write_json(mask, {"0": [1, 3], "1": [0, 7], "2": [6, 7]})
    entries = [
        f"model.layers.{n}.block_sparse_moe.experts.{e}.w1" for n in range(3) for e in (3, 4)
    ]
    with_config(quantization_config={"ignore": ["lm_head", "re:.*gate$", *entries]})(source)
    assert main([str(source), str(out), "--deleted-experts-file", str(mask)]) == 0
    after = json.loads((out / "config.json").read_text())["quantization_config"]["ignore"]
    assert after == ["lm_head", "re:.*gate$"] + [
        f"model.layers.{layer}.block_sparse_moe.experts.{expert}.w1"
        for layer, expert in ((0, 2), (1, 2), (1, 3), (2, 3), (2, 4))
    ]


# ---- the destination


def begun(tmp: Path) -> tuple[list[str], Path]:
    """Return a command, and a destination in which a run of it was interrupted."""
    source, out = build(tmp / "source", SMALL), tmp / "out"
    mask = str(write_mask(tmp / "mask.json", SMALL, 6))
    argv = [str(source), str(out), "--deleted-experts-file", mask]
    (out / WORK).mkdir(parents=True)
    return argv, out


def outside(tmp: Path) -> Path:
    """Return a file outside, which nobody must change."""
    path = tmp / "precious"
    path.write_text("precious")
    return path


def test_a_link_in_place_of_a_growing_file_is_not_followed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, out = begun(tmp_path)
    precious = outside(tmp_path)
    (out / WORK / f"{FIRST}.part").symlink_to(precious)
    assert main([*argv, "--resume"]) == 74
    assert FIRST in capsys.readouterr().err
    assert precious.read_text() == "precious"


def test_a_link_in_place_of_a_finished_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    argv, out = begun(tmp_path)
    precious = outside(tmp_path)
    (out / "tokenizer.json").symlink_to(precious)
    assert main([*argv, "--resume"]) == 0
    assert not (out / "tokenizer.json").is_symlink()
    assert precious.read_text() == "precious"


def test_a_link_in_place_of_a_folder_is_not_entered(tmp_path: Path) -> None:
    argv, out = begun(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "figures").symlink_to(elsewhere)
    assert main([*argv, "--resume"]) == 74
    assert list(elsewhere.iterdir()) == []


def test_a_link_in_place_of_the_work_folder_is_not_entered(tmp_path: Path) -> None:
    argv, out = begun(tmp_path)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / WORK).rmdir()
    (out / WORK).symlink_to(elsewhere)
    assert main([*argv, "--resume"]) == 73
    assert list(elsewhere.iterdir()) == []


def test_a_destination_that_is_not_empty_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv, out = begun(tmp_path)
    (out / WORK).rmdir()
    (out / "thesis.tex").write_text("")
    for flags in ([], ["--resume"]):
        assert main([*argv, *flags]) == 73
    said = capsys.readouterr().err
    assert "thesis.tex" in said
    assert "no interrupted run" in said
    assert os.listdir(out) == ["thesis.tex"]


@pytest.mark.parametrize("place", ["source", "source/out", ".", "link"])
def test_a_destination_that_is_the_source_or_within_or_around_it_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    source = build(tmp_path / "source", SMALL)
    (tmp_path / "link").symlink_to(source)
    before = sorted(source.rglob("*"))
    mask = str(write_mask(tmp_path / "mask.json", SMALL, 6))
    assert main([str(source), str(tmp_path / place), "--deleted-experts-file", mask]) == 73
    assert "are not apart" in capsys.readouterr().err
    assert sorted(source.rglob("*")) == before


def test_a_disk_too_small_is_refused_before_a_byte_is_copied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    argv, out = begun(tmp_path)
    monkeypatch.setattr("appliance.checkpoint.destination.Destination.free_bytes", lambda _: 1000)
    assert main([*argv, "--resume"]) == 73
    assert "has 1,000 bytes free, and" in capsys.readouterr().err
    assert os.listdir(out) == [WORK]


# ---- names


@given(st.text(max_size=30))
def test_a_plain_name_stays_beneath_its_folder(name: str) -> None:
    try:
        plain_name(name, "here", folders=True)
    except CheckpointError:
        return
    base = Path("/base/folder")
    joined = os.path.normpath(base / name)
    assert joined.startswith("/base/folder/")
    assert "\0" not in name


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "a/../b", "/a", "a//b", "a/", "~x", ".git/config", "C:x", "a\\b", "a\0b",
     "a\x1b[2J", "x" * 300, "a/" * 9 + "b", "\u202egnp.exe", "\ud800"],
)  # fmt: skip
def test_names_that_are_not_plain_are_refused(name: str) -> None:
    with pytest.raises(CheckpointError, match="no plain relative name"):
        plain_name(name, "here", folders=True)


def test_a_header_that_claims_more_than_the_file_has_reads_nothing_beyond(tmp_path: Path) -> None:
    source = build(tmp_path / "source", SMALL)
    raw = (source / FIRST).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    (source / FIRST).write_bytes(struct.pack("<Q", length + len(raw)) + raw[8:])
    mask = str(write_mask(tmp_path / "mask.json", SMALL, 6))
    assert main([str(source), str(tmp_path / "out"), "--deleted-experts-file", mask]) == 65
