"""``appliance node`` and ``appliance cluster``: a second box, joined and compared."""

import argparse
import asyncio
import json
import platform
import re
from dataclasses import asdict
from typing import Any

from appliance.cluster.compare import Compared, Verdict, compare
from appliance.cluster.membership import Kept, WorkerKept
from appliance.cluster.peer import NodeState
from appliance.cluster.wire import PORT
from appliance.commandline import add_command, add_settings_flags, settings_of
from appliance.errors import HostError, SettingsError
from appliance.host import StateFolder
from appliance.logs import configure
from appliance.settings import Settings


def add_node_command(commands: Any) -> None:
    """Add ``appliance node``."""
    examples = (
        "  appliance node                         on the worker box: shows a code for the head\n"
        "  appliance node --forget                take no more orders from its head; then again\n"
        "                                         appliance node, which shows a new code\n"
        "exit codes:\n"
        "  0 SIGTERM or SIGINT     75 the port or the state folder is taken\n"
        "  78 the settings are wrong"
    )
    about = "take part in the engine of another box: the worker of a cluster"
    parser = add_command(commands, "node", about, examples, _node)
    add_settings_flags(parser)
    parser.add_argument("--forget", action="store_true", help="the head that joined, and end")


def _node(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    if options.forget:
        return _forget(settings)
    import uvloop

    from appliance.nodeserve import serve_node

    configure(settings.log_format)
    return uvloop.run(serve_node(settings, lambda text: print(text, flush=True)))


def _forget(settings: Settings) -> int:
    state = StateFolder(settings.state_dir)  # a node that runs would go on with the head it has
    try:
        gone = Kept(state.path).forget_head()
    finally:
        state.close()
    print("the head is forgotten: appliance node shows a code" if gone else "there was no head")
    return 0


def add_cluster_command(commands: Any) -> None:
    """Add ``appliance cluster``, and its two commands."""
    examples = (
        "  appliance cluster join CODE            on the head: CODE as the worker shows it\n"
        "  appliance cluster show                 both boxes side by side, and what differs"
    )
    about = "join the worker box, and compare it with this one"
    parser: argparse.ArgumentParser = add_command(commands, "cluster", about, examples, _show)
    _add_both(parser.add_subparsers(metavar="COMMAND", required=True))


def _add_both(commands: Any) -> None:
    examples = (
        "  appliance cluster join CODE            appliance node shows it on the worker\n"
        "  appliance cluster join CODE --worker 192.168.100.2\n"
        "  appliance cluster join CODE --replace  after the worker was made anew\n"
        "exit codes: 0 joined and alike, 1 refused, or what differs breaks the engine"
    )
    about = "take the worker box that shows this code"
    parser = add_command(commands, "join", about, examples, _join)
    parser.add_argument("code", metavar="CODE", help="as the worker shows it")
    parser.add_argument("--worker", metavar="HOST[:PORT]", help="default: APPLIANCE_CLUSTER_WORKER")
    parser.add_argument("--replace", action="store_true", help="the worker that there was")
    add_settings_flags(parser)
    examples = (
        "  appliance cluster show\n"
        "  appliance cluster show --json          for programs\n"
        "exit codes: 0 alike, 1 refused, or what differs breaks the engine"
    )
    parser = add_command(commands, "show", "show both boxes side by side", examples, _show)
    parser.add_argument("--json", action="store_true", help="for programs")
    add_settings_flags(parser)


def _of_head(options: argparse.Namespace) -> tuple[Settings, Kept]:
    settings = settings_of(options)
    if settings.cluster_role == "worker":
        raise SettingsError(
            "this box is the worker (APPLIANCE_CLUSTER_ROLE=worker)",
            "type it on the head; here: appliance node",
        )
    return settings, Kept(settings.state_dir)


def _join(options: argparse.Namespace) -> int:
    settings, kept = _of_head(options)
    if (there := kept.worker()) is not None and not options.replace:
        raise HostError(
            f"this head has a worker already, at {there.address}",
            "appliance cluster join CODE --replace forgets it",
        )
    from appliance.cluster.joining import join  # cryptography takes its time to load

    host, port = worker_address(options.worker, settings)
    worker = join(host, port, options.code, _own_name())
    kept.keep_worker(worker)
    print(f"joined the worker at {worker.address}")
    return _show_both(settings, kept, as_json=False)


def worker_address(given: str | None, settings: Settings) -> tuple[str, int]:
    """Return where the worker is, as typed or as set. Raises SettingsError."""
    if not given:
        if settings.cluster_worker is None:
            raise SettingsError("which box is the worker?", "name it: --worker HOST")
        return settings.cluster_worker, settings.cluster_port
    found = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([^:\s/@]+)(?::(\d{1,5}))?", given)
    if found is None:
        raise SettingsError(
            f"--worker {given!r} is no address", "write it like 192.168.100.2, or [fd00::2]:9001"
        )
    port = int(found[2] or found[4] or PORT)
    return found[1] or found[3], port


def _own_name() -> str:
    return re.sub(r"[^A-Za-z0-9_.-]", "-", platform.node())[:100] or "head"


def _show(options: argparse.Namespace) -> int:
    settings, kept = _of_head(options)
    return _show_both(settings, kept, as_json=options.json)


def _show_both(settings: Settings, kept: Kept, *, as_json: bool) -> int:
    worker = kept.worker()
    if worker is None:
        raise HostError(
            "this box has no worker",
            "on the other box: appliance node; then here: appliance cluster join CODE",
        )
    state, rows = asyncio.run(_ask(settings, worker))
    if as_json:
        told = {"worker": worker.address, "state": type(state).__name__.lower()}
        print(json.dumps({**told, "compared": [asdict(row) for row in rows]}, indent=2))
    else:
        print(f"worker at {worker.address}: {type(state).__name__.lower()}")
        print(table(rows))
    return int(any(row.verdict is Verdict.BREAKS for row in rows))


async def _ask(settings: Settings, worker: WorkerKept) -> tuple[NodeState, tuple[Compared, ...]]:
    from appliance.cluster.nodeclient import NodeClient  # as above
    from appliance.cluster.nodelook import look_at_node

    async with NodeClient(worker) as peer:
        own = asyncio.create_task(asyncio.to_thread(look_at_node, settings))
        facts, state = await peer.facts(), await peer.state()
        return state, compare(await own, facts)


def table(rows: tuple[Compared, ...]) -> str:
    """Return the comparison as people read it. Pure."""
    head = ("", "this box", "worker", "")
    cells = [head, *((row.name, row.head, row.worker, row.verdict.value) for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(3)]
    lines = []
    for at, line in enumerate(cells):
        text = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=False))
        lines.append(f"{text}  {line[3]}".rstrip())
        if at and (hint := rows[at - 1].next):
            lines.append(f"  -> {hint}")
    return "\n".join(lines)
