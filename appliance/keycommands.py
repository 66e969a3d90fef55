"""``appliance key`` and ``appliance kilo``: the keys of clients, and Kilo Code's configuration."""

import argparse
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from appliance.clientkeys import add_key, read_keys, revoke_key
from appliance.commandline import add_command, settings_of
from appliance.errors import HostError
from appliance.host import named_keys
from appliance.kilo import KEY_FROM_ENVIRONMENT, KEY_VARIABLE
from appliance.operator import Operator
from appliance.report import say_kilo
from appliance.settings import Settings
from appliance.trust import trust


def add_key_command(commands: Any) -> None:
    """Add ``appliance key``."""
    examples = (
        "  appliance key                          the client key, for Kilo Code\n"
        "  appliance key operator                 the operator key\n"
        "  appliance key new laptop               a key of its own for a client; shown once\n"
        "  appliance key new ci --max-running 1 --max-waiting 4\n"
        "  appliance key new laptop --replace     another one; the old one ends within a second\n"
        "  appliance key list                     names and limits; nobody can show the keys\n"
        "  appliance key revoke laptop            it ends within a second\n"
        "  appliance key new laptop --kilo        Kilo Code's configuration, that key included\n"
        "exit codes: 0 done, 1 refused"
    )
    parser = add_command(commands, "key", "print, make or revoke a key of this appliance",
                         examples, _key)  # fmt: skip
    what = ("client", "operator", "new", "list", "revoke")
    parser.add_argument("what", nargs="?", choices=what, default="client")
    parser.add_argument("name", nargs="?", metavar="NAME", help="new, revoke: the key's name")
    parser.add_argument(
        "--max-running", type=_limit, metavar="N", help="sequences at once: one a request, or its n"
    )
    parser.add_argument("--max-waiting", type=_limit, metavar="N", help="and in the queue")
    parser.add_argument("--replace", action="store_true", help="the key that has the name now")
    parser.add_argument("--kilo", action="store_true", help="print the Kilo Code block")
    parser.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")


def _limit(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def _key(options: argparse.Namespace) -> int:
    settings = settings_of(options)
    _check_key_options(options)
    path = settings.client_keys or named_keys(settings.state_dir)
    match options.what:
        case "list":
            _show_keys(path)
        case "revoke":
            revoke_key(path, options.name)
            print(f"{options.name} is revoked: it ends within a second", file=sys.stderr)
        case "new":
            _new_key(options, settings, path)
        case _ if options.kilo:
            _say_kilo(settings, None, None)
        case _:
            print(Operator.of(settings, None, None).key(options.what))
    return 0


def _check_key_options(options: argparse.Namespace) -> None:
    what = options.what
    if what in ("new", "revoke") and not options.name:
        raise HostError(f"key {what} needs a name", f"appliance key {what} laptop")
    if what not in ("new", "revoke") and options.name:
        raise HostError(f"key {what} takes no name, and not {options.name!r}", "appliance key new")
    limits = options.max_running is not None or options.max_waiting is not None
    if what != "new" and (limits or options.replace):
        raise HostError(
            f"key {what} takes no limits", "appliance key new NAME --replace --max-running N"
        )
    if options.max_running == 0:
        raise HostError("--max-running 0 would let nothing run", "appliance key revoke NAME")


def _new_key(options: argparse.Namespace, settings: Settings, path: Path) -> None:
    secret = add_key(
        path,
        options.name,
        max_running=options.max_running,
        max_waiting=options.max_waiting,
        replace=options.replace,
    )
    if options.kilo:
        _say_kilo(settings, None, secret)
    else:
        print(secret)
    kept = f"{path} keeps its digest alone, so this is the only time that it is shown"
    print(f"the key of {options.name}, good within a second; {kept}", file=sys.stderr)


def _show_keys(path: Path) -> None:
    table = Table("name", "made", "running at most", "waiting at most", box=None, pad_edge=False)
    table.add_row("default", "", "-", "-")
    for key in read_keys(path):
        table.add_row(key.name, key.made, _shown(key.max_running), _shown(key.max_waiting))
    Console(soft_wrap=True, highlight=False, markup=False).print(table)


def _shown(limit: int | None) -> str:
    return "-" if limit is None else str(limit)


def add_kilo_command(commands: Any) -> None:
    """Add ``appliance kilo``."""
    examples = (
        "  appliance kilo                                    Kilo on this machine\n"
        "  appliance kilo --url http://spark.local:9000      Kilo on another one\n"
        "  appliance kilo --no-key                           the key comes from the variable\n"
        f"                                                    {KEY_VARIABLE}\n"
        "exit codes: 0 done, 1 no appliance answers"
    )
    about = "print Kilo Code's configuration for the running appliance, key included"
    parser = add_command(commands, "kilo", about, examples, _kilo)
    parser.add_argument("--url", help="as Kilo reaches the appliance; default: this machine's")
    parser.add_argument("--key", help="client key; default: APPLIANCE_API_KEY, or the kept one")
    parser.add_argument("--no-key", action="store_true", help=f"Kilo reads {KEY_VARIABLE}")
    parser.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")


def _kilo(options: argparse.Namespace) -> int:
    shown = KEY_FROM_ENVIRONMENT if options.no_key else options.key
    _say_kilo(settings_of(options), options.url, shown, asks_with=options.key)
    return 0


def _say_kilo(
    settings: Settings, url: str | None, shown: str | None, asks_with: str | None = None
) -> None:
    operator = Operator.of(settings, None, None)
    base_url = url or operator.running_url()
    key = asks_with or operator.key("client")
    say_kilo(base_url, key, trust(base_url, settings.tls_cert, is_own=not url), shown or key)
