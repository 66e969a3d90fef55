"""The fake engine with a loose tongue: it prints what it is asked, as vLLM does when it fails.

POST /blab {"form": NAME, "then": "answer", "refuse", "fail" or "die"} sets what the next requests
get: all is printed in that form of ``tests/fault/blab.py``, and then the request is answered,
refused (400) or failed (500) with its own body in the message, or answered in part before death.

``--leave-orphan FILE``: a process of a session of its own, whose parent is gone, notes its pid in
FILE and stays.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # run as a script from anywhere

from tests.fakes import engine
from tests.fakes.engine_api import FakeEngine
from tests.fakes.engine_http import Exchange, json_reply
from tests.fault.blab import forms


class Blabber(FakeEngine):
    """Prints each request, then does as told."""

    form = "none"
    then = "answer"

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request, loudly."""
        request = exchange.request
        if request.path == "/blab":
            told = json.loads(request.body)
            self.form, self.then = told["form"], told["then"]
            await exchange.send(json_reply(told))
            return
        if request.method != "POST" or not request.path.startswith("/v1") or self.form == "none":
            await super().handle(exchange)
            return
        headers = json.dumps(request.headers)
        body = request.body.decode()
        print(forms(body, headers)[self.form], file=sys.stderr, flush=True)
        if self.then == "answer":
            await super().handle(exchange)
            return
        if self.then == "die":
            await exchange.start_stream()
            await exchange.send_chunk(b'data: {"choices": []}\n\n')
            os._exit(1)
        status, kind = (400, "BadRequestError") if self.then == "refuse" else (500, "InternalError")
        error = {"message": f"cannot do {body}", "type": kind, "param": None, "code": status}
        await exchange.send(json_reply({"error": error}, status))


class Process(engine.Process):
    """The fake engine's process around a blabber."""

    def __init__(self, options: argparse.Namespace) -> None:
        super().__init__(options)
        tame, slots = self.engine, options.max_num_seqs
        self.engine = Blabber(tame.names, tame.root, tame.keys, tame.max_model_len, slots)
        self.engine.faults, self.engine.post_exit = tame.faults, tame.post_exit


def leave_orphan(note: Path) -> None:
    """Start a process whose parent ends at once, and wait for that."""
    if (child := os.fork()) != 0:
        os.waitpid(child, 0)
        return
    os.setsid()
    if os.fork() != 0:
        os._exit(0)
    note.write_text(str(os.getpid()))
    while True:
        signal.pause()


def main() -> None:
    """Run it."""
    own = argparse.ArgumentParser(allow_abbrev=False)
    own.add_argument("--leave-orphan", type=Path)
    mine, rest = own.parse_known_args()
    if mine.leave_orphan:
        leave_orphan(mine.leave_orphan)
    asyncio.run(Process(engine.parse(rest)).run())


if __name__ == "__main__":
    main()
