"""A checkpoint below an https address: no listing is there, so its index and habit name the files.

Hubs are read through ``hub``: there a commit holds all files together, here nothing does but the
size and ETag of each.
"""

import json

from appliance.checkpoint.failures import SourceError
from appliance.checkpoint.faults import NotAllowed, NotThere
from appliance.checkpoint.folder import INDEX, SINGLE
from appliance.checkpoint.plain import plain_name
from appliance.checkpoint.remote import RemoteFile, RemoteSource
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import WebUrl

CONFIG = "config.json"
INDEX_LIMIT = 200_000_000  # bytes
# What stands beside the shards of checkpoints, where it does.
BESIDE = (
    *("generation_config.json", "hf_quant_config.json", "preprocessor_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("vocab.json", "merges.txt", "tokenizer.model", "chat_template.jinja", "chat_template.json"),
    *("README.md", "LICENSE"),
)


def base_source(web: Web, base: WebUrl) -> RemoteSource:
    """Return the checkpoint below ``base``. Raises SourceError when there is none."""
    files = {CONFIG: RemoteFile(web, base.below(CONFIG))}
    files[CONFIG].size()
    for name in (INDEX, *BESIDE):
        file = RemoteFile(web, base.below(name))
        if _is_there(file):
            files[name] = file
    shards = _shards(files[INDEX]) if INDEX in files else [SINGLE]
    files |= {name: RemoteFile(web, base.below(name)) for name in shards}
    return RemoteSource(str(base), web, files)


def _is_there(file: RemoteFile) -> bool:
    try:
        file.size()
    except (NotThere, NotAllowed):  # a storage that lists nothing says 403 of what is not there
        return False
    return True


def _shards(index: RemoteFile) -> list[str]:
    if index.size() > INDEX_LIMIT:
        raise SourceError(f"{index.url} has {index.size():,} bytes: no index is so long")
    try:
        content = json.loads(b"".join(index.pieces(0, index.size())))
        names = {str(name) for name in content["weight_map"].values()}
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        raise SourceError(f"{index.url} is no index of shards", "check the address") from None
    return sorted(plain_name(name, str(index.url)) for name in names)
