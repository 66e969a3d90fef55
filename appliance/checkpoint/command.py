"""The command behind extras/delete_experts.py: find or read the mask, prune, verify, report."""

import argparse
from collections.abc import Sequence

from appliance.checkpoint.asked import finish, job_of, pruning_of
from appliance.checkpoint.flags import (
    EXIT_CODES,
    SOURCES,
    add_common,
    add_folders,
    add_pruning,
    new_parser,
)

NAME = "delete_experts"
_EXAMPLES = """\
examples:
  delete_experts.py MiniMax-M2.7-NVFP4 Nikola --deleted-experts-file deleted_experts.json
  delete_experts.py SRC DST --compare-with REF --save-deleted-experts deleted_experts.json
                       find the mask: which experts of SRC does the pruned REF still have?
                       (with --dry-run the mask is all that is written)
  delete_experts.py SRC DST --deleted-experts-file F --dry-run    say what would be written
  delete_experts.py SRC DST --deleted-experts-file F --resume     after an interruption
  delete_experts.py SRC DST --deleted-experts-file F --verify     a finished DST is only checked
SRC and REF are folders; they may also be hf://owner/name[@revision] or an https address: then
only what stays is fetched. --verify of such a SRC fetches all of it a second time.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit code. Errors are one message on stderr, no traceback."""
    options = build_parser().parse_args(arguments)
    return finish(job_of(NAME, options, pruning=pruning_of(options)))


def build_parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = new_parser(
        f"{NAME}.py",
        "Delete experts of a MiniMax-M2 checkpoint: copy what stays, byte by byte, "
        "into a new folder. Nothing is decoded; any quantisation, little memory.",
        _EXAMPLES + SOURCES + EXIT_CODES,
    )
    add_folders(parser, "the checkpoint with all experts")
    add_pruning(parser)
    add_common(parser)
    return parser
