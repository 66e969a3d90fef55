"""``appliance accept``: its part of the command line."""

import argparse
from pathlib import Path
from typing import Any

from appliance.commandline import add_command, settings_of

OUT = Path("acceptance")
EXAMPLES = """\
  appliance accept                               the appliance of this state folder
  appliance accept --with-kill                   and kill its engine once, to see it come back
  appliance accept --fresh                       anew, also where a run was cut
  appliance accept --url http://spark.local:9000 --key OPERATOR_KEY
  make accept                                    the same, and starts an appliance if none runs
a run that was cut goes on where it was: what has passed is not done again
what is written, in --out:
  report.html    the report, to look at and to send: no key, name or address is in it
  report.json    the same for programs           journal.jsonl  what has been done
exit codes: 0 every step passed that had to, 1 one did not, 78 a wrong setting"""


def add_accept_command(commands: Any) -> None:
    """Add ``appliance accept``."""
    about = "accept a box: every check and measurement in one run, and one report"
    parser = add_command(commands, "accept", about, EXAMPLES, _accept)
    parser.add_argument("--out", type=Path, default=OUT, metavar="DIR",
                        help=f"default: {OUT}")  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="do not go on with a run that was cut")
    parser.add_argument("--with-kill", action="store_true",
                        help="kill the engine's core, and see it come back")  # fmt: skip
    parser.add_argument("--doctor", metavar="FILE",
                        help="appliance doctor --json of the host; - is stdin")  # fmt: skip
    where = parser.add_argument_group("where")
    where.add_argument("--url", help="of a remote appliance; default: the control socket")
    where.add_argument("--key", help="operator key for --url")
    where.add_argument(
        "--client-key", metavar="KEY", help="to ask with; default: the kept one, or --key"
    )
    where.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")


def _accept(options: argparse.Namespace) -> int:
    from appliance.accept.run import accept  # HTTP clients, which --help does not need

    return accept(options, settings_of(options))
