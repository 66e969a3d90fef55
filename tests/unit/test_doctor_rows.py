"""What the doctor thinks of a host: one fact, one verdict, and something to type."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from appliance.doctor.doorrows import door_rows, port_row
from appliance.doctor.machinefacts import (
    Card,
    Clock,
    Disk,
    Gpus,
    Port,
    parse_cards,
    parse_synchronized,
)
from appliance.doctor.machinerows import (
    clock_row,
    disk_row,
    earlyoom_row,
    gpu_rows,
    host_rows,
    swap_row,
)
from appliance.doctor.modelrows import attached_row, engine_row, memory_rows, model_row
from appliance.doctor.row import Level, Row, Unseen, exit_code, fail, ok, warn
from appliance.enginefacts import EngineFacts
from appliance.facts import EarlyOom, HostFacts, SwapDevice
from appliance.factsfile import read_host, read_model
from appliance.settings import PREFIX, Settings, load_settings
from appliance.tls import Identity
from tests.engines import ROOT

GOLDEN = ROOT / "tests" / "golden"
GIB = 2**30
NOW = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
OK, WARN, FAIL = Level.OK, Level.WARN, Level.FAIL
# As a real one answered (H100, driver 580.159.04, 2026-11-23), with a Spark's own figures in it.
SMI = "NVIDIA GB10, 580.159.04, 12.1, 405, 3003\n"


def settings(profile: str = "spark", **more: str) -> Settings:
    values = {"profile": profile, **more}
    return load_settings({PREFIX + name.upper(): value for name, value in values.items()})


def host(name: str = "spark") -> HostFacts:
    return read_host((GOLDEN / "hosts" / f"{name}.json").read_text(), name)


def model(name: str = "nikola") -> Any:
    return read_model((GOLDEN / "models" / f"{name}.json").read_text(), name)


def named(rows: Any) -> dict[str, Row]:
    return {row.name: row for row in rows}


def gpus(text: str = SMI) -> Gpus:
    return Gpus(parse_cards(text))


# ---- the sum


def test_one_failure_is_1_and_warnings_are_0() -> None:
    assert exit_code([ok("a", ""), warn("b", "")]) == 0
    assert exit_code([ok("a", ""), fail("b", "")]) == 1
    assert exit_code([]) == 0


# ---- the machine


def test_a_spark_as_it_should_be_is_ok() -> None:
    assert {row.level for row in host_rows(settings(), host())} == {OK}


def test_another_architecture_fails_and_demo_runs_on_both() -> None:
    intel = replace(host(), machine="x86_64")
    row = named(host_rows(settings(), intel))["architecture"]
    assert row.level is FAIL
    assert "--profile demo" in row.next
    for machine in ("aarch64", "x86_64"):
        facts = replace(host(), machine=machine)
        assert named(host_rows(settings("demo"), facts))["architecture"].level is OK


def test_a_desktop_is_to_be_stopped_on_a_box_and_may_stay_in_a_demo() -> None:
    facts = replace(host(), desktop=("gnome-shell (2211)",))
    row = named(host_rows(settings(), facts))["desktop"]
    assert (row.level, "multi-user.target" in row.next) == (WARN, True)
    assert "gnome-shell (2211)" in row.value
    assert named(host_rows(settings("demo"), facts))["desktop"].level is OK


def test_a_host_that_cannot_be_looked_at_fails_once() -> None:
    assert [row.level for row in host_rows(settings(), Unseen("no /proc", "run this"))] == [FAIL]


@pytest.mark.parametrize(
    ("kinds", "level"), [((), WARN), (("zram",), WARN), (("file",), OK), (("zram", "disk"), OK)]
)
def test_only_swap_that_is_not_in_memory_counts(kinds: tuple[str, ...], level: Level) -> None:
    swap = tuple(SwapDevice(f"/dev/{kind}", kind, 16 * GIB) for kind in kinds)
    row = swap_row(settings(), replace(host(), swap=swap))
    assert row.level is level
    assert bool(row.next) == (level is WARN)


def test_a_demo_needs_no_swap() -> None:
    assert swap_row(settings("demo"), replace(host(), swap=())).level is OK


def test_earlyoom_above_the_guards_floor_is_in_their_way() -> None:
    floor = settings().memory_kill_floor
    for term, level in ((floor - 1, OK), (floor, WARN), (8 * GIB, WARN)):
        facts = replace(host(), earlyoom=EarlyOom(term, term // 2))
        row = earlyoom_row(settings(), facts)
        assert row.level is level
    assert row.next == "sudo systemctl disable --now earlyoom"
    assert earlyoom_row(settings(), host()).level is OK


# ---- the GPU


def test_a_spark_is_known_by_its_capability_and_driver() -> None:
    rows = named(gpu_rows(settings(), gpus()))
    assert {row.level for row in rows.values()} == {OK}
    assert rows["gpu"].value == "NVIDIA GB10, compute capability 12.1"
    assert rows["driver"].value == "580.159.04"


def test_a_spark_is_no_thor() -> None:
    row = named(gpu_rows(settings("thor"), gpus()))["gpu"]
    assert row.level is WARN
    assert "is for 11.0, a NVIDIA Jetson AGX Thor" in row.value


@pytest.mark.parametrize(
    ("driver", "level"), [("580.65.06", OK), ("575.57", FAIL), ("[N/A]", WARN), ("", WARN)]
)
def test_a_driver_before_cuda_13_fails(driver: str, level: Level) -> None:
    rows = gpu_rows(settings(), gpus(SMI.replace("580.159.04", driver)))
    assert named(rows)["driver"].level is level


@pytest.mark.parametrize(
    ("clocks", "level", "told"),
    [
        ("2418, 3003", WARN, "no cap"),
        ("405, 3003", OK, "shows under load alone"),
        ("405, 2150", OK, "405 of 2150 MHz now"),
        ("[N/A], [N/A]", WARN, "no clock"),
    ],
)
def test_what_of_a_cap_can_be_seen_is_told(clocks: str, level: Level, told: str) -> None:
    row = named(gpu_rows(settings(), gpus(SMI.replace("405, 3003", clocks))))["clock cap"]
    assert row.level is level
    assert told in row.value


def test_the_cap_is_a_sparks_matter() -> None:
    assert "clock cap" not in named(gpu_rows(settings("thor"), gpus()))


@pytest.mark.parametrize(
    "seen", [Gpus(why="nvidia-smi is not installed"), Gpus(why="x"), Unseen("no answer")]
)
def test_without_a_gpu_a_box_fails_and_a_demo_does_not(seen: Gpus | Unseen) -> None:
    assert [row.level for row in gpu_rows(settings(), seen)] == [FAIL]
    assert [row.level for row in gpu_rows(settings("demo"), seen)] == [OK]


def test_smis_lines_are_read_and_others_are_not() -> None:
    assert parse_cards(SMI) == (Card("NVIDIA GB10", "580.159.04", "12.1", 405, 3003),)
    assert parse_cards("No devices were found\n") == ()
    assert parse_cards("NVIDIA Thor, 580.00, 11.0, [N/A], [N/A]") == (
        Card("NVIDIA Thor", "580.00", "11.0", None, None),
    )


# ---- clock and disks


@pytest.mark.parametrize(
    ("clock", "level"),
    [
        (Clock(NOW, True), OK),
        (Clock(NOW, None), OK),
        (Clock(NOW, False), WARN),
        (Clock(datetime(1970, 1, 1, tzinfo=UTC), True), FAIL),
        (Unseen("no answer within 15 s"), WARN),
    ],
)
def test_a_clock_is_judged_by_the_year_and_by_who_keeps_it(
    clock: Clock | Unseen, level: Level
) -> None:
    row = clock_row(clock)
    assert row.level is level
    assert bool(row.next) == (level is not OK)


def test_timedatectl_says_yes_or_no_and_else_nothing() -> None:
    told = [parse_synchronized(text) for text in ("yes\n", "no\n", "", "?")]
    assert told == [True, False, None, None]


@pytest.mark.parametrize(
    ("needed", "hard", "level"), [(5, True, OK), (6, False, WARN), (6, True, FAIL)]
)
def test_a_disk_without_room_warns_or_fails(needed: int, hard: bool, level: Level) -> None:
    disk = Disk(Path("/models"), 5 * GIB, 9 * GIB)
    row = disk_row("disk", disk, needed * GIB, "the checkpoint", hard=hard)
    assert row.level is level
    assert "5.0 GiB free at /models" in row.value
    assert disk_row("disk", Unseen("gone"), 0, "x", hard=hard).level is WARN


# ---- engine, model and memory


HOST_ENGINE = EngineFacts("host")


def test_the_hosts_own_engine_is_named_where_there_is_no_docker() -> None:
    row = engine_row(Unseen("none"), ("vllm",), "/opt/engine/bin/vllm", HOST_ENGINE)
    assert (row.level, row.value) == (OK, "/opt/engine/bin/vllm: engine of the host")
    row = engine_row(Unseen("none"), ("vllm",), None, HOST_ENGINE)
    assert row.level is FAIL
    assert "APPLIANCE_ENGINE_COMMAND" in row.next


def test_an_engine_that_cannot_be_read_is_told() -> None:
    broken = EngineFacts("unknown", problem="ENGINE.json cannot be read")
    assert engine_row(Unseen("none"), ("vllm",), "/bin/vllm", broken).level is WARN


@pytest.mark.parametrize(("status", "level"), [(200, OK), (503, FAIL), (Unseen("refused"), FAIL)])
def test_an_attached_engine_must_answer(status: int | Unseen, level: Level) -> None:
    assert attached_row("http://127.0.0.1:8000", status).level is level


def test_a_model_that_is_not_there_says_what_to_set() -> None:
    row = model_row(Unseen("the model folder /m does not exist", "set APPLIANCE_MODEL_DIR"))
    assert (row.level, row.next) == (FAIL, "set APPLIANCE_MODEL_DIR")
    assert model_row(model()).level is OK


def test_a_plan_that_fits_shows_what_it_needs_and_serves() -> None:
    row, *_ = memory_rows(settings(), host(), model(), "")
    assert row.level in (OK, WARN)
    assert "116.0 GiB available" in row.value
    assert "27,648 tokens" in row.value


def test_a_plan_that_does_not_fit_fails_with_every_shortfall_and_a_remedy() -> None:
    rows = list(memory_rows(settings(), host("spark-bad-kit"), model(), ""))
    assert rows
    assert {row.level for row in rows} == {FAIL}
    assert all(row.next for row in rows)


def test_while_our_engine_runs_its_memory_is_not_asked_for_again() -> None:
    full = replace(host(), memory_available_bytes=5 * GIB)
    (row,) = memory_rows(settings(), full, model(), "the container c runs")
    assert row.level is OK
    assert "while the container c runs" in row.value
    low = replace(host(), memory_available_bytes=3 * GIB)
    assert [r.level for r in memory_rows(settings(), low, model(), "x runs")] == [WARN]


def test_without_a_model_there_is_no_budget() -> None:
    assert [r.level for r in memory_rows(settings(), host(), Unseen("none"), "")] == [WARN]


# ---- the door


def test_a_port_is_free_ours_or_somebody_elses() -> None:
    taken = Port("127.0.0.1", 9000, "port 9000 is taken", "ss -ltnp")
    assert port_row(Port("127.0.0.1", 9000), "").level is OK
    assert port_row(taken, "the container c runs").level is OK
    row = port_row(taken, "")
    assert (row.level, row.next) == (FAIL, "ss -ltnp")
    assert port_row(Unseen("late"), "").level is WARN


def door(at: str, identity: Any = None, *, is_https: bool = False) -> dict[str, Row]:
    return named(door_rows(at, 9000, identity, is_https, ("192.168.1.20",), NOW))


def test_only_plain_http_on_the_network_is_warned_of() -> None:
    assert door("127.0.0.1")["network"].level is OK
    plain = door("0.0.0.0")["network"]
    assert plain.level is WARN
    assert "http://192.168.1.20:9000" in plain.value
    assert "appliance cert" in plain.next
    https = door("0.0.0.0", is_https=True)["network"]
    assert (https.level, https.value) == (OK, "https://192.168.1.20:9000")


def test_a_certificate_is_told_by_its_days() -> None:
    files = (Path("/tls/cert.pem"), Path("/tls/key.pem"))
    good = Identity(*files, datetime(2027, 11, 23, 9, 0, tzinfo=UTC), ("spark",), False)
    assert door("0.0.0.0", good)["certificate"].value == "/tls/cert.pem, valid for 365 days"
    late = replace(good, ends=datetime(2026, 12, 1, 9, 0, tzinfo=UTC))
    assert door("0.0.0.0", late)["certificate"].level is WARN
    assert door("0.0.0.0", Unseen("expired", "renew"))["certificate"].level is FAIL
    assert "certificate" not in door("0.0.0.0")
