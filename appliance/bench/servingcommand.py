"""``appliance bench speed``: its part of the command line."""

import argparse
from pathlib import Path
from typing import Any

from appliance.commandline import add_command, settings_of

EXAMPLES = """\
  appliance bench speed                          the appliance of this state folder
  appliance bench speed --resume                 go on after Ctrl-C, or after a fault
  appliance bench speed --prompts 512,4096 --concurrency 1,2 --rounds 5
  appliance bench speed http://spark.local:9000 --key-file key.txt --tokenizer /models/Nikola
  appliance bench speed --against http://127.0.0.1:9001 --names plain,ngram
                                                 two endpoints side by side, in turn
  appliance bench speed --out plain; appliance bench speed --out ngram --compare plain
                                                 two settings of one box, one after the other
what is written, in --out:
  samples.jsonl  each batch as it comes      report.json  every figure, for programs
  report.md      the tables                  chart.png    beside what others publish
  benchy.log     what llama-benchy said
llama-benchy runs in an environment of its own, which uv makes on the first run: 300 MB in
~/.cache/unglitched.
exit codes: 0 all measured, 1 an endpoint failed (what was measured is kept), 2 a wrong flag"""


def add_speed_command(kinds: Any) -> None:
    """Add ``appliance bench speed``."""
    about = "measure prefill, decode and time to the first token, with llama-benchy"
    parser = add_command(kinds, "speed", about, EXAMPLES, _speed)
    parser.add_argument("url", nargs="?", metavar="URL", help="any OpenAI endpoint; default: ours")
    where = parser.add_argument_group("where")
    where.add_argument("--model", metavar="NAME", help="default: the only one that is served")
    where.add_argument("--key", help="default: APPLIANCE_API_KEY; for our own, the kept one")
    where.add_argument("--key-file", type=Path, metavar="FILE", help="the key, in a file")
    where.add_argument("--state-dir", metavar="DIR", help="the appliance's state folder")
    where.add_argument("--tokenizer", metavar="DIR", help="folder, tokenizer.json or name on the "
                       "Hub; default for our own: its model's")  # fmt: skip
    other = parser.add_argument_group("a second endpoint, of the same tokenizer")
    other.add_argument("--against", metavar="URL", help="measured in turn with the first")
    other.add_argument("--against-model", metavar="NAME", help="default: the only one there")
    other.add_argument("--against-key-file", type=Path, metavar="FILE", help="its key, in a file")
    other.add_argument("--names", type=_names, default=(), metavar="A,B",
                       help="of the endpoints in the report; default: A,B")  # fmt: skip
    other.add_argument("--compare", type=Path, metavar="DIR",
                       help="of an earlier run, instead of a second endpoint")  # fmt: skip
    grid = parser.add_argument_group("what is asked")
    grid.add_argument("--prompts", type=_counts, default=(512, 2048, 8192, 32768), metavar="N,N",
                      help="tokens; default: 512,2048,8192,32768")  # fmt: skip
    grid.add_argument("--concurrency", type=_counts, default=(1, 2), metavar="N,N",
                      help="requests at once; default: 1,2")  # fmt: skip
    grid.add_argument("--decode", type=count, default=128, metavar="N",
                      help="tokens of an answer; default: 128")  # fmt: skip
    grid.add_argument("--any-length", action="store_true",
                      help="let an answer end earlier, where min_tokens is refused")  # fmt: skip
    grid.add_argument("--rounds", type=count, default=3, metavar="N", help="default: 3")
    grid.add_argument("--text", default="book", metavar="FILE",
                      help="to cut prompts from; default: llama-benchy's book")  # fmt: skip
    how = parser.add_argument_group("how")
    how.add_argument("--out", type=Path, default=Path("bench-speed"), metavar="DIR",
                     help="default: bench-speed")  # fmt: skip
    how.add_argument("--resume", action="store_true", help="measure only what is not in --out")


def count(text: str) -> int:
    """Return a number from 1 on. Raises argparse.ArgumentTypeError."""
    if not text.isdecimal() or not 0 < int(text) < 10**7:
        raise argparse.ArgumentTypeError(f"{text!r} is no count")
    return int(text)


def _counts(text: str) -> tuple[int, ...]:
    return tuple(dict.fromkeys(count(part.strip()) for part in text.split(",")))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    if len(set(names)) != len(names) or not all(names) or len(names) > 2:
        raise argparse.ArgumentTypeError(f"{text!r} is not one name, or two that differ")
    return names


def _speed(options: argparse.Namespace) -> int:
    from appliance.bench.servingmeasure import measure  # an HTTP client, which --help needs not

    return measure(options, settings_of(options))
