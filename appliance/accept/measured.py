"""The page's sections of what was measured: memory, prefill, speeds, paths. Pure."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from appliance.accept.charts import Bar, bars, colour, gib, memory_bars, timeline
from appliance.accept.markup import chart, e, folded, row, section, table
from appliance.overheads import GIB
from appliance.sizes import format_size

Tree = Mapping[str, Any]
_FLOORS = {"warn": "warn_bytes", "stop": "stop_bytes", "kill": "kill_bytes"}


def measured_sections(tree: Tree) -> Iterator[str]:
    """Yield the sections of the figures that are there."""
    yield from _memory(tree)
    yield from _prefill(tree)
    yield from _speeds(tree)
    yield from _paths(tree)


# ---- memory


def _memory(tree: Tree) -> Iterator[str]:
    memory, host = tree.get("memory") or {}, tree.get("host") or {}
    body = ""
    if rows := memory.get("rows"):
        body += chart(memory_bars(rows, host)) + _legend(rows)
        body += folded("Where each number is from", _origins(rows))
        if warnings := memory.get("warnings"):
            body += "".join(f'<p class="note-box">{e(text)}</p>' for text in warnings)
    if tree["samples"]:
        body += "<h3>MemAvailable over the run</h3>"
        body += chart(timeline(tree["samples"], _floors(memory)))
    if body:
        lead = "What the plan gives each part of the machine's memory, and what is in use now."
        yield section("Memory", body, lead if memory.get("rows") else "")


def _floors(memory: Tree) -> dict[str, int]:
    """Return the floors that stand apart from one another; the demo's are all the same."""
    told = memory.get("floors") or {}
    found = {name: int(told[key]) for name, key in _FLOORS.items() if told.get(key)}
    return {name: size for name, size in found.items() if size > 0}


def _legend(rows: Sequence[Tree]) -> str:
    items = "".join(
        f'<li><i class="{colour(number, str(part["name"]))}"></i>{e(_plain(part["name"]))} '
        f"<b>{format_size(part['bytes'])}</b></li>"
        for number, part in enumerate(rows)
        if part["bytes"]
    )
    return f'<ul class="legend">{items}</ul>'


def _plain(name: Any) -> str:
    return str(name).replace("_", " ")


def _origins(rows: Sequence[Tree]) -> str:
    told = (
        row(
            _plain(part["name"]),
            f"{part['bytes'] / GIB:.2f}",
            part["how"],
            kinds="kr.",
        )
        for part in rows
    )
    return table(("part", ">GiB", "from"), told)


# ---- prefill


def _prefill(tree: Tree) -> Iterator[str]:
    rows = tree["prefill"]
    if not rows:
        return
    speed = [
        Bar(
            f"{each['prompt_tokens']:,} tokens",
            each["prefill_tok_s"],
            each["prefill_tok_s"],
            f"{each['prefill_tok_s']:,.0f} tok/s",
            f"{each['share']} % of the context, {each['ttft_s']:.1f} s to the first token",
            is_ours=True,
        )
        for each in rows
    ]
    body = "<h3>Speed</h3>" + chart(bars("Prefill by the size of the prompt", speed))
    lows = [each for each in rows if each.get("low_water_bytes")]
    if lows:
        low = [
            Bar(f"{each['prompt_tokens']:,} tokens", each["low_water_bytes"] / GIB,
                each["low_water_bytes"] / GIB, f"{gib(each['low_water_bytes'])} GiB", is_ours=True)
            for each in lows
        ]  # fmt: skip
        floors = _floors(tree.get("memory") or {})
        stop = floors.get("stop")
        mark = (stop / GIB, f"nobody more is let in below {gib(stop)} GiB") if stop else None
        body += "<h3>MemAvailable at the least</h3>"
        body += chart(bars("MemAvailable by the size of the prompt", low, mark))
    lead = (
        "Prompts that no cache has seen, by their share of the served context. The speed is the "
        "prompt's tokens by the time to the first of the answer, through the appliance."
    )
    yield section("Long prompts", body, lead)


# ---- speeds


