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
    return f"{prefix}{uuid.uuid4().hex}"


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


def _frame(value: Json, event: str | None = None) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    head = f"event: {event}\n" if event else ""
    return f"{head}data: {text}\n\n".encode()


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
        usage = {"usage": _without_nulls(generation.usage())} if continuous else {}
        return _frame(base | {"choices": [choice]} | usage | more)

    yield chunk({"role": "assistant", "content": ""}, prompt_token_ids=None, prompt_text=None)
    for delta in generation.deltas():
        yield chunk(_chat_delta(delta))
    fingerprint = {} if include_usage else {"system_fingerprint": "vllm-fake"}
    yield chunk({}, generation.finish_reason(), **fingerprint)
    if include_usage:
        usage = _without_nulls(generation.usage())
        yield _frame(base | {"choices": [], "usage": usage, "system_fingerprint": "vllm-fake"})
    yield DONE


def _chat_delta(delta: Delta) -> Json:
    if delta.kind == "call":
        head = {"id": new_id("chatcmpl-tool-"), "type": "function", "index": delta.index}
        return {"tool_calls": [head | {"function": {"name": delta.text, "arguments": ""}}]}
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
        return _frame(base | {"choices": [{**choice, "stop_reason": None, "token_ids": None}]})

    for delta in generation.deltas():
        yield chunk(delta.text, None)
    yield chunk("", generation.finish_reason())
    if options.get("include_usage"):
        usage = _without_nulls(generation.usage(reasoning=False))
        yield _frame(base | {"choices": [], "usage": usage})
    yield DONE


# Responses


def responses_whole(generation: Generation, body: Json) -> Json:
    """Return a ``response``."""
    for _ in generation.deltas():
        pass
    items = [_item(kind, new_id(prefix), text) for kind, prefix, text in _items(generation)]
    return _response(generation, body, new_id("resp_"), items)


def _items(generation: Generation) -> Iterator[tuple[str, str, str]]:
    if thought := generation.text("reasoning"):
        yield "reasoning", "rs_", thought
    if text := generation.text("content"):
        yield "message", "msg_", text
    for name, arguments in generation.calls():
        yield f"function_call {name}", "fc_", arguments


def _item(kind: str, item_id: str, text: str, status: str = "completed") -> Json:
    kind, _, name = kind.partition(" ")
    head: Json = {"id": item_id, "type": kind, "status": status}
    part = [] if status == "in_progress" else [_part(kind, text)]
    if kind == "reasoning":
        return head | {"summary": [], "content": part or None, "encrypted_content": None}
    if kind == "message":
        return head | {"role": "assistant", "content": part, "phase": None}
    call = {"name": name, "call_id": f"call_{item_id[3:]}", "arguments": text}
    return head | call | {"namespace": None}


def _part(kind: str, text: str) -> Json:
    if kind == "reasoning":
        return {"text": text, "type": "reasoning_text"}
    return {"annotations": [], "text": text, "type": "output_text", "logprobs": None}


def _response(
    generation: Generation, body: Json, response_id: str, items: list[Json] | None
) -> Json:
    finished = {"length": "incomplete"}.get(generation.finish_reason(), "completed")
    usage = None
    if items is not None:
        counts = generation.usage()
        usage = {
            "input_tokens": counts["prompt_tokens"],
            "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
            "output_tokens": counts["completion_tokens"],
            "output_tokens_details": counts["completion_tokens_details"],
            "total_tokens": counts["total_tokens"],
        }
    cut = {"reason": "max_output_tokens"} if finished == "incomplete" else None
    return {
        "id": response_id,
        "created_at": generation.created,
        "incomplete_details": cut if items is not None else None,
        "instructions": body.get("instructions"),
        "metadata": body.get("metadata"),
        "model": generation.model,
        "object": "response",
        "output": items or [],
        "parallel_tool_calls": body.get("parallel_tool_calls", True),
        "temperature": body.get("temperature", 1.0),
        "tool_choice": body.get("tool_choice", "auto"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "background": False,
        "max_output_tokens": body.get("max_output_tokens", 4096),
        "service_tier": "auto",
        "status": finished if items is not None else "in_progress",
        "truncation": "disabled",
        "usage": usage,
    }


def responses_stream(generation: Generation, body: Json) -> Iterator[bytes]:
    """Yield the events of a response, numbered from 0."""
    response_id, events = new_id("resp_"), iter(range(1 << 62))

    def event(kind: str, **fields: Any) -> bytes:
        return _frame({**fields, "sequence_number": next(events), "type": kind}, event=kind)

    started = _response(generation, body, response_id, None)
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    done: list[Json] = []
    for (kind, _), run in groupby(generation.deltas(), _item_key):
        yield from _item_events(event, kind, run, done)
    yield event("response.completed", response=_response(generation, body, response_id, done))


def _item_key(delta: Delta) -> tuple[str, int]:
    kinds = {"reasoning": "reasoning", "content": "message"}
    return kinds.get(delta.kind, "function_call"), delta.index


def _item_events(
    event: Callable[..., bytes], kind: str, run: Iterator[Delta], done: list[Json]
) -> Iterator[bytes]:
    names = {"reasoning": "reasoning_text", "message": "output_text"}
    item_id = new_id({"reasoning": "rs_", "message": "msg_"}.get(kind, "fc_"))
    name, text, index = names.get(kind, "function_call_arguments"), "", len(done)
    where = {"item_id": item_id, "output_index": index}
    parted = where | {"content_index": 0} if kind in names else where
    if kind == "function_call":
        kind += f" {next(run).text}"
    item = _item(kind, item_id, "", status="in_progress")
    yield event("response.output_item.added", item=item, output_index=index)
    if parted is not where:
        yield event("response.content_part.added", **parted, part=_part(kind, ""))
    more: Json = {"logprobs": []} if kind == "message" else {}
    for delta in run:
        text += delta.text
        yield event(f"response.{name}.delta", **parted, delta=delta.text, **more)
    if parted is where:
        said = {"arguments": text, "name": kind.partition(" ")[2]}
        yield event(f"response.{name}.done", **where, **said)
    else:
        yield event(f"response.{name}.done", **parted, text=text, **more)
        yield event("response.content_part.done", **parted, part=_part(kind, text))
    done.append(_item(kind, item_id, text))
    yield event("response.output_item.done", item=done[-1], output_index=index)


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
        return _frame({"type": kind, **fields}, event=kind)

    message: Json = {"id": new_id("chatcmpl-"), "type": "message", "role": "assistant"}
    message |= {
        "content": [],
        "model": generation.model,
        "stop_reason": None,
        "stop_sequence": None,
    }
    yield event("message_start", message=message | {"usage": _anthropic_usage(generation)})
    for index, ((kind, _), run) in enumerate(groupby(generation.deltas(), _item_key)):
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
