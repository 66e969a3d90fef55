"""The Kilo Code configuration for this server. Pure."""

from typing import Any

# Kilo counts with another tokenizer than ours: keep a tenth of the context as a margin.
MARGIN = 0.9
OUTPUT_SHARE = 4


def kilo_config(base_url: str, model: str, context: int | None, key: str) -> dict[str, Any]:
    """Return Kilo Code's configuration (kilo.json) with this server as its provider.

    ``base_url`` ends before ``/v1``; ``context`` is the served context in tokens. Without
    limits Kilo never compacts and asks for 32,000 tokens of output.
    """
    entry: dict[str, Any] = {"name": model, "reasoning": True, "tool_call": True}
    if context:
        usable = int(context * MARGIN)
        entry["limit"] = {"context": usable, "output": max(1024, usable // OUTPUT_SHARE)}
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
