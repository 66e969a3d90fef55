"""The systemd unit: what it promises about stops, restarts and the GPU."""

import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

from appliance.errors import PortTaken, SettingsError
from appliance.lifecycle import Policy
from appliance.settings import Settings

UNIT = Path(__file__).parents[2] / "docker" / "unglitched.service"
PROGRAM = "/opt/unglitched/.venv/bin/appliance"


@pytest.fixture(scope="module")
def unit() -> ConfigParser:
    # systemd takes a key twice, writes %S, and tells capitals from small letters
    parser = ConfigParser(strict=False, interpolation=None, delimiters="=", comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(UNIT.read_text(encoding="ascii"))
    return parser


def environment(unit: ConfigParser) -> dict[str, str]:
    pairs = (pair.partition("=") for pair in unit["Service"]["Environment"].split())
    return {name: value for name, _, value in pairs}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("ExecStart", f"{PROGRAM} run"),
        ("User", "unglitched"),
        ("Group", "unglitched"),
        ("EnvironmentFile", "-/etc/unglitched.env"),
        ("StateDirectory", "unglitched"),
        ("StateDirectoryMode", "0700"),
        ("Restart", "on-failure"),
        ("KillMode", "mixed"),
        ("KillSignal", "SIGTERM"),
        ("OOMPolicy", "continue"),
        ("LimitCORE", "0"),
        ("NoNewPrivileges", "yes"),
        ("ProtectSystem", "strict"),
        ("PrivateTmp", "yes"),
        ("UMask", "0077"),
    ],
)
def test_the_unit_holds_what_the_appliance_counts_on(
    unit: ConfigParser, key: str, value: str
) -> None:
    assert unit["Service"][key] == value


def test_no_key_is_given_twice_so_that_each_row_means_what_it_says() -> None:
    rows = [row for row in UNIT.read_text().splitlines() if "=" in row and row[0] != "#"]
    names = [row.partition("=")[0] for row in rows]
    assert len(set(names)) == len(names)


def test_wrong_settings_are_not_tried_again_and_a_taken_port_is(unit: ConfigParser) -> None:
    prevented = unit["Service"]["RestartPreventExitStatus"].split()
    assert prevented == [str(SettingsError.exit_code)]
    assert str(PortTaken.exit_code) not in prevented
    assert set(unit["Service"]["SuccessExitStatus"].split()) == {"130", "143"}


def test_a_second_signals_exit_is_no_failure_to_restart_from(unit: ConfigParser) -> None:
    assert int(unit["Service"]["RestartSec"]) >= 10
    start_limit_s = int(unit["Unit"]["StartLimitIntervalSec"])
    # The limit must be reachable at this pace, or an appliance that dies at once runs for ever.
    burst = int(unit["Unit"]["StartLimitBurst"])
    assert burst * int(unit["Service"]["RestartSec"]) < start_limit_s


def test_a_stop_has_time_for_drain_stop_and_reaping(unit: ConfigParser) -> None:
    policy = Policy()
    longest_s = policy.drain_s + policy.stop_s + policy.reap_s
    assert int(unit["Service"]["TimeoutStopSec"]) >= longest_s + 60


@pytest.mark.parametrize(
    "key",
    [
        *("PrivateDevices", "DevicePolicy", "DeviceAllow", "ProtectClock"),
        *("MemoryDenyWriteExecute", "ProcSubset", "PrivateUsers", "PrivateNetwork"),
        *("SystemCallFilter", "RootDirectory", "DynamicUser", "MemoryMax"),
    ],
)
def test_no_hardening_takes_the_gpu_the_compiler_or_meminfo_away(
    unit: ConfigParser, key: str
) -> None:
    assert key not in unit["Service"]


def test_what_is_written_lies_in_the_folders_that_systemd_makes(unit: ConfigParser) -> None:
    service, env = unit["Service"], environment(unit)
    state, cache = (
        f"/var/lib/{service['StateDirectory']}",
        f"/var/cache/{service['CacheDirectory']}",
    )
    assert env["APPLIANCE_STATE_DIR"] == env["HOME"] == service["WorkingDirectory"] == state
    for name in ("XDG_CACHE_HOME", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR"):
        assert Path(env[name]).is_relative_to(cache)


def test_the_unit_sets_settings_that_exist_and_no_key(unit: ConfigParser) -> None:
    chosen = {name for name in environment(unit) if name.startswith("APPLIANCE_")}
    known = {f"APPLIANCE_{name.upper()}" for name in Settings.model_fields}
    assert chosen <= known
    assert not any("KEY" in name for name in chosen)


def test_systemd_itself_finds_no_fault(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed")
    # the program of another machine is not here, and verify wants one
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace(PROGRAM, sys.executable))
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(copy)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
