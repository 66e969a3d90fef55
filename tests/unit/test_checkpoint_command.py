"""The command: what it says, what it writes, and how it ends."""

import io
import json
import re
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.checkpoint.bar import Bar, bar_line, clock
from appliance.checkpoint.command import main
from appliance.checkpoint.failures import (
    CheckpointError,
    DestinationError,
    MaskError,
    SourceError,
    WriteError,
)
from appliance.checkpoint.faults import RemoteError
from appliance.checkpoint.layout import JSON_LIMIT
from appliance.checkpoint.maskfile import Mask, check_mask, read_mask, render_mask
from tests.checkpointbox import SMALL, Shape, build, random_mask, tensors_of, write_mask


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """A miniature, a mask of six of eight experts, and the command for them."""
    source = build(tmp_path / "source", SMALL)
    mask = write_mask(tmp_path / "mask.json", SMALL, 6)
    return [str(source), str(tmp_path / "out"), "--deleted-experts-file", str(mask)]


# ---- the command


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "experts 8 -> 6" in said
    assert "modeling_minimax_m2.py (code)" in said
    assert not (tmp_path / "out").exists()
    total = int(re.search(r"([\d,]+) bytes in all", said)[1].replace(",", ""))  # type: ignore[index]
    assert main(argv) == 0
    out = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in out) == total


def test_the_report_has_the_mask_the_plan_and_the_verification(
    tmp_path: Path, argv: list[str]
) -> None:
    report = tmp_path / "report.json"
    assert main([*argv, "--verify", "--report", str(report)]) == 0
    content = json.loads(report.read_text())
    assert content["mask"] == random_mask(SMALL, 6)
    assert content["plan"]["tensors"]["pruned"] == content["verification"]["tensors"]
    assert content["verification"]["problems"] == []
    assert content["plan"]["left_out"]["modeling_minimax_m2.py"] == "code"
    assert content["seconds"] > 0


def test_the_report_tells_the_largest_input_scales_before_and_after(tmp_path: Path) -> None:
    shape = Shape(form="nvfp4", layers=2, experts=6, shards=2)
    source, report = build(tmp_path / "source", shape), tmp_path / "report.json"
    mask = write_mask(tmp_path / "mask.json", shape, 3)
    flags = ["--deleted-experts-file", str(mask), "--report", str(report), "--dry-run"]
    assert main([str(source), str(tmp_path / "out"), *flags]) == 0
    told = json.loads(report.read_text())["largest_input_scale_before_and_after"]
    tensors, gone = tensors_of(source), random_mask(shape, 3)
    for layer in ("0", "1"):
        values = {
            expert: max(
                struct.unpack("<f", tensors[f"{stem}.{matrix}.input_scale"][2])[0]
                for matrix in ("w1", "w2", "w3")
            )
            for expert in range(6)
            for stem in (f"model.layers.{layer}.block_sparse_moe.experts.{expert}",)
        }
        stay = [value for expert, value in values.items() if expert not in gone[layer]]
        assert told[layer] == [max(values.values()), max(stay)]


def test_a_finished_destination_is_only_compared(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv) == 0
    capsys.readouterr()
    assert main([*argv, "--verify"]) == 0
    assert "wrote" not in capsys.readouterr().out
    (tmp_path / "out" / "tokenizer.json").unlink()
    assert main([*argv, "--verify"]) == 1
    assert "WRONG: tokenizer.json is missing" in capsys.readouterr().out


