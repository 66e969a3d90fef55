"""Pictures of the console: into build/screenshots, and with UPDATE_SCREENSHOTS=1 into docs."""

import os

from tests.browser.page import Console
from tests.engines import ROOT

BUILT = ROOT / "build" / "screenshots"
KEPT = ROOT / "docs" / "screenshots"
MOST_BYTES = 200_000


def shoot(tab: Console, name: str) -> None:
    """Take a picture of what the window shows."""
    folders = [BUILT, *([KEPT] if os.environ.get("UPDATE_SCREENSHOTS") == "1" else [])]
    tab.page.evaluate("scrollTo(0, 0)")
    # it is for people: no motion, and no caret that blinks
    picture = tab.page.screenshot(animations="disabled")
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.png").write_bytes(picture)
        assert folder is BUILT or len(picture) <= MOST_BYTES, f"{name}: {len(picture)} bytes"
