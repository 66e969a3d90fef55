"""A relay of bytes that notes when each question came by, and each event of its answer.

    python -m tests.gpu.tap HOST PORT FOLDER

It stands before an engine, on both ways to it. What a client saw, less what was noted here, is what
lies between the two: the way itself, without the engine, whose own times differ by far more. It
listens on a free port of loopback, named in FOLDER/address; FOLDER/notes gets a line for each
answer, found again by the question's seed. The clock is the machine's monotonic one, as the
client's is.
"""

import asyncio
import itertools
import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.gpu.box import Box, NotReady, Program
from tests.gpu.streams import Moments, Stream, Way

SEED = re.compile(rb'"seed": ?(\d+)')
LAST = b"data: [DONE]"
PIECE = 1 << 16
WRITTEN_S = 5.0


@dataclass
class Note:
    """One question that came by, and the moments of its answer's events."""

    seed: int
    asked: float
    moments: list[float]


def beside(box: Box, engine: Program) -> Program:
    """Start a tap before this engine; it is asked as the engine is."""
    folder = box.logs / "tap"
    folder.mkdir(parents=True, exist_ok=True)
    way = Way.to(engine, "tap")
    arguments = ["-m", "tests.gpu.tap", way.host, str(way.port), str(folder)]
    program = box.start_own("tap", arguments, folder, {})
    program.key = engine.key
    return program


def notes_of(box: Box, streams: Sequence[Stream]) -> dict[int, Note]:
    """Return what was noted, by the question's seed. Raises NotReady where a stream is not."""
    wanted = {stream.seed for stream in streams}
    deadline = time.monotonic() + WRITTEN_S
    while True:  # the tap writes once it has passed the last piece on
        lines = (box.logs / "tap" / "notes").read_text().split("\n")[:-1]
        notes = {note.seed: note for note in (Note(**json.loads(line)) for line in lines)}
        missing = wanted - notes.keys()
        if not missing:
            return notes
        if time.monotonic() > deadline:
            raise NotReady(f"{len(missing)} of {len(wanted)} streams did not pass the tap")
        time.sleep(0.01)


def between(streams: Sequence[Stream], notes: dict[int, Note]) -> dict[str, list[float]]:
    """Return the seconds that streams were between client and tap, both directions.

    ``ttft_s``: of the first byte, the question's own way included. ``gap_s``: by how much longer
    the time between two events was for the client. Raises KeyError for a stream that was not
    noted, ValueError for one of which the tap saw another number of events.
    """
    found: dict[str, list[float]] = {"ttft_s": [], "gap_s": []}
    for stream in streams:
        note = notes[stream.seed]
        late = [a - b for a, b in zip(stream.moments, note.moments, strict=True)][1:]
        found["ttft_s"].append(note.asked - stream.asked + late[0])
        found["gap_s"] += [b - a for a, b in itertools.pairwise(late)]
    return found


@dataclass
class Exchange:
    """One question on a connection, which may bring several, and its answer so far."""

    asked: float = 0.0
    question: bytes = b""
    tail: bytes = b""  # of the answer; its last event may come in two pieces
    answer: Moments = field(default_factory=Moments)


class Tap:
    """Passes bytes both ways."""

    def __init__(self, host: str, port: int, notes: Path) -> None:
        self._engine = (host, port)
        self._notes = notes.open("w")

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass one connection on, until either side ends it."""
        upstream, engine = await asyncio.open_connection(*self._engine)
        now = Exchange()

        async def ask() -> None:
            while data := await reader.read(PIECE):
                now.asked = time.monotonic()
                now.question += data
                engine.write(data)

        async def answer() -> None:
            nonlocal now
            while data := await upstream.read(PIECE):
                now.answer.see(data, time.monotonic())
                writer.write(data)
                now.tail += data
                if LAST in now.tail:
                    self._write(now)
                    now = Exchange()
                now.tail = now.tail[-len(LAST) :]

        tasks = {asyncio.create_task(ask()), asyncio.create_task(answer())}
        _, waiting = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        engine.close()
        writer.close()

    def _write(self, exchange: Exchange) -> None:
        if seed := SEED.search(exchange.question):
            note = Note(int(seed[1]), exchange.asked, exchange.answer.each)
            self._notes.write(json.dumps(vars(note)) + "\n")
            self._notes.flush()


async def main(host: str, port: int, folder: Path) -> None:
    """Serve until the process is ended."""
    tap = Tap(host, port, folder / "notes")
    server = await asyncio.start_server(tap.serve, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    fresh = folder / "address.new"
    fresh.write_text(f"http://127.0.0.1:{own}")
    fresh.rename(folder / "address")
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])))
