#!/usr/bin/env python3
"""Writes attention of a MiniMax-M2 checkpoint in 8 or 4 bits. ``--help`` teaches it."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  it runs without any installer that would refuse
    sys.exit(f"quantize_attention needs Python 3.11 or later, this is {sys.version.split()[0]}")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone is enough: no installation

from appliance.checkpoint.quantisecommand import main

if __name__ == "__main__":
    sys.exit(main())
