"""The report as one page: no script, nothing from elsewhere, light or dark, fit for print. Pure.

Everything comes from the report's tree, which has passed ``anonymous``; every text is escaped.
"""

from collections.abc import Iterator, Mapping
from html import escape
from importlib.resources import files
from typing import Any

from appliance.accept.charts import gib
from appliance.accept.evidencepage import evidence_sections
from appliance.accept.markup import e, section, table
from appliance.accept.measured import measured_sections

Tree = Mapping[str, Any]
_TITLES = {"acceptance": "Acceptance report", "bundle": "Support bundle"}


def page(tree: Tree) -> str:
    """Return the whole page of a report's tree."""
    title = _TITLES[tree["kind"]]
    style = files("appliance.accept").joinpath("page.css").read_text(encoding="utf-8")
    body = "\n".join((_head(tree, title), _tiles(tree), *_sections(tree), _foot(tree)))
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'\">\n"
        f"<title>{title}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _sections(tree: Tree) -> Iterator[str]:
    if trouble := tree.get("trouble"):
        text = f"<p>{e(trouble)}</p><p>What follows is what its state folder keeps.</p>"
        yield section("The appliance does not answer", text)
    if tree["steps"]:
        yield _steps(tree)
    yield from measured_sections(tree)
    yield from evidence_sections(tree)


def _head(tree: Tree, title: str) -> str:
    status = tree.get("status") or {}
    verdict = tree["verdict"] or ("unfinished" if tree["kind"] == "acceptance" else "")
    shown = verdict or str(status.get("state") or "no answer")
    kind = shown if shown in ("passed", "failed", "ready") else "unfinished"
    about = [
        str(status.get("model") or "model not known"),
        f"box profile {status['profile']}" if status.get("profile") else "",
        f"appliance {tree['versions']['appliance']}",
        _moment(tree["made"]),
    ]
    return (
        '<header><p class="mark">Unglitched</p><div class="top">'
        f'<h1>{title}</h1><span class="pill big {kind}">{e(shown.capitalize())}</span></div>'
        f'<p class="about">{e(" · ".join(filter(None, about)))}</p></header>'
    )


def _moment(iso: str) -> str:
    day, _, moment = iso.partition("T")
    return f"{day} {moment[:5]} UTC"


# ---- what one wants to know first


def _tiles(tree: Tree) -> str:
    tiles = [f'<div class="tile"><div class="n">{value} <span class="u">{unit}</span></div>'
             f'<div class="t">{escape(what)}</div></div>'
             for what, value, unit in _figures(tree)]  # fmt: skip
    return f'<div class="tiles">{"".join(tiles)}</div>' if tiles else ""


def _figures(tree: Tree) -> Iterator[tuple[str, str, str]]:
    """Yield (what, value, unit) of the figures that stand on top; values are markup."""
    if steps := tree["steps"]:
        good = sum(step["verdict"] == "passed" for step in steps)
        yield "steps passed", str(good), f"of {len(steps)}"
    if speeds := tree.get("speeds"):
        one, many = speeds["alone"], speeds["together"]
        yield "to the first token", f"{one['ttft_s'] * 1000:,.0f}", "ms"
        yield "decode, one stream", _speed(one["decode_tok_s"]), "tok/s"
        if many["streams"] > 1:
            what = f"decode, {many['streams']} streams"
            yield what, _speed(many["decode_tok_s"]), "tok/s"
    if tree["prefill"]:
        last = tree["prefill"][-1]
        yield f"prefill of {last['prompt_tokens']:,}", f"{last['prefill_tok_s']:,.0f}", "tok/s"
    lows = [row["low_water_bytes"] for row in tree["steps"] if row["low_water_bytes"] is not None]
    if lows:
        yield "MemAvailable at the least", gib(min(lows)), "GiB"
    if tree["kind"] == "bundle":
        status, host = tree.get("status") or {}, tree.get("host") or {}
        yield "incidents kept", str(len(tree.get("incidents") or ())), ""
        if host.get("MemAvailable"):
            yield "MemAvailable now", gib(host["MemAvailable"]), f"of {gib(host['MemTotal'])} GiB"
        if status.get("max_model_len"):
            yield "served context", f"{status['max_model_len']:,}", "tokens"
        if "spawn" in status:
            yield "spawn of the engine", e(status["spawn"]), ""


def _speed(value: float) -> str:
    return f"{value:,.1f}" if value < 100 else f"{value:,.0f}"


# ---- the steps


def _steps(tree: Tree) -> str:
    rows = []
    for step in tree["steps"]:
        detail = e(step["detail"])
        if step["next"] and step["verdict"] != "passed":
            detail += f'<span class="next">type next: <code>{e(step["next"])}</code></span>'
        low = step["low_water_bytes"]
        cells = (
            f'<td><span class="pill {step["verdict"]}">{step["verdict"]}</span></td>',
            f'<td class="k">{e(step["title"])}</td>',
            f'<td class="r">{_length(step["seconds"])}</td>',
            f'<td class="long">{detail}</td>',
            f'<td class="r spare">{gib(low) if low is not None else "-"}</td>',
        )
        rows.append("<tr>" + "".join(cells) + "</tr>")
    head = ("", "step", ">took", "what came of it", ">least GiB")
    lead = "“Least GiB” is the least MemAvailable while the step ran, looked at once a second."
    return section("Steps", table(head, rows, "stack"), lead)


def _length(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.1f} min"


def _foot(tree: Tree) -> str:
    return (
        "<footer><p>Keys, host names, addresses, user names, folders and serial numbers are hidden "
        "in this report, and prompts were never in it. It holds no script and asks for nothing "
        f"from elsewhere. Made by <code>appliance {escape(_COMMANDS[tree['kind']])}</code>, "
        "format 1.</p></footer>"
    )


_COMMANDS = {"acceptance": "accept", "bundle": "bundle"}
