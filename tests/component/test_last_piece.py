"""The last piece of a stream and its end, which may come as one: nobody has left then."""

import asyncio
from dataclasses import dataclass

from appliance.admission import Gate
from tests.component.test_engine_replies import DONE, PIECE, SSE
from tests.relays import Mortal, front


@dataclass
class Slow(Mortal):
    """Says its first piece, and all the rest at once when the client has that."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(SSE + b"%x\r\n%b\r\n" % (len(PIECE), PIECE))
        await self.free.wait()
        rest = PIECE + DONE
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(rest), rest))
        await writer.drain()
        writer.close()


async def test_a_stream_whose_end_comes_with_its_last_piece_ended_well() -> None:
    gate = Gate(1, 1)
    gate.open()
    engine = Slow()
    async with front(gate, engine=engine) as box:
        engine.free.clear()
        asked = box.stream()
        await box.sees(lambda: box.relay.chunks_received > 0, "the first piece")
        engine.free.set()
        heard = await asked
        assert heard.ended_well
        assert heard.body.endswith(DONE)
        await box.runs(0)
        assert box.count("requests", route="/v1/chat/completions", outcome="ok") == 1
        assert "hang_ups_total{" not in box.metrics.text().decode()
