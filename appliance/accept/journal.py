"""What has been done of a run, on disk step by step: a run that is cut goes on where it was.

The first line says what is accepted, each further one holds an outcome. A line that was cut in
half is dropped; its step is done again.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any, Self

from appliance.accept.steps import BY_NAME, Finding, Outcome, Verdict
from appliance.errors import HostError

NAME = "journal.jsonl"
EARLIER = "earlier"  # where what is no longer gone on with is kept
_FREE = ("begun",)  # of the header: what differs between a run and its resumption


class Journal:
    """An open journal. ``about`` is its header, ``outcomes`` what came so far, by step."""

    def __init__(self, file: IO[str], about: Mapping[str, Any], kept: list[Outcome]) -> None:
        self.about = about
        self.outcomes = {outcome.step: outcome for outcome in kept}
        self._file = file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_fault: object) -> None:
        self._file.close()

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome for good; one of the same step before it no longer counts."""
        self._file.write(json.dumps(asdict(outcome), ensure_ascii=False) + "\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.outcomes[outcome.step] = outcome


def open_journal(folder: Path, about: Mapping[str, Any], *, fresh: bool) -> tuple[Journal, str]:
    """Go on with the unfinished run in ``folder``, or begin one; return it, and what was found.

    What is not gone on with is moved to ``earlier/``. Raises HostError for a folder that cannot
    be written.
    """
    path = folder / NAME
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept, outcomes, length = _read(path)
        why = _why_not(kept, outcomes, about, fresh=fresh)
        if why:
            _move_away(folder, kept)
        file = path.open("r+" if not why else "x", encoding="utf-8", newline="\n")
        path.chmod(0o600)
    except OSError as cause:
        raise HostError(f"{path} cannot be used: {cause}", "write elsewhere: --out DIR") from cause
    if why:
        file.write(json.dumps(dict(about), ensure_ascii=False) + "\n")
        file.flush()
        return Journal(file, about, []), why
    file.seek(length)
    file.truncate()
    done = [outcome for outcome in outcomes if outcome.finding.verdict is Verdict.PASSED]
    told = (
        f"going on with the run of {kept['begun']}: {len(done)} steps have passed (--fresh: anew)"
    )
    return Journal(file, kept, done), told


def _read(path: Path) -> tuple[Mapping[str, Any], list[Outcome], int]:
    """Return the header, the last outcome of each step, and the bytes up to the last whole line."""
    if not path.exists():
        return {}, [], 0
    whole = path.read_bytes().rpartition(b"\n")
    length = len(whole[0]) + len(whole[1])
    try:
        head, *lines = whole[0].decode("utf-8").split("\n")
        found = [read_outcome(line) for line in lines]
        return dict(json.loads(head)), list({each.step: each for each in found}.values()), length
    except (ValueError, KeyError, TypeError):
        return {}, [], length


def read_outcome(line: str) -> Outcome:
    """Return the outcome of a line. Raises ValueError, KeyError or TypeError for another text."""
    told = json.loads(line)
    found = told["finding"]
    finding = Finding(Verdict(found["verdict"]), found["detail"], found["next"], found["figures"])
    samples = tuple((float(at), int(available)) for at, available in told["samples"])
    return Outcome(told["step"], finding, told["at"], told["seconds"], samples)


def _why_not(
    kept: Mapping[str, Any], outcomes: list[Outcome], about: Mapping[str, Any], *, fresh: bool
) -> str:
    """Return why a new run begins; "" to go on with the one that is kept."""
    if not kept:
        return "a new run"
    if fresh:
        return "a new run, as --fresh says; what was there is in earlier/"
    differing = [
        name
        for name in {**kept, **about}
        if name not in _FREE and kept.get(name) != about.get(name)
    ]
    if differing:
        return f"a new run: since the last one {', '.join(differing)} differ; it is in earlier/"
    if {outcome.step for outcome in outcomes} >= BY_NAME.keys():
        return "a new run: the last one is complete, and in earlier/"
    return ""


def _move_away(folder: Path, kept: Mapping[str, Any]) -> None:
    files = [path for path in folder.iterdir() if path.name != EARLIER]
    if not files:
        return
    begun = "".join(char for char in str(kept.get("begun", "unknown")) if char.isalnum())
    place = folder / EARLIER / begun
    number = 1
    while place.exists():
        number += 1
        place = folder / EARLIER / f"{begun}-{number}"
    place.mkdir(mode=0o700, parents=True)
    for path in files:
        path.rename(place / path.name)
