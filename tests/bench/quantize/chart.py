"""``python -m tests.bench.quantize.chart results.json chart.png``: time against size.

Needs matplotlib, which nothing else does.
"""

import json
import sys
from pathlib import Path

from tests.bench.checkpoint.chart import draw

COLOURS = {
    "fp8-per-channel": "#0b7a75",
    "mxfp8": "#58b4ae",
    "fp8": "#c98a1b",
    "nvfp4-weight-only": "#b5485d",
    "cp": "#4c78a8",
}


if __name__ == "__main__":
    taken = json.loads(Path(sys.argv[1]).read_text())["taken"]
    title = "Time against size: attention quantised, all else copied"
    draw(taken, Path(sys.argv[2]), COLOURS, "source checkpoint, GB", title)
