"""What the tests of a pull share: a repository, and the pull of it into a folder."""

import json
import random
from collections.abc import Callable
from io import StringIO
from pathlib import Path

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.hub import parse_hub_name
from appliance.checkpoint.patience import Patience
from appliance.checkpoint.pull import Pull, PullPlan, plan_pull
from appliance.checkpoint.pullrecord import RECORD
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import parse_url
from tests.checkpoints import CONFIG
from tests.fakes.rangeserver import Hub

REPO = "owner/Model"
INDEX = "model.safetensors.index.json"
SHARDS = tuple(f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))
DICE = random.Random(2)  # noqa: S311 - only content
NEWER = "beef" + "0" * 36


def shard(name: str, size: int) -> bytes:
    entry = {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}
    header = json.dumps({f"t.{name}": entry}).encode()
    return len(header).to_bytes(8, "little") + header + DICE.randbytes(size)


FILES: dict[str, bytes] = {
    "config.json": json.dumps(CONFIG).encode(),
    INDEX: json.dumps({"weight_map": {f"t.{name}": name for name in SHARDS}}).encode(),
    **{name: shard(name, 400_000 + n) for n, name in enumerate(SHARDS)},
    "tokenizer.json": DICE.randbytes(30_000),
    "empty.txt": b"",
    "docs/card.md": b"# card",
}
UNWANTED: dict[str, bytes] = {
    "modeling_evil.py": b"import os",
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"what the index does not name",
    ".gitattributes": b"hidden",
}
LARGE = [name for name, content in FILES.items() if len(content) >= 1000]


Puller = Callable[..., PullPlan]


def puller(there: Hub, folder: Path) -> Puller:
    """Return what pulls the repository into ``folder``, or as its arguments say."""

    def pull(
        asked: str = REPO, into: Path = folder, keep_code: bool = False, adopt: bool = False
    ) -> PullPlan:
        endpoint = parse_url(there.api.url)
        web = Web(patience=Patience(tries=3, first_s=0))
        try:
            name = parse_hub_name(asked)
            plan = plan_pull(web, endpoint, name, into, keep_code=keep_code, adopt=adopt)
            bar = Bar("fetching", plan.total_bytes, StringIO())
            Pull(web, plan, into, jobs=2, sync_bytes=2**16).run(bar)
        finally:
            web.close()
        return plan

    return pull


def content_of(folder: Path) -> dict[str, bytes]:
    """Return all files but the record."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    found = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
    found.pop(RECORD, None)
    return found


def stored(there: Hub, name: str) -> str:
    """Return the path of a large file in the hub's storage."""
    return there.large(REPO, name)
