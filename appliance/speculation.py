"""Drafts by prompt lookup: what vLLM is told for them, and what it refuses beside them. Pure.

Read in vLLM 0.32 and 0.33: config/speculative.py, config/vllm.py, engine/arg_utils.py,
v1/sample/logits_processor, v1/structured_output/backend_lm_format_enforcer.py. Of a request vLLM
itself refuses min_p and logit_bias then, with a 400.
"""

import json
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from appliance.fieldtypes import named_flag

MOST_DRAFTS = 128  # MAX_SPEC_LEN of v1/sample/rejection_sampler.py
_SECOND = "it says again what APPLIANCE_SPECULATION says"
_REFUSED: Mapping[str, str] = MappingProxyType(
    {
        **dict.fromkeys(("--speculative-config", "--spec-method"), _SECOND),
        **dict.fromkeys(("--spec-model", "--spec-tokens"), _SECOND),
        "--async-scheduling": "vLLM 0.32, and the older model runner of 0.33, end at it",
        "--logits-processors": "vLLM takes none beside drafts",
        "--watermark-config": "vLLM watermarks no drafts of this kind",
    }
)


def speculative_config(tokens: int) -> str:
    """Return the value of --speculative-config: n-grams of vLLM's own length, so many drafts."""
    return json.dumps({"method": "ngram", "num_speculative_tokens": tokens})


def refused_beside(
    arguments: Iterable[str],
    sampling: Mapping[str, float],
    tokens: int,
    sequences: int,
    batched_tokens: int | None,
) -> str:
    """Return what of these choices vLLM refuses beside ``tokens`` drafts, and why; "" for nothing.

    ``arguments`` are further words of its command line, ``sampling`` the defaults of a request;
    ``sequences`` run at once, in steps of ``batched_tokens`` (None: vLLM's own choice).
    """
    if sampling.get("min_p"):
        return f"APPLIANCE_SAMPLING with min_p={sampling['min_p']}: vLLM refuses each such request"
    for word in arguments:
        if word.startswith("-sc"):
            return f"-sc in APPLIANCE_ENGINE_EXTRA_ARGS: {_SECOND}"
        if flag := named_flag(word, _REFUSED):
            return f"{flag} in APPLIANCE_ENGINE_EXTRA_ARGS: {_REFUSED[flag]}"
        if "lm-format-enforcer" in word:
            return f"{word} in APPLIANCE_ENGINE_EXTRA_ARGS: that backend takes no drafts"
        needed = sequences * (tokens + 1)
        if named_flag(word, ("--enable-lora",)) and needed > (batched_tokens or needed):
            return (
                f"--enable-lora in APPLIANCE_ENGINE_EXTRA_ARGS with APPLIANCE_MAX_NUM_BATCHED_"
                f"TOKENS={batched_tokens}: {sequences} requests of 1 + {tokens} tokens are {needed}"
            )
    return ""
