"""What fits into the context: limits of output, and prompts that leave no room. Pure."""

from collections import deque
from dataclasses import dataclass

from appliance.draft import Draft, as_whole
from appliance.errors import RequestError
from appliance.openai import RelayRoute

# What the template adds to a prompt: marks around each message, and how to call a tool.
EXTRA_TOKENS = 512
MARGIN = 1.5  # how much denser than the densest of late the next prompt may be
LEAST_RATE = 1 / 3  # tokens per byte that are always allowed for: text and code have 0.2 to 0.3
LEAST_BYTES = 8 * 1024  # of a prompt that tells anything: a short one is fields more than text
LEAST_THINKING = 1024  # tokens: the engine takes no smaller budget
_NAMES = {
    "/v1/chat/completions": ("max_completion_tokens", "max_tokens"),  # the first one rules
    "/v1/completions": ("max_tokens",),
    "/v1/responses": ("max_output_tokens",),
    "/v1/messages": ("max_tokens",),
}
# Where a limit is left out, the engine fills in what is left; not so on the other two: one
# must have it, the other takes 16.
_OPTIONAL = frozenset(("/v1/chat/completions", "/v1/responses"))


@dataclass(frozen=True)
class Counter:
    """How the engine counts a prompt: where, from which of the request's fields, and ``answer``,
    the field of its answer that holds the number.
    """

    path: str
    names: tuple[str, ...]
    answer: str


_TOKENIZE = Counter(
    "/tokenize",
    (
        *("model", "messages", "prompt", "tools", "chat_template", "chat_template_kwargs"),
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
        "mm_processor_kwargs",
    ),
    "count",
)
_MESSAGES = Counter(
    "/v1/messages/count_tokens",
    (
        *("model", "messages", "system", "tools", "tool_choice", "thinking"),
        *("output_config", "chat_template_kwargs"),
    ),
    "input_tokens",
)
_COUNTERS = {
    "/v1/chat/completions": _TOKENIZE,
    "/v1/completions": _TOKENIZE,
    "/v1/messages": _MESSAGES,
}


@dataclass(frozen=True)
class Room:
    """What was asked of a context of ``served`` tokens.

    ``asked`` is the output's limit, 1 where there is none; ``name`` is the field that says so.
    """

    served: int
    asked: int = 1
    name: str = ""

    def may_lack(self, prompt_tokens: int) -> bool:
        """Tell whether a prompt of at most so many tokens may leave too little."""
        return prompt_tokens + self.asked > self.served


class Density:
    """Tokens per byte: at most one, and as late prompts have shown, with a margin.

    Too low a guess does no harm: the engine itself lowers a limit to what is left (0.32, 0.33),
    and refuses a prompt that does not fit.
    """

    def __init__(self) -> None:
        self._late: deque[float] = deque(maxlen=32)

    def note(self, size: int, tokens: int) -> None:
        """Learn from a prompt of ``size`` bytes that was counted."""
        if size >= LEAST_BYTES:
            self._late.append(tokens / size)

    def most_tokens(self, size: int) -> int:
        """Return how many tokens ``size`` bytes make at most."""
        rate = max(LEAST_RATE, MARGIN * max(self._late)) if self._late else 1.0
        return int(size * min(rate, 1.0)) + EXTRA_TOKENS


def is_fitted(route: RelayRoute, draft: Draft) -> bool:
    """Tell whether a request's limit is ours to fit: it generates, and truncates no prompt."""
    is_whole = draft.value("truncation") in (None, "disabled")
    return route.path in _NAMES and is_whole and _is_null(draft, "truncate_prompt_tokens")


def counter(route: RelayRoute) -> Counter | None:
    """Return where the engine counts the prompt of such a request, None where it cannot.

    The prompt of ``/v1/responses`` it counts nowhere: it may need what is kept of earlier ones.
    """
    return _COUNTERS.get(route.path)


def without_large_limit(route: RelayRoute, draft: Draft, served: int) -> tuple[Room, bool]:
    """Take a limit of at least half the context out of ``draft``; return what is asked then.

    Also returned: whether ``draft`` was changed. Who asks for that much wants no limit, and a
    client that does not know the context asks for more than there is. Where a limit must stand,
    it becomes the context at most, of which the engine takes what the prompt leaves.
    """
    names = _NAMES[route.path]
    rules = next((name for name in names if not _is_null(draft, name)), None)
    if rules is None:
        return Room(served), False
    asked = draft.whole(rules)
    if asked is None or asked < 1:
        return Room(served), False  # the engine's own error names it
    if asked * 2 < served:
        return Room(served, asked, rules), False
    if route.path in _OPTIONAL:
        for name in names:
            draft.drop(name)
        return Room(served), True
    if asked > served:
        _lower(draft, rules, served)
    return Room(served), asked > served


def fit(room: Room, draft: Draft, prompt_tokens: int) -> bool:
    """Lower the limit in ``draft`` to what a prompt of so many tokens leaves; tell whether it was.

    The prompt must leave something.
    """
    left = room.served - prompt_tokens
    if not room.name or room.asked <= left:
        return False
    _lower(draft, room.name, left)
    return True


def _is_null(draft: Draft, name: str) -> bool:
    return draft.raw(name) in (None, b"null")


def _lower(draft: Draft, name: str, limit: int) -> None:
    """Lower a limit, and with it a budget of thinking, which must be less than the limit."""
    draft.put_value(name, limit)
    thinking = draft.value("thinking")
    if not isinstance(thinking, dict) or thinking.get("type") != "enabled":
        return
    budget = as_whole(thinking.get("budget_tokens"))
    if budget is None or budget < limit:
        return
    if limit > LEAST_THINKING:
        draft.put_value("thinking", {**thinking, "budget_tokens": limit - 1})
    else:  # the limit ends it in any case
        draft.put_value("thinking", {"type": "adaptive"})


def does_not_fit(route: RelayRoute, prompt_tokens: int, served: int) -> RequestError:
    """Return the refusal of a prompt, in words at which agents compact their conversation."""
    if route.is_anthropic:
        what = f"prompt is too long: {prompt_tokens} tokens > {served} maximum"
    else:
        what = f"This model's maximum context length is {served} tokens"
        what += f". However, your prompt has {prompt_tokens} tokens"
    hint = "send less of the conversation, or raise APPLIANCE_MAX_MODEL_LEN"
    return RequestError(400, "context_length_exceeded", what, hint)
