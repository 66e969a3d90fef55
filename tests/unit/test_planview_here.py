"""``appliance plan`` on this machine is what a start would do, with what it has learned."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from appliance.errors import SwapError
from appliance.planview import print_plan
from appliance.settings import Settings, load_settings
from appliance.statefile import ENGINE_FILE, Kept, StateFile, choice_of
from tests.checkpoints import TINY, write_checkpoint
from tests.plans import GOLDEN

MIB = 2**20
HOST = GOLDEN / "hosts" / "demo-24g.json"
MODEL = GOLDEN / "models" / "demo.json"
LEARNED = 777 * MIB
GROUP = "docker"


def settings_of(folder: Path, **changes: Any) -> Settings:
    overrides = {
        "model_dir": folder / "model",
        "state_dir": folder,
        "profile": "demo",
        "evict_cgroups": GROUP,
        "cgroup_base": folder / "cgroup",
        **changes,
    }
    return load_settings({}, overrides)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A state folder, a checkpoint, and a cgroup with cold pages."""
    write_checkpoint(tmp_path / "model", {"BF16": 2048}, **TINY)
    group = tmp_path / "cgroup" / GROUP
    group.mkdir(parents=True)
    (group / "memory.stat").write_text(f"inactive_anon {MIB}\nactive_anon 0\nunevictable 0\n")
    return tmp_path


def keep(folder: Path, choice: str) -> None:
    kept = Kept(boot_id="another", choice=choice, learned={"engine_host_bytes": LEARNED})
    assert StateFile(folder / ENGINE_FILE).save(kept) == ""


def shown(capsys: pytest.CaptureFixture[str], settings: Settings, **files: Path) -> dict[str, Any]:
    print_plan(settings, "json", **files)  # whether it fits here is not the question
    view: dict[str, Any] = json.loads(capsys.readouterr().out)
    return view


def engine_host(view: dict[str, Any]) -> int:
    rows = view["memory"]["rows"] if view["memory"] else view["problem"]["table"]
    (size,) = [row["bytes"] for row in rows if row["name"] == "engine_host"]
    return int(size)


def test_it_reckons_with_what_the_last_start_of_this_choice_learned(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    settings = settings_of(folder)
    keep(folder, choice_of(settings, os.environ))
    assert engine_host(shown(capsys, settings)) == LEARNED
    assert engine_host(shown(capsys, settings_of(folder, port=1))) == LEARNED, "no other engine"


def test_what_another_choice_learned_is_not_reckoned_with(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    keep(folder, choice_of(settings_of(folder), os.environ))
    assert engine_host(shown(capsys, settings_of(folder, max_num_seqs=3))) != LEARNED


@pytest.mark.parametrize(
    "files", [{"host_file": HOST}, {"model_file": MODEL}], ids=["machine", "checkpoint"]
)
def test_what_was_learned_here_says_nothing_of_another(
    capsys: pytest.CaptureFixture[str], folder: Path, files: dict[str, Path]
) -> None:
    settings = settings_of(folder)
    keep(folder, choice_of(settings, os.environ))
    assert engine_host(shown(capsys, settings, **files)) != LEARNED


def test_a_damaged_state_file_is_left_for_the_appliance_to_set_aside(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    (folder / ENGINE_FILE).write_bytes(b"{")
    assert engine_host(shown(capsys, settings_of(folder))) != LEARNED
    assert (folder / ENGINE_FILE).read_bytes() == b"{"
    assert [path.name for path in folder.glob("engine*")] == [ENGINE_FILE]


# ---- what may be pushed out


@pytest.fixture
def helper(folder: Path) -> Path:
    script = folder / "helper"
    script.write_text("#!/bin/false\n")
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("mode", ["auto", "on"])
def test_with_the_helper_the_cgroups_are_counted_on(
    capsys: pytest.CaptureFixture[str], folder: Path, helper: Path, mode: str
) -> None:
    view = shown(capsys, settings_of(folder, swap=mode, swap_command=str(helper)))
    assert view["host"]["evictable"] == [{"cgroup": GROUP, "anon_bytes": MIB}]


@pytest.mark.parametrize(("mode", "there"), [("auto", False), ("off", False), ("off", True)])
def test_without_the_helper_nothing_is_counted_on(
    capsys: pytest.CaptureFixture[str], folder: Path, helper: Path, mode: str, there: bool
) -> None:
    command = str(helper if there else folder / "nowhere")
    view = shown(capsys, settings_of(folder, swap=mode, swap_command=command))
    assert view["host"]["evictable"] == []


def test_a_helper_that_must_be_there_and_is_not_is_said(folder: Path) -> None:
    settings = settings_of(folder, swap="on", swap_command=str(folder / "nowhere"))
    with pytest.raises(SwapError, match="nowhere is not installed"):
        print_plan(settings, "table")


def test_the_helper_of_this_machine_says_nothing_of_another(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    settings = settings_of(folder, swap="on", swap_command=str(folder / "nowhere"))
    assert print_plan(settings, "json", HOST) == 0
    assert json.loads(capsys.readouterr().out)["problem"] is None
