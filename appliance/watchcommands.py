"""``appliance logs`` and ``appliance top``: their part of the command line."""

import argparse
from typing import Any

from appliance.commandline import add_command, add_operator_flags, settings_of
from appliance.logsview import ALL, follow, show_tail
from appliance.operator import Operator


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
