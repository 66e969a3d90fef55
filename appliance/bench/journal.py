"""What has been measured, on disk line by line: a run that is cut goes on where it was.

The first line says what is measured, each further one holds an entry. A line that was cut in
half is dropped; it is measured again.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any, ClassVar, Generic, Protocol, Self, TypeVar

from appliance.bench.answers import Answer, read_answer
from appliance.errors import HostError

NAME = "answers.jsonl"
_FREE = ("begun", "version")  # of the header: what may differ between a run and its resumption


class Line(Protocol):
    """An entry of a journal."""

    def line(self) -> str:
        """Return it as a line, with its end."""


Entry = TypeVar("Entry", bound=Line)


class Lines(Generic[Entry]):
    """An open journal. ``entries`` begin with those of an earlier run; ``about`` is its header."""

    name: ClassVar[str]

    def __init__(self, file: IO[str], about: Mapping[str, Any], entries: list[Entry]) -> None:
        self.about = about
        self.entries = entries
        self._file = file

    @staticmethod
    def entry(line: str) -> Entry:
        """Return the entry of a line. Raises ValueError, KeyError or TypeError for no such."""
        raise ValueError(line)

    @classmethod
    def open(cls, folder: Path, about: Mapping[str, Any], *, resume: bool) -> Self:
        """Begin a journal in ``folder``, or go on with the one that is there.

        Raises HostError when there is one and ``resume`` is not wanted, when it is of another
        measurement, or when the folder cannot be written.
        """
        path = folder / cls.name
        try:
            folder.mkdir(parents=True, exist_ok=True)
            data = path.read_bytes() if path.exists() else b""
            if data and not resume:
                raise HostError(
                    f"{path} holds an earlier run",
                    "go on with it: --resume; or write elsewhere: --out DIR",
                )
            whole, _, _half = data.rpartition(b"\n")
            lines = whole.decode("utf-8").split("\n") if whole else []
            kept = _checked(path, lines[0], about) if lines else about
            entries = [_read(path, line, cls.entry) for line in lines[1:]]
            file = path.open("r+" if lines else "w", encoding="utf-8", newline="\n")
        except (OSError, UnicodeDecodeError) as cause:
            raise HostError(f"{path} cannot be used: {cause}", "write elsewhere: --out DIR") from (
                cause
            )
        if lines:
            file.seek(len(whole) + 1)
            file.truncate()
        else:
            file.write(json.dumps(dict(about), ensure_ascii=False) + "\n")
        file.flush()
        return cls(file, kept, entries)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _fault: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def add(self, entry: Entry) -> None:
        """Keep an entry, for good: a crash of the machine costs the last second at most."""
        self._file.write(entry.line())
        self._file.flush()
        self.entries.append(entry)


class Journal(Lines[Answer]):
    """The journal of a measurement of paths."""

    name = NAME
    entry = staticmethod(read_answer)

    @property
    def answers(self) -> list[Answer]:
        """Its entries."""
        return self.entries


def write_whole(path: Path, text: str) -> None:
    """Replace a file at once: it is the old one or the new one, and never half of it."""
    draft = path.with_name(f"{path.name}.draft")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)


def _checked(path: Path, line: str, about: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the kept header. Raises HostError when it is that of another measurement."""
    try:
        kept = dict(json.loads(line))
        differing = [
            f"{name} was {kept.get(name)!r} and is {about.get(name)!r}"
            for name in {**kept, **about}
            if name not in _FREE and kept.get(name) != about.get(name)
        ]
    except (ValueError, TypeError) as cause:
        raise HostError(
            f"{path} is no journal of ours: {cause}", "write elsewhere: --out DIR"
        ) from (cause)
    if differing:
        raise HostError(
            f"{path} is of another measurement: {'; '.join(differing)}",
            "say the same as then, or write elsewhere: --out DIR",
        )
    return kept


def _read(path: Path, line: str, entry: Callable[[str], Entry]) -> Entry:
    try:
        return entry(line)
    except (ValueError, KeyError, TypeError) as cause:
        raise HostError(
            f"{path} holds a line that is no entry: {line[:80]!r}", "write elsewhere: --out DIR"
        ) from cause
