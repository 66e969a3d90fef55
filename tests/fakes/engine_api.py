"""The fake engine's routes, its faults and its counters."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from tests.fakes import engine_mind as mind
from tests.fakes import engine_responses as responses
from tests.fakes import engine_wire as wire
from tests.fakes.engine_checks import (
    Refusal,
    check_lengths,
    check_prompt,
    checked_body,
    dead_engine,
    dead_engine_events,
)
from tests.fakes.engine_http import Exchange, Reply, json_reply

Json = dict[str, Any]
VERSION = "0.32.0"
GUARDED_PREFIX = ("/v1", "/v2", "/inference", "/cohere")  # as in vLLM's middleware


@dataclass
class Faults:
    """What goes wrong while serving. POST /fake replaces the whole set."""

    stall_after: int | None = None
    stall_s: float | None = None
    tear_after: int | None = None
    error_after: int | None = None
    slow_head: float = 0.0
    silent_prefill: float = 0.0
    garbage: bool = False
    gibberish: bool = False
    deaf: bool = False
    health_status: int = 200
    chunk_delay: float = 0.0


@dataclass
class Seen:
    """What clients did. Moments are of the monotonic clock, which all processes share."""

    requests: list[Json] = field(default_factory=list)
    aborted: list[Json] = field(default_factory=list)


@dataclass
class Counters:
    """What /metrics tells."""

    running: int = 0
    waiting: int = 0
    prompt_tokens: int = 0
    generation_tokens: int = 0
    succeeded: dict[str, int] = field(default_factory=dict)


class FakeEngine:
    """The state of one fake engine, and what each route answers."""

    def __init__(self, names: list[str], root: str, keys: list[str], max_len: int, slots: int):
        self.names, self.root, self.keys, self.max_model_len = names, root, keys, max_len
        self.faults = Faults()
        self.seen = Seen()
        self.counters = Counters()
        self.stopping = False
        self.idle = asyncio.Event()
        self.idle.set()
        self.post_exit: Callable[[int, float], None] = lambda code, after_s: None
        self._slots = asyncio.Semaphore(slots)
        self._vocabulary: dict[str, int] = {}
        self._routes: dict[str, dict[str, Callable[[Exchange], Awaitable[None]]]] = {
            "/health": {"GET": self._health},
            "/ping": {"GET": self._health, "POST": self._health},
            "/version": {"GET": self._say(lambda: {"version": VERSION})},
            "/load": {"GET": self._say(lambda: {"server_load": self.counters.running})},
            "/metrics": {"GET": self._metrics},
            "/tokenize": {"POST": self._tokenize},
            "/detokenize": {"POST": self._detokenize},
            "/v1/models": {"GET": self._say(self._models)},
            "/v1/chat/completions": {"POST": self._chat},
            "/v1/completions": {"POST": self._completions},
            "/v1/responses": {"POST": self._responses},
            "/v1/messages": {"POST": self._messages},
            "/v1/messages/count_tokens": {"POST": self._count_tokens},
            "/fake": {"GET": self._say(lambda: asdict(self.faults)), "POST": self._set_faults},
            "/fake/seen": {"GET": self._say(self._told), "DELETE": self._forget},
        }

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request."""
        request = exchange.request
        self._remember(exchange)
        if self.faults.deaf and not request.path.startswith("/fake"):
            await asyncio.Event().wait()
        if self.faults.gibberish and request.path.startswith("/v1"):
            exchange.gibber()
        elif request.path.startswith(GUARDED_PREFIX) and not self._authorized(exchange):
            await exchange.send(json_reply({"error": "Unauthorized"}, 401))
        elif request.path not in self._routes:
            await exchange.send(json_reply({"detail": "Not Found"}, 404))
        elif request.method not in (methods := self._routes[request.path]):
            allow = {"allow": ", ".join(methods)}
            await exchange.send(json_reply({"detail": "Method Not Allowed"}, 405, allow))
        else:
            try:
                await methods[request.method](exchange)
            except Refusal as refusal:
                await exchange.send(refusal.reply(request.path))

    def aborted(self, exchange: Exchange) -> None:
        """Note a client that left before its answer was complete."""
        note = {"path": exchange.request.path, "at": time.monotonic()}
        self.seen.aborted.append(note | {"chunks": exchange.chunks_sent})

    # The control endpoints

    def _remember(self, exchange: Exchange) -> None:
        request = exchange.request
        if request.path.startswith("/fake"):
            return
        try:
            body = json.loads(request.body) if request.body else None
        except ValueError:
            body = request.body.decode(errors="replace")
        note = {"method": request.method, "path": request.path, "at": time.monotonic()}
        self.seen.requests.append(note | {"headers": request.headers, "body": body})

    def _told(self) -> Json:
        return asdict(self.seen)

    async def _forget(self, exchange: Exchange) -> None:
        self.seen = Seen()
        await exchange.send(json_reply(self._told()))

    async def _set_faults(self, exchange: Exchange) -> None:
        wanted = json.loads(exchange.request.body or b"{}")
        code, after_s = wanted.pop("exit_code", None), wanted.pop("exit_after", 0.0)
        if unknown := wanted.keys() - {item.name for item in fields(Faults)}:
            raise Refusal(400, f"no such fault: {sorted(unknown)}", "BadRequestError")
        self.faults = Faults(**wanted)
        await exchange.send(json_reply(asdict(self.faults)))
        if code is not None:
            self.post_exit(code, after_s)

    # Small routes

    def _say(self, value: Callable[[], Any]) -> Callable[[Exchange], Awaitable[None]]:
        async def handler(exchange: Exchange) -> None:
            await exchange.send(json_reply(value()))

        return handler

    async def _health(self, exchange: Exchange) -> None:
        await exchange.send(Reply(self.faults.health_status))

    def _models(self) -> Json:
        permission = {
            "id": wire.new_id("modelperm-"),
            "object": "model_permission",
            "created": int(time.time()),
            "allow_create_engine": False,
            **dict.fromkeys(("allow_sampling", "allow_logprobs"), True),
            "allow_search_indices": False,
            "allow_view": True,
            "allow_fine_tuning": False,
            "organization": "*",
            "group": None,
            "is_blocking": False,
        }
        card = {"object": "model", "created": int(time.time()), "owned_by": "vllm"}
        card |= {"root": self.root, "parent": None, "max_model_len": self.max_model_len}
        cards = [{"id": name, **card, "permission": [permission]} for name in self.names]
        return {"object": "list", "data": cards}

    async def _metrics(self, exchange: Exchange) -> None:
        text = metrics_text(self.counters, self.names[0])
        kind = "text/plain; version=1.0.0; charset=utf-8"
        await exchange.send(Reply(body=text.encode(), content_type=kind))

    async def _tokenize(self, exchange: Exchange) -> None:
        body = self._body(exchange, {"messages" if "messages" in _peek(exchange) else "prompt"})
        text = body.get("prompt") or json.dumps(body.get("messages"))
        strings = mind.pieces(text)
        tokens = [self._vocabulary.setdefault(s, len(self._vocabulary)) for s in strings]
        told = {"count": len(tokens), "max_model_len": self.max_model_len, "tokens": tokens}
        shown = strings if body.get("return_token_strs") else None
        await exchange.send(json_reply(told | {"token_strs": shown}))

    async def _detokenize(self, exchange: Exchange) -> None:
        tokens = self._body(exchange, {"tokens"})["tokens"]
        words = {number: text for text, number in self._vocabulary.items()}
        text = "".join(words.get(number, "") for number in tokens)
        await exchange.send(json_reply({"prompt": text}))

    # Generation

    async def _chat(self, exchange: Exchange) -> None:
        body = self._body(exchange, {"messages"})
        options = body.get("stream_options") or {}
        await self._generate(
            exchange,
            mind.from_chat(body),
            wire.chat_whole,
            lambda generation: wire.chat_stream(generation, options),
        )

    async def _completions(self, exchange: Exchange) -> None:
        body = self._body(exchange, set())
        options = body.get("stream_options") or {}
        await self._generate(
            exchange,
            mind.from_completion(body),
            wire.completion_whole,
            lambda generation: wire.completion_stream(generation, options),
        )

    async def _responses(self, exchange: Exchange) -> None:
        body = self._body(exchange, {"input"})
        await self._generate(
            exchange,
            mind.from_responses(body),
            lambda generation: responses.responses_whole(generation, body),
            lambda generation: responses.responses_stream(generation, body),
        )

    async def _messages(self, exchange: Exchange) -> None:
        body = self._body(exchange, {"model", "messages", "max_tokens"})
        prompt = mind.from_messages(body)
        await self._generate(exchange, prompt, wire.messages_whole, wire.messages_stream)

    async def _count_tokens(self, exchange: Exchange) -> None:
        body = self._body(exchange, {"model", "messages"})
        count = mind.from_messages(body).tokens()
        told = {"input_tokens": count, "context_management": {"original_input_tokens": count}}
        await exchange.send(json_reply(told))

    async def _generate(
        self,
        exchange: Exchange,
        prompt: mind.Prompt,
        whole: Callable[[wire.Generation], Json],
        stream: Callable[[wire.Generation], Iterator[bytes]],
    ) -> None:
        body = json.loads(exchange.request.body)
        name = body.get("model") or self.names[0]
        tokens = prompt.tokens()
        check_prompt(body)
        check_lengths(prompt.max_tokens, tokens, self.max_model_len)
        room = self.max_model_len - tokens
        prompt.max_tokens = min(prompt.max_tokens or room, room)
        generation = wire.Generation(
            name, mind.answer(prompt, self.faults.garbage), tokens, lambda: self.stopping
        )
        generation.on_token = self._count_token
        self.counters.prompt_tokens += tokens
        await asyncio.sleep(self.faults.slow_head)
        if body.get("stream"):
            await self._send_stream(exchange, stream(generation))
        else:
            await self._send_whole(exchange, generation, whole)
        reason = generation.finish_reason()
        self.counters.succeeded[reason] = self.counters.succeeded.get(reason, 0) + 1

    async def _send_stream(self, exchange: Exchange, frames: Iterator[bytes]) -> None:
        await exchange.start_stream()  # as in vLLM, before the request waits for its turn
        async with self._slot():
            await asyncio.sleep(self.faults.silent_prefill)
            has_stalled = False
            for sent, frame in enumerate(frames):
                faults = self.faults
                if faults.stall_after is not None and sent >= faults.stall_after:
                    await self._stall(has_stalled)
                    has_stalled = True
                if faults.tear_after is not None and sent >= faults.tear_after:
                    exchange.tear()
                    return
                if faults.error_after is not None and sent >= faults.error_after:
                    await self._send_error_events(exchange)
                    return
                await asyncio.sleep(faults.chunk_delay)
                await exchange.send_chunk(frame)
            await exchange.end_stream()

    async def _send_error_events(self, exchange: Exchange) -> None:
        events = dead_engine_events(exchange.request.path)
        if events is None:
            exchange.tear()
            return
        for event in events:
            await exchange.send_chunk(event)
        await exchange.end_stream()

    async def _send_whole(
        self,
        exchange: Exchange,
        generation: wire.Generation,
        whole: Callable[[wire.Generation], Json],
    ) -> None:
        faults = self.faults
        tokens = len(generation.answer.deltas)
        async with self._slot():
            await asyncio.sleep(faults.silent_prefill + faults.chunk_delay * tokens)
            if faults.stall_after is not None:
                await self._stall()
            if faults.error_after is not None:
                raise dead_engine()
            reply = json_reply(whole(generation))
            if faults.tear_after is None:
                await exchange.send(reply)
            else:
                await exchange.send_half(reply)
                exchange.tear()

    async def _stall(self, once_more: bool = False) -> None:
        """Stand still for good, or for one step of ``stall_s`` seconds, with every counter."""
        if self.faults.stall_s is None:
            await asyncio.Event().wait()
        elif not once_more:
            await asyncio.sleep(self.faults.stall_s)

    @asynccontextmanager
    async def _slot(self) -> AsyncIterator[None]:
        self.counters.waiting += 1
        self.idle.clear()
        try:
            await self._slots.acquire()
        except asyncio.CancelledError:
            self.counters.waiting -= 1
            self._note_idle()
            raise
        self.counters.waiting -= 1
        self.counters.running += 1
        try:
            yield
        finally:
            self.counters.running -= 1
            self._slots.release()
            self._note_idle()

    def _note_idle(self) -> None:
        if self.counters.running + self.counters.waiting == 0:
            self.idle.set()

    def _count_token(self) -> None:
        self.counters.generation_tokens += 1

    # Checks

    def _authorized(self, exchange: Exchange) -> bool:
        scheme, _, key = exchange.request.headers.get("authorization", "").partition(" ")
        return not self.keys or (scheme.lower() == "bearer" and key in self.keys)

    def _body(self, exchange: Exchange, required: set[str]) -> Json:
        return checked_body(exchange.request, required, self.names)


def _peek(exchange: Exchange) -> Any:
    try:
        return json.loads(exchange.request.body)
    except ValueError:
        return {}


def metrics_text(counters: Counters, model: str) -> str:
    """Return the counters as Prometheus text."""
    label = f'engine="0",model_name="{model}"'
    gauges = {
        "num_requests_running": counters.running,
        "num_requests_waiting": counters.waiting,
        "kv_cache_usage_perc": counters.running / 1000,
    }
    totals = {
        "prompt_tokens": counters.prompt_tokens,
        "generation_tokens": counters.generation_tokens,
    }
    lines: list[str] = []
    for name, value in gauges.items():
        lines += [f"# TYPE vllm:{name} gauge", f"vllm:{name}{{{label}}} {float(value)}"]
    for name, value in totals.items():
        lines += [f"# TYPE vllm:{name}_total counter"]
        lines += [f"vllm:{name}_total{{{label}}} {float(value)}"]
    lines.append("# TYPE vllm:request_success_total counter")
    for reason in ("stop", "length", "abort", "error"):
        count = float(counters.succeeded.get(reason, 0))
        lines.append(f'vllm:request_success_total{{{label},finished_reason="{reason}"}} {count}')
    return "\n".join(lines) + "\n"
