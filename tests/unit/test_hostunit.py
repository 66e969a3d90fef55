"""The unit that lends memory.reclaim: which names it takes, what it says, what it may do."""

import json
import re
import shlex
import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import HostError
from appliance.hostunit import (
    CGROUP_ROOT,
    FILE,
    UID,
    UNIT,
    Lent,
    checked_names,
    come_and_go,
    compose_text,
    parse_unit,
    unit_command,
    unit_text,
)

USER = "user.slice/user-1000.slice"
DOCKER = "system.slice/docker-0123abcd.scope"
ESCAPED = r"user.slice/user-1000.slice/app-a\x2db.scope"


# ---- names


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (USER, USER),
        (f"{USER}/", USER),
        (f"/sys/fs/cgroup/{USER}", USER),
        (DOCKER, DOCKER),
        (ESCAPED, ESCAPED),
        ("user.slice", "user.slice"),
        ("system.slice/gdm.service", "system.slice/gdm.service"),
    ],
)
def test_a_cgroup_is_taken_by_its_name_or_its_path(given: str, taken: str) -> None:
    assert checked_names([given], UID) == (taken,)


def test_a_cgroup_that_is_named_twice_is_taken_once() -> None:
    assert checked_names([USER, DOCKER, f"{CGROUP_ROOT}/{USER}"], UID) == (USER, DOCKER)


@pytest.mark.parametrize("name", ["", ".", "/", "//", "/sys/fs/cgroup", "/sys/fs/cgroup/"])
def test_the_root_cgroup_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="root cgroup"):
        checked_names([USER, name], UID)


@pytest.mark.parametrize("name", ["/etc", "/user.slice", "/sys/fs/cgroup2/user.slice", "/sys/fs"])
def test_a_path_that_is_not_below_the_cgroups_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="is not below /sys/fs/cgroup"):
        checked_names([name], UID)


@pytest.mark.parametrize(
    "name",
    [
        *("..", "../etc", "user.slice/..", "user.slice/./a", "user.slice//a"),
        *("/sys/fs/cgroup/../../etc", "a b", "a\tb", "a\nExecStart=/bin/sh", 'a"b', "a'b"),
        *("a$b", "a%i", "a;b", "a`b`", "a*", "~", "ä.slice", "a\0b", "#a", "{a}"),
    ],
)
def test_what_is_no_name_of_a_cgroup_is_refused(name: str) -> None:
    with pytest.raises(HostError, match="is no name of a cgroup"):
        checked_names([name], UID)


@pytest.mark.parametrize(
    "name",
    [
        *("init.scope", "user.slice/user-1000.slice/user@1000.service/init.scope", "-.slice"),
        *("system.slice/systemd-journald.service", "system.slice/systemd-logind.service"),
        *("system.slice/ssh.service", "system.slice/sshd.service", "system.slice/sshd@3.service"),
        *("system.slice/dbus.service", "system.slice/dbus-broker.service"),
        *("system.slice/dbus-:1.2-org.x@0.service", "system.slice/nvidia-persistenced.service"),
        *("system.slice/unglitched.service", f"system.slice/{UNIT}"),
    ],
)
def test_what_keeps_the_machine_alive_and_our_own_keep_their_memory(name: str) -> None:
    with pytest.raises(HostError, match="must keep its memory"):
        checked_names([name], UID)


@pytest.mark.parametrize("name", ["system.slice", "/sys/fs/cgroup/system.slice/"])
def test_a_slice_that_holds_them_is_refused_too(name: str) -> None:
    with pytest.raises(HostError, match="holds sshd, dbus and journald"):
        checked_names([name], UID)


@pytest.mark.parametrize("uid", [-1, 0, 1000, 9999])
def test_a_uid_of_the_machine_s_own_users_is_refused(uid: int) -> None:
    with pytest.raises(HostError, match=f"--uid {uid} is below 10000"):
        checked_names([USER], uid)


def test_no_cgroup_at_all_is_refused_with_an_example() -> None:
    with pytest.raises(HostError, match="no cgroup is named") as caught:
        checked_names([], UID)
    assert "--cgroup system.slice/snapd.service" in caught.value.hint


@given(st.one_of(st.text(), st.from_regex(r"[a-z0-9./\\$%'\"@:_ \n-]+", fullmatch=True)))
def test_a_name_that_is_taken_stays_below_the_root_and_means_nothing_to_a_shell(name: str) -> None:
    try:
        (taken,) = checked_names([name], UID)
    except HostError:
        return
    assert re.fullmatch(r"[A-Za-z0-9:_.@\\/-]+", taken)
    assert ".." not in taken.split("/")
    assert not taken.startswith("/")
    assert parse_unit(unit_text((taken,), UID)) == Lent(UID, (taken,))


# ---- the unit


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    return parsed(unit_text((USER, DOCKER, ESCAPED), UID))


