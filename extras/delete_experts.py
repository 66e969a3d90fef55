#!/usr/bin/env python3
"""Deletes experts of a MiniMax-M2 checkpoint. ``delete_experts.py --help`` teaches it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # a clone is enough: no installation

from appliance.checkpoint.command import main

if __name__ == "__main__":
    sys.exit(main())
