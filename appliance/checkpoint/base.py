"""A checkpoint below an https address: no listing is there, so its index and habit name the files.

Hubs are read through ``hub``: there a commit holds all files together, here nothing does but the
size and ETag of each.
"""

from appliance.checkpoint.faults import NotAllowed, NotThere
from appliance.checkpoint.folder import INDEX
from appliance.checkpoint.layout import CONFIG
from appliance.checkpoint.remote import RemoteFile, RemoteSource
from appliance.checkpoint.sourcefacts import shard_names
from appliance.checkpoint.web import Web
from appliance.checkpoint.weburl import WebUrl

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
    shards = shard_names(RemoteSource(str(base), web, files))
    files |= {name: RemoteFile(web, base.below(name)) for name in shards}
    return RemoteSource(str(base), web, files)


def _is_there(file: RemoteFile) -> bool:
    try:
        file.size()
    except (NotThere, NotAllowed):  # a storage that lists nothing says 403 of what is not there
        return False
    return True
