"""What ``appliance model check`` tells: known traps in a checkpoint, and files that have rotted."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Event

from rich.console import Console

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.checksum import Checksum, read_through
from appliance.checkpoint.findings import Finding, Level
from appliance.checkpoint.hub import HubFile
from appliance.checkpoint.jobs import side_by_side
from appliance.checkpoint.lints import lint
from appliance.checkpoint.opening import open_source
from appliance.checkpoint.pullrecord import PullRecord
from appliance.errors import SettingsError

JOBS = 4  # files hashed at a time: a core each


def print_check(text: str, *, with_hashes: bool, as_json: bool) -> int:
    """Print what is wrong with the checkpoint that ``text`` names.

    Returns the exit code: 0, or 1 when an error was found. Raises CheckpointError for what is no
    checkpoint at all, SettingsError where there are no hashes to compare with.
    """
    rotten = _rotten(Path(text)) if with_hashes else []
    source = open_source(text)
    try:
        with Console(stderr=True).status("reading headers and scales"):
            findings = [*rotten, *lint(source)]
        label = source.label
    finally:
        source.close()
    errors = sum(finding.level is Level.ERROR for finding in findings)
    if as_json:
        view = [finding._asdict() for finding in findings]
        print(json.dumps({"checkpoint": label, "ok": not errors, "findings": view}, indent=2))
    else:
        print("\n".join(_lines(label, findings, errors)))
    return 1 if errors else 0


def _lines(label: str, findings: list[Finding], errors: int) -> Iterator[str]:
    for finding in findings:
        yield f"{finding.level:<8} {finding.what}"
        yield f"         -> {finding.hint}"
    others = len(findings) - errors
    yield f"{label}: {errors} errors, {others} to know" if findings else f"{label}: nothing found"


def _rotten(folder: Path) -> list[Finding]:
    """Return a finding for each file whose hash is not the one that the hub named."""
    record = PullRecord.read(folder)
    if record is None:
        raise SettingsError(
            f"no pull has fetched {folder}, so nobody knows its hashes",
            "leave --hash out, or fetch it with appliance model pull",
        )
    found: list[Finding] = []
    ended = Event()
    files = list(record.files())
    bar = Bar("hashing", sum(file.size for file in files))
    try:
        tasks = [partial(_hash, folder, file, bar, found, ended) for file in files]
        side_by_side(tasks, JOBS, ended.set)
    finally:
        bar.close()
    return sorted(found)


class _Ended(Exception):
    """Another file has failed, or a person has interrupted."""


def _hash(folder: Path, file: HubFile, bar: Bar, found: list[Finding], ended: Event) -> None:
    checksum = Checksum(file)

    def take(part: bytes) -> None:
        if ended.is_set():
            raise _Ended
        checksum.update(part)
        bar.add(len(part))

    why = ""
    try:
        with (folder / file.name).open("rb", buffering=0) as there:
            read_through(there.fileno(), file.size + 1, take)  # one more: it must not be longer
    except OSError as cause:
        why = f"cannot be read: {cause.strerror}"
    if why or not checksum.is_right():
        what = f"{file.name} {why or f'has {checksum.difference()}'}"
        found.append(Finding(Level.ERROR, "hash", what, "appliance model pull fetches it again"))
