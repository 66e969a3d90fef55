"""The tokenizer check beside a running engine, and for the doctor."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from appliance.doctor.tokenizerlook import look_at_tokenizer
from appliance.engine import Engine, Snapshot
from appliance.restart import Reason
from appliance.settings import load_settings
from appliance.tokenizercheck import ENOUGH
from appliance.tokenizerdrift import prompts
from appliance.tokenizerwatch import TokenizerWatch
from appliance.upstream import Upstream
from tests.appliance_tasks import eventually
from tests.appliances import RunAppliance
from tests.engines import StartFake
from tests.idreaders import BYTES, VERSIONS, Tokens, program, write_folder

ALONE = [path for prompt in prompts() for path in prompt.paths]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path)


# ---- beside a running engine


class FakeReply:
    """What an engine's /tokenize answers."""

    status_code = 200

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.is_closed = False

    async def read(self, within_s: float) -> bytes:
        return self.body

    def close(self) -> None:
        self.is_closed = True


class Running:
    """As much of an engine as the watch sees."""

    def __init__(self, differs: Callable[[str], bool] = lambda text: False) -> None:
        self.tokens = Tokens(differs)
        self.replies: list[FakeReply] = []

    @property
    def upstream(self) -> "Running":
        return self

    async def ask(
        self, method: str, path: str, headers: Any, body: bytes, *, within_s: float
    ) -> FakeReply:
        assert (method, path) == ("POST", "/tokenize")
        asked = json.loads(body)
        assert asked.pop("add_special_tokens") is False
        told = {"tokens": await self.tokens(asked.pop("prompt"))}
        assert asked == {}
        self.replies.append(FakeReply(json.dumps(told).encode()))
        return self.replies[-1]


def ready(spawn: int, *, is_ready: bool = True) -> Snapshot:
    return Snapshot("ready" if is_ready else "stopped", Reason("test"), 0.0, spawn, is_ready)


class Watched:
    """A watch over a running engine, what it showed and what it logged."""

    def __init__(self, running: Running, folder: Path, /, **chosen: object) -> None:
        self.shown: list[float] = []
        python = folder / "python3"
        words = {"profile": "demo", "model_dir": folder, "engine_command": (str(python),), **chosen}
        self.watch = TokenizerWatch(
            cast(Engine, running), load_settings({}, words), self.shown.append
        )

    async def done(self) -> None:
        """Wait until nothing is being checked."""
        tasks = self.watch._tasks._all

        async def idle() -> bool:
            return not tasks

        await eventually(idle, "the check to end")


async def test_each_start_is_checked_once_and_its_count_is_shown(folder: Path) -> None:
    program(folder, BYTES)
    engine = Running(lambda text: "docker" in text)
    watched = Watched(engine, folder)
    for spawn in (1, 1, 1, 2):
        with capture_logs() as logs:
            watched.watch.follow(ready(spawn))
            await watched.done()
    wrong = sum("docker" in path for path in ALONE)
    assert watched.shown == [wrong, wrong]
    (line,) = logs
    assert line["event"] == "tokenizer.drift"
    assert line["log_level"] == "warning"
    assert f"{wrong} of 1,000 paths" in line["what"]
    assert "tokenizer_config.json" in line["next"]
    assert all(reply.is_closed for reply in engine.replies)


async def test_a_tokenizer_that_is_right_is_told_once_and_quietly(folder: Path) -> None:
    program(folder, BYTES)
    watched = Watched(Running(), folder)
    with capture_logs() as logs:
        watched.watch.follow(ready(1))
        await watched.done()
    assert watched.shown == [0]
    assert [(line["event"], line["log_level"]) for line in logs] == [("tokenizer.checked", "info")]


@pytest.mark.parametrize(
    ("chosen", "why"),
    [
        ({"engine_extra_args": "--tokenizer=/other"}, "names another tokenizer"),
        ({"engine_command": ("no-such-engine",)}, "no Python is found"),
        ({"engine": "attach", "engine_url": "http://127.0.0.1:1"}, "somebody else's"),
        ({"model_dir": "/nowhere"}, "there is no /nowhere/tokenizer.json"),
    ],
)
async def test_what_cannot_be_checked_says_why_and_shows_no_count(
    folder: Path, chosen: dict[str, Any], why: str
) -> None:
    program(folder, BYTES)
    watched = Watched(Running(), folder, **chosen)
    with capture_logs() as logs:
        watched.watch.follow(ready(1))
        await watched.done()
    assert watched.shown == []
    (line,) = logs
    assert (line["event"], line["log_level"]) == ("tokenizer.not_checked", "info")
    assert why in line["why"]


async def test_an_engine_that_is_gone_again_is_checked_no_further(folder: Path) -> None:
    program(folder, "import time\nwhile True: time.sleep(1)")
    watched = Watched(Running(), folder)
    with capture_logs() as logs:
        watched.watch.follow(ready(1))
        await asyncio.sleep(0)
        watched.watch.follow(ready(1, is_ready=False))
        await watched.done()
        watched.watch.follow(ready(2))
        await asyncio.sleep(0)
        await watched.watch.end()
    assert logs == []
    assert watched.shown == []


async def test_a_real_upstream_to_a_fake_engine_is_compared_too(
    folder: Path, fake_engine: StartFake
) -> None:
    program(folder, BYTES)
    fake = fake_engine()
    running = Running()
    upstream = Upstream(fake.base_url, fake.key)
    running.ask = upstream.ask  # type: ignore[assignment]
    watched = Watched(running, folder)
    with capture_logs() as logs:
        watched.watch.follow(ready(1))
        await watched.done()
    await upstream.close()
    assert watched.shown[0] >= ENOUGH  # its tokens are its own
    assert logs[0]["event"] == "tokenizer.drift"


# ---- for the doctor


def test_the_doctor_compares_over_the_control_socket(run: RunAppliance, folder: Path) -> None:
    appliance = run()
    appliance.until("ready")
    words = {"profile": "demo", "state_dir": appliance.state_dir}
    python = str(program(folder, BYTES))
    drift = look_at_tokenizer(load_settings({}, {**words, "engine_command": (python,)}), folder)
    assert drift.mismatches >= ENOUGH  # the fake engine's tokens are its own
    assert drift.versions == VERSIONS


def test_the_doctor_says_that_no_appliance_runs_and_names_the_versions(folder: Path) -> None:
    words = {"profile": "demo", "state_dir": folder / "state"}
    python = str(program(folder, BYTES))
    drift = look_at_tokenizer(load_settings({}, {**words, "engine_command": (python,)}), folder)
    assert drift.what.startswith("not compared: no appliance runs here")
    assert "transformers 5.3.0" in drift.what


@pytest.mark.parametrize(
    "chosen",
    [
        {"engine_command": ("no-such-engine",)},
        {"engine": "attach", "engine_url": "http://127.0.0.1:1"},
    ],
)
def test_the_doctor_says_why_it_compared_nothing(folder: Path, chosen: dict[str, Any]) -> None:
    drift = look_at_tokenizer(load_settings({}, {"profile": "demo", **chosen}), folder)
    assert not drift.is_known
    assert drift.why
