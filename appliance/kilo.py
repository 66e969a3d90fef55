"""The Kilo Code configuration for this server. Pure."""

from typing import Any

# Kilo counts with another tokenizer than ours: it is told of an eighth less than there is.
MARGIN = 0.12
OUTPUT_SHARE = 6
MOST_OUTPUT = 32_000  # what Kilo itself asks for at most
KEY_VARIABLE = "UNGLITCHED_API_KEY"
KEY_FROM_ENVIRONMENT = f"{{env:{KEY_VARIABLE}}}"  # Kilo puts the variable's value there

FLOOR_TOKENS = 13_000  # Kilo's own prompt and tools, in each request
ROOMY_TOKENS = 32_500  # 2.5 times that: below, it compacts more than it works


def kilo_config(
    base_url: str, model: str, context: int | None, key: str = KEY_FROM_ENVIRONMENT
) -> dict[str, Any]:
    """Return Kilo Code's configuration (kilo.json) with this server as its provider.

    ``base_url`` ends before ``/v1``; ``context`` is the served context in tokens. Without
    limits Kilo never compacts and asks for 32,000 tokens of output.
    """
    entry: dict[str, Any] = {"name": model, "reasoning": True, "tool_call": True}
    if context:
        entry["limit"] = kilo_limit(context)
    return {
        "$schema": "https://app.kilo.ai/config.json",
        "provider": {
            "unglitched": {
                "npm": "@ai-sdk/openai-compatible",
                "name": "Unglitched",
                "options": {"baseURL": f"{base_url}/v1", "apiKey": key},
                "models": {model: entry},
            }
        },
        "enabled_providers": ["unglitched"],
        "model": f"unglitched/{model}",
    }


def kilo_limit(context: int) -> dict[str, int]:
    """Return what Kilo is told of a served context, in tokens."""
    output = min(MOST_OUTPUT, context // OUTPUT_SHARE)
    return {"context": int(context * (1 - MARGIN)), "output": output}


def short_context(context: int | None, *, is_chosen: bool) -> tuple[str, str] | None:
    """Return what is wrong with a served context for Kilo, and the cure; None where it is roomy.

    ``is_chosen``: a setting says how much, and not what the memory holds.
    """
    if not context or context >= ROOMY_TOKENS:
        return None
    what = (
        f"{context:,} tokens of context are little for Kilo Code: its own prompt takes "
        f"{FLOOR_TOKENS:,}, and below {ROOMY_TOKENS:,} it compacts more than it works"
    )
    if is_chosen:
        return what, f"set APPLIANCE_MAX_MODEL_LEN to {ROOMY_TOKENS} or more, or unset it"
    return what, "free memory for more: appliance plan names what would, and what each gives"
