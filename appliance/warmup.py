"""The warm-up: one fixed greedy answer that compiles kernels and shows whether output is sane."""

from typing import Any

from appliance.errors import UpstreamError
from appliance.probes import WARMUP_ANSWER, WARMUP_QUESTION, user
from appliance.prompt import PromptPolicy
from appliance.upstream import Upstream


def warmup_body(model: str, policy: PromptPolicy) -> dict[str, Any]:
    """Return the warm-up request. It carries the policy's prompt, whose prefix it caches."""
    return {
        "model": model,
        "messages": policy.apply_to_messages([user(WARMUP_QUESTION)]),
        "temperature": 0,
        "max_tokens": 256,
        "chat_template_kwargs": {"enable_thinking": False},
    }


async def warm_up(upstream: Upstream, model: str, policy: PromptPolicy, timeout_s: float) -> str:
    """Ask the fixed question; return what is wrong with the answer, "" when nothing is."""
    try:
        reply = await upstream.complete(warmup_body(model, policy), timeout_s)
        answer = str(reply["choices"][0]["message"]["content"])
    except UpstreamError as cause:
        return cause.what
    except (KeyError, IndexError, TypeError):
        return "the answer had no message"
    if WARMUP_ANSWER in answer:
        return ""
    return f"asked to copy a path and 20 words, it answered {answer[:120]!r}"
