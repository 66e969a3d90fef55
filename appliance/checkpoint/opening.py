"""Chooses the source that a text names: a folder, ``hf://owner/name[@revision]``, or https.

The one place where the Hub's own variables (HF_ENDPOINT, HF_TOKEN, …) and a proxy's are read.
"""

import os
import sys
from pathlib import Path
from urllib.request import getproxies_environment

from appliance.checkpoint.base import base_source
from appliance.checkpoint.hub import SCHEME, hub_access, hub_source, parse_hub_name, read_listing
from appliance.checkpoint.source import LocalSource, Source
from appliance.checkpoint.telling import tell
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import WebUrl, parse_url


def open_source(text: str) -> Source:
    """Return the source that ``text`` names. Raises SourceError when there is none."""
    if "://" not in text:
        return LocalSource(Path(text))
    web, endpoint = open_hub()
    try:
        if text.startswith(SCHEME):
            return hub_source(web, endpoint, read_listing(web, endpoint, parse_hub_name(text)))
        return base_source(web, parse_url(text))
    except BaseException:
        web.close()
        raise


def open_hub() -> tuple[Web, WebUrl]:
    """Return the web as this environment reaches it, and the hub's address. Raises SourceError."""
    access = hub_access(os.environ)
    web = Web(access.token, proxies=getproxies_environment(), say=_say)
    return web, access.endpoint


def _say(line: str) -> None:
    if sys.stderr and sys.stderr.isatty():
        line = f"\r{line}\x1b[K"  # over a progress bar, which then goes on below
    tell(line + "\n", sys.stderr)
