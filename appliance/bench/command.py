"""``appliance bench``: its part of the command line."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from appliance.bench.arms import GUARDS, PROMPTS
from appliance.bench.cases import TASKS
from appliance.bench.servingcommand import add_speed_command, count
from appliance.commandline import add_command, settings_of
from appliance.samplepaths import STRATA

EXAMPLES = """\
  appliance bench paths                          the appliance of this state folder
  appliance bench paths --base-url http://spark.local:9000 --key-file key.txt
  appliance bench paths --resume                 go on after Ctrl-C, or after a fault
  appliance bench paths --tasks echo,tool --guard off --out quick
  appliance bench paths --base-url https://api.example.com/v1 --model NAME \\
      --prompt off --guard off                   an endpoint that is no appliance
what is written, in --out:
  answers.jsonl  each answer as it comes     report.json  every rate, for programs
  report.md      the tables                  chart.svg    shares and intervals
exit codes: 0 all asked and answered, 1 the endpoint or the folder refused, 2 a wrong flag"""


def add_bench_command(commands: Any) -> None:
    """Add ``appliance bench``."""
    about = "measure a model's paths, or how fast it is served"
    bench = commands.add_parser("bench", help=about, description=about[0].upper() + about[1:] + ".")
    kinds = bench.add_subparsers(metavar="WHAT", required=True)
    _add_paths(kinds)
    add_speed_command(kinds)


def _add_paths(kinds: Any) -> None:
    about = "measure how often a model writes a path other than the one that it was shown"
    parser = add_command(kinds, "paths", about, EXAMPLES, _bench)
    where = parser.add_argument_group("where")
    where.add_argument("--base-url", metavar="URL", help="any OpenAI endpoint; default: ours")
    where.add_argument("--model", metavar="NAME", help="default: the only one that is served")
    where.add_argument("--key", help="default: APPLIANCE_API_KEY; for our own, the kept one")
    where.add_argument("--key-file", type=Path, metavar="FILE", help="the key, in a file")
    where.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")
    suite = parser.add_argument_group("what is asked")
    suite.add_argument("--cases", type=count, metavar="N", help="default: 5 a cell, 315 in all")
    suite.add_argument("--strata", type=_some(STRATA), default=(), metavar="A,B",
                       help=", ".join(STRATA))  # fmt: skip
    suite.add_argument("--tasks", type=_some(TASKS), default=(), metavar="A,B",
                       help=", ".join(TASKS))  # fmt: skip
    suite.add_argument("--prompt", type=_some(PROMPTS), default=PROMPTS, metavar="on,off",
                       help="the appliance's own prompt; default: both")  # fmt: skip
    suite.add_argument("--guard", type=_some(GUARDS), default=("off", "repair"), metavar="A,B",
                       help="the path guard: off, observe, repair")  # fmt: skip
    suite.add_argument("--seed", type=int, default=1, metavar="N", help="default: 1")
    how = parser.add_argument_group("how")
    how.add_argument("--temperature", type=float, default=0.0, metavar="T", help="default: 0")
    how.add_argument("--max-tokens", type=count, default=4096, metavar="N",
                     help="for reasoning and answer; default: 4096")  # fmt: skip
    how.add_argument("--concurrency", type=count, default=4, metavar="N", help="default: 4")
    how.add_argument("--out", type=Path, default=Path("bench-paths"), metavar="DIR",
                     help="default: bench-paths")  # fmt: skip
    how.add_argument("--resume", action="store_true", help="ask only what has no answer in --out")


def _some(known: Sequence[str] | Any) -> Callable[[str], tuple[str, ...]]:
    """Return the reader of a list of names with commas between them."""

    def names(text: str) -> tuple[str, ...]:
        found = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if wrong := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"{wrong[0]!r} is none of {', '.join(known)}")
        if not found:
            raise argparse.ArgumentTypeError(f"name one of {', '.join(known)}")
        return found

    return names


def _bench(options: argparse.Namespace) -> int:
    from appliance.bench.measure import measure  # an HTTP client, which --help does not need

    return measure(options, settings_of(options))
