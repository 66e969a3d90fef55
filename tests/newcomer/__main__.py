"""Follows the README as a newcomer: ``python -m tests.newcomer`` in any clone.

Clones this project anew, runs there each command whose output the README shows and that can run on
a machine without a GPU, and compares. Exit 1 when one prints something else, or fails.
"""

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.newcomer.claims import Claim, claims, missing

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 1800.0  # the first one installs 2.3 GB and trains


def main() -> int:
    """Follow all claims; return the exit code."""
    with tempfile.TemporaryDirectory() as scratch:
        clone = Path(scratch) / "unglitched"
        subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
        found = claims((clone / "README.md").read_text(encoding="utf-8"))
        wrong = [claim.command for claim in found if not follow(claim, clone)]
    print(f"{len(found) - len(wrong)} of {len(found)} as the README says")
    return int(bool(wrong) or not found)


def follow(claim: Claim, clone: Path) -> bool:
    """Run one command, say what became of it, and return whether it is as claimed."""
    print(f"$ {claim.command}", flush=True)
    began = time.monotonic()
    ran = subprocess.run(
        shlex.split(claim.command), cwd=clone, timeout=PATIENCE_S, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    took = f"{time.monotonic() - began:.0f} s"
    lines = ran.stdout.splitlines()
    lost = missing(claim, lines)
    if ran.returncode == 0 and lost is None:
        print(f"  as claimed, {len(claim.lines)} lines, {took}", flush=True)
        return True
    print(f"  exit code {ran.returncode} after {took}; not printed in its place: {lost}")
    print("\n".join(f"  | {line}" for line in lines), flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
