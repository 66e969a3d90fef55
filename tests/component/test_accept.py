"""``appliance accept`` and ``appliance bundle`` as they are typed, over a fake engine."""

import json
import os
import platform
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance.accept.journal import NAME
from appliance.accept.steps import STEPS
from tests import engines
from tests.appliances import (
    CHAT,
    COMMAND,
    ApplianceProcess,
    attached_to,
    clean_environment,
    running_process,
)
from tests.engines import MODEL, ROOT, StartFake, wait_until

CONTEXT: dict[str, Any] = {"max_model_len": 16_384, "drain_timeout_s": 20, "stop_timeout_s": 2}
KEY, OPERATOR = "c4n4ry-client-key-0123456789", "c4n4ry-operator-key-0123456789"
PROMPT = "c4n4ry: my prompt about the merger of two firms"
SAID = (
    "Loading weights from //fileserver.lan/c4n4ry/share for 192.168.17.23 (de:ad:be:ef:c4:04)",
    "model of /home/c4n4ry/models, mail c4n4ry@firm.example, token=c4n4ry-token-123",
    f"this host is {platform.node()}",
)
STEP_S = 60.0


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """One appliance with planted names, keys and log lines, for all tests here."""
    folder = tmp_path_factory.mktemp("accepted")
    said = folder / "said.txt"
    said.write_text("\n".join(SAID))
    keys: dict[str, Any] = {"api_key": KEY, "operator_key": OPERATOR}
    with running_process(folder / "box", "--log-lines", str(said), **CONTEXT, **keys) as appliance:
        engines.shared_groups.add(appliance.process.pid)
        appliance.until("ready")
        yield appliance
    engines.shared_groups.discard(appliance.process.pid)


def typed(box: ApplianceProcess, *words: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *map(str, words)],
        env=clean_environment() | dict(box.env) | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=box.folder,
    )


def answer(process: subprocess.Popen[str]) -> tuple[int, str]:
    said, _ = process.communicate(timeout=120)
    assert "Traceback" not in said, said
    return process.returncode, said


def told(folder: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((folder / "report.json").read_text())
    return data


def lines(folder: Path) -> list[dict[str, Any]]:
    journal = folder / NAME
    if not journal.exists():
        return []
    whole = journal.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.split("\n")[1:]] if whole else []


def after(folder: Path, count: int) -> None:
    wait_until(lambda: len(lines(folder)) >= count, STEP_S, f"{count} steps")


