"""force_swap, the helper that makes room: run it, read its one report."""

import asyncio
import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import structlog

from appliance.errors import SwapError
from appliance.sizes import format_size

log = structlog.get_logger()

SCHEMA = "force_swap/1"
DROP_S = 60.0
EVICT_S = 120.0
BUILT = Path(__file__).parents[1] / "build"  # where make force-swap puts it
_END_S = 5.0  # it writes its report within 2 s of a signal


@dataclass(frozen=True)
class Report:
    """What one run of the helper did. ``freed`` holds bytes by mechanism, by meminfo's word."""

    exit_code: int
    stop_reason: str = ""
    freed: Mapping[str, int] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()

    @property
    def freed_bytes(self) -> int:
        """All that was freed."""
        return sum(self.freed.values())


class Swap:
    """The installed helper: how it is started, and the file that says that it runs."""

    def __init__(self, command: Sequence[str], lock: Path) -> None:
        self._command = tuple(command)
        self._lock = lock

    async def drop_cache(self, paths: Sequence[Path]) -> Report:
        """Drop the page cache of these files and folders. Raises SwapError."""
        argv = ("drop-cache", *map(str, paths))
        return await self._run("drop_cache", argv, DROP_S)

    async def evict(
        self,
        available_bytes: int,
        cgroups: Sequence[str],
        base: Path,
        *,
        max_bytes: int,
        reserve_bytes: int,
    ) -> Report:
        """Push cold pages of ``cgroups`` out until so much is available. Raises SwapError.

        ``reserve_bytes`` are left to the machine: no goal above MemTotal less these is taken.
        """
        argv = (
            *("evict", "--apply", "--phase", "preflight"),
            *("--target-available", str(available_bytes), "--max-bytes", str(max_bytes)),
            *("--reserve", str(reserve_bytes)),
            *("--max-seconds", f"{EVICT_S:.0f}", "--cgroup-base", str(base)),
            *("--lock", str(self._lock)),
            *(word for cgroup in cgroups for word in ("--cgroup", cgroup)),
        )
        return await self._run("evict", argv, EVICT_S + _END_S)

    async def _run(self, what: str, arguments: Sequence[str], within_s: float) -> Report:
        argv = (*self._command, *arguments)
        try:
            process = await asyncio.create_subprocess_exec(
                *argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as cause:
            raise SwapError(
                f"{argv[0]} cannot be started: {cause.strerror}",
                "make force-swap builds it; or set APPLIANCE_SWAP=off",
            ) from cause
        try:
            async with asyncio.timeout(within_s):
                output, said = await process.communicate()
        except TimeoutError:
            raise SwapError(f"{argv[0]} {what} did not end within {within_s:.0f} s") from None
        finally:
            await _end(process)
        report = parse_report(output, process.returncode or 0)
        if report is None:
            last = said.decode("utf-8", "replace").strip().rpartition("\n")[2]
            raise SwapError(f"{argv[0]} {what} ended with {process.returncode}: {last}")
        log.info(
            f"swap.{what}",
            exit_code=report.exit_code,
            freed=format_size(report.freed_bytes),
            **({"why": report.stop_reason} if report.stop_reason else {}),
        )
        return report


def find_swap(mode: str, command: Sequence[str], lock: Path) -> Swap | None:
    """Return the helper as the settings want it; None where it is off, or "auto" and not there.

    Raises SwapError when it must be there and is not.
    """
    if mode == "off":
        return None
    program = shutil.which(command[0]) or shutil.which(BUILT / command[0])
    if program is not None:
        return Swap((program, *command[1:]), lock)
    if mode == "auto":
        return None
    raise SwapError(
        f"APPLIANCE_SWAP=on, but {command[0]} is not installed",
        "make force-swap builds it; name it with APPLIANCE_SWAP_COMMAND, or set APPLIANCE_SWAP=off",
    )


def parse_report(output: bytes, exit_code: int) -> Report | None:
    """Return what the helper's JSON says; None when it is none of this schema."""
    try:
        told = msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not isinstance(told, dict) or told.get("schema") != SCHEMA:
        return None
    freed: dict[str, int] = {}
    for mechanism in _rows(told.get("mechanisms")):
        name, size = mechanism.get("name"), mechanism.get("freed_memfree")
        if isinstance(name, str) and isinstance(size, int):
            freed[name] = freed.get(name, 0) + max(0, size)
    warnings = told.get("warnings")
    shown = tuple(map(str, warnings)) if isinstance(warnings, list) else ()
    return Report(exit_code, str(told.get("stop_reason") or ""), freed, shown)


def _rows(value: Any) -> list[dict[str, Any]]:
    return [row for row in value if isinstance(row, dict)] if isinstance(value, list) else []


async def _end(process: asyncio.subprocess.Process) -> None:
    """Leave no helper behind; ask it first, so that it can say what it did."""
    if process.returncode is not None:
        return
    for end in (process.terminate, process.kill):
        with contextlib.suppress(ProcessLookupError):
            end()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_END_S):
                await process.wait()
                return
