"""What a step's figures are worth. Pure: each function takes what was seen, and nothing else."""

from collections.abc import Mapping, Sequence
from typing import Any

from appliance.accept.steps import Finding, failed, passed, skipped
from appliance.kilo import kilo_limit, short_context
from appliance.sizes import format_size

Fields = Mapping[str, Any]
MOST_GLITCHED = 0.1  # of the short path bench; its 95 % interval is wide
LOOK = "appliance status; appliance incidents show"


def judge_doctor(rows: Sequence[Fields]) -> Finding:
    """Judge the doctor's rows: name, level (ok, warn, fail), value, next."""
    bad = [row for row in rows if row["level"] == "fail"]
    warned = [str(row["name"]) for row in rows if row["level"] == "warn"]
    if bad:
        told = "; ".join(f"{row['name']}: {row['value']}" for row in bad)
        return failed(told, str(bad[0].get("next") or "appliance doctor"), rows=list(rows))
    more = f"; to know of: {', '.join(warned)}" if warned else ""
    return passed(f"{len(rows) - len(warned)} of {len(rows)} as they should be{more}",
                  rows=list(rows))  # fmt: skip


def judge_plan(memory: Fields | None, engine: str, available_bytes: int | None) -> Finding:
    """Judge the memory plan of the running engine, as ``/health`` tells it."""
    if engine == "attach":
        return skipped("the engine is started by somebody else, who plans its memory")
    if not memory or "shortfalls" in memory:
        shorts = (memory or {}).get("shortfalls") or ()
        told = "; ".join(str(short["what"]) for short in shorts) or "no plan is in force"
        return failed(told, "appliance plan")
    figures = {"available_bytes": available_bytes, "memory": memory}
    told = (
        f"context {memory['max_model_len']:,} tokens, {memory['max_num_seqs']} at once, "
        f"KV cache {format_size(memory['kv_bytes'])}"
    )
    if memory.get("is_forced"):
        return failed(f"{told}; forced past its own floors", "appliance plan", **figures)
    return passed(told, **figures)


def judge_warmup(status: Fields) -> Finding:
    """Judge whether the engine is ready, its output sane, and nothing degraded."""
    figures = {name: status.get(name) for name in ("since", "spawn", "safer_plans")}
    if status["status"] != "ready":
        reason = status.get("message") or status.get("reason")
        return failed(f"{status['state']}: {reason}", status.get("hint") or LOOK, **figures)
    if degraded := status.get("degraded"):
        return failed(f"ready, but degraded: {', '.join(degraded)}", LOOK, **figures)
    return passed(f"ready since {status['since']}, spawn {status['spawn']}", **figures)


def judge_smoke(checks: Sequence[Fields]) -> Finding:
    """Judge the smoke checks: name, passed, seconds, detail."""
    bad = [check for check in checks if not check["passed"]]
    if bad:
        told = "; ".join(f"{check['name']}: {check['detail']}" for check in bad)
        return failed(told, "appliance smoke", checks=list(checks))
    return passed(f"{len(checks)} of {len(checks)} passed", checks=list(checks))


def judge_kilo(config: Any, served: int | None, model: str, *, is_chosen: bool = False) -> Finding:
    """Judge the configuration that Kilo Code is given, against the context that is served."""
    try:
        (provider,) = config["provider"].values()
        key, address = provider["options"]["apiKey"], provider["options"]["baseURL"]
        limit = provider["models"][model].get("limit") or {}
    except (KeyError, TypeError, ValueError, AttributeError) as cause:
        return failed(f"/kilo.json is no configuration for {model}: {cause!r}", "appliance kilo")
    wrong = []
    if not str(address).endswith("/v1"):
        wrong.append("its address does not end in /v1")
    if not str(key).startswith("{env:"):
        wrong.append("it carries a key, and must not over the network")
    if served and limit != kilo_limit(served):
        wrong.append(f"its limits {dict(limit)} are not those of {served:,} served tokens")
    if not served:
        wrong.append("nobody knows the served context, so Kilo is given no limits")
    figures = {"limit": dict(limit), "served": served}
    if wrong:
        return failed("; ".join(wrong), "appliance kilo", **figures)
    told = f"Kilo is told of {limit['context']:,} tokens of the {served:,} served"
    if short := short_context(served, is_chosen=is_chosen):
        return passed(f"{told}; {short[0]}", warning=short[0], **figures)
    return passed(told, **figures)


