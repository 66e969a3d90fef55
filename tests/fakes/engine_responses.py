"""The shapes of vLLM 0.32's Responses API, for the fake engine. Pure rendering."""

from collections.abc import Callable, Iterator
from itertools import groupby
from typing import Any

from tests.fakes.engine_mind import Delta
from tests.fakes.engine_wire import Generation, frame, item_key, new_id

Json = dict[str, Any]


def responses_whole(generation: Generation, body: Json) -> Json:
    """Return a ``response``."""
    for _ in generation.deltas():
        pass
    items = [_item(kind, new_id(prefix), text) for kind, prefix, text in _items(generation)]
    for item in items:
        if item["type"] == "reasoning":
            item["status"] = None  # so it is in vLLM, where a stream says completed
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
    call = {"name": name, "call_id": f"chatcmpl-tool-{item_id[3:]}", "arguments": text}
    return head | call | dict.fromkeys(("async", "caller", "namespace"))


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
        "tool_choice": body.get("tool_choice", "auto" if body.get("tools") else "none"),
        "tools": body.get("tools", []),
        "top_p": body.get("top_p", 1.0),
        "background": False,
        "max_output_tokens": body.get("max_output_tokens", 4096),
        **dict.fromkeys(("max_tool_calls", "previous_response_id", "prompt", "reasoning")),
        "service_tier": "auto",
        "status": finished if items is not None else "in_progress",
        **dict.fromkeys(("text", "top_logprobs")),
        "truncation": "disabled",
        "usage": usage,
        "user": None,
        **dict.fromkeys(("presence_penalty", "frequency_penalty"), 0.0),
        **dict.fromkeys(("kv_transfer_params", "ec_transfer_params")),
        **dict.fromkeys(("input_messages", "output_messages")),
    }


def responses_stream(generation: Generation, body: Json) -> Iterator[bytes]:
    """Yield the events of a response, numbered from 0."""
    response_id, events = new_id("resp_"), iter(range(1 << 62))

    def event(kind: str, **fields: Any) -> bytes:
        return frame({**fields, "sequence_number": next(events), "type": kind}, event=kind)

    started = _response(generation, body, response_id, None)
    yield event("response.created", response=started)
    yield event("response.in_progress", response=started)
    done: list[Json] = []
    for (kind, _), run in groupby(generation.deltas(), item_key):
        yield from _item_events(event, kind, run, done)
    yield event("response.completed", response=_response(generation, body, response_id, done))


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
