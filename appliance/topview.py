"""A frame of ``appliance top`` as lines of a terminal. Pure; rich colours and cuts them."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from rich.console import Group
from rich.text import Text

from appliance.plaintext import duration, plain
from appliance.topframe import Frame, at, number, series

NAME = 9  # columns of a row's name
NEAR = 1.5  # times the floor: from there on memory is shown in red
VALUE = 26  # columns of a row's value, where a sparkline follows
_SPARKS = "▁▂▃▄▅▆▇█"
_PARTS = (("█", "cyan"), ("▓", "blue"), ("▒", "magenta"), ("░", "yellow"), ("▚", "green"))
_COLOURS = {"ready": "bold green", "failed": "bold red", "backoff": "bold red"}


def render(frame: Frame, width: int, height: int, now: float, keys: str = "") -> Group:
    """Return at most ``height`` lines of at most ``width`` columns.

    ``now`` is in epoch seconds; ``keys`` tells which keys do something.
    """
    lines = [*_head(frame, now), *_memory(frame, width), *_speed(frame, width)]
    lines += _counts(frame)
    lines += _log(frame, width, height - len(lines), keys)
    for line in lines:
        line.truncate(width, overflow="ellipsis")
        line.no_wrap = True
    return Group(*lines[:height])


def spark(values: Sequence[float | None], columns: int, top: float | None = None) -> str:
    """Return the last ``columns`` values as bars; a gap where one is None.

    They reach from 0 to ``top``, or to the highest of them.
    """
    shown = list(values)[-columns:] if columns > 0 else []
    if top is None:
        top = max((value for value in shown if value is not None), default=0.0)
    return "".join(" " if value is None else _SPARKS[_level(value, top)] for value in shown)


def _level(value: float, top: float) -> int:
    return min(len(_SPARKS) - 1, int(max(0.0, value) / top * len(_SPARKS))) if top > 0 else 0


# ---- what it is doing


def _head(frame: Frame, now: float) -> Iterator[Text]:
    status = frame.status
    if frame.lost:
        yield Text(f"lost the appliance: {plain(frame.lost)}", style="bold red")
    if status is None:
        yield Text("waiting for the appliance's status")
        return
    state = plain(status.get("state")).upper()
    line = Text(state, style=_COLOURS.get(state.lower(), "bold yellow"))
    facts = [plain(status.get("model"))]
    if context := number(status.get("max_model_len")):
        facts.append(f"context {context:,.0f}")
    facts.append(f"for {duration(_since(status.get('since'), now))}")
    facts.append(f"spawn {plain(status.get('spawn'))}")
    line.append("  " + " · ".join(facts), style="default")
    yield line
    yield Text(_why(frame))
    if (share := number(status.get("progress"))) is not None and status.get("phase"):
        full = round(share * 40)
        yield Text(f"{'█' * full}{'░' * (40 - full)} {share:.0%} {plain(status.get('phase'))}")
    if status.get("next"):
        left = -_since(status.get("next_at"), now)
        yield Text(f"next: {plain(status['next'])} in {duration(left)}")


def _why(frame: Frame) -> str:
    status = frame.status or {}
    said = status.get("message") or status.get("phase") or status.get("reason")
    parts = [said, status.get("hint") and f"type: {status['hint']}"]
    degraded = status.get("degraded")
    parts.append(degraded and "degraded: " + ", ".join(map(str, degraded)))
    return "; ".join(plain(part) for part in parts if part)


# ---- how close to the edge


def _memory(frame: Frame, width: int) -> Iterator[Text]:
    memory = at(frame.figures[-1] if frame.figures else None, "memory")
    total = number(at(frame.budget, "total_bytes")) or number(at(memory, "total"))
    if not total:
        return
    yield Text()
    parts = _parts(frame)
    if parts:
        columns = width - NAME
        bar, legend = Text("budget".ljust(NAME)), Text(" " * NAME)
        used = 0
        for place, (name, size) in enumerate(parts):
            block, colour = _PARTS[place % len(_PARTS)]
            end = used + size
            # each part begins where the one before has ended: no rounding error adds up
            length = round(end / total * columns) - round(used / total * columns)
            bar.append(block * length, style=colour)
            legend.append(f"{block} ", style=colour).append(f"{name} {_gib(size)}  ")
            used = end
        bar.append("·" * (columns - round(used / total * columns)), style="dim")
        yield bar
        yield legend
    yield _row("memory", _available(memory, frame, total))


def _parts(frame: Frame) -> list[tuple[str, int]]:
    """Return the budget's parts: as measured, or as planned where nothing was."""
    told = at(frame.budget, "parts") or ()
    sizes = [(part, _size(part)) for part in told]
    return [(plain(part.get("name")).replace("_", " "), size) for part, size in sizes if size > 0]


def _size(part: object) -> int:
    actual, plan = number(at(part, "actual_bytes")), number(at(part, "plan_bytes"))
    return round(plan or 0 if actual is None else actual)


