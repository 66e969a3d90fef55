"""The flags of the commands that make a checkpoint. Pure."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from appliance.checkpoint.formats import Format

BANDWIDTH = 273.0  # GB/s, of the memory of a DGX Spark and of a Jetson Thor
SOURCES = """\
environment: HF_ENDPOINT is the hub (default https://huggingface.co); HF_TOKEN, HF_TOKEN_PATH or
HF_HOME/token has the token, which is sent to that host alone, over https; HTTPS_PROXY and NO_PROXY
name a proxy, SSL_CERT_FILE the certificates to trust.
"""
EXIT_CODES = """\
exit codes:
  0 done                                        1 the mask is in doubt, or DST differs from SRC
  2 wrong flags                                 65 SRC is broken, hostile or not understood
  66 SRC cannot be read, or has changed         73 DST or another file may not or cannot be made
  74 writing failed (--resume goes on)          75 the server does not answer (--resume goes on)
  76 the server breaks the rules, or SRC changed    77 a token or a licence is missing
  130 interrupted (--resume goes on)
"""


def new_parser(command: str, about: str, epilog: str) -> argparse.ArgumentParser:
    """Return a command's parser, whose help keeps its lines."""
    return argparse.ArgumentParser(
        prog=command,
        description=about,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def add_folders(parser: argparse.ArgumentParser, source: str) -> None:
    """Add SRC and DST."""
    parser.add_argument("source", metavar="SRC", help=source)
    parser.add_argument("destination", metavar="DST", type=Path, help="an empty or new folder")


def add_pruning(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say which experts go."""
    mode = parser.add_mutually_exclusive_group(required=True)
    mode.add_argument(
        "--deleted-experts-file", metavar="F", type=Path, help="the mask, as JSON by layer"
    )
    mode.add_argument("--compare-with", metavar="REF", help="find the mask by a pruned checkpoint")
    add = parser.add_argument
    add("--num-original-experts", metavar="N", type=_positive, help="experts a layer of SRC")
    add("--num-retained-experts", metavar="N", type=_positive, help="experts a layer of DST")
    add("--save-deleted-experts", metavar="F", type=Path, help="write the found mask there")
    add("--allow-ambiguous", action="store_true", help="use a found mask that is in doubt")


def add_quantising(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what is quantised, and how."""
    add = parser.add_argument
    add("--format", choices=[*Format], type=Format, default=Format.PER_CHANNEL,
        help=f"how attention is written (default {Format.PER_CHANNEL})")  # fmt: skip
    add("--lm-head", action="store_true", help="the head, too")
    add("--layers", metavar="L", type=_layers, help="these alone, as 0-3,10 (default: all)")
    add("--keep-above", metavar="ERR", type=_share, help="leave in BF16 what is further off: "
        "|W - Q| / |W| (FP8 has some 0.026, NVFP4 0.1)")  # fmt: skip
    add("--chart", metavar="F", type=Path, help="draw the errors over the layers, as SVG")
    add("--bandwidth", metavar="GB/s", type=_above_0, default=BANDWIDTH,
        help=f"the memory's, for the predictions (default {BANDWIDTH:g}: Spark, Thor)")  # fmt: skip


def add_common(parser: argparse.ArgumentParser) -> None:
    """Add what all of them know."""
    add = parser.add_argument
    add("--dry-run", action="store_true", help="say what would be written, and write nothing")
    add("--verify", action="store_true", help="compare DST with SRC, byte by byte, at the end")
    add("--resume", action="store_true", help="go on with an interrupted run")
    add("--jobs", metavar="N", type=_positive, default=4, help="files at a time (default 4)")
    add("--report", metavar="F", type=Path, help="write what was done and found, as JSON")
    add("--keep-kv-bias", action="store_true", help="keep k_bias and v_bias (vLLM refuses them)")
    add("--keep-code", action="store_true", help="carry Python files and pickles over, too")


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _above_0(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return value


def _layers(text: str) -> frozenset[int]:
    chosen: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.partition("-")
        numbers: Sequence[str] = (first, last) if dash else (first, first)
        if not all(number.isdecimal() and len(number) < 6 for number in numbers):
            raise argparse.ArgumentTypeError(f"{part!r} is no layer and no range as 0-3")
        chosen |= {*range(int(numbers[0]), int(numbers[1]) + 1)}
    if not chosen:
        raise argparse.ArgumentTypeError(f"{text!r} names no layer")
    return frozenset(chosen)
