"""Sends requests with wrong keys, as a process of its own: python -m tests.gateway.badkeys URL N S

N requests, each with another key, evenly over S seconds; prints the statuses as JSON. A process of
its own, because what it costs must not be counted against those who are measured.
"""

import asyncio
import json
import sys
from collections import Counter
from urllib.parse import urlsplit

CONNECTIONS = 160  # more than the 64 whose refusals may wait


async def _one(host: str, port: int, keys: "asyncio.Queue[str | None]", seen: Counter[str]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while (key := await keys.get()) is not None:
        head = f"GET /v1/models HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\n\r\n"
        writer.write(head.encode())
        reply = await reader.readuntil(b"\r\n\r\n")
        lines = reply.decode("latin-1").lower().split("\r\n")
        length = next(line for line in lines if line.startswith("content-length:"))
        await reader.readexactly(int(length.partition(":")[2]))
        seen[lines[0].split(" ")[1]] += 1
    writer.close()
    await writer.wait_closed()


async def attack(url: str, count: int, over_s: float) -> dict[str, int]:
    """Send them; return how often each status came."""
    where = urlsplit(url)
    keys: asyncio.Queue[str | None] = asyncio.Queue()
    seen: Counter[str] = Counter()
    host, port = where.hostname or "127.0.0.1", where.port or 80
    workers = [asyncio.create_task(_one(host, port, keys, seen)) for _ in range(CONNECTIONS)]
    loop = asyncio.get_running_loop()
    began = loop.time()
    for number in range(count):
        due = began + over_s * number / count
        if (early := due - loop.time()) > 0:
            await asyncio.sleep(early)
        keys.put_nowait(f"wrong-{number:05d}-key")
    for _ in workers:
        keys.put_nowait(None)
    await asyncio.gather(*workers)
    return dict(seen)


if __name__ == "__main__":
    found = asyncio.run(attack(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
    print(json.dumps(found))
