"""``--once``: wait for the engine, run the smoke checks, and tell how it went."""

import asyncio
import sys

from appliance.engine import Request
from appliance.report import print_smoke
from appliance.serve import Running
from appliance.trust import trust

GRACE_S = 30.0  # for the supervisor's own end of a start that takes too long


async def smoke_once(running: Running) -> int:
    """Wait for the engine, run the smoke checks, return their exit code."""
    ready = await until_ready(running)
    return await asyncio.to_thread(_smoke_running, running) if ready else 1


def _smoke_running(running: Running) -> int:
    glitch = running.settings.profile == "demo"
    url = running.base_url
    trusted = trust(url, running.settings.tls_cert, is_own=True)
    try:
        return print_smoke(url, running.keys.client, expect_glitch=glitch, trust=trusted)
    except SystemExit:  # how rich ends when the reader of stdout has left
        return 1


async def until_ready(running: Running) -> bool:
    """Wait until the engine is ready (True), or nothing is coming any more (False).

    An attached engine may never come; it gets as long as one of ours to start. One that an
    operator had stopped is started: that is what was typed now.
    """
    running.engine.request(Request.START)
    try:
        async with asyncio.timeout(running.settings.start_timeout_s + GRACE_S):
            return await _ready_or_over(running)
    except TimeoutError:
        state = running.engine.snapshot.state
        print(f"the engine is still {state}: gave up waiting for it", file=sys.stderr)
        return False


async def _ready_or_over(running: Running) -> bool:
    changed = asyncio.Event()
    forget = running.engine.listen(lambda _snapshot: changed.set())
    started = running.engine.snapshot.spawn
    try:
        while True:
            snapshot = running.engine.snapshot
            if snapshot.is_ready:
                return True
            if snapshot.state == "failed" or (snapshot.spawn > started and not snapshot.is_coming):
                print(f"the engine is {snapshot.state}: {snapshot.reason.what}", file=sys.stderr)
                for line in snapshot.last_lines:
                    print(f"  | {line}", file=sys.stderr)
                if snapshot.reason.hint:
                    print(f"  -> {snapshot.reason.hint}", file=sys.stderr)
                return False
            changed.clear()
            await changed.wait()
    finally:
        forget()
