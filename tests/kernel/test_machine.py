"""The machinery of the kernel tests itself; no guest is started here."""

import subprocess
from pathlib import Path

import pytest

from tests.kernel import initramfs, machine, table
from tests.kernel.kernels import needs

pytestmark = pytest.mark.kernel


def test_a_missing_program_is_named_with_the_line_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(AssertionError, match=r"qemu-system-x86_64.*apt-get install -y .*busybox"):
        initramfs.require_tools()


def test_cpio_reads_what_the_archive_holds(tmp_path: Path) -> None:
    archive = initramfs.Archive()
    archive.folder("bin")
    archive.file("bin/odd", b"seven b")
    archive.file("bin/empty", b"")
    subprocess.run(
        [initramfs.BUSYBOX, "cpio", "-i", "-d"],
        input=archive.finished(),
        cwd=tmp_path,
        check=True,
        capture_output=True,
    )
    assert (tmp_path / "bin" / "odd").read_bytes() == b"seven b"
    assert (tmp_path / "bin" / "odd").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "bin" / "empty").read_bytes() == b""


def test_the_guests_lines_become_scenarios() -> None:
    said = (
        'RESULT evict rc=0 freed=12\nJSON evict {"exit_code": 0}\nLOG evict one two\n'
        "RESULT evict data=verified\nnoise\nRESULT other rc=3\n"
    )
    scenarios = machine.parse(said)
    assert sorted(scenarios) == ["evict", "other"]
    assert scenarios["evict"].figures == {"rc": "0", "freed": "12", "data": "verified"}
    assert scenarios["evict"].report == {"exit_code": 0}
    assert scenarios["evict"].log == "one two\n"


def test_a_line_cut_short_is_left_out() -> None:
    assert machine.parse('RESULT evict rc=0\nJSON evict {"exit_co')["evict"].report == {}


def test_a_scenario_that_never_ended_fails_with_the_console() -> None:
    outcome = machine.Outcome(machine.parse("LOG evict started\n"), "Kernel panic")
    with pytest.raises(AssertionError, match=r"never finished 'evict'[\s\S]*Kernel panic"):
        outcome.scenario("evict")


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (b"\0license=GPL\0depends=jbd2,crc-itu-t\0", ["jbd2", "crc-itu-t"]),
        (b"\0depends=\0", []),
        (b"\0license=GPL\0", []),
    ],
)
def test_a_module_names_what_it_needs(module: bytes, expected: list[str]) -> None:
    assert needs(module) == expected


def test_the_table_has_a_line_for_each_scenario_and_a_column_for_each_kernel() -> None:
    rows = [
        table.Row("evict 1 GiB", "6.1", "0", "freed | all"),
        table.Row("evict 1 GiB", "7.3", "0", "freed"),
        table.Row("doors", "7.3", "-", "39 tried"),
    ]
    text = table.as_markdown(rows).splitlines()[2:]
    assert text == [
        "| scenario | 6.1 | 7.3 |",
        "| --- | --- | --- |",
        "| evict 1 GiB | exit 0: freed \\| all | exit 0: freed |",
        "| doors |  | 39 tried |",
    ]
