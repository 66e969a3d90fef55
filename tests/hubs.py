"""What the tests of hubs share: a repository, its listing, and who was shown which token."""

import json

from appliance.checkpoint.hub import Listing, parse_hub_name, read_listing
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import WebUrl
from tests.fakes.rangeserver import RangeServer

REPO = "owner/Model-1.0"
SECRET = "hf_SecretSecret"
SHARD = "model-00001-of-00002.safetensors"
SECOND = "model-00002-of-00002.safetensors"
INDEX = "model.safetensors.index.json"
FILES: dict[str, bytes] = {
    "config.json": b'{"architectures": ["X"]}',
    INDEX: json.dumps({"weight_map": {"a": SHARD, "b": SECOND}}).encode(),
    SHARD: bytes(range(256)) * 100,
    SECOND: bytes(range(255, -1, -1)) * 100,
    "docs/a b#c.md": b"nested",
    ".gitattributes": b"hidden",
}
NEWER = "beef" + "0" * 36


def listing(web: Web, endpoint: WebUrl, text: str = f"hf://{REPO}") -> Listing:
    """Return the listing of a repository."""
    return read_listing(web, endpoint, parse_hub_name(text))


def tokens(server: RangeServer) -> set[str | None]:
    """Return what a server was sent as Authorization."""
    return {asked.headers.get("Authorization") for asked in server.asked}
