"""What a decoded token reads, and the speed that follows, as people read it. Pure."""

from collections.abc import Iterator

from appliance.decode import EXPECTED, GB, DecodePlan, DecodeRate, Drafting
from appliance.facts import WeightPart
from appliance.sizes import format_size

MB = 10**6
COMPUTED = "computed from the stored types, not measured"


def decode_text(plan: DecodePlan) -> str:
    """Return the bytes of a token by part, and the rates of an empty and a full context."""
    lines = [f"what a token reads ({COMPUTED})"]
    lines += [f"  {name:<13} {text}".rstrip() for name, text in decode_rows(plan)]
    return "\n".join(lines)


def decode_rows(plan: DecodePlan) -> Iterator[tuple[str, str]]:
    """Yield name and text of each line; parts of less than a thousandth are left out."""
    for part in plan.parts:
        if part.token_bytes > plan.token_bytes / 1000:
            yield part.name, f"{format_decimal(part.token_bytes):>9}  {_stored(part)}"
    for name, rate in zip(("in all", "and cache"), plan.rates, strict=False):
        yield name, f"{format_decimal(rate.bytes):>9}  {_speed(rate)}"
    if plan.bandwidth_gb_s is not None:
        yield "at most", _bound(plan.bandwidth_gb_s)
    if plan.saved_bytes:
        more = f", room for {plan.more_kv_tokens:,} more KV tokens" if plan.more_kv_tokens else ""
        yield "saved", f"{format_size(plan.saved_bytes)} against attention and head in bf16{more}"
    if plan.drafting:
        yield "drafts", _drafting(plan.drafting)


def decode_line(plan: DecodePlan) -> str:
    """Return it in one line: the bytes, and the speed with an empty KV cache."""
    large = [part for part in plan.parts if part.token_bytes >= plan.token_bytes / 100]
    parts = ", ".join(f"{part.name} {format_decimal(part.token_bytes)}" for part in large)
    text = f"{format_decimal(plan.token_bytes)} a token ({parts})"
    if (speed := plan.rates[0].tokens_per_s) is not None:
        text += f": {speed:.1f} tokens/s at most at {plan.bandwidth_gb_s:g} GB/s"
    if plan.more_kv_tokens:
        text += f"; {plan.more_kv_tokens:,} more KV tokens than with attention and head in bf16"
    return f"{text}; computed"


def format_decimal(size_bytes: int) -> str:
    """Return a size in GB, MB or kB, as bandwidths are counted: powers of ten."""
    for name, unit in (("GB", GB), ("MB", MB)):
        if size_bytes >= unit / 100:
            return f"{size_bytes / unit:.2f} {name}"
    return f"{size_bytes / 1000:.2f} kB"


def _stored(part: WeightPart) -> str:
    """Return the types that make up a part, without the odd scalar, and what is read of it."""
    types = " + ".join(name for name, size in part.by_dtype if size >= part.bytes / 1000)
    return f"{types}, {part.how}" if part.how else types


def _bound(bandwidth_gb_s: float) -> str:
    return (
        f"at {bandwidth_gb_s:g} GB/s (APPLIANCE_MEMORY_BANDWIDTH_GB_S), one request at a time; "
        f"expected: {EXPECTED:.0%} of it, as a sister model reached on a Spark"
    )


def _drafting(drafting: Drafting) -> str:
    return (
        f"a step that checks {drafting.tokens} reads about {format_decimal(drafting.bytes)}, each "
        f"draft with experts of its own: it pays from {drafting.pays_from:.1f} tokens a step"
    )


def _speed(rate: DecodeRate) -> str:
    cache = f"{rate.context:,} tokens" if rate.context else "nothing"
    speed = f"{rate.tokens_per_s:.1f} tokens/s at most, " if rate.tokens_per_s else ""
    expected = f"{rate.expected_per_s:.1f} expected, " if rate.expected_per_s else ""
    return f"{speed}{expected}with {cache} in the KV cache"
