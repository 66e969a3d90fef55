"""``appliance run`` as a process: its exit codes, what it prints, and that nothing survives it."""

import asyncio
import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from appliance.cli import main
from appliance.errors import SettingsError
from appliance.once import smoke_once
from appliance.serve import serve
from appliance.settings import load_settings
from tests.appliance_tasks import StartAppliance
from tests.appliances import (
    CHAT,
    COMMAND,
    LONG,
    ApplianceProcess,
    RunAppliance,
    clean_environment,
    engines_of,
    environment,
    no_engine_left,
)
from tests.engines import ROOT, StartFake, wait_until


def refused(folder: Path, **settings: object) -> tuple[int, str]:
    """Run an appliance that is to refuse its settings; return its code and its words."""
    env = clean_environment() | environment(folder, **settings) | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run([*COMMAND, "run"], env=env, capture_output=True, text=True, timeout=60)
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""
    assert ended.stderr.startswith("appliance: ")
    assert "\n  -> " in ended.stderr  # what to type next
    return ended.returncode, ended.stderr


# ---- 78: settings that are wrong


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"prot": 9000}, "did you mean APPLIANCE_PORT"),
        ({"port": "many"}, "APPLIANCE_PORT='many'"),
        ({"engine": "attach"}, "APPLIANCE_ENGINE_URL"),
    ],
    ids=["unknown variable", "bad value", "contradiction"],
)
def test_settings_that_cannot_be_parsed_end_with_78(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    settings: dict[str, object],
    named: str,
) -> None:
    for name, value in environment(tmp_path, **settings).items():
        monkeypatch.setenv(name, value)
    assert main(["run"]) == 78
    assert named in capsys.readouterr().err


async def test_a_prompt_that_cannot_be_read_is_a_wrong_setting(tmp_path: Path) -> None:
    chosen = load_settings(environment(tmp_path, prompt_file="/nowhere/prompt.txt"))
    with pytest.raises(SettingsError, match="APPLIANCE_PROMPT_FILE") as refusal:
        await serve(chosen)
    assert refusal.value.exit_code == 78


def test_an_address_that_is_none_ends_with_78(tmp_path: Path) -> None:
    code, said = refused(tmp_path, host="no.such.host.invalid")
    assert code == 78
    assert "APPLIANCE_HOST" in said


# ---- 75: something is taken


