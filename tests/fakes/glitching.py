"""A fake vLLM server that answers the path benchmark, and glitches as often as it is told.

    python tests/fakes/glitching.py [--glitch KIND=RATE ...] [--with-prompt FACTOR] [--seed N]
        serve MODEL [FLAGS of engine.py]

It knows the right answer to each question of ``appliance bench paths --seed N`` and spoils it in
one of these ways, each in a share of its answers: case, inserted_space, lost_space,
dropped_component, doubled_separator, substituted_character. Where the path-preservation prompt
has come along, each rate is multiplied by FACTOR. The same request always gets the same answer.
Anybody else's question is answered as by the fake engine. ``--busy N`` refuses every Nth request
with 503 at first.

    GET /fake/glitches      {"answers": N, "glitches": {kind: count}}: what it really did
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script from anywhere

from appliance.bench.cases import EDIT_FILE, Case, make_cases
from appliance.demo.conversations import POLICY_TEXT
from tests.fakes import engine_mind as mind
from tests.fakes import engine_wire as wire
from tests.fakes.engine import Process, parse
from tests.fakes.engine_api import FakeEngine
from tests.fakes.engine_checks import check_lengths, check_prompt
from tests.fakes.engine_http import Exchange, json_reply
from tests.fakes.script import Turn
from tests.fakes.scripted_engine import told

Json = dict[str, Any]
CASES_A_CELL = 10  # more than anybody asks for
CELLS = 63
EDITED = {"old": "timeout=30", "new": "timeout=60"}


def _case(path: str, rng: Random) -> str:
    places = [place for place, letter in enumerate(path) if letter.isascii() and letter.isalpha()]
    place = rng.choice(places)
    return path[:place] + path[place].swapcase() + path[place + 1 :]


def _inserted(path: str, rng: Random) -> str:
    places = [place for place, mark in enumerate(path) if mark in ".-_/\\" and place > 0]
    place = rng.choice(places) + rng.choice((0, 1))
    return f"{path[:place]} {path[place:]}"


def _lost(path: str, rng: Random) -> str:
    places = [place for place, mark in enumerate(path) if mark == " "]
    if not places:
        return path
    place = rng.choice(places)
    return path[:place] + path[place + 1 :]


def _dropped(path: str, rng: Random) -> str:
    mark = "\\" if "\\" in path else "/"
    parts = path.split(mark)
    first = 4 if path.startswith("\\\\") else 1  # a share's host is no component
    inner = [place for place in range(first, len(parts) - 1) if parts[place]]
    if not inner:
        return path
    del parts[rng.choice(inner)]
    return mark.join(parts)


def _doubled(path: str, _rng: Random) -> str:
    mark = "\\" if "\\" in path else "/"
    place = path.rindex(mark)
    return path[:place] + mark + path[place:]


def _substituted(path: str, rng: Random) -> str:
    places = [place for place, letter in enumerate(path) if letter in "abcdefghij"]
    if not places:
        return path
    place = rng.choice(places)
    return path[:place] + "z" + path[place + 1 :]


GLITCHES: dict[str, Callable[[str, Random], str]] = {
    "case": _case,
    "inserted_space": _inserted,
    "lost_space": _lost,
    "dropped_component": _dropped,
    "doubled_separator": _doubled,
    "substituted_character": _substituted,
}


def spoil(path: str, rates: dict[str, float], key: str) -> tuple[str, str]:
    """Return the path as it is written, and how it was spoiled ("" for not at all)."""
    rng = Random(key)  # noqa: S311 - the same for the same request
    drawn, reached = rng.random(), 0.0
    for kind, rate in rates.items():
        reached += rate
        if drawn < reached:
            written = GLITCHES[kind](path, rng)
            return (written, kind) if written != path else (path, "")
    return path, ""


def asked_text(messages: list[Json]) -> str:
    """Return what a question is known by: all that it says, but for the system's words."""
    said = (m for m in messages if m["role"] in ("user", "tool"))
    return "\n".join(mind._text(message.get("content")) for message in said)