@pytest.fixture(scope="module")
def accepted(box: ApplianceProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One whole run, and a bundle, of a box that has been asked something."""
    folder = tmp_path_factory.mktemp("run")
    with box.http() as http:
        body = {"model": MODEL, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 9}
        http.post(CHAT, json=body).raise_for_status()
    code, said = answer(typed(box, "accept", "--out", folder))
    assert code == 0, said
    code, said = answer(typed(box, "bundle", "--out", folder / "bundle.html"))
    assert code == 0, said
    return folder


def test_a_run_passes_every_step_and_tells_it(box: ApplianceProcess, accepted: Path) -> None:
    report = told(accepted)
    assert report["verdict"] == "passed"
    verdicts = {step["name"]: step["verdict"] for step in report["steps"]}
    # the fake engine follows no path question; nobody asked for a kill
    skipped = {name for name, verdict in verdicts.items() if verdict == "skipped"}
    assert skipped == {"paths", "kill"}
    assert len(verdicts) == len(STEPS)
    assert [row["share"] for row in report["prefill"]] == [25, 50, 90]
    for row in report["prefill"]:
        assert abs(row["prompt_tokens"] / (row["served"] * row["share"] / 100) - 1) < 0.1
        assert row["low_water_bytes"] > 0
    assert box.until("ready")


def test_nothing_planted_is_in_what_is_written(box: ApplianceProcess, accepted: Path) -> None:
    canaries = ("c4n4ry", "192.168.17.23", "de:ad:be", "fileserver", "firm.example", "merger")
    for name in ("report.html", "report.json", "bundle.html", "bundle.json"):
        text = (accepted / name).read_text()
        assert [canary for canary in (*canaries, str(box.folder)) if canary in text] == []
        assert f"this host is {platform.node()}" not in text
        assert "this host is (host)" in text  # the line itself is there


@pytest.mark.long
def test_a_kill_is_noticed_and_recovered_from(box: ApplianceProcess, tmp_path: Path) -> None:
    spawn = box.status()["spawn"]
    code, said = answer(typed(box, "accept", "--out", tmp_path, "--with-kill"))
    assert code == 0, said
    kill = next(step for step in told(tmp_path)["steps"] if step["name"] == "kill")
    assert kill["verdict"] == "passed"
    assert "engine_killed" in kill["detail"]
    assert box.until("ready")["spawn"] > spawn


def test_a_remote_box_is_accepted_without_its_host_and_is_never_killed(
    box: ApplianceProcess, tmp_path: Path
) -> None:
    words = ("--url", box.base_url, "--key", OPERATOR, "--with-kill")
    code, said = answer(typed(box, "accept", "--out", tmp_path, *words))
    assert code == 0, said
    steps = {step["name"]: step for step in told(tmp_path)["steps"]}
    assert steps["doctor"]["verdict"] == "skipped"
    assert steps["kill"]["verdict"] == "skipped"
    assert "another machine" in steps["kill"]["detail"]
    assert steps["prefill-90"]["low_water_bytes"] > 0  # of the box's metrics


@pytest.mark.long
def test_a_run_killed_after_each_step_goes_on_and_does_nothing_twice(
    box: ApplianceProcess, tmp_path: Path
) -> None:
    for count in range(1, len(STEPS)):
        process = typed(box, "accept", "--out", tmp_path, "--with-kill")
        after(tmp_path, count)
        process.kill()
        process.communicate()
    code, said = answer(typed(box, "accept", "--out", tmp_path, "--with-kill"))
    assert code == 0, said
    assert "going on" in said
    done = [line["step"] for line in lines(tmp_path) if line["finding"]["verdict"] == "passed"]
    assert sorted(done) == sorted({step.name for step in STEPS} - {"paths"})
    assert told(tmp_path)["verdict"] == "passed"
    box.until("ready")


def test_ctrl_c_writes_the_report_so_far_and_the_next_run_goes_on(
    box: ApplianceProcess, tmp_path: Path
) -> None:
    process = typed(box, "accept", "--out", tmp_path)
    after(tmp_path, 3)
    os.kill(process.pid, signal.SIGINT)
    code, said = answer(process)
    assert code == 130, said
    assert "the same command goes on" in said
    assert told(tmp_path)["verdict"] is None
    code, said = answer(typed(box, "accept", "--out", tmp_path))
    assert code == 0, said
    assert "going on with the run" in said


def test_an_appliance_that_is_not_there_fails_one_step_and_skips_what_needs_it(
    tmp_path: Path, box: ApplianceProcess
) -> None:
    process = typed(box, "accept", "--out", tmp_path / "out", "--state-dir", tmp_path / "none")
    code, said = answer(process)
    assert code == 1, said
    steps = {step["name"]: step["verdict"] for step in told(tmp_path / "out")["steps"]}
    assert steps.pop("doctor") in ("passed", "failed")
    assert steps.pop("appliance") == "failed"
    assert set(steps.values()) == {"skipped"}
    assert "start one" in said


def test_an_engine_that_was_stopped_is_started_and_left_stopped(tmp_path: Path) -> None:
    with running_process(tmp_path / "box", **CONTEXT) as appliance:
        appliance.until("ready")
        answer(typed(appliance, "stop"))
        code, said = answer(typed(appliance, "accept", "--out", tmp_path / "out"))
        assert code == 0, said
        steps = {step["name"]: step for step in told(tmp_path / "out")["steps"]}
        assert "was stopped" in steps["start"]["detail"] + steps["plan"]["detail"]
        assert appliance.status()["state"] == "stopped"


def test_an_engine_of_somebody_else_is_accepted_as_far_as_it_is_ours(
    tmp_path: Path, fake_engine: StartFake
) -> None:
    engine = fake_engine("--max-model-len", "16384")
    settings = attached_to(engine.base_url, engine.key)
    with running_process(tmp_path / "box", drain_timeout_s=20, **settings) as appliance:
        appliance.until("ready")
        words = ("accept", "--out", tmp_path / "out", "--with-kill")
        code, said = answer(typed(appliance, *words))
        assert code == 0, said
        steps = {step["name"]: step["verdict"] for step in told(tmp_path / "out")["steps"]}
        skipped = {name for name, verdict in steps.items() if verdict == "skipped"}
        assert skipped == {"plan", "kill", "paths"}
        assert appliance.until("ready")
    assert engine.key not in (tmp_path / "out" / "report.json").read_text()


# ---- the bundle


def test_a_bundle_of_a_running_appliance_holds_all_parts(
    box: ApplianceProcess, tmp_path: Path
) -> None:
    code, said = answer(typed(box, "bundle", "--out", tmp_path / "deep" / "support.html"))
    assert code == 0, said
    assert "look before you send it" in said
    tree = json.loads((tmp_path / "deep" / "support.json").read_text())
    for part in ("status", "memory", "settings", "doctor", "metrics", "log"):
        assert tree[part], part
    secrets = {row["name"]: row["value"] for row in tree["settings"]}
    assert secrets["api_key"] == secrets["operator_key"] == "(set)"


def test_a_bundle_is_written_where_nobody_answers_with_the_incidents_that_are_kept(
    tmp_path: Path,
) -> None:
    with running_process(tmp_path / "box", "--exit-code", "3", "--exit-after", "0.2") as appliance:
        wait_until(lambda: any(appliance.state_dir.glob("incidents/*.json")), STEP_S, "an incident")
    code, said = answer(typed(appliance, "bundle", "--out", tmp_path / "b.html"))
    assert code == 0, said
    assert "nobody answers" in said
    tree = json.loads((tmp_path / "b.json").read_text())
    assert tree["answers"] is False
    assert tree["incidents"]
    assert tree["settings"]
    assert tree["doctor"]
    assert "does not answer" in (tmp_path / "b.html").read_text()


def test_a_bundle_that_cannot_be_written_says_where(box: ApplianceProcess, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    code, said = answer(typed(box, "bundle", "--out", tmp_path / "file" / "b.html"))
    assert code == 1
    assert "--out FILE" in said


@pytest.mark.parametrize("command", ["accept", "bundle"])
def test_help_teaches_by_example(box: ApplianceProcess, command: str) -> None:
    code, said = answer(typed(box, command, "--help"))
    assert code == 0
    assert "examples:" in said
    assert "exit codes:" in said