def parsed(text: str) -> ConfigParser:
    parser = ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(text)
    return parser


def commands(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("Exec")]


def test_every_command_touches_the_listed_files_and_nothing_else() -> None:
    names = (USER, DOCKER, ESCAPED)
    lines = commands(unit_text(names, UID))
    assert len(lines) == 4
    for line in lines:
        found = [word for word in shlex.split(line.partition("=")[2]) if "/sys/" in word]
        assert found == [f"{CGROUP_ROOT}/{name}/{FILE}" for name in names]


def test_no_command_goes_down_a_tree_or_follows_a_link() -> None:
    text = unit_text((USER,), UID)
    for line in commands(text):
        assert not re.search(r"-\w*[RLH]\b|--recursive|--dereference", line)
        if "chown" in line:
            assert "chown -h" in line


def test_a_stop_gives_the_files_back_before_it_resets_their_mode() -> None:
    """The other way round their owner could change the mode again."""
    stops = [line for line in commands(unit_text((USER,), UID)) if line.startswith("ExecStopPost")]
    assert [line.split()[0].rpartition("/")[2] for line in stops] == ["chown", "chmod"]
    assert " 0 " in stops[0]
    assert " 0200 " in stops[1]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("Type", "exec"),
        ("CapabilityBoundingSet", "CAP_CHOWN"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("ProtectHome", "yes"),
        ("ProtectKernelTunables", "yes"),
        ("ProtectKernelModules", "yes"),
        ("ProtectKernelLogs", "yes"),
        ("ProtectClock", "yes"),
        ("ProtectHostname", "yes"),
        ("PrivateTmp", "yes"),
        ("PrivateDevices", "yes"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "none"),
        ("RestrictNamespaces", "yes"),
        ("RestrictRealtime", "yes"),
        ("RestrictSUIDSGID", "yes"),
        ("LockPersonality", "yes"),
        ("SystemCallArchitectures", "native"),
        ("SystemCallFilter", "@system-service"),
        ("UMask", "0077"),
    ],
)
def test_the_unit_may_chown_and_little_else(unit: ConfigParser, key: str, value: str) -> None:
    assert unit["Service"][key] == value


@pytest.mark.parametrize("key", ["ProtectControlGroups", "PrivateUsers", "PrivateNetwork", "User"])
def test_no_hardening_hides_the_files_or_changes_the_uid(unit: ConfigParser, key: str) -> None:
    assert key not in unit["Service"]


def test_an_unit_tells_what_it_lends() -> None:
    assert parse_unit(unit_text((USER, ESCAPED), 12345)) == Lent(12345, (USER, ESCAPED))


@pytest.mark.parametrize(
    "text", ["", "[Unit]\n", "\n[X-Unglitched]\n", "\n[X-Unglitched]\nUid=\n", "Uid=10001\n"]
)
def test_a_unit_of_somebody_else_lends_nothing(text: str) -> None:
    assert parse_unit(text) is None


@given(st.text())
def test_no_text_breaks_the_reader(text: str) -> None:
    parse_unit(text)
    parse_unit("\n[X-Unglitched]\n" + text)


def test_systemd_itself_finds_no_fault(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    file = tmp_path / UNIT
    file.write_text(unit_text((USER, DOCKER, ESCAPED), UID))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


# ---- what is to be typed elsewhere


def test_compose_mounts_those_directories_alone() -> None:
    text = compose_text((USER, ESCAPED))
    rows = [line.strip() for line in text.splitlines()]
    assert rows.count("- type: bind") == 2
    assert f"source: {CGROUP_ROOT}/{USER}" in rows
    assert f"target: /host/cgroup/{USER}" in rows
    assert f"source: '{CGROUP_ROOT}/{ESCAPED}'" in rows
    assert "APPLIANCE_CGROUP_BASE: /host/cgroup" in rows


def test_the_setting_is_read_back_as_the_names() -> None:
    row = compose_text((USER, ESCAPED)).splitlines()[-1].strip()
    name, _, value = row.partition(": ")
    assert name == "APPLIANCE_EVICT_CGROUPS"
    assert value.startswith("'")
    assert shlex.split(value[1:-1].replace("''", "'")) == [USER, ESCAPED]  # YAML, then the settings


def test_the_command_without_systemd_names_the_same_files() -> None:
    assert unit_command((USER,), UID) == f"chown -h {UID} {CGROUP_ROOT}/{USER}/{FILE}"


@pytest.mark.parametrize(
    ("name", "said"),
    [(USER, "loginctl enable-linger"), (DOCKER, "install again"), ("system.slice/a.service", "")],
)
def test_a_cgroup_that_ends_with_a_login_or_a_container_is_told_of(name: str, said: str) -> None:
    notes = list(come_and_go((name,)))
    assert len(notes) == bool(said)
    assert said in json.dumps(notes)