class GlitchingEngine(FakeEngine):
    """A fake engine that has seen the suite, and forgets some of it."""

    rates: dict[str, float]
    with_prompt: float
    known: dict[str, Case]
    count: Counter[str]
    busy: int = 0
    asked: int = 0

    def learn(self, seed: int, rates: dict[str, float], with_prompt: float) -> None:
        """Take the suite of this seed, and the rates."""
        suite = make_cases(seed, CELLS * CASES_A_CELL)
        self.known = {asked_text(list(case.messages)): case for case in suite}
        self.rates, self.with_prompt, self.count = rates, with_prompt, Counter()
        self._routes["/fake/glitches"] = {"GET": self._say(self._done)}

    def _done(self) -> Json:
        glitches = {kind: self.count[kind] for kind in GLITCHES if self.count[kind]}
        return {"answers": self.count.total(), "glitches": glitches}

    async def _generate(
        self,
        exchange: Exchange,
        prompt: mind.Prompt,
        whole: Callable[[wire.Generation], Json],
        stream: Callable[[wire.Generation], Iterator[bytes]],
    ) -> None:
        body = json.loads(exchange.request.body)
        case = self.known.get(asked_text(body.get("messages", [])))
        if case is None:
            await super()._generate(exchange, prompt, whole, stream)
            return
        self.asked += 1
        if self.busy and self.asked % self.busy == 0:
            error = {"message": "come back later", "code": "engine_not_ready"}
            await exchange.send(json_reply({"error": error}, 503, {"retry-after": "0"}))
            return
        check_prompt(body)
        tokens = prompt.tokens()
        check_lengths(prompt.max_tokens, tokens, self.max_model_len)
        has_policy = prompt.system.startswith(POLICY_TEXT)
        answer = told(self._turn(case, has_policy), self.max_model_len - tokens)
        generation = wire.Generation(self.names[0], answer, tokens, lambda: self.stopping)
        if body.get("stream"):
            await self._send_stream(exchange, stream(generation))
        else:
            await self._send_whole(exchange, generation, whole)

    def _turn(self, case: Case, has_policy: bool) -> Turn:
        factor = self.with_prompt if has_policy else 1.0
        rates = {kind: rate * factor for kind, rate in self.rates.items()}
        written, kind = spoil(case.path, rates, case.id)
        self.count[kind] += 1
        if not case.is_call:
            return Turn(content=written)
        if EDIT_FILE in case.tools:
            return Turn(calls=(("edit_file", {"path": written, **EDITED}),))
        return Turn(calls=(("read_file", {"path": written}),))


class GlitchingProcess(Process):
    """The glitching engine as a process."""

    def __init__(self, options: argparse.Namespace, mine: argparse.Namespace) -> None:
        super().__init__(options)
        plain = self.engine
        engine = GlitchingEngine(
            plain.names, plain.root, plain.keys, plain.max_model_len, options.max_num_seqs
        )
        engine.faults, engine.post_exit = plain.faults, plain.post_exit
        engine.learn(mine.seed, dict(mine.glitch), mine.with_prompt)
        engine.busy = mine.busy
        self.engine = engine


def _rate(text: str) -> tuple[str, float]:
    kind, _, rate = text.partition("=")
    if kind not in GLITCHES:
        raise argparse.ArgumentTypeError(f"{kind!r} is none of {', '.join(GLITCHES)}")
    return kind, float(rate)


def main() -> None:
    """Run the glitching engine."""
    parser = argparse.ArgumentParser(allow_abbrev=False, description=__doc__)
    parser.add_argument("--glitch", type=_rate, action="append", default=[], metavar="KIND=RATE")
    parser.add_argument("--with-prompt", type=float, default=0.1, metavar="FACTOR")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--busy", type=int, default=0, metavar="N")
    mine, rest = parser.parse_known_args()
    asyncio.run(GlitchingProcess(parse(rest), mine).run())


if __name__ == "__main__":
    main()
