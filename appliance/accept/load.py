"""The load of an acceptance run: streamed answers, timed; one at a time or several at once."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import httpx

from appliance.accept.box import Box
from appliance.accept.figures import Timing
from appliance.bench.distractors import CHARS_PER_TOKEN, distractor
from appliance.bench.endpoint import is_too_long, message_of
from appliance.errors import HostError
from appliance.openai import GUARD_HEADER, INJECTION_HEADER
from appliance.probes import COUNT_QUESTION, user

STEP_S = 1800.0  # a prompt of the whole context, on a small box
ANSWER_TOKENS = 64
SIZING_TOKENS = 2000
_SHRINK = 0.9  # of a prompt that was a little too long after all
_TRIES = 4
# A published figure is of the engine alone: no prompt of ours before it, no guard behind it.
_BARE = {INJECTION_HEADER: "off", GUARD_HEADER: "off"}
_LATER = (429, 502, 503, 504)


class TooLong(Exception):
    """The prompt does not fit the served context."""


class Asker:
    """Asks one model of one box, and times the answers."""

    def __init__(self, box: Box, model: str) -> None:
        self.model = model
        self._url = f"{box.url.rstrip('/')}/v1/chat/completions"
        headers = {"authorization": f"Bearer {box.key}", **_BARE}
        timeout = httpx.Timeout(STEP_S, connect=10)
        self._http = httpx.AsyncClient(
            headers=headers, timeout=timeout, trust_env=False, verify=box.trusted
        )

    async def __aenter__(self) -> "Asker":
        return self

    async def __aexit__(self, *_fault: object) -> None:
        await self._http.aclose()

    async def ask(
        self, text: str, tokens: int = ANSWER_TOKENS, begun: Callable[[], None] | None = None
    ) -> Timing:
        """Return the timing of one answer of ``tokens`` tokens; ``begun`` is told of the first.

        Raises TooLong, and HostError for an answer that is refused, broken or without tokens.
        """
        sent = time.monotonic()
        first = last = 0.0
        usage: dict[str, Any] = {}
        done = False
        try:
            async for event in self._events(text, tokens):
                if event is None:
                    done = True
                    continue
                usage = event.get("usage") or usage
                if _has_text(event):
                    last = time.monotonic()
                    if not first:
                        first = last
                        if begun:
                            begun()
        except httpx.HTTPError as cause:
            raise HostError(
                f"an answer broke off: {cause!r}", "appliance incidents show"
            ) from cause
        if not (first and done and usage):
            raise HostError("an answer ended before its end", "appliance incidents show")
        return Timing(sent, first, last, usage["prompt_tokens"], usage["completion_tokens"])

    async def _events(self, text: str, tokens: int) -> AsyncIterator[dict[str, Any] | None]:
        """Yield each event of one streamed answer, None for its end."""
        body = {
            "model": self.model,
            "messages": [user(text)],
            "temperature": 0,
            "max_tokens": tokens,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        async with self._http.stream("POST", self._url, json=body) as response:
            if response.status_code != 200:
                await response.aread()
                raise _refused(response)
            async for line in response.aiter_lines():
                if line == "data: [DONE]":
                    yield None
                elif line.startswith("data: "):
                    yield json.loads(line.removeprefix("data: "))


def _refused(response: httpx.Response) -> Exception:
    message = message_of(response)
    if response.status_code in (400, 413, 422) and is_too_long(message):
        return TooLong(message)
    hint = "appliance status" if response.status_code in _LATER else "appliance smoke"
    return HostError(f"a question was refused with {response.status_code}: {message}", hint)


def _has_text(event: dict[str, Any]) -> bool:
    return any(
        choice.get("delta", {}).get(name)
        for choice in event.get("choices") or ()
        for name in ("content", "reasoning", "reasoning_content", "tool_calls")
    )


# ---- what is asked


async def long_prompt(asker: Asker, tokens: int, nonce: str) -> Timing:
    """Return the timing of a prompt of about ``tokens`` tokens that no cache has seen.

    How long a text that is, a short one tells: tokenizers differ.
    """
    sized = await asker.ask(_text(SIZING_TOKENS * CHARS_PER_TOKEN, f"{nonce}/sizing"), 1)
    chars = tokens * SIZING_TOKENS * CHARS_PER_TOKEN / sized.prompt_tokens
    for attempt in range(_TRIES):
        try:
            return await asker.ask(_text(chars * _SHRINK**attempt, nonce))
        except TooLong as cause:
            why = str(cause)
    raise HostError(f"a prompt of {tokens} tokens does not fit: {why}", "appliance plan")


def _text(chars: float, nonce: str) -> str:
    """Return a text of ``chars`` characters; the nonce stands first, as caches go by beginnings."""
    seed = sum(ord(char) * 31**place for place, char in enumerate(nonce)) % 2**31
    wanted = max(1, int(chars))
    text = distractor(int(wanted / CHARS_PER_TOKEN) + 100, seed)
    return f"Notes {nonce}\n{text}"[:wanted]


async def at_once(asker: Asker, streams: int, tokens: int) -> Sequence[Timing]:
    """Return the timings of ``streams`` answers that run at the same time."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(asker.ask(f"({number}) {COUNT_QUESTION}", tokens))
                for number in range(streams)
            ]
    except ExceptionGroup as faults:
        raise faults.exceptions[0] from None
    return [task.result() for task in tasks]
