"""How many sequences the engine runs at once for a request: as many places does it need. Pure."""

import msgspec

from appliance.draft import Draft
from appliance.openai import NO_JSON, RelayRoute

_CHAT, _COMPLETIONS = "/v1/chat/completions", "/v1/completions"


def sequences(route: RelayRoute, draft: Draft) -> int:
    """Return how many sequences a request makes: ``n`` (a beam's width too) for each prompt.

    What the engine will refuse anyhow counts as one: its own error names it. The texts of an
    embedding are one together: each is one step of prefill and holds nothing afterwards.
    """
    if route.path not in (_CHAT, _COMPLETIONS):
        return 1
    prompts = 1
    if route.path == _COMPLETIONS:
        prompts = _listed(draft.raw("prompt")) + _listed(draft.raw("prompt_embeds"))
    return max(1, draft.whole("n") or 1) * max(1, prompts)


def _listed(raw: bytes | None) -> int:
    """Return how many prompts a field holds: 0 for none, 1 for a text or a list of tokens."""
    if raw is None or raw == b"null":
        return 0
    inner = raw[1:2].strip() or raw[1:].lstrip()[:1]
    if not raw.startswith(b"[") or inner not in (b'"', b"["):
        return 1
    try:
        return len(msgspec.json.decode(raw, type=list[msgspec.Raw]))
    except NO_JSON:
        return 1
