"""The command that quantises: what it says, draws and reports, and how it ends."""

import io
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.checkpoint.flags import BANDWIDTH
from appliance.checkpoint.formats import Format, Recipe
from appliance.checkpoint.quantisecommand import main
from appliance.checkpoint.surveytext import kv_token_bytes
from appliance.checkpoint.tokenbytes import Weights
from extras.zipapps import main as pack
from tests.checkpointbox import build, tensors_of
from tests.checkpoints import CONFIG
from tests.engines import ROOT
from tests.quantised import SHAPE, STEM, change, quantise, read


@pytest.fixture
def argv(tmp_path: Path) -> list[str]:
    """A miniature, and the command for it."""
    return [str(build(tmp_path / "source", SHAPE)), str(tmp_path / "made")]


# ---- what it is worth


def real(rows: int, columns: int, kind: Format) -> int:
    return Recipe(kind, rows, columns).size


def test_the_figures_of_the_real_model_are_those_that_were_computed_by_hand() -> None:
    attention = 62 * 2 * 44_040_192
    before = Weights(
        active=8, experts=192, expert_bytes=62 * 192 * 7_962_648, attention_bytes=attention,
        head_bytes=1_229_193_216, router_bytes=62 * 192 * 3072 * 4, other_bytes=0,
        embedding_bytes=0,
    )  # fmt: skip
    assert before.token_bytes / 1e9 == pytest.approx(10.79, abs=0.01)
    assert before.roofline(BANDWIDTH) == pytest.approx(25.3, abs=0.05)
    kind = Format.PER_CHANNEL
    layer = real(6144, 3072, kind) + 2 * real(1024, 3072, kind) + real(3072, 6144, kind)
    less = before.less(attention=attention - 62 * layer)
    assert less.token_bytes / 1e9 == pytest.approx(8.06, abs=0.01)
    assert less.roofline(BANDWIDTH) == pytest.approx(33.9, abs=0.05)
    least = less.less(head=before.head_bytes - real(200_064, 3072, kind))
    assert least.token_bytes / 1e9 == pytest.approx(7.45, abs=0.01)
    assert least.roofline(BANDWIDTH) == pytest.approx(36.6, abs=0.1)
    scheme = {"num_bits": 8, "type": "float", "dynamic": False}
    section = {"quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": scheme}
    cache = kv_token_bytes(CONFIG | {"quantization_config": section})
    assert cache == 62 * 2 * 8 * 128
    assert (before.token_bytes - least.token_bytes) // cache == pytest.approx(26_300, abs=100)


def test_a_config_that_tells_nothing_of_the_cache_gives_no_tokens() -> None:
    assert kv_token_bytes({}) == 0
    assert kv_token_bytes({"architectures": ["Unheard"]}) == 0


# ---- what it says


