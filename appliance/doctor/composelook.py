"""Asks Docker Compose: which one, and what it makes of the files in a folder."""

from collections.abc import Sequence
from pathlib import Path

from appliance.doctor.ask import ask
from appliance.doctor.composefacts import ComposeFacts, read_config

FILES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
COMPOSE = (("docker", "compose"), ("docker-compose",))  # a plug-in, or a program of its own


def look_at_compose(folder: Path, profiles: Sequence[str]) -> ComposeFacts:
    """Return the first Compose that answers, and our service in the files of ``folder``.

    ``profiles`` are tried in turn until there is a service of ours; "" is what .env chooses.
    """
    has_files = any((folder / name).is_file() for name in FILES)
    where = folder.absolute() if has_files else None
    missing = "neither docker compose nor docker-compose is installed"
    for command in COMPOSE:
        answer = ask((*command, "version", "--short"))
        if answer.why:
            missing = answer.why if answer.is_late else missing
            continue
        version = answer.text.strip().removeprefix("v")
        if where is None or version.startswith("1."):  # which cannot print JSON
            return ComposeFacts(version, folder=where)
        found = ComposeFacts(version, folder=where)
        for profile in profiles:
            found = _read(command, version, where, profile)
            if found.image or found.trouble:
                break
        return found
    return ComposeFacts(missing=missing, folder=where)


def _read(command: Sequence[str], version: str, folder: Path, profile: str) -> ComposeFacts:
    chosen = ("--profile", profile) if profile else ()
    config = ask((*command, *chosen, "config", "--format", "json"), folder=folder)
    if config.why:
        return ComposeFacts(version, folder=folder, trouble=config.why)
    try:
        return ComposeFacts(version, folder=folder, **read_config(config.text, profile))
    except ValueError as cause:
        return ComposeFacts(version, folder=folder, trouble=str(cause))