def _available(memory: object, frame: Frame, total: float) -> Text:
    available = number(at(memory, "available")) or number(at(frame.budget, "available_bytes"))
    floor = number(at(memory, "floor")) or number(at(frame.budget, "floor_bytes"))
    known = {
        "available": available,
        "floor": floor,
        "free": number(at(memory, "free")),
        "swap free": number(at(memory, "swap_free")),
    }
    shown = [f"{name} {_gib(value)}" for name, value in known.items() if value is not None]
    near = available is not None and floor is not None and available < floor * NEAR
    words = f"{', '.join(shown)} of {_gib(total)} GiB"
    return Text(words, style="bold red" if near else "")


# ---- how fast


def _speed(frame: Frame, width: int) -> Iterator[Text]:
    yield Text()
    last = frame.figures[-1] if frame.figures else None
    columns = width - NAME - VALUE
    for name, path, unit in (
        ("decode", ("completion_tokens_per_s",), "tok/s"),
        ("prefill", ("prompt_tokens_per_s",), "tok/s"),
    ):
        yield _chart(
            name, _rate(number(at(last, *path)), unit), spark(series(frame, *path), columns)
        )
    p50, p90 = (number(at(last, "ttft_s", name)) for name in ("p50", "p90"))
    words = "no answer yet" if p50 is None else f"p50 {p50:.2f} s, p90 {p90 or p50:.2f} s"
    yield _chart("TTFT", words, spark(series(frame, "ttft_s", "p50"), columns))
    used = number(at(last, "kv_cache_used"))
    words = "not known" if used is None else f"{used:.0%} used"
    yield _chart("KV cache", words, spark(series(frame, "kv_cache_used"), columns, 1.0))


def _chart(name: str, value: str, bars: str) -> Text:
    line = _row(name, Text(value.ljust(VALUE)))
    line.append(bars, style="cyan")
    return line


def _rate(value: float | None, unit: str) -> str:
    return "not known" if value is None else f"{value:,.{0 if value >= 100 else 1}f} {unit}"


# ---- what came and what went wrong


def _counts(frame: Frame) -> Iterator[Text]:
    last = frame.figures[-1] if frame.figures else None
    requests = at(frame.status, "requests")
    running, waiting, places = (
        at(last, name) if at(last, name) is not None else at(requests, name)
        for name in ("running", "waiting", "places")
    )
    if running is not None:
        words = f"{running} of {places} places, {waiting} waiting"
        hit = number(at(last, "prefix_cache_hit"))
        yield _row(
            "requests", Text(words + ("" if hit is None else f"; prefix cache hits {hit:.0%}"))
        )
    if last is not None:
        yield _row("glitches", Text(_kinds(last.get("glitches"))))
        ends = _total(last.get("exits"))
        told = f"{number(last.get('spawns')) or 0:,.0f} starts, {ends:,.0f} unasked ends"
        told += f", {frame.incidents} incidents; "
        told += f"{number(last.get('keepalives')) or 0:,.0f} keep-alives"
        yield _row("engine", Text(told))
        if boxes := _boxes(last.get("nodes")):
            yield _row("boxes", Text(boxes))
    if frame.incident is not None:
        one = frame.incident
        what = str(one.get("what") or "").partition("\n")[0]
        words = f"{plain(one.get('at'))[:19]} {plain(one.get('code'))}: {plain(what)}"
        yield _row("incident", Text(words, style="red"))


def _kinds(glitches: object) -> str:
    """Return how many there were of each kind, whatever was done about them."""
    told = glitches if isinstance(glitches, Mapping) else {}
    counts = {str(kind): _total(actions) for kind, actions in told.items()}
    some = [f"{count:,.0f} {plain(kind)}" for kind, count in counts.items() if count]
    return ", ".join(some) or "none"


def _boxes(nodes: object) -> str:
    """Return what each box of a cluster does, "" for a single one."""
    told = nodes if isinstance(nodes, Mapping) else {}
    return ", ".join(
        f"{plain(node)} {'runs' if is_up else 'does not run'}" for node, is_up in told.items()
    )


def _total(counts: object) -> float:
    told = counts if isinstance(counts, Mapping) else {}
    return sum(number(count) or 0 for count in told.values())


def _log(frame: Frame, width: int, rows: int, keys: str) -> list[Text]:
    if rows < 2:
        return []
    title = "engine log "
    shown = frame.lines[-(rows - 1) :]
    rule = Text(f"{title}{'─' * (width - len(title) - len(keys) - 1)} {keys}".rstrip(), style="dim")
    return [rule, *(Text(plain(line)) for line in shown)]


# ---- words


def _row(name: str, value: Text) -> Text:
    return Text().append(name.ljust(NAME), style="bold").append_text(value)


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:.1f}"


def _since(moment: object, now: float) -> float:
    return now - datetime.fromisoformat(str(moment)).timestamp() if moment else 0.0
