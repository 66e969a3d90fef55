"""``inference_minimax.sh`` for real: bare, with the tiny model, on the CPU engine."""

from pathlib import Path

import httpx
import pytest

from appliance.probes import GREETING, user
from tests import engines
from tests.engines import CHECKPOINT, ENGINE_PYTHON, EXTRAS, MODEL

pytestmark = pytest.mark.engine

# Only what a GPU alone can do is overridden: FP8 KV cache, Marlin, graphs.
CPU = ("--kv-cache-dtype", "auto", "--moe-backend", "auto", "--enforce-eager")


def test_it_serves_the_tiny_model_bare(tmp_path: Path) -> None:
    engines.require_real()
    env = {
        **engines.REAL_ENV,
        "RUNNER": "bare",
        "VLLM": str(ENGINE_PYTHON.parent / "vllm"),
        "PORT": str(engines.free_port()),
    }
    script = [str(EXTRAS / "inference_minimax.sh"), str(CHECKPOINT), "--", *CPU]
    with engines.running(script, tmp_path / "script.log", env) as engine:
        engine.wait_ready(engines.REAL_READY_S)
        body = {"model": MODEL, "messages": [user(GREETING)], "temperature": 0}
        reply = httpx.post(
            f"{engine.base_url}/v1/chat/completions",
            json=body,
            headers=engine.headers,
            timeout=120,
            trust_env=False,
        )
        assert reply.status_code == 200, reply.text
        message = reply.json()["choices"][0]["message"]
        assert message["reasoning"]
        assert "Nikola" in message["content"]