def judge_prefill(figures: Fields, low_water: int | None, memory: Fields | None) -> Finding:
    """Judge a long prompt: it was read whole, and memory stayed above the floor meanwhile."""
    told = (
        f"{figures['prompt_tokens']:,} tokens at {figures['prefill_tok_s']:,.0f} tok/s, "
        f"first token after {figures['ttft_s']:.1f} s"
    )
    floors = (memory or {}).get("floors") or {}
    if low_water is None:
        return passed(f"{told}; the memory could not be seen", **figures)
    told += f"; MemAvailable {format_size(low_water)} at the least"
    figures = {**figures, "low_water_bytes": low_water}
    if low_water < floors.get("stop_bytes", 0):
        what = f"{told}: below the floor of {format_size(floors['stop_bytes'])}"
        return failed(what, "free memory, or take less context: appliance plan", **figures)
    if low_water < floors.get("warn_bytes", 0):
        told += f", below the warning at {format_size(floors['warn_bytes'])}"
    return passed(told, **figures)


def judge_paths(report: Fields, profile: str) -> Finding:
    """Judge the short path bench: the share of paths that came back changed."""
    (arm,) = report["arms"]
    exact, glitched, silent = arm["exact"], arm["glitched"], arm["no_path"]
    figures = {name: arm[name] for name in ("exact", "glitched", "no_path", "other_path", "kinds")}
    total = exact["of"]
    told = f"{exact['count']} of {total} exact, {glitched['count']} changed"
    if not total:
        return failed("no question fits the served context", "appliance plan", **figures)
    if silent * 2 > total:
        what = f"{silent} of {total} answers hold no path at all"
        if profile == "demo":
            return skipped(f"{what}: the demo's tiny model cannot follow them", **figures)
        return failed(what, "appliance smoke; appliance bench paths", **figures)
    if glitched["count"] > MOST_GLITCHED * total and profile != "demo":
        return failed(told, "appliance bench paths measures it well", **figures)
    return passed(told, **figures)


def judge_speeds(figures: Fields) -> Finding:
    """Judge the speeds: there is no wrong one, but a stream without a token is none."""
    one, many = figures["alone"], figures["together"]
    told = (
        f"first token {one['ttft_s'] * 1000:.0f} ms, decode {one['decode_tok_s']:.1f} tok/s alone, "
        f"{many['decode_tok_s']:.1f} with {many['streams']} at once"
    )
    if not one["decode_tok_s"]:
        return failed("the answers came without tokens to count", LOOK, **figures)
    return passed(told, **figures)


def judge_kill(figures: Fields) -> Finding:
    """Judge the recovery from a killed engine: it was noticed, named, and came back."""
    told = (
        f"noticed after {figures['noticed_s']:.1f} s as {figures['code'] or 'nothing'}, "
        f"ready again after {figures['ready_s']:.0f} s"
    )
    if not figures["code"]:
        return failed(f"{told}; no incident tells of it", LOOK, **figures)
    return passed(told, **figures)


def judge_drain(figures: Fields) -> Finding:
    """Judge a drain: the answer in flight came whole, and nobody new was let in."""
    if not figures["whole"]:
        return failed("the answer in flight was cut", LOOK, **figures)
    told = f"the answer in flight came whole; stopped after {figures['drained_s']:.1f} s"
    if "ready_s" in figures:
        told += f", ready again after {figures['ready_s']:.0f} s"
    return passed(told, **figures)
