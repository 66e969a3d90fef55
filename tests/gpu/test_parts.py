"""Packing and unpacking: what goes in comes out, however it is cut and whatever is lost."""

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.gpu import pack, unpack

PART = 1000


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """A pack of several parts, with a module, a program and a checkpoint."""
    site, program, checkpoint = (tmp_path / name for name in ("site", "program", "demo"))
    site.mkdir()
    (site / "carried.py").write_text("print('carried')\n")
    (site / "noise.bin").write_bytes(random.Random(1).randbytes(5 * PART))  # noqa: S311
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    checkpoint.mkdir()
    (checkpoint / "config.json").write_text("{}")
    members = [
        (checkpoint, "checkpoints/demo"), (program, "bin/force_swap"), (site, "site")
    ]  # fmt: skip
    pack.write(tmp_path / "parts", PART, members)
    return tmp_path / "parts"


def parts_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("part-*.bin"))


def some(packed: Path, into: Path, *names: str) -> Path:
    """Return a folder with the manifest and only these parts: what one call carries."""
    into.mkdir()
    for name in (unpack.MANIFEST, *names):
        (into / name).write_bytes((packed / name).read_bytes())
    return into


def test_no_part_is_larger_than_asked_and_all_but_the_last_are_full(packed: Path) -> None:
    sizes = [path.stat().st_size for path in parts_of(packed)]
    assert len(sizes) > 3
    assert set(sizes[:-1]) == {PART}
    assert 0 < sizes[-1] <= PART


def test_parts_that_come_one_by_one_in_any_order_are_installed_with_the_last(
    packed: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "box"
    names = [path.name for path in parts_of(packed)]
    for number, name in enumerate(names[::-1]):
        assert not (folder / "site").exists()
        call = some(packed, tmp_path / f"call{number}", name)
        assert unpack.main([str(call), "--into", str(folder)]) == 0
    noise = (tmp_path / "site" / "noise.bin").read_bytes()
    assert (folder / "site" / "noise.bin").read_bytes() == noise
    assert (folder / "checkpoints" / "demo" / "config.json").read_text() == "{}"
    assert (folder / "bin" / "force_swap").stat().st_mode & 0o111
    assert not (folder / "parts").exists()
    assert set(json.loads((folder / unpack.READY).read_text())["parts"]) == set(names)


def test_the_installed_python_sees_what_was_carried(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "a box"  # the launchers quote
    assert unpack.main([str(packed), "--into", str(folder)]) == 0
    ran = subprocess.run(
        [folder / "bin" / "python", "-c", "import carried"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert ran.stdout == "carried\n"
    assert sys.executable in (folder / "bin" / "vllm").read_text()


def test_a_part_that_was_changed_on_the_way_is_refused_and_the_others_are_kept(
    packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (path.name for path in parts_of(packed)[:2])
    call = some(packed, tmp_path / "call", first, second)
    (call / second).write_bytes(b"x" * PART)
    assert unpack.main([str(call), "--into", str(tmp_path / "box")]) == 1
    assert second in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "box" / "parts").glob("part-*")] == [first]


def test_a_complete_folder_is_left_alone(packed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "box"
    unpack.main([str(packed), "--into", str(folder)])
    (folder / "site" / "carried.py").write_text("mine\n")
    assert unpack.main([str(packed), "--into", str(folder)]) == 0
    assert (folder / "site" / "carried.py").read_text() == "mine\n"


@pytest.mark.parametrize("entry", ["demo", "demo=", "../demo=HERE", "Demo=HERE", "demo=MISSING"])
def test_a_checkpoint_without_a_name_or_a_config_is_refused(entry: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    entry = entry.replace("HERE", str(tmp_path)).replace("MISSING", str(tmp_path / "none"))
    with pytest.raises(SystemExit, match="NAME=DIR"):
        pack.checkpoints([entry])


def test_of_the_engines_wheel_the_kernels_of_this_model_stay() -> None:
    kept = [
        "vllm/_C_stable_libtorch.abi3.so",
        "vllm/vllm_flash_attn/_vllm_fa3_C.abi3.so",
        "vllm/third_party/deep_gemm/__init__.py",
    ]
    gone = [
        "vllm/vllm_flash_attn/_vllm_fa2_C.abi3.so",
        "vllm/vllm-rs",
        "vllm/third_party/deep_gemm/_C.cpython-312-x86_64-linux-gnu.so",
        "vllm/third_party/fmha_sm100/x.py",
        "vllm/_qutlass_C.abi3.so",
    ]
    assert [name for name in kept + gone if not pack.UNNEEDED.match(name)] == kept


def test_every_wheel_has_its_version() -> None:
    names = pack.names_of(pack.WHEELS)
    assert len(names) > 100
    assert all(name.count("==") == 1 for name in names)
    assert len({name.partition("==")[0] for name in names}) == len(names)
