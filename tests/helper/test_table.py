"""The CLI table: what people and programs type, and what the helper answers; on every build."""

import shlex
from pathlib import Path

import pytest

from tests.helper import rows_acted, rows_looked, rows_refused
from tests.helper.driving import BUILDS, Build, Run, fake_roots, run
from tests.helper.machines import KERNELS, build_machine
from tests.helper.row import Row

ALL = [*rows_looked.ROWS, *rows_refused.ROWS, *rows_acted.ROWS]
ROWS = {row.name: row for row in ALL}

# Rows that say nothing under qemu-user, because the emulator fakes what they measure: name -> why.
FAKED_BY_THE_EMULATOR: dict[str, str] = {}

CASES = [
    (build, name)
    for build in BUILDS
    for name in ROWS
    if build != "aarch64" or name not in FAKED_BY_THE_EMULATOR
]


def run_row(build: Build, row: Row, root: Path) -> Run:
    machine = build_machine(row.machine, root)
    args = shlex.split(row.args.format(root=root))
    env = dict(row.env)
    if row.cuda is not None:
        env["LD_LIBRARY_PATH"] = str(build.stub(row.cuda))
    if not row.bare:
        args += fake_roots(machine)
    if args[:1] == ["evict"]:
        args += ["--lock", f"{root}/lock"]
    return run(build, args, env=env, machine=machine, kernel=KERNELS[row.kernel])


@pytest.mark.parametrize(("build", "name"), CASES, ids=[f"{b}-{n}" for b, n in CASES])
def test_the_helper_answers_as_the_table_says(
    built: dict[str, Build], build: str, name: str, tmp_path: Path
) -> None:
    row = ROWS[name]
    done = run_row(built[build], row, tmp_path)
    assert done.exit_code == row.exit_code, done.stderr + done.stdout
    assert {path: done.at(path) for path in row.fields} == dict(row.fields)
    for bit in row.stderr:
        assert bit in done.stderr
    for bit in row.stdout:
        assert bit in done.stdout
    if row.stdout:
        assert done.report is None
    else:
        assert done.at("exit_code") == row.exit_code


def test_the_table_has_at_least_sixty_rows_and_no_name_twice() -> None:
    assert len(ROWS) == len(ALL)
    assert len(ROWS) >= 60
    assert set(FAKED_BY_THE_EMULATOR) <= set(ROWS)
