"""The AI SDK for JavaScript, which Kilo Code and OpenCode stand on, over two gaps."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.accept.gaps import CALL, CONTENT, QUESTION, REASONING, gappy, said
from tests.accept.stage import Stage
from tests.engines import MODEL, ROOT
from tests.fakes.script import Turn

SOURCE = ROOT / "tests" / "accept" / "aisdk"
INSTALLED = ROOT / "build" / "aisdk"
INSTALL_S, ASK_S = 240, 60


@pytest.fixture(scope="session")
def modules() -> Path:
    """Return the folder with the SDK; npm puts there what the lock file says, once."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.fail("node and npm are needed: apt-get install nodejs npm")
    lock = (SOURCE / "package-lock.json").read_bytes()
    mark = INSTALLED / "installed.json"
    if not mark.exists() or mark.read_bytes() != lock:
        INSTALLED.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(SOURCE / name, INSTALLED / name)
        npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        done = subprocess.run(
            npm, cwd=INSTALLED, timeout=INSTALL_S, capture_output=True, check=False
        )
        assert done.returncode == 0, done.stderr.decode()
        mark.write_bytes(lock)
    return INSTALLED


def ask(modules: Path, stage: Stage, *, steps: int = 1, retries: int = 0) -> dict[str, Any]:
    """Ask the question; return what the SDK made of the answer."""
    box = stage.appliance
    asked = {"url": box.base_url, "key": box.key("client"), "model": MODEL, "prompt": QUESTION}
    done = subprocess.run(
        ["node", SOURCE / "ask.mjs", modules],
        input=json.dumps({**asked, "steps": steps, "retries": retries}).encode(),
        timeout=ASK_S,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def test_a_call_and_its_answer_come_whole_over_two_gaps_each(
    modules: Path, gappy_stage: Stage
) -> None:
    gappy_stage.script.play(gappy(calls=True), gappy())
    answer = ask(modules, gappy_stage, steps=2)
    assert answer["error"] == ""
    assert answer["reasoning"] == REASONING * 2
    assert answer["text"] == CONTENT * 2
    assert answer["calls"] == [list(CALL)]
    assert answer["finish"] == "stop"
    assert answer["usage"]["inputTokens"] > 0
    assert gappy_stage.script.left() == 0


def test_the_tools_result_and_the_thoughts_reach_the_engine(
    modules: Path, gappy_stage: Stage
) -> None:
    gappy_stage.script.play(Turn(REASONING, "", (CALL,)), Turn(content=CONTENT))
    answer = ask(modules, gappy_stage, steps=2)
    assert answer["text"] == CONTENT
    *_, assistant, result = gappy_stage.script.noted()[-1]["body"]["messages"]
    assert said(assistant) == REASONING
    assert json.loads(assistant["tool_calls"][0]["function"]["arguments"]) == CALL[1]
    assert result["role"] == "tool"
    assert result["tool_call_id"] == assistant["tool_calls"][0]["id"]
    assert result["content"] == f"wrote {CALL[1]['path']}"


def test_a_503_before_the_head_is_retried(modules: Path, gappy_stage: Stage) -> None:
    gappy_stage.script.play(Turn(status=503), Turn(content=CONTENT))
    answer = ask(modules, gappy_stage, retries=1)
    assert (answer["error"], answer["text"]) == ("", CONTENT)
    assert gappy_stage.script.left() == 0


def test_a_break_in_mid_stream_is_an_error_and_no_short_answer(
    modules: Path, gappy_stage: Stage
) -> None:
    gappy_stage.script.play(Turn(REASONING, CONTENT, faults={"tear_after": 12}))
    answer = ask(modules, gappy_stage)
    assert answer["error"]
    assert answer["finish"] != "stop"
