"""Compares the running engine's tokens with its tokenizer.json, over the control socket."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import httpx

from appliance.errors import UpstreamError
from appliance.host import control_socket
from appliance.settings import Settings
from appliance.tokenizercheck import check, engine_python, ids_of
from appliance.tokenizerdrift import Drift, unknown

# The vocabulary of a large model takes 6 s on a busy machine.
REFERENCE_S = 15.0
ENGINE_S = 8.0
TOKENIZER_S = REFERENCE_S + ENGINE_S + 2.0  # for the whole look


def look_at_tokenizer(settings: Settings, model_dir: Path) -> Drift:
    """Return how the engine of this state folder's appliance reads paths.

    Where none is ready it says so, with the versions that one would run with.
    """
    if settings.engine != "spawn":
        return unknown("the engine is somebody else's: its Python is not known here")
    python = engine_python(settings.engine_command)
    if python is None:
        command = settings.engine_command[0]
        return unknown(f"no Python is found here that {command} runs in; each start compares")
    socket = control_socket(settings.state_dir)
    return asyncio.run(_look(socket if socket.exists() else None, python, model_dir))


async def _look(socket: Path | None, python: Path, model_dir: Path) -> Drift:
    transport = httpx.AsyncHTTPTransport(uds=str(socket) if socket else None)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://appliance", timeout=ENGINE_S
    ) as http:

        async def ask(text: str) -> Sequence[int]:
            if socket is None:
                raise UpstreamError("no appliance runs here; each start of one compares")
            body = {"prompt": text, "add_special_tokens": False}
            try:
                reply = await http.post("/tokenize", json=body)
                return ids_of(reply.status_code, reply.json())
            except (httpx.HTTPError, ValueError) as cause:
                what = f"the appliance did not answer: {type(cause).__name__}"
                raise UpstreamError(what) from cause

        return await check(ask, python, model_dir, reference_s=REFERENCE_S, engine_s=ENGINE_S)
