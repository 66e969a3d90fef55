#!/usr/bin/env python3
"""Deletes experts of a MiniMax-M2 checkpoint. ``delete_experts.py --help`` teaches it."""

import sys
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036  it runs without any installer that would refuse
    sys.exit(f"delete_experts needs Python 3.11 or later, and this is {sys.version.split()[0]}")

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone is enough: no installation

from appliance.checkpoint.command import main

if __name__ == "__main__":
    sys.exit(main())