def test_a_dry_run_measures_and_writes_nothing(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "|W - Q| / |W| of fp8-per-channel" in said
    assert "12 matrices to fp8-per-channel" in said
    assert "computed" in said
    assert "without head  with the head" in said
    assert not (tmp_path / "made").exists()


def test_the_report_has_every_matrix_and_both_predictions(tmp_path: Path, argv: list[str]) -> None:
    report = tmp_path / "report.json"
    assert main([*argv, "--report", str(report), "--bandwidth", "100", "--lm-head"]) == 0
    said = read(report)["quantised"]
    assert {*said["projections"]} == {
        *(STEM.format(layer, kind) for layer in range(3) for kind in "qkvo"), "lm_head",
    }  # fmt: skip
    for one in said["projections"].values():
        assert 0.01 < one["relative"] < 0.04
        assert 0.999 < one["cosine"] <= 1
        assert one["worst"] >= one["relative"]
        assert one["bytes_after"] < one["bytes_before"]
    before, without, both = (
        said["computed"][name]["token_bytes"]["all"]
        for name in ("before", "without_head", "with_head")
    )
    assert before > without > both
    sizes = {n: len(data) for n, (_, _, data) in tensors_of(tmp_path / "made").items()}
    after = sum(size for n, size in sizes.items() if n.startswith("lm_head") or "attn" in n)
    source = {n: len(data) for n, (_, _, data) in tensors_of(tmp_path / "source").items()}
    own = sum(size for n, size in source.items() if n.startswith("lm_head") or "attn" in n)
    offsets = sum(size for n, size in source.items() if n.endswith(("k_bias", "v_bias")))
    assert before - both == own - offsets - after
    assert said["computed"]["with_head"]["roofline_tokens_per_s"] == pytest.approx(
        100e9 / both, rel=1e-3
    )
    assert said["bytes"]["before"] - said["bytes"]["after"] == before - both


def test_the_worst_row_is_the_one_that_is_spoilt(tmp_path: Path, argv: list[str]) -> None:
    name = f"{STEM.format(1, 'o')}.weight"
    width = SHAPE.heads * SHAPE.head_dim
    # 1.75 is exact, and 1.0625 beside it half way between two numbers
    change(tmp_path / "source", name, 2 * 9 * width, b"\xe0\x3f" + b"\x88\x3f" * (width - 1))
    report = tmp_path / "report.json"
    assert main([*argv, "--dry-run", "--report", str(report)]) == 0
    said = read(report)["quantised"]["projections"][STEM.format(1, "o")]
    assert said["worst_row"] == 9
    assert said["worst"] == pytest.approx(0.0564, abs=1e-4)


@pytest.mark.parametrize("flags", [[], ["--layers", "1"], ["--keep-above", "0.025", "--lm-head"]])
def test_the_chart_is_an_image_with_a_line_for_each_matrix(
    tmp_path: Path, argv: list[str], flags: list[str]
) -> None:
    chart = tmp_path / "errors.svg"
    assert main([*argv, "--dry-run", "--chart", str(chart), *flags]) == 0
    image = ElementTree.fromstring(chart.read_text())  # noqa: S314  it is ours
    spaced = "{http://www.w3.org/2000/svg}"
    assert len(image.findall(f"{spaced}polyline")) == 4
    layers = 1 if "--layers" in flags else 3
    assert len(image.findall(f"{spaced}circle")) == 4 * layers
    for circle in image.findall(f"{spaced}circle"):
        assert 0 < float(circle.attrib["cx"]) < 720
        assert 0 < float(circle.attrib["cy"]) < 360


def test_bytes_that_are_not_what_the_source_gives_are_found_with_their_tensor(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--format", "mxfp8", "--verify"]) == 0
    name = f"{STEM.format(2, 'k')}.weight_scale"
    change(tmp_path / "made", name, 1, b"\x01")
    assert main([*argv, "--format", "mxfp8", "--verify"]) == 1
    assert f"{name} differs at byte" in capsys.readouterr().out


def test_another_format_than_was_written_is_found(tmp_path: Path, argv: list[str]) -> None:
    assert main(argv) == 0
    assert main([*argv, "--verify"]) == 0
    assert main([*argv, "--format", "mxfp8", "--verify"]) == 1


# ---- how it ends


@pytest.mark.parametrize(
    "flags",
    [["--format", "int3"], ["--layers", "x"], ["--layers", "3-1"], ["--keep-above", "2"],
     ["--bandwidth", "0"], ["--layers", ""]],
)  # fmt: skip
def test_wrong_flags_are_told_and_end_with_2(
    argv: list[str], flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*argv, *flags])
    assert ended.value.code == 2
    assert "usage:" in capsys.readouterr().err


def test_a_layer_that_is_not_there_is_told(
    argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*argv, "--layers", "1-3"]) == 65
    assert "names layer 3, and there are 3" in capsys.readouterr().err


def test_a_head_that_is_the_embedding_is_refused(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "source" / "config.json"
    path.write_text(json.dumps(read(path) | {"tie_word_embeddings": True}))
    assert main([*argv, "--lm-head"]) == 65
    assert "tie_word_embeddings" in capsys.readouterr().err
    assert main(argv) == 0


def test_a_folder_that_is_not_empty_is_refused_before_anything_is_measured(
    tmp_path: Path, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made" / "mine").write_text("")
    assert main(argv) == 73
    told = capsys.readouterr()
    assert "is not empty" in told.err
    assert "|W - Q|" not in told.out


def test_columns_that_a_format_cannot_divide_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = build(tmp_path / "source", replace(SHAPE, hidden=48))
    assert main([str(source), str(tmp_path / "a"), "--format", "mxfp8"]) == 65
    assert "has 48 columns, no multiple of 32" in capsys.readouterr().err
    assert main([str(source), str(tmp_path / "b"), "--format", "nvfp4-weight-only"]) == 0


def test_what_is_quantised_already_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, made = quantise(tmp_path)
    assert main([str(made), str(tmp_path / "again")]) == 65
    assert "is F8_E4M3, and not BF16" in capsys.readouterr().err


def test_without_numpy_it_says_what_to_install(tmp_path: Path, argv: list[str]) -> None:
    assert pack([str(tmp_path / "dist")]) == 0
    for command in (
        ROOT / "extras" / "quantize_attention.py",
        tmp_path / "dist" / "quantize_attention.pyz",
    ):
        # -S: without what is installed
        run = subprocess.run(
            [sys.executable, "-I", "-S", str(command), *argv],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert run.returncode == 65
        assert "quantising needs numpy" in run.stderr
        assert "pip install numpy" in run.stderr
        assert "Traceback" not in run.stderr


def test_one_file_quantises_outside_the_clone(tmp_path: Path, argv: list[str]) -> None:
    assert pack([str(tmp_path / "dist")]) == 0
    command = [sys.executable, "-I", str(tmp_path / "dist" / "quantize_attention.pyz")]
    run = subprocess.run(
        [*command, *argv, "--verify"], cwd=tmp_path,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stderr) == (0, "")
    assert "all as in the source" in run.stdout


def test_a_pipe_that_is_closed_does_not_end_the_work(
    tmp_path: Path, argv: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closed(io.StringIO):
        def write(self, _text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

        def fileno(self) -> int:
            raise OSError

    monkeypatch.setattr("sys.stdout", Closed())
    assert main(argv) == 0
    assert (tmp_path / "made" / "config.json").is_file()
