"""What Kilo asks beside its turns, as its editor does: a title, and a compaction on demand."""

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from tests.accept.kilo.driver import Kilo
from tests.appliances import NO_TLS
from tests.engines import MODEL, wait_until
from tests.fakes.script import Turn

LISTENING = re.compile(r"listening on (http://[\d.]+:\d+)")
START_S, TURN_S = 90.0, 180.0


@contextmanager
def served(kilo: Kilo) -> Iterator[httpx.Client]:
    """Run ``kilo serve``, which the editor talks to; yield a client of it."""
    kilo.prepare()
    log = kilo.folder / "serve.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(kilo.binary), "serve", "--port", "0"],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=kilo.environment(),
            cwd=kilo.workspace,
            start_new_session=True,
        )
    try:
        wait_until(lambda: LISTENING.search(log.read_text()) is not None, START_S, "kilo serve")
        url = LISTENING.search(log.read_text())
        assert url is not None
        where = {"directory": str(kilo.workspace)}
        client = httpx.Client(
            base_url=url[1], params=where, timeout=TURN_S, trust_env=False, verify=NO_TLS
        )
        with kilo.told_of(), client as http:
            yield http
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def provider_of(kilo: Kilo) -> str:
    """Return the provider's name in the preset."""
    (name,) = kilo.config()["provider"]
    return str(name)


def test_a_title_beside_the_turn_and_a_compaction_both_pass(kilo: Kilo) -> None:
    kilo.stage.script.play(Turn("I think.", "The answer is 42."), Turn(content="Forty-two again."))
    model = {"providerID": provider_of(kilo), "modelID": MODEL}

    with served(kilo) as http:
        reply = http.post("/session", json={})
        assert reply.status_code == 200, reply.text
        session = f"/session/{reply.json()['id']}"

        def ask(text: str) -> str:
            parts = [{"type": "text", "text": text}]
            answer = http.post(f"{session}/message", json={"model": model, "parts": parts})
            assert answer.status_code == 200, answer.text
            told: list[dict[str, Any]] = answer.json()["parts"]
            return "".join(part["text"] for part in told if part["type"] == "text")

        assert ask("What is the answer?").strip() == "The answer is 42."
        wait_until(lambda: "title" in kinds(kilo), TURN_S, "the title to be asked for")
        wait_until(
            lambda: http.get(session).json()["title"] == "A scripted title", TURN_S, "the title"
        )
        shortened = http.post(f"{session}/summarize", json=model)
        assert shortened.status_code == 200, shortened.text
        assert "compaction" in kinds(kilo)
        assert ask("And again?").strip() == "Forty-two again."
    assert kilo.stage.script.left() == 0


def kinds(kilo: Kilo) -> list[str]:
    """Return the kinds of the requests so far."""
    return [note["kind"] for note in kilo.stage.script.noted()]


def test_the_preset_names_the_key_and_does_not_hold_it(kilo: Kilo) -> None:
    config = kilo.config()
    assert kilo.stage.appliance.key("client") not in str(config)
    (provider,) = config["provider"].values()
    assert provider["options"]["apiKey"] == "{env:UNGLITCHED_API_KEY}"
    assert provider["models"][MODEL]["limit"] == {"context": 43_253, "output": 8_192}
