"""File names from strangers: which are plain relative ones. Pure."""

from appliance.checkpoint.failures import CheckpointError


def plain_name(name: str, where: str, *, folders: bool = False) -> str:
    """Return ``name`` when it stays beneath its folder whatever it is joined to.

    Raises CheckpointError, naming ``where`` it stood, for absolute names, "..", separators of
    any system, control characters, hidden files and names too long. ``folders`` allows "/".
    """
    parts = name.split("/") if folders else [name]
    if (
        not name.isprintable()
        or "\\" in name
        or ":" in name
        or not all(part and not part.startswith((".", "~")) and "/" not in part for part in parts)
        or any(len(part.encode()) > 255 - len(".part") for part in parts)
        or len(parts) > 8
    ):
        raise CheckpointError(
            f"{where} names the file {name[:80]!a}, which is no plain relative name",
            "do not use a checkpoint that tries this",
            code="checkpoint_name",
        )
    return name
