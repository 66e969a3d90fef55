"""Speeds that others have published, as the report has them; ``bench speed`` keeps the table."""

from typing import Any

from appliance.bench.servingrun import published


def published_speeds() -> list[dict[str, Any]]:
    """Return a row each: decode in tokens a second (least, most), prefill as (tokens, tok/s)."""
    told = published()
    return [
        {
            "what": row["what"],
            "box": told["box"],
            "decode": row["decode_tps"],
            "source": row["source"],
            "prefill": [
                [one["prompt_tokens"], one["tps"]] for one in row["prefill_tps"]
                if one["prompt_tokens"]
            ],
            "note": row["note"],
        }
        for row in told["rows"]
    ]  # fmt: skip
