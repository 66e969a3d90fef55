"""Installing the unit on a fake host, and what uid 10001 can then do there. Needs root."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.errors import HostError
from appliance.hostlend import Host, systemctl, user_name
from appliance.hostunit import CGROUP_ROOT, FILE, UID
from tests.hostbox import CGROUPS, ESCAPED, FILES, SESSION, USER, Box, make_cgroup, owners


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other uids may enter, which pytest's own are not."""
    if os.geteuid() != 0:
        pytest.skip("needs root: it chowns files and acts as uid 10001")
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@pytest.fixture
def box(folder: Path) -> Box:
    root = folder / "cgroup"
    for name in CGROUPS:
        make_cgroup(root / name)
    for path in (root, *root.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    (folder / "units").mkdir()
    (folder / "booted").mkdir()
    (folder / "proc").mkdir()
    (folder / "mounts").write_text(f"sysfs /sys sysfs rw 0 0\ncgroup2 {root} cgroup2 rw 0 0\n")
    return Box(folder)


# ---- what the uid may do then


def test_before_an_install_the_uid_can_do_nothing(box: Box) -> None:
    done = box.attack(USER)
    assert {line for line in done if not line.startswith("tried ")} == set()


def test_after_it_the_uid_opens_memory_reclaim_and_no_other_file_of_the_mount(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    done = box.attack(USER)
    tried = {line for line in done if line.startswith("tried ")}
    assert len(tried) == 2 * sum(map(len, FILES.values()))  # the slice and the session in it
    # chmod: an owner may, of this one file; the stop resets it
    assert done - tried == {f"written ./{FILE}", f"chmod ./{FILE}"}


def test_a_remove_leaves_all_as_it_was_before(box: Box) -> None:
    before = owners(box.root)
    box.host.install([USER, ESCAPED], UID, box.said.append)
    assert (box.owner(USER), box.owner(ESCAPED), box.owner("user.slice")) == (UID, UID, 0)
    box.attack(USER)  # changes the mode of its file
    box.host.remove(box.said.append)
    assert owners(box.root) == before
    assert list((box.folder / "units").iterdir()) == []
    assert box.asked[-2:] == ["disable", "daemon-reload"]
    assert not any(line.startswith("written") for line in box.attack(USER))


def test_a_cgroup_that_was_made_anew_is_lent_again(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    shutil.rmtree(box.root / USER)
    make_cgroup(box.root / USER)
    assert box.owner(USER) == 0
    tools = box.folder / "tools"
    tools.mkdir()
    # the loop sleeps once, and then ends: there is nobody to stop it
    (tools / "sleep").write_text(f'#!/bin/sh\nmkdir "{tools}/slept" 2>/dev/null\n')
    (tools / "sleep").chmod(0o755)
    box.run("ExecStart", f"{tools}:{os.defpath}")
    assert box.owner(USER) == UID


def test_a_link_that_takes_the_file_s_place_is_not_followed(box: Box) -> None:
    victim = box.folder / "victim"
    victim.write_text("")
    box.host.install([USER], UID, box.said.append)
    (box.root / USER / FILE).unlink()
    (box.root / USER / FILE).symlink_to(victim)
    box.run("ExecStartPre")
    assert victim.stat().st_uid == 0


def test_a_second_install_gives_back_what_it_no_longer_names(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    box.host.install([ESCAPED], UID + 1, box.said.append)
    assert (box.owner(USER), box.owner(ESCAPED)) == (0, UID + 1)
    box.host.install([ESCAPED], UID, box.said.append)
    assert box.owner(ESCAPED) == UID


# ---- status


def test_status_tells_who_owns_each_file(box: Box) -> None:
    assert box.host.status(box.said.append) == 1
    assert "not installed" in box.text
    box.host.install([USER, ESCAPED], UID, box.said.append)
    assert box.host.status(box.said.append) == 0
    assert f"{USER}: lent to uid {UID}" in box.said
    shutil.rmtree(box.root / USER)
    os.chown(box.root / ESCAPED / FILE, 0, 0)
    assert box.host.status(box.said.append) == 1
    assert f"{USER}: not there now" in box.said
    assert f"{ESCAPED}: owned by uid 0" in box.said


def test_a_remove_of_what_is_not_there_says_so(box: Box) -> None:
    box.host.remove(box.said.append)
    assert "nothing to take back" in box.text
    assert box.asked == []


# ---- what is said


def test_an_install_says_what_to_put_into_compose(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    assert f"uid {UID} may now reclaim from: {USER}" in box.said
    assert f"target: /host/cgroup/{USER}" in box.text
    assert "loginctl enable-linger" in box.text


def test_a_user_of_the_host_who_gets_the_right_too_is_named(box: Box) -> None:
    replace(box.host, user_name=lambda uid: f"u{uid}").install([USER], UID, box.said.append)
    assert f"uid {UID} is the user u{UID}, who may do so too" in box.text


def test_a_dry_run_prints_the_unit_and_changes_nothing(box: Box) -> None:
    replace(box.host, euid=1000).show([USER], UID, box.said.append)
    assert f"would write {box.unit}" in box.text
    assert "CapabilityBoundingSet=CAP_CHOWN" in box.text
    assert box.asked == []
    assert not box.unit.exists()
    assert box.owner(USER) == 0


# ---- refusals


def refusal(box: Box, host: Host, *names: str) -> HostError:
    """Return why an install is refused, once it is sure that it left nothing behind."""
    before = owners(box.folder)
    with pytest.raises(HostError) as caught:
        host.install(names, UID, box.said.append)
    assert owners(box.folder) == before
    assert caught.value.hint
    return caught.value


def test_who_is_not_root_is_told_the_whole_command(box: Box) -> None:
    error = refusal(box, replace(box.host, euid=1000), USER)
    assert error.hint == f"sudo appliance host install --cgroup {USER}"
    assert error.exit_code == 1
    with pytest.raises(HostError, match="needs root, this is uid 1000") as caught:
        replace(box.host, euid=1000).remove(box.said.append)
    assert caught.value.hint == "sudo appliance host remove"


def test_a_container_is_refused(box: Box) -> None:
    (box.folder / "in-docker").touch()
    assert "container" in refusal(box, box.host, USER).what


def test_a_host_without_systemd_is_told_the_one_command(box: Box) -> None:
    (box.folder / "booted").rmdir()
    error = refusal(box, box.host, USER)
    assert "systemd does not run here" in error.what
    assert f"chown -h {UID} {CGROUP_ROOT}/{USER}/{FILE}" in error.hint


@pytest.mark.parametrize("kind", ["tmpfs", "cgroup"])
def test_cgroup_v1_is_refused_with_what_to_boot(box: Box, kind: str) -> None:
    (box.folder / "mounts").write_text(f"x {box.root} {kind} rw 0 0\n")
    error = refusal(box, box.host, USER)
    assert f"is {kind}: this is cgroup v1" in error.what
    assert "systemd.unified_cgroup_hierarchy=1" in error.hint
    (box.folder / "mounts").write_text("")
    assert "is not mounted" in refusal(box, box.host, USER).what


def test_a_cgroup_that_is_not_there_is_refused_and_named(box: Box) -> None:
    error = refusal(box, box.host, USER, "user.slice/user-1001.slice")
    assert error.what == "--cgroup user.slice/user-1001.slice is not there"


def test_a_cgroup_that_is_no_leaf_is_refused_with_its_leaves(box: Box) -> None:
    leaf = f"{USER}/user@1000.service/app.slice/code.scope"
    make_cgroup(box.root / leaf)
    (box.root / leaf / "cgroup.procs").write_text("4711\n")
    make_cgroup(box.root / USER / "empty.scope")
    error = refusal(box, box.host, USER)
    assert leaf in error.what
    assert "empty.scope" not in error.what


def test_a_cgroup_without_the_file_is_told_of(box: Box) -> None:
    (box.root / USER / FILE).unlink()
    assert f"--cgroup {USER} has no {FILE}" in refusal(box, box.host, USER).what


@pytest.mark.parametrize("part", ["user.slice", USER])
def test_a_link_in_the_path_is_refused(box: Box, part: str) -> None:
    (box.root / part).rename(box.root / "elsewhere")
    (box.root / part).symlink_to(box.root / "elsewhere")
    assert "is a link" in refusal(box, box.host, USER).what


def test_a_link_in_place_of_the_file_is_refused(box: Box) -> None:
    file = box.root / USER / FILE
    file.unlink()
    file.symlink_to("/etc/shadow")
    assert "is not the kernel's" in refusal(box, box.host, USER).what


def test_a_file_that_is_a_user_s_is_not_taken_from_him(box: Box) -> None:
    os.chown(box.root / USER / FILE, 1000, 1000)
    assert "already uid 1000's" in refusal(box, box.host, USER).what


def test_the_appliance_s_own_cgroup_is_refused(box: Box) -> None:
    (box.root / SESSION / "cgroup.procs").write_text("17\n18\n")
    (box.folder / "proc" / "18").mkdir()
    (box.folder / "proc" / "18" / "status").write_text(f"Name:\tx\nUid:\t{UID}\t{UID}\t0\t0\n")
    assert "it is the appliance's own" in refusal(box, box.host, USER).what
    box.host.install([ESCAPED], UID, box.said.append)


def test_a_unit_of_somebody_else_is_not_overwritten(box: Box) -> None:
    box.unit.write_text("[Service]\nExecStart=/bin/true\n")
    assert "was not written by appliance host install" in refusal(box, box.host, USER).what


@pytest.mark.parametrize("verb", ["daemon-reload", "enable"])
def test_an_install_that_fails_leaves_nothing_behind(box: Box, verb: str) -> None:
    box.fails_at = verb
    assert f"systemctl {verb} failed" in refusal(box, box.host, USER).what


def test_a_unit_that_runs_and_lends_nothing_is_an_error(box: Box) -> None:
    host = replace(box.host, systemctl=lambda *_words: None)
    assert f"does not own {FILE} of {USER}" in refusal(box, host, USER).what


def test_a_folder_of_units_that_is_not_there_is_told(box: Box) -> None:
    (box.folder / "units").rmdir()
    assert "cannot be written: No such file" in refusal(box, box.host, USER).what


def test_a_remove_that_systemd_refuses_can_be_tried_again(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    box.fails_at = "disable"
    with pytest.raises(HostError, match="disable failed"):
        box.host.remove(box.said.append)
    assert box.unit.exists()
    box.fails_at = ""
    box.host.remove(box.said.append)
    assert box.owner(USER) == 0


def test_a_file_that_was_not_given_back_is_told_with_the_command(box: Box) -> None:
    box.host.install([USER], UID, box.said.append)
    with pytest.raises(HostError, match="still owns") as caught:
        replace(box.host, systemctl=lambda *_words: None).remove(box.said.append)
    assert caught.value.hint == f"chown 0 {CGROUP_ROOT}/{USER}/{FILE}"


# ---- the command


def test_the_command_refuses_the_root_cgroup(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["host", "install", "--cgroup", "/", "--dry-run"]) == 1
    assert "root cgroup" in capsys.readouterr().err


def test_systemctl_s_own_words_are_told() -> None:
    with pytest.raises(HostError, match=r"^systemctl --no-such-flag failed: \S"):
        systemctl("--no-such-flag")


def test_root_has_a_name_and_nobody_s_number_has_none() -> None:
    assert user_name(0) == "root"
    assert user_name(4294967000) == ""


@pytest.mark.parametrize("what", ["remove", "status"])
def test_a_dry_run_of_anything_else_is_refused(what: str) -> None:
    assert main(["host", what, "--dry-run"]) == 78
