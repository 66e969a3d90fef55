"""The memory budget as people read it: the rows, the choices, or what is short. Pure."""

from collections.abc import Sequence

from appliance.budget import BudgetRow, Shortfall
from appliance.decodeview import decode_text
from appliance.errors import DoesNotFit
from appliance.memory import MemoryPlan
from appliance.overheads import GIB

BAR = 20  # characters for the whole of the memory


def plan_text(plan: MemoryPlan) -> str:
    """Return the whole plan: budget, choices, floors, what a token reads, warnings."""
    lines = [budget_text(plan.rows), "", "the plan"]
    lines += [f"  {name:<13} {text}" for name, text in _choices(plan)]
    if plan.decode:
        lines += ["", decode_text(plan.decode)]
    if plan.warnings:
        lines += ["", "to know", *(f"  - {warning}" for warning in plan.warnings)]
    return "\n".join(lines)


def refusal_text(error: DoesNotFit) -> str:
    """Return what there is of the budget, and every shortfall with what to do about it."""
    lines = [budget_text(error.table), "", "it does not fit"] if error.table else ["no plan"]
    for short in error.shortfalls:
        lines += _shortfall(short)
    return "\n".join(lines)


def budget_text(rows: Sequence[BudgetRow]) -> str:
    """Return the rows in GiB, each with its share and where its number is from."""
    total = sum(row.bytes for row in rows)
    lines = [f"memory: {_gib(total)} GiB"]
    for row in rows:
        bar = "#" * round(max(0, row.bytes) / total * BAR)
        name = row.name.replace("_", " ")
        lines.append(f"  {name:<12} {_gib(row.bytes):>7}  {bar:<{BAR}} {row.how}".rstrip())
    return "\n".join(lines)


def nodes_text(head: MemoryPlan, worker: MemoryPlan) -> str:
    """Return what each of two boxes gives to its part of one engine, in GiB, side by side."""
    theirs = {row.name: row.bytes for row in worker.rows}
    ours = {row.name: row.bytes for row in head.rows}
    lines = ["memory by box, GiB", f"  {'':<12} {'head':>8} {'worker':>8}"]
    for name in ours | theirs:
        sizes = f"{_gib(ours.get(name, 0)):>8} {_gib(theirs.get(name, 0)):>8}"
        lines.append(f"  {name.replace('_', ' '):<12} {sizes}")
    totals = f"{_gib(sum(ours.values())):>8} {_gib(sum(theirs.values())):>8}"
    lines.append(f"  {'total':<12} {totals}")
    lines.append("  the fuller box decides on the KV cache and the context of both")
    return "\n".join(lines)


def _choices(plan: MemoryPlan) -> list[tuple[str, str]]:
    total = sum(row.bytes for row in plan.rows)
    fraction = plan.gpu_memory_utilization
    after = plan.steady_available_bytes - plan.growth_bytes
    floors = plan.floors
    levels = (floors.warn_bytes, floors.stop_bytes, floors.kill_bytes, floors.emergency_bytes)
    shown = zip(("warn", "stop", "kill", "emergency"), levels, strict=True)
    choices = []
    if fraction is not None:
        asked = f"{_gib(total)} x {fraction} = {_gib(round(total * fraction))} GiB"
        choices.append(
            ("utilization", f"{fraction}: vLLM checks before it loads that {asked} are there")
        )
    if plan.kv_is_computed:
        choices.append(("KV cache", f"{_gib(plan.kv_bytes)} GiB, {plan.kv_tokens:,} tokens"))
    else:
        choices.append(("KV cache", "what the engine measures, within the utilization"))
    needed = f"{_gib(plan.needed_available_bytes)} GiB available before the start"
    if plan.deficit_bytes:
        needed += f", {_gib(plan.deficit_bytes)} of them pushed out to swap"
    return [
        *choices,
        ("context", f"{plan.max_model_len:,} tokens, {plan.max_num_seqs} requests at once"),
        ("needs", needed),
        (
            "serving",
            f"{_gib(plan.steady_available_bytes)} GiB available, {_gib(after)} once it has grown",
        ),
        ("floors", ", ".join(f"{name} {_gib(size)}" for name, size in shown) + " GiB available"),
    ]


def _shortfall(short: Shortfall) -> list[str]:
    return [f"  - {short.what}", *(f"      {remedy}" for remedy in short.remedies)]


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / GIB:.2f}"
