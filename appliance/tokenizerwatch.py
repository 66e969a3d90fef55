"""Checks the tokenizer of each engine that has become ready, beside its work."""

from collections.abc import Callable, Sequence

import httpx
import msgspec
import structlog

from appliance.engine import Engine, Snapshot
from appliance.errors import EngineError, UpstreamError
from appliance.settings import Settings
from appliance.tasks import Tasks
from appliance.tokenizercheck import check, engine_python, ids_of
from appliance.tokenizerdrift import Drift, unknown
from appliance.upstream import Upstream

log = structlog.get_logger()

ASK_S = 15.0
_HEADERS = {"content-type": "application/json"}


class TokenizerWatch:
    """Listens to the engine: ``engine.listen(watch.follow)``; ``end`` it with the appliance.

    ``show`` is given the count of mismatches once it is known. A start is never held up: the
    check begins when the engine serves, and ends with it.
    """

    def __init__(self, engine: Engine, settings: Settings, show: Callable[[float], None]) -> None:
        self._engine = engine
        self._settings = settings
        self._show = show
        self._tasks = Tasks()
        self._checked: int | None = None  # the spawn

    def follow(self, snapshot: Snapshot) -> None:
        """Begin when an engine has become ready, give up when it is gone."""
        if not snapshot.is_ready:
            self._tasks.cancel_others()
        elif snapshot.spawn != self._checked:
            self._checked = snapshot.spawn
            self._tasks.begin(self._check(snapshot.spawn))

    async def end(self) -> None:
        """Leave no task, and no program."""
        await self._tasks.end()

    async def _check(self, spawn: int) -> None:
        drift = await self._compare()
        if drift.is_known:
            self._show(drift.mismatches)
        if drift.is_drifted:
            log.warning("tokenizer.drift", spawn=spawn, what=drift.what, next=drift.cure)
        elif drift.is_known:
            log.info("tokenizer.checked", spawn=spawn, what=drift.what)
        else:
            log.info("tokenizer.not_checked", spawn=spawn, why=drift.why)

    async def _compare(self) -> Drift:
        settings = self._settings
        if settings.engine != "spawn":
            return unknown("the engine is somebody else's: its Python is not known here")
        if any(word.split("=")[0] == "--tokenizer" for word in settings.engine_extra_args):
            return unknown("APPLIANCE_ENGINE_EXTRA_ARGS names another tokenizer")
        python = engine_python(settings.engine_command)
        if python is None:
            return unknown(f"no Python is found that {settings.engine_command[0]} runs in")
        try:
            upstream = self._engine.upstream
        except EngineError as cause:
            return unknown(cause.what)

        async def ask(text: str) -> Sequence[int]:
            return await engine_ids(upstream, text)

        return await check(ask, python, settings.model_dir)


async def engine_ids(upstream: Upstream, text: str) -> Sequence[int]:
    """Return how the engine reads a text, without special tokens. Raises UpstreamError."""
    body = msgspec.json.encode({"prompt": text, "add_special_tokens": False})
    reply = await upstream.ask("POST", "/tokenize", _HEADERS, body, within_s=ASK_S)
    try:
        told = msgspec.json.decode(await reply.read(ASK_S))
        return ids_of(reply.status_code, told)
    except (httpx.HTTPError, msgspec.DecodeError) as cause:
        raise UpstreamError(f"the engine's /tokenize broke off: {type(cause).__name__}") from cause
    finally:
        reply.close()
