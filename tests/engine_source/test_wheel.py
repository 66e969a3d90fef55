"""A wheel that is patched without compiling: still a wheel, and the same bytes each time."""

import base64
import csv
import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from unglitched_vllm.source import wheel
from unglitched_vllm.source.errors import SourceError
from unglitched_vllm.source.patches import HEADINGS, Patch, read_series

EPOCH = 1793606822  # 2026-11-02 08:07:02 UTC
NAME = "vllm-9.9.0-cp38-abi3-manylinux_2_28_aarch64.whl"
MEMBERS = {
    "vllm/__init__.py": b"from vllm.a import WORD\n",
    "vllm/a.py": b'"""Say it."""\n\nWORD = "theirs"\n',
    "vllm/_version.py": b"__version__ = version = '9.9.0'\n__version_tuple__ = (9, 9, 0)\n",
    "vllm/_C.abi3.so": bytes(range(256)) * 40,
    "vllm-9.9.0.data/scripts/tool": b"#!/bin/sh\n",
    "vllm-9.9.0.dist-info/METADATA": b"Metadata-Version: 2.4\nName: vllm\nVersion: 9.9.0\n\n"
    b"Version: 9.9.0 is also a line of the text\n",
    "vllm-9.9.0.dist-info/WHEEL": b"Wheel-Version: 1.0\nTag: py3-none-any\n"
    b"Root-Is-Purelib: false\n",
    "vllm-9.9.0.dist-info/RECORD": b"stale,sha256=x,1\n",
}
DIFF = '--- a/vllm/a.py\n+++ b/vllm/a.py\n@@ -1,3 +1,3 @@\n """Say it."""\n \n-WORD = "theirs"\n'
HEAD = "Say ours\n\n" + "".join(f"{heading}:\n  x\n" for heading in HEADINGS)


