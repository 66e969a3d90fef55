"""What the appliance keeps of its engine, read by another process: nothing is changed by it."""

from pathlib import Path

import msgspec

from appliance.statefile import ENGINE_FILE, Kept


def read_kept(state_dir: Path) -> Kept | None:
    """Return what is kept in a state folder; None where there is nothing that can be read.

    Unlike the appliance itself, this sets no damaged file aside: it is not ours.
    """
    try:
        return msgspec.json.decode((state_dir / ENGINE_FILE).read_bytes(), type=Kept)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError):
        return None