def test_a_taken_port_ends_with_75(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = refused(tmp_path, port=port)
    assert code == 75
    assert f"port {port}" in said


async def test_a_taken_state_folder_ends_with_75_and_names_the_holder(
    start: StartAppliance,
) -> None:
    first = await start("--never-ready", state="starting")
    code, said = await asyncio.to_thread(refused, first.folder)
    assert code == 75
    assert f"pid {os.getpid()}" in said
    assert first.snapshot.state == "starting"  # and the first one does not notice


# ---- 0: SIGTERM


def kept_quiet(box: ApplianceProcess) -> None:
    """Hold what is true of every run: no traceback and no key in its words."""
    said = box.out + box.err
    assert "Traceback" not in said
    for which in ("client", "operator"):
        assert box.key(which) not in said


def test_sigint_ends_a_serving_appliance_with_0(run: RunAppliance) -> None:
    box = run()
    box.until("ready")
    box.signal(signal.SIGINT)
    assert box.code() == 0
    assert not engines_of(box.folder)
    kept_quiet(box)


def test_sigterm_ends_a_loading_appliance_with_0(run: RunAppliance) -> None:
    box = run("--never-ready", "--deaf-to-sigterm")
    box.until("starting")
    wait_until(lambda: bool(engines_of(box.folder)), 10, "the engine's process")
    box.signal(signal.SIGTERM)
    assert box.code() == 0
    assert not engines_of(box.folder)
    kept_quiet(box)


def test_sigterm_ends_a_failed_appliance_with_0(run: RunAppliance) -> None:
    box = run(model_dir="/nowhere")
    box.until("failed")
    box.signal(signal.SIGTERM)
    assert box.code() == 0
    kept_quiet(box)


def test_sigterm_ends_streams_and_listeners_without_a_traceback(run: RunAppliance) -> None:
    box = run("--chunk-delay", "0.05")
    box.until("ready")
    with (
        box.http() as client,
        box.http("operator") as operator,
        client.stream("POST", CHAT, json=LONG | {"stream": True}) as answer,
        operator.stream("GET", "/appliance/v1/events") as events,
    ):
        held = [answer.iter_raw(), events.iter_raw()]  # an iterator let go would hang up
        for chunks in held:
            next(chunks)
        box.signal(signal.SIGTERM)
        assert box.code() == 0
    kept_quiet(box)


def test_sigterm_in_front_of_an_attached_engine_cuts_what_streams_after_a_while(
    run: RunAppliance, fake_engine: StartFake
) -> None:
    engine = fake_engine("--chunk-delay", "0.05")
    box = run(
        engine="attach",
        engine_url=engine.base_url,
        engine_key=engine.key,
        engine_command=None,
        engine_extra_args=None,
    )
    box.until("ready")
    with box.http() as client, client.stream("POST", CHAT, json=LONG | {"stream": True}) as answer:
        chunks = answer.iter_raw()  # an iterator let go would hang up
        next(chunks)
        box.signal(signal.SIGTERM)
        assert box.code() == 0
    kept_quiet(box)
    assert engine.process.poll() is None
    assert engine.key not in box.out + box.err


# ---- --once: the smoke's status


def test_once_ends_with_0_when_every_check_passes(run: RunAppliance) -> None:
    box = run("--chunk-delay", "0.002", arguments=("--once",))
    assert box.code(60) == 0, box.out
    assert "all passed" in box.out
    kept_quiet(box)


async def once(folder: Path, *faults: str, **settings: object) -> int:
    """Return what ``appliance run --once`` ends with."""
    async with asyncio.timeout(60):
        return await serve(load_settings(environment(folder, *faults, **settings)), smoke_once)


async def test_once_ends_with_1_when_a_check_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await once(tmp_path, "--garbage") == 1
    said = capsys.readouterr().out
    assert "output_suspect" in said
    assert "FAILED" in said
    no_engine_left(tmp_path)


async def test_once_ends_with_1_when_the_engine_fails_and_says_why(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fatal = ("--never-ready", "--exit-code", "3")
    assert await once(tmp_path, *fatal, restart_max_failures=1) == 1
    assert "(exit code 3)" in capsys.readouterr().err
    assert await once(tmp_path, model_dir="/nowhere") == 1
    assert "/nowhere does not exist" in capsys.readouterr().err


def test_once_leaves_nothing_when_the_reader_of_its_words_leaves(run: RunAppliance) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as closed:
        box = run(arguments=("--once",), stdout=closed)
    assert box.code() == 1
    assert "destroyed" not in box.err
    kept_quiet(box)


def test_sigterm_while_loading_ends_once_with_0(run: RunAppliance) -> None:
    box = run("--never-ready", arguments=("--once",))
    box.until("starting")
    box.signal(signal.SIGTERM)
    assert box.code() == 0
    kept_quiet(box)


# ---- 130/143: a second signal


def test_a_second_sigint_ends_at_once_with_a_deaf_engine_and_its_child(run: RunAppliance) -> None:
    box = run("--deaf-to-sigterm", "--fork-grandchild", stop_timeout_s=300)
    box.until("ready")
    assert len(engines_of(box.folder)) == 2
    box.signal(signal.SIGINT)
    box.until("stopping")
    box.signal(signal.SIGINT)
    assert box.code(10) == 130
    assert not engines_of(box.folder)
    kept_quiet(box)


def test_a_second_sigterm_does_not_wait_for_a_stream(run: RunAppliance) -> None:
    box = run("--deaf-to-sigterm", "--chunk-delay", "0.05", stop_timeout_s=300)
    box.until("ready")
    with box.http() as client, client.stream("POST", CHAT, json=LONG | {"stream": True}) as answer:
        chunks = answer.iter_raw()  # an iterator let go would hang up
        next(chunks)
        box.signal(signal.SIGTERM)
        box.until("stopping")
        box.signal(signal.SIGTERM)
        assert box.code(10) == 143
    assert not engines_of(box.folder)
    kept_quiet(box)
