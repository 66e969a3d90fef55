"""The command behind extras/quantize_attention.py: measure, quantise, verify, report."""

import argparse
from collections.abc import Sequence

from appliance.checkpoint.asked import finish, job_of, quantising_of
from appliance.checkpoint.flags import (
    EXIT_CODES,
    SOURCES,
    add_common,
    add_folders,
    add_quantising,
    new_parser,
)

NAME = "quantize_attention"
_EXAMPLES = """\
examples:
  quantize_attention.py Nikola Nikola-8 --dry-run --chart errors.svg   what would it be worth?
  quantize_attention.py Nikola Nikola-8 --verify                       FP8, a scale for each row
  quantize_attention.py Nikola Nikola-8 --lm-head                      the head, too
  quantize_attention.py Nikola Nikola-4 --format nvfp4-weight-only --keep-above 0.11
  quantize_attention.py Nikola Nikola-8 --resume                       after an interruption
No data to calibrate with is needed. q, k, v and o of each layer are read twice: once to measure
them, once to write them; of fp8 and nvfp4-weight-only once more. All else is copied bit for bit.
formats, and which vLLM reads them beside NVFP4 experts:
  fp8-per-channel     0.33     FP8, a scale for each row; activations are scaled as they come
  mxfp8               0.26 on  FP8, a scale, a power of two, for each 32 numbers
  fp8                 0.26 on  FP8, one scale; activations have a fixed one, of what the weights
                               allow at most
  nvfp4-weight-only   0.26 on  4 bits, a scale for each 16 numbers; activations stay in BF16
q, k and v are one matrix in vLLM: when one is further off than --keep-above, all three stay.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Errors are one message on stderr, no traceback."""
    options = build_parser().parse_args(arguments)
    return finish(job_of(NAME, options, quantising=quantising_of(options)))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = new_parser(
        f"{NAME}.py",
        "Write attention (and the head) of a MiniMax-M2 checkpoint in 8 or 4 bits, for vLLM: "
        "fewer bytes a token, so faster decoding, and room for more KV tokens.",
        _EXAMPLES + SOURCES + EXIT_CODES,
    )
    add_folders(parser, "the checkpoint whose attention is in BF16; also hf://… or https")
    add_quantising(parser)
    add_common(parser)
    return parser
