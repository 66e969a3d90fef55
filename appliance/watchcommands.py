"""``appliance logs`` and ``appliance top``: their part of the command line."""

import argparse
from typing import Any

from rich.console import Console

from appliance.commandline import add_command, add_operator_flags, settings_of
from appliance.logsview import ALL, follow, show_tail
from appliance.operator import Operator
from appliance.top import print_frame, watch


def add_logs_command(commands: Any) -> None:
    """Add ``appliance logs``."""
    examples = (
        "  appliance logs                         the engine's last 100 lines, keys hidden\n"
        "  appliance logs --follow                and each line as it comes; Ctrl-C ends it\n"
        "  appliance logs --follow --lines 0 | grep --line-buffered WARNING\n"
        "  appliance logs --url http://spark.local:9000 --key OPERATOR_KEY\n"
        "Lines go to stdout; changes of state and a lost appliance are told on stderr.\n"
        "exit codes: 0 printed, 1 no appliance answers, 130 Ctrl-C"
    )
    about = "print the engine's last lines, or follow them over restarts"
    parser = add_command(commands, "logs", about, examples, _logs)
    add_operator_flags(parser)
    parser.add_argument("--follow", "-f", action="store_true", help="print lines as they come")
    parser.add_argument("--lines", "-n", type=_lines, default=100, metavar="N",
                        help=f"of the past, at most {ALL}; default: 100")  # fmt: skip


def _lines(text: str) -> int:
    if not text.isdecimal() or int(text) > ALL:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of lines from 0 to {ALL}")
    return int(text)


def _logs(options: argparse.Namespace) -> int:
    with _operator(options) as operator:
        if options.follow:
            follow(operator, options.lines, as_json=options.json)
        elif options.lines:
            show_tail(operator, options.lines, as_json=options.json)
    return 0


def _operator(options: argparse.Namespace) -> Operator:
    return Operator.of(settings_of(options), options.url, options.key)


def add_top_command(commands: Any) -> None:
    """Add ``appliance top``."""
    examples = (
        "  appliance top                          until q or Ctrl-C\n"
        "  appliance top --once                   one look, as in a pipe or on a dumb terminal\n"
        "  appliance top --url http://spark.local:9000 --key OPERATOR_KEY\n"
        "  appliance top --json                   one look, for programs\n"
        "exit codes: 0 left with q, or one look and ready; 1 not ready or not running"
    )
    about = "show state, memory, speed, requests and the engine's log, as they change"
    parser = add_command(commands, "top", about, examples, _top)
    add_operator_flags(parser)
    parser.add_argument("--once", action="store_true", help="print one look, then exit")


def _top(options: argparse.Namespace) -> int:
    console = Console(highlight=False, markup=False)
    is_live = console.is_terminal and not console.is_dumb_terminal
    if options.json or options.once or not is_live:
        with _operator(options) as operator:
            return print_frame(operator, console, as_json=options.json)
    return watch(lambda: _operator(options), console)