def make(folder: Path, name: str = NAME, *, year: int = 2026) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(folder / name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in MEMBERS.items():
            info = zipfile.ZipInfo(member, (year, 1, 1, 0, 0, 0))
            info.external_attr = (0o100775 if "scripts" in member else 0o100664) << 16
            archive.writestr(info, content)
    return folder / name


@pytest.fixture
def patches(tmp_path: Path) -> tuple[Patch, ...]:
    folder = tmp_path / "patches"
    folder.mkdir()
    (folder / "0001-say-ours.patch").write_text(f'{HEAD}---\n{DIFF}+WORD = "ours"\n')
    return read_series(folder)


def repacked(tmp_path: Path, patches: tuple[Patch, ...]) -> Path:
    return wheel.repack(make(tmp_path), tmp_path / "out", epoch=EPOCH, patches=patches)


def contents(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def recorded(path: Path) -> dict[str, tuple[str, str]]:
    with zipfile.ZipFile(path) as archive:
        (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/RECORD"))
        rows = csv.reader(archive.read(name).decode().splitlines())
    return {row[0]: (row[1], row[2]) for row in rows}


def test_the_patched_file_is_in_and_no_other_code_differs(
    tmp_path: Path, patches: tuple[Patch, ...]
) -> None:
    files = contents(repacked(tmp_path, patches))
    assert files["vllm/a.py"] == b'"""Say it."""\n\nWORD = "ours"\n'
    for name in ("vllm/__init__.py", "vllm/_C.abi3.so"):
        assert files[name] == MEMBERS[name]


def test_the_version_says_how_many_patches_are_in(
    tmp_path: Path, patches: tuple[Patch, ...]
) -> None:
    made = repacked(tmp_path, patches)
    assert made.name == NAME.replace("9.9.0", "9.9.0+unglitched.1")
    files = contents(made)
    metadata = files["vllm-9.9.0+unglitched.1.dist-info/METADATA"].decode()
    assert "\nVersion: 9.9.0+unglitched.1\n\nVersion: 9.9.0 is also" in metadata
    assert b"__version__ = version = '9.9.0+unglitched.1'\n" in files["vllm/_version.py"]
    assert "vllm-9.9.0+unglitched.1.data/scripts/tool" in files
    assert not any(name.startswith("vllm-9.9.0.") for name in files)


def test_a_version_with_a_local_part_keeps_it() -> None:
    assert wheel.local_version("0.32.0+cpu", 2) == "0.32.0+cpu.unglitched.2"


def test_record_names_every_file_with_its_hash(tmp_path: Path, patches: tuple[Patch, ...]) -> None:
    made = repacked(tmp_path, patches)
    record, files = recorded(made), contents(made)
    assert record.keys() == files.keys()
    own = "vllm-9.9.0+unglitched.1.dist-info/RECORD"
    assert record.pop(own) == ("", "")
    for name, (digest, size) in record.items():
        coded = base64.urlsafe_b64encode(hashlib.sha256(files[name]).digest()).rstrip(b"=")
        assert (digest, int(size)) == (f"sha256={coded.decode()}", len(files[name]))


def test_pip_installs_it_and_it_runs(tmp_path: Path, patches: tuple[Patch, ...]) -> None:
    plain = make(tmp_path, "vllm-9.9.0-py3-none-any.whl")
    made = wheel.repack(plain, tmp_path / "out", epoch=EPOCH, patches=patches)
    target = tmp_path / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps"]
    subprocess.run([*pip, "--target", str(target), str(made)], check=True, timeout=120)
    asked = "import vllm, importlib.metadata as m; print(vllm.WORD, m.version('vllm'))"
    done = subprocess.run(
        [sys.executable, "-S", "-c", asked], cwd=target, capture_output=True, text=True, check=True
    )
    assert done.stdout == "ours 9.9.0+unglitched.1\n"


def test_equal_content_gives_equal_bytes_whenever_and_however_it_was_packed(
    tmp_path: Path, patches: tuple[Patch, ...]
) -> None:
    old, new = (make(tmp_path / str(year), year=year) for year in (1999, 2026))
    assert old.read_bytes() != new.read_bytes()
    made = [
        wheel.repack(path, tmp_path / f"out-{at}", epoch=EPOCH, patches=patches).read_bytes()
        for at, path in enumerate((old, new))
    ]
    assert made[0] == made[1]


def test_members_are_sorted_dated_and_have_two_modes(
    tmp_path: Path, patches: tuple[Patch, ...]
) -> None:
    with zipfile.ZipFile(repacked(tmp_path, patches)) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    assert names[:-1] == sorted(names[:-1])  # RECORD comes last: it is made of the others
    assert {info.date_time for info in infos} == {(2026, 11, 2, 8, 7, 2)}
    modes = {info.filename: info.external_attr >> 16 for info in infos}
    assert modes.pop("vllm-9.9.0+unglitched.1.data/scripts/tool") == 0o100755
    assert set(modes.values()) == {0o100644}


def test_without_patches_only_the_packing_changes(tmp_path: Path) -> None:
    made = wheel.repack(make(tmp_path), tmp_path / "out", epoch=EPOCH)
    assert made.name == NAME
    assert {n: c for n, c in contents(made).items() if "RECORD" not in n} == {
        n: c for n, c in MEMBERS.items() if "RECORD" not in n
    }


def test_a_patch_of_a_file_that_is_not_in_the_wheel_is_refused(
    tmp_path: Path, patches: tuple[Patch, ...]
) -> None:
    small = tmp_path / NAME
    with zipfile.ZipFile(small, "w") as archive:
        archive.writestr("vllm-9.9.0.dist-info/METADATA", "Version: 9.9.0\n\n")
    with pytest.raises(SourceError, match=r"has no vllm/a\.py"):
        wheel.repack(small, tmp_path / "out", epoch=EPOCH, patches=patches)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off"], ids=["empty", "half"])
def test_a_file_that_is_no_wheel_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / NAME).write_bytes(content)
    with pytest.raises(SourceError, match="is no wheel"):
        wheel.identify(tmp_path / NAME)


def test_a_run_that_fails_leaves_no_wheel(tmp_path: Path, patches: tuple[Patch, ...]) -> None:
    broken = make(tmp_path)
    whole = broken.read_bytes()
    at = whole.index(b"vllm/_C.abi3.so") + 40
    broken.write_bytes(whole[:at] + bytes(20) + whole[at + 20 :])
    with pytest.raises((zipfile.BadZipFile, OSError, ValueError)):
        wheel.repack(broken, tmp_path / "out", epoch=EPOCH, patches=patches)
    assert list((tmp_path / "out").glob("*.whl")) == []