def test_the_cards_flags_are_accepted_and_checked(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    numbers = ["--num-original-experts", "8", "--num-retained-experts"]
    assert main([*argv, *numbers, "5"]) == 1
    assert "2 deleted experts, and not 3" in capsys.readouterr().err
    assert main([*argv, "--num-original-experts", "256"]) == 1
    assert "has 8 experts a layer, and not 256" in capsys.readouterr().err
    assert main([*argv, *numbers, "6"]) == 0


@pytest.mark.parametrize(
    "flags", [[], ["--compare-with", "x", "--deleted-experts-file", "y"], ["--jobs", "0"]]
)
def test_wrong_flags_are_told_and_end_with_2(
    argv: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*argv[:2], *flags])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_the_help_names_every_exit_code_and_variable(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    said = capsys.readouterr().out
    kinds: list[type[CheckpointError]] = [
        CheckpointError,
        SourceError,
        DestinationError,
        WriteError,
        MaskError,
        RemoteError,
    ]
    for kind in (*kinds, *RemoteError.__subclasses__()):
        assert re.search(rf"(^|\s){kind.exit_code} [a-zA-Z]", said.partition("exit codes:")[2])
    for variable in ("HF_ENDPOINT", "HF_TOKEN", "HTTPS_PROXY", "SSL_CERT_FILE"):
        assert variable in said
    assert "--verify of such a SRC fetches all of it a second time" in said


def test_an_index_too_long_to_be_one_is_refused_unread(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with (tmp_path / "source" / "model.safetensors.index.json").open("r+b") as file:
        file.truncate(JSON_LIMIT + 1)
    assert main(argv) == 65
    assert "64,000,001 bytes: no such file is so long" in capsys.readouterr().err


def test_a_source_that_is_not_there_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--deleted-experts-file", str(tmp_path / "mask.json")]
    assert main([str(tmp_path / "gone"), str(tmp_path / "out"), *flags]) == 66
    assert "is no folder" in capsys.readouterr().err


def test_a_report_that_cannot_be_written_is_told_before_the_work(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--report", str(tmp_path / "gone" / "report.json")]) == 73
    assert "report.json" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- the mask file

WRONG: dict[str, tuple[Any, str]] = {
    "no table": ([1], "no table of layers"),
    "a layer lacks": ({"0": [1]}, "the 2 layers 0 to 1, and differs in 1: '1'"),
    "a layer too many": ({"0": [1], "1": [1], "2": [1]}, "differs in 1: '2'"),
    "layers of other names": ({"0": [1], "01": [1]}, "differs in 2"),
    "no list": ({"0": [1], "1": 1}, "layer 1: is no list"),
    "texts": ({"0": ["1"], "1": [1]}, "layer 0: is no list of numbers"),
    "truths": ({"0": [True], "1": [1]}, "layer 0: is no list of numbers"),
    "too few": ({"0": [], "1": [1]}, "layer 0: 0 deleted experts, and not 1"),
    "too many": ({"0": [1], "1": [1, 2]}, "layer 1: 2 deleted experts, and not 1"),
    "twice": ({"0": [1, 1], "1": [1, 2]}, "layer 0: 2 deleted experts"),
    "outside": ({"0": [4], "1": [1]}, "layer 0: expert 4 is not within 0 to 3"),
    "below": ({"0": [-1], "1": [1]}, "expert -1 is not within"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mask_that_is_none_is_told_with_layer_and_numbers(case: str) -> None:
    content, says = WRONG[case]
    with pytest.raises(MaskError, match=re.escape(says)):
        check_mask(content, 2, 4, 3, "mask.json")


def test_an_expert_named_twice_is_told() -> None:
    with pytest.raises(MaskError, match="layer 0: names an expert twice"):
        check_mask({"0": [1, 1]}, 1, 4, 2, "mask.json")


def test_a_mask_that_leaves_nobody_is_refused() -> None:
    with pytest.raises(MaskError, match="2 deleted experts"):
        check_mask({"0": [0, 1]}, 1, 2, None, "mask.json")


def test_the_real_masks_shape_is_62_layers_of_64_unique_experts(tmp_path: Path) -> None:
    content = {str(layer): list(range(layer, layer + 64)) for layer in range(62)}
    path = tmp_path / "mask.json"
    path.write_text(json.dumps(content))
    mask = read_mask(path, 62, 256, 192)
    assert (mask.retained, len(mask.deleted)) == (192, 62)
    content["61"][0] = content["61"][1]
    path.write_text(json.dumps(content))
    with pytest.raises(MaskError, match="layer 61: names an expert twice"):
        read_mask(path, 62, 256, 192)


@given(st.lists(st.sets(st.integers(0, 15), min_size=3, max_size=3), min_size=1, max_size=5))
def test_a_mask_survives_its_file_and_renumbers_in_order(layers: list[set[int]]) -> None:
    mask = Mask(16, tuple(tuple(sorted(gone)) for gone in layers))
    assert check_mask(json.loads(render_mask(mask)), len(layers), 16, 13, "") == mask
    for layer, gone in enumerate(layers):
        numbers = [mask.new_number(layer, expert) for expert in range(16)]
        assert [number for number in numbers if number is not None] == list(range(13))
        assert {expert for expert in range(16) if numbers[expert] is None} == gone
        assert [mask.new_number(layer, expert) for expert in mask.kept(layer)] == list(range(13))


def test_a_mask_file_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(MaskError, match="cannot be read"):
        read_mask(tmp_path / "gone.json", 1, 4, 3)


# ---- the bar


def test_the_bar_tells_share_bytes_rate_and_time_left() -> None:
    line = bar_line("writing", 25 * 10**9, 100 * 10**9, 12.5)
    assert line == "writing [######------------------]  25 % 25.0 of 100.0 GB, 2.00 GB/s, 0:38 left"


@pytest.mark.parametrize(
    ("rate", "says"),
    [(20_000_000, "20.0 MB/s"), (999_900_000, "999.9 MB/s"), (1_000_000_000, "1.00 GB/s")],
)
def test_a_rate_below_a_gigabyte_is_told_in_megabytes(rate: int, says: str) -> None:
    assert f" GB, {says}, 0:09 left" in bar_line("writing", rate, 10 * rate, 1.0)


def test_things_that_are_no_bytes_are_counted_one_by_one() -> None:
    line = bar_line("reading headers", 9, 27, 3.0, unit="shards")
    assert line == "reading headers [########----------------]  33 % 9 of 27 shards, 0:06 left"


def test_what_an_earlier_run_did_says_nothing_of_the_rate() -> None:
    assert "1.00 GB/s, 0:30 left" in bar_line("w", 70 * 10**9, 100 * 10**9, 10, 60 * 10**9)


@given(st.integers(0, 10**12), st.integers(0, 10**12), st.floats(0, 1e6))
def test_the_bar_never_overflows(done: int, total: int, seconds: float) -> None:
    line = bar_line("w", done, total, seconds)
    assert re.match(r"w \[#*-*\]  ?\s*\d+ % ", line)
    assert len(line.partition("]")[0]) == 3 + 24


def test_clocks_have_hours_only_when_needed() -> None:
    assert [clock(s) for s in (0, 59.6, 61, 3599, 3600)] == [
        "0:00", "1:00", "1:01", "59:59", "1:00:00",
    ]  # fmt: skip


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_what_is_told_of_a_failure_does_not_stand_on_the_bars_line(
    argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Terminal()
    monkeypatch.setattr("sys.stderr", out)
    index = Path(argv[0]) / "model.safetensors.index.json"
    content = json.loads(index.read_text())
    content["weight_map"]["more"] = content["weight_map"]["lm_head.weight"]
    index.write_text(json.dumps(content))
    assert main(argv) == 65
    assert "reading headers [" in out.getvalue()
    assert "\x1b[K\ndelete_experts: " in out.getvalue()


def test_a_bar_on_a_terminal_stays_on_one_line_and_ends_it() -> None:
    out = Terminal()
    bar = Bar("writing", 10, out)
    bar.skip(4)
    bar.add(6)
    bar.close()
    assert out.getvalue().count("\n") == 1
    assert out.getvalue().endswith("0:00 left\x1b[K\n")