def _speeds(tree: Tree) -> Iterator[str]:
    speeds = tree.get("speeds")
    if not speeds:
        return
    is_demo = (tree.get("status") or {}).get("profile") == "demo"
    one, many = speeds["alone"], speeds["together"]
    ours = [
        _ours("This box, one stream", one["decode_tok_s"], f"{one['completion_tokens']} tokens")
    ]
    if many["streams"] > 1:
        each = f"{many['decode_each_tok_s']:.1f} tok/s each"
        ours.append(_ours(f"This box, {many['streams']} streams", many["decode_tok_s"], each))
    deep = [each for each in tree["prefill"] if each.get("decode_tok_s")]
    if deep:
        note = f"after {deep[-1]['prompt_tokens']:,} tokens"
        ours.append(_ours("This box, long prompt", deep[-1]["decode_tok_s"], note))
    body = _asked(speeds)
    if is_demo:
        body += (
            '<p class="note-box">This is the demo: a tiny model on a CPU. Its speeds tell nothing '
            "of a box, and are not comparable with the published ones.</p>"
            "<h3>Decode, the demo</h3>" + chart(bars("Decode of the demo", ours))
            + "<h3>Decode, as published for one box</h3>"
            + chart(bars("Decode as published", _theirs(tree["published"])))
        )  # fmt: skip
    else:
        body += "<h3>Decode, beside what is published for one box</h3>"
        body += chart(bars("Decode beside published figures", [*ours, *_theirs(tree["published"])]))
    body += folded("Where the published figures are from", _sources(tree["published"]))
    lead = "Greedy answers of a fixed length, with the path prompt and the path guard off."
    yield section("Speeds", body, lead)


def _ours(label: str, value: float, note: str) -> Bar:
    return Bar(label, value, value, f"{value:,.1f}", note, is_ours=True)


def _theirs(published: Sequence[Tree]) -> list[Bar]:
    found = []
    for each in published:
        least, most = each["decode"]
        shown = f"{least:g}" if least == most else f"{least:g}-{most:g}"
        found.append(Bar(_short(each["what"]), least, most, shown, each["box"]))
    return found


def _short(text: str) -> str:
    return text if len(text) <= 38 else f"{text[:37]}…"


def _asked(speeds: Tree) -> str:
    rows = [
        row(f"{each['prompt_tokens']:,} tokens", f"{each['ttft_s'] * 1000:,.0f} ms",
            f"{each['prefill_tok_s']:,.0f}", f"{each['decode_tok_s']:.1f}", kinds="krrr")
        for each in (speeds["alone"], *speeds["prompts"])
    ]  # fmt: skip
    return table(("prompt", ">first token", ">prefill tok/s", ">decode tok/s"), rows)


def _sources(published: Sequence[Tree]) -> str:
    rows = []
    for each in published:
        least, most = each["decode"]
        decode = f"{least:g}" if least == most else f"{least:g} to {most:g}"
        sizes = ", ".join(f"{speed:,.0f} @{tokens}" for tokens, speed in each["prefill"])
        more = "; ".join(filter(None, (f"prefill {sizes}" if sizes else "", each["note"])))
        rows.append(row(each["what"], each["box"], decode, more, each["source"], kinds=".kr"))
    return table(("model", "box", ">decode", "more", "source"), rows)


# ---- paths


def _paths(tree: Tree) -> Iterator[str]:
    paths = tree.get("paths")
    if not paths:
        return
    exact = paths["exact"]
    rows = [
        _rate("came back exactly", exact),
        _rate("came back changed", paths["glitched"]),
        row("another path that was in sight", f"{paths['other_path']}", "", kinds="kr"),
        row("no path at all", f"{paths['no_path']}", "", kinds="kr"),
    ]
    kinds = ", ".join(f"{name} {count}" for name, count in paths["kinds"].items())
    body = table(("", f">of {exact['of']}", "95 % interval"), rows)
    if kinds:
        body += f"<p>Kinds of change: {e(kinds)}.</p>"
    lead = (
        "A short bench of hard paths, asked as agents are served. Its interval is wide: "
        "appliance bench paths measures it well."
    )
    yield section("Paths", body, lead)


def _rate(name: str, rate: Tree) -> str:
    between = f"{rate['low']:.0%} to {rate['high']:.0%}" if rate["of"] else ""
    return row(name, rate["count"], between, kinds="kr")
