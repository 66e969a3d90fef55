"""A fake vLLM server that plays a script.

    python tests/fakes/scripted_engine.py --script FILE [FLAGS] serve MODEL [FLAGS]

It is the fake engine (engine.py, with all its flags) but for what it says: each request that a
client sent through the appliance takes the next turn of FILE (script.py). With ``--asides`` a
request without tools takes none: it is a title or a compaction, as coding agents send them beside
their turns. With ``--repeat`` the first turn is said to everybody, and nobody is put on record.
The appliance's own requests, such as the warm-up, are answered as by the fake engine.

A prompt's tokens are counted over messages and tools, ``--chars-per-token`` each; without it as
many as in Kilo's prompt (13,600 characters of system, 43 kB of tools, 13k tokens).
"""

import argparse
import asyncio
import json
import math
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script from anywhere

from tests.fakes import engine_mind as mind
from tests.fakes import engine_wire as wire
from tests.fakes.engine import Process, parse
from tests.fakes.engine_api import FakeEngine, Faults
from tests.fakes.engine_checks import Refusal, check_lengths, check_prompt, invalid
from tests.fakes.engine_http import Exchange, json_reply
from tests.fakes.script import Script, Turn

Json = dict[str, Any]
CHARS_PER_TOKEN = 4.4
OVER = Turn(content="The script is over.")
TITLE = Turn(content="A scripted title")
SUMMARY = Turn(content="Goal: go on with the task. Done so far: all that was asked.")

_of_this_turn: ContextVar[Faults | None] = ContextVar("_of_this_turn", default=None)


class ScriptedEngine(FakeEngine):
    """A fake engine whose answers are written down."""

    script: Script
    asides: bool = False
    repeat: bool = False
    chars_per_token: float = CHARS_PER_TOKEN

    @property
    def faults(self) -> Faults:
        """The faults of this turn, else those of the engine."""
        return _of_this_turn.get() or self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        self._faults = faults

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request; a body that the fake engine cannot read is refused, as by vLLM."""
        try:
            await super().handle(exchange)
        except (AttributeError, KeyError, TypeError, ValueError) as cause:
            if exchange.chunks_sent:
                raise
            refusal = invalid("unreadable", "body", f"{type(cause).__name__}: {cause}")
            await exchange.send(refusal.reply(exchange.request.path))

    async def _generate(
        self,
        exchange: Exchange,
        prompt: mind.Prompt,
        whole: Callable[[wire.Generation], Json],
        stream: Callable[[wire.Generation], Iterator[bytes]],
    ) -> None:
        if "x-request-id" not in exchange.request.headers:  # the appliance's own
            await super()._generate(exchange, prompt, whole, stream)
            return
        body = json.loads(exchange.request.body)
        kind = kind_of(body) if self.asides else "turn"
        tokens = self._count(body)
        if not self.repeat:
            self.script.note({"kind": kind, "prompt_tokens": tokens, "body": body})
        check_prompt(body)
        check_lengths(prompt.max_tokens, tokens, self.max_model_len)
        asides = {"title": TITLE, "compaction": SUMMARY}
        turn = asides[kind] if kind in asides else self.script.take(keep=self.repeat) or OVER
        if turn.status:
            raise Refusal(turn.status, turn.message, "Scripted")
        room = self.max_model_len - tokens
        limit = min(prompt.max_tokens or room, room)
        generation = wire.Generation(
            body.get("model") or self.names[0], told(turn, limit), tokens, lambda: self.stopping
        )
        generation.on_token = self._count_token
        if turn.exit_code is not None:
            self.post_exit(turn.exit_code, turn.exit_after)
        token = _of_this_turn.set(Faults(**turn.faults))  # type: ignore[arg-type]
        try:
            await asyncio.sleep(self.faults.slow_head)
            if body.get("stream"):
                await self._send_stream(exchange, stream(generation))
            else:
                await self._send_whole(exchange, generation, whole)
        finally:
            _of_this_turn.reset(token)

    async def _tokenize(self, exchange: Exchange) -> None:
        body = self._body(exchange, set())
        count = self._count(body)
        told = {"count": count, "max_model_len": self.max_model_len, "tokens": [0] * count}
        await exchange.send(json_reply(told | {"token_strs": None}))

    def _count(self, body: Json) -> int:
        """Count a prompt's tokens by its characters."""
        names = ("messages", "system", "tools", "input", "instructions", "prompt")
        said = [body[name] for name in names if body.get(name)]
        return math.ceil(len(json.dumps(said, ensure_ascii=False)) / self.chars_per_token)


def kind_of(body: Json) -> str:
    """Tell a coding agent's ``turn`` from the ``title`` and the ``compaction`` beside it."""
    if body.get("tools"):
        return "turn"
    return "title" if "title generator" in str(body["messages"][0].get("content")) else "compaction"


def told(turn: Turn, limit: int) -> mind.Answer:
    """Return a turn in pieces, cut at ``limit``."""
    deltas = [mind.Delta("reasoning", piece) for piece in mind.pieces(turn.reasoning)]
    deltas += [mind.Delta("content", piece) for piece in mind.pieces(turn.content)]
    for index, (name, arguments) in enumerate(turn.calls):
        deltas.append(mind.Delta("call", name, index))
        text = json.dumps(arguments, ensure_ascii=False)
        deltas += [mind.Delta("arguments", piece, index) for piece in mind.pieces(text)]
    if len(deltas) > limit:
        return mind.Answer(deltas[:limit], "length")
    return mind.Answer(deltas, "tool_calls" if turn.calls else "stop")


class ScriptedProcess(Process):
    """The scripted engine as a process."""

    def __init__(self, options: argparse.Namespace, mine: argparse.Namespace) -> None:
        super().__init__(options)
        plain = self.engine
        engine = ScriptedEngine(
            plain.names, plain.root, plain.keys, plain.max_model_len, options.max_num_seqs
        )
        engine.faults, engine.post_exit = plain.faults, plain.post_exit
        engine.script, engine.chars_per_token = Script(mine.script), mine.chars_per_token
        engine.asides, engine.repeat = mine.asides, mine.repeat
        self.engine = engine
        self.ready_when: Path | None = mine.ready_when

    async def run(self) -> None:
        """Load until the file is there, then as the fake engine."""
        while self.ready_when is not None and not self.ready_when.exists():  # noqa: ASYNC110
            await asyncio.sleep(0.05)  # the file is another process's
        await super().run()


def main() -> None:
    """Run the scripted engine."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--script", type=Path, required=True, metavar="FILE")
    parser.add_argument("--asides", action="store_true")
    parser.add_argument("--repeat", action="store_true")
    parser.add_argument("--chars-per-token", type=float, default=CHARS_PER_TOKEN, metavar="N")
    parser.add_argument("--ready-when", type=Path, metavar="FILE", help="it loads until then")
    mine, rest = parser.parse_known_args()
    asyncio.run(ScriptedProcess(parse(rest), mine).run())


if __name__ == "__main__":
    main()
