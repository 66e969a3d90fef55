"""What the kernel's text files say, and a command line of earlyoom. Pure; garbage says nothing."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from appliance.facts import EarlyOom

KIB = 1024

# earlyoom's letters that take a value; all others stand alone
_WITH_VALUE = "mMsSrwNP"
_LONG_WITH_VALUE = ("--prefer", "--avoid", "--ignore")
_DEFAULT_PERCENT = (10.0, 5.0)
_NO_WAIT = (100.0, 100.0)
_MOST = 1e15  # far above any machine, and far below what a float cannot count


@dataclass(frozen=True)
class SwapLine:
    """One line of /proc/swaps as it stands there. ``type`` is "partition" or "file"."""

    name: str
    type: str
    size_bytes: int
    used_bytes: int


def parse_swaps(text: str) -> list[SwapLine]:
    """Return the lines of /proc/swaps."""
    rows = [line.split() for line in text.splitlines()[1:]]
    return [
        SwapLine(_unescaped(row[0]), row[1], int(row[2]) * KIB, int(row[3]) * KIB)
        for row in rows
        if len(row) >= 4 and _is_count(row[2]) and _is_count(row[3])
    ]


def _unescaped(name: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), name)


def hugepages_bytes(meminfo: Mapping[str, int]) -> int:
    """Return what is set aside for huge pages of any size, of the rows of /proc/meminfo.

    ``Hugetlb`` (Linux 4.18) counts all sizes, the older rows the default size alone.
    """
    default = meminfo.get("HugePages_Total:", 0) * meminfo.get("Hugepagesize:", 0)
    return max(meminfo.get("Hugetlb:", 0), default) * KIB


def evictable_bytes(memory_stat: Mapping[str, int]) -> int | None:
    """Return the anonymous memory of a cgroup that could go to swap, of its memory.stat."""
    rows = ("inactive_anon", "active_anon", "unevictable")
    if not set(rows) <= memory_stat.keys():
        return None
    inactive, active, unevictable = (memory_stat[row] for row in rows)
    return max(0, inactive + active - unevictable)


def parse_pressure(text: str) -> dict[str, float]:
    """Return the seconds that some, and all, tasks have waited, of a file of /proc/pressure."""
    found = re.findall(r"^(some|full) .*\btotal=([0-9]{1,20})$", text, re.MULTILINE)
    return {kind: int(total) / 1e6 for kind, total in found}


def parse_buddyinfo(text: str) -> dict[int, int]:
    """Return the free blocks by order, summed over the zones, of /proc/buddyinfo."""
    sums: dict[int, int] = {}
    for line in text.splitlines():
        found = re.fullmatch(r"Node +[0-9]+, zone +\S+((?: +[0-9]{1,18})+) *", line)
        for order, count in enumerate(found[1].split() if found else ()):
            sums[order] = sums.get(order, 0) + int(count)
    return sums


def parse_parent(stat: str) -> int | None:
    """Return the parent's pid, of /proc/PID/stat. The name in it may hold anything."""
    words = stat.rpartition(")")[2].split()
    return int(words[1]) if len(words) > 1 and _is_count(words[1]) else None


def _is_count(word: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", word) is not None


def parse_earlyoom(argv: Sequence[str], total_bytes: int) -> EarlyOom | None:
    """Return the thresholds of an earlyoom with these arguments; None if it kills nobody.

    It was written against the manual of earlyoom 1.8. A percentage counts from MemTotal: so it
    was up to 1.7, and since 1.8, which counts from MemAvailable + AnonPages, it is an upper
    bound. ``-S``, in KiB of swap, is taken for "does not wait for swap".
    """
    percent: tuple[float, float] | None = None
    kib: tuple[float, float] | None = None
    swap: tuple[float, float] | None = None
    for flag, value in _options(argv):
        if flag == "--dryrun":
            return None
        if flag == "m":
            percent = _pair(value) or percent
        elif flag == "M":
            kib = _pair(value) or kib
        elif flag == "s":
            swap = _pair(value) or swap
        elif flag == "S":
            swap = _NO_WAIT
    sizes = [total_bytes * part / 100 for part in percent or _DEFAULT_PERCENT]
    if kib is not None:
        given = [size * KIB for size in kib]
        sizes = given if percent is None else list(map(min, given, sizes))  # the lower one counts
    term, kill = map(int, sizes)
    return EarlyOom(term, kill, min(100, int((swap or _DEFAULT_PERCENT)[0])))


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield (flag, value) as getopt would: -m5, -m 5 and -nm5 are the same."""
    words = iter(argv[1:])
    for word in words:
        if word.startswith("--"):
            name, mark, value = word.partition("=")
            if name in _LONG_WITH_VALUE and not mark:
                value = next(words, "")
            yield name, value
        elif word.startswith("-"):
            for place, letter in enumerate(word[1:], start=2):
                if letter in _WITH_VALUE:
                    yield letter, word[place:] or next(words, "")
                    break
                yield letter, ""


def _pair(value: str) -> tuple[float, float] | None:
    """Return (term, kill) of "TERM[,KILL]"; KILL is half of TERM, and never above it."""
    first, _, second = value.partition(",")
    try:
        term = float(first)
        kill = float(second) if second else term / 2
    except ValueError:
        return None
    if not (0 <= term <= _MOST and 0 <= kill <= _MOST):  # not NaN either
        return None
    return max(term, kill), kill
