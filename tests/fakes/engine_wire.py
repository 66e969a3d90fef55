"""The shapes of vLLM 0.32's answers, for the fake engine: whole answers and streams.

Pure rendering: from a :class:`Generation` to the JSON or to the frames of each API. A frame is
one server-sent event, which vLLM sends as one HTTP chunk.
"""

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from tests.fakes.engine_mind import Answer, Delta, Kind

Json = dict[str, Any]
CALLING = ("call", "arguments")
DONE = b"data: [DONE]\n\n"


def new_id(prefix: str) -> str:
    """Return an id like vLLM's."""
    return f"{prefix}{uuid.uuid4().hex[:16]}"


@dataclass
class Generation:
    """One answer being given. ``produced`` counts the tokens handed out so far."""

    model: str
    answer: Answer
    prompt_tokens: int
    stopping: Callable[[], bool] = lambda: False
    on_token: Callable[[], None] = lambda: None
    created: int = field(default_factory=lambda: int(time.time()))
    produced: list[Delta] = field(default_factory=list)

    def deltas(self) -> Iterator[Delta]:
        """Hand out the pieces one by one until the end, or until the engine shuts down."""
        for delta in self.answer.deltas:
            if self.stopping():
                return
            self.produced.append(delta)
            self.on_token()
            yield delta

    def finish_reason(self) -> str:
        """Say why it ended: an engine that shuts down says ``abort``."""
        whole = len(self.produced) == len(self.answer.deltas)
        return self.answer.finish_reason if whole else "abort"

    def cut_here(self) -> str | None:
        """Say ``length`` at the last piece of an answer that a limit cuts: no end token follows."""
        return "length" if self.finish_reason() == "length" else None

    def text(self, kind: Kind) -> str:
        """Join what was handed out of one kind."""
        return "".join(delta.text for delta in self.produced if delta.kind == kind)

    def calls(self) -> list[tuple[str, str]]:
        """Return the name and the arguments of each tool call."""
        by_index = groupby((d for d in self.produced if d.kind in CALLING), lambda d: d.index)
        runs = [[delta.text for delta in run] for _, run in by_index]
        return [(run[0], "".join(run[1:])) for run in runs]

    def usage(self, reasoning: bool = True) -> Json:
        """Return OpenAI usage up to now."""
        tokens = len(self.produced)
        thought = sum(delta.kind == "reasoning" for delta in self.produced)
        return {
            "prompt_tokens": self.prompt_tokens,
            "total_tokens": self.prompt_tokens + tokens,
            "completion_tokens": tokens,
            "prompt_tokens_details": None,
            "completion_tokens_details": {"reasoning_tokens": thought} if reasoning else None,
        }


def frame(value: Json, event: str | None = None) -> bytes:
    """Return one server-sent event."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


def item_key(delta: Delta) -> tuple[str, int]:
    """Return which item or block a piece belongs to: its kind, and the number of the call."""
    kinds = {"reasoning": "reasoning", "content": "message"}
    return kinds.get(delta.kind, "function_call"), delta.index


def _without_nulls(value: Json) -> Json:
    return {key: item for key, item in value.items() if item is not None}


# Chat completions


def chat_whole(generation: Generation) -> Json:
    """Return a ``chat.completion``."""
    for _ in generation.deltas():
        pass
    message: Json = {
        "role": "assistant",
        "content": generation.text("content") or None,
        **dict.fromkeys(("refusal", "annotations", "audio", "function_call")),
    }
    if calls := generation.calls():
        message["tool_calls"] = [
            {
                "id": new_id("chatcmpl-tool-"),
                "type": "function",
                "function": {"name": name, "arguments": arguments},
            }
            for name, arguments in calls
        ]
    message["reasoning"] = generation.text("reasoning") or None
    return {
        **_whole(generation, "chatcmpl-", "chat.completion", {"message": message}),
        **dict.fromkeys(("prompt_logprobs", "prompt_token_ids", "prompt_text")),
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics")),
    }


def _whole(generation: Generation, prefix: str, kind: str, said: Json) -> Json:
    choice = {
        "index": 0,
        **said,
        "logprobs": None,
        "finish_reason": generation.finish_reason(),
        **dict.fromkeys(("stop_reason", "token_ids", "routed_experts")),
    }
    return {
        "id": new_id(prefix),
        "object": kind,
        "created": generation.created,
        "model": generation.model,
        "choices": [choice],
        "service_tier": None,
        "system_fingerprint": "vllm-fake",
        "usage": generation.usage(reasoning=kind == "chat.completion"),
    }


def chat_stream(generation: Generation, options: Json) -> Iterator[bytes]:
    """Yield the chunks of a chat completion: the role alone, pieces, the end, usage, DONE."""
    base = {
        "id": new_id("chatcmpl-"),
        "object": "chat.completion.chunk",
        "created": generation.created,
        "model": generation.model,
    }
    include_usage = bool(options.get("include_usage"))
    continuous = include_usage and bool(options.get("continuous_usage_stats"))

    def chunk(delta: Json, finish: str | None = None, **more: Any) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        if delta.get("role") is None:
            choice |= {"stop_reason": None} if finish else {}
            choice["token_ids"] = None
        if continuous:
            more = {"usage": _without_nulls(generation.usage())} | more
        if finish and not include_usage:
            more["system_fingerprint"] = "vllm-fake"
        return frame(base | {"choices": [choice]} | more)

    yield chunk({"role": "assistant", "content": ""}, prompt_token_ids=None, prompt_text=None)
    for delta in generation.deltas():
        yield chunk(_chat_delta(delta), generation.cut_here())
    if not generation.cut_here():
        yield chunk({}, generation.finish_reason())
    if include_usage:
        usage = _without_nulls(generation.usage())
        yield frame(base | {"choices": [], "usage": usage, "system_fingerprint": "vllm-fake"})
    yield DONE


def _chat_delta(delta: Delta) -> Json:
    if delta.kind == "call":
        head = {"id": new_id("chatcmpl-tool-"), "type": "function", "index": delta.index}
        return {"tool_calls": [head | {"function": {"name": delta.text}}]}
    if delta.kind == "arguments":
        return {"tool_calls": [{"index": delta.index, "function": {"arguments": delta.text}}]}
    return {delta.kind: delta.text}


# Completions


def completion_whole(generation: Generation) -> Json:
    """Return a ``text_completion``."""
    for _ in generation.deltas():
        pass
    said = {"text": generation.text("content")}
    whole = _whole(generation, "cmpl-", "text_completion", said)
    whole["choices"][0] |= dict.fromkeys(("prompt_logprobs", "prompt_token_ids"))
    return whole | dict.fromkeys(("kv_transfer_params", "ec_transfer_params", "metrics"))


def completion_stream(generation: Generation, options: Json) -> Iterator[bytes]:
    """Yield the chunks of a completion: the last piece carries the finish reason."""
    base = {
        "id": new_id("cmpl-"),
        "object": "text_completion",
        "created": generation.created,
        "model": generation.model,
    }

    def chunk(text: str, finish: str | None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": finish}
        nulls = dict.fromkeys(("stop_reason", "prompt_token_ids", "token_ids"))
        return frame(base | {"choices": [choice | nulls]})

    for delta in generation.deltas():
        yield chunk(delta.text, generation.cut_here())
    if not generation.cut_here():
        yield chunk("", generation.finish_reason())
    if options.get("include_usage"):
        usage = _without_nulls(generation.usage(reasoning=False))
        yield frame(base | {"choices": [], "usage": usage})
    yield DONE


# Messages

STOP_REASONS = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


def messages_whole(generation: Generation) -> Json:
    """Return an Anthropic ``message``."""
    for _ in generation.deltas():
        pass
    content: list[Json] = []
    if thought := generation.text("reasoning"):
        content.append({"type": "thinking", "thinking": thought, "signature": new_id("")})
    if text := generation.text("content"):
        content.append({"type": "text", "text": text})
    for name, arguments in generation.calls():
        call: Json = {"type": "tool_use", "id": new_id("chatcmpl-tool-"), "name": name}
        content.append(call | {"input": json.loads(arguments)})
    return _without_nulls(
        {
            "id": new_id("chatcmpl-"),
            "type": "message",
            "role": "assistant",
            "content": content,
            "model": generation.model,
            "stop_reason": STOP_REASONS.get(generation.finish_reason()),
            "usage": _anthropic_usage(generation),
        }
    )


def _anthropic_usage(generation: Generation) -> Json:
    return {"input_tokens": generation.prompt_tokens, "output_tokens": len(generation.produced)}


BLOCKS: dict[str, tuple[Json, str, str]] = {
    "reasoning": ({"type": "thinking", "thinking": ""}, "thinking_delta", "thinking"),
    "message": ({"type": "text", "text": ""}, "text_delta", "text"),
    "function_call": ({"type": "tool_use"}, "input_json_delta", "partial_json"),
}


def messages_stream(generation: Generation) -> Iterator[bytes]:
    """Yield the events of an Anthropic message."""

    def event(kind: str, **fields: Any) -> bytes:
        return frame({"type": kind, **fields}, event=kind)

    message: Json = {"id": new_id("chatcmpl-"), "type": "message", "role": "assistant"}
    message |= {
        "content": [],
        "model": generation.model,
        "stop_reason": None,
        "stop_sequence": None,
    }
    yield event("message_start", message=message | {"usage": _anthropic_usage(generation)})
    for index, ((kind, _), run) in enumerate(groupby(generation.deltas(), item_key)):
        block, delta_type, key = BLOCKS[kind]
        if kind == "function_call":
            name = next(run).text
            block = {"type": "tool_use", "id": new_id("chatcmpl-tool-"), "name": name, "input": {}}
        yield event("content_block_start", index=index, content_block=block)
        for delta in run:
            said = {"type": delta_type, key: delta.text}
            yield event("content_block_delta", index=index, delta=said)
        if kind == "reasoning":
            signed = {"type": "signature_delta", "signature": new_id("")}
            yield event("content_block_delta", index=index, delta=signed)
        yield event("content_block_stop", index=index)
    reason = STOP_REASONS.get(generation.finish_reason())
    ended = {"stop_reason": reason, "stop_sequence": None}
    yield event("message_delta", delta=ended, usage=_anthropic_usage(generation))
    yield event("message_stop")
