"""What a body costs, in microseconds of CPU: run me by hand, ``python -m tests.bench.body_cost``.

Each line is one shape and size, the least of some rounds. *new*: a body never seen, by its longest
step, which is how long others wait, and by the sum of its steps. *whole*: the same, where it cannot
be cut into pieces. *again*: the same conversation, one turn later. *full*: unpacked, as one is
that must be mended.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from appliance import conversation, wirebody
from appliance.conversation import Reading
from appliance.media import MediaPolicy
from appliance.openai import ROUTES
from appliance.prompt import PromptPolicy
from appliance.seen import Beginning, Seen

TEXT = (Path(wirebody.__file__).parent / "prompts" / "path_preservation.txt").read_text()
READING = Reading(ROUTES[0], PromptPolicy(TEXT), MediaPolicy())
SOURCE = "".join(p.read_text() for p in sorted(Path(wirebody.__file__).parent.glob("*.py")))
ROUNDS = 15
SIZES = (200_000, 1_000_000, 5_000_000)


def shapes() -> Iterator[tuple[str, Callable[[int], str]]]:
    """Yield what the texts of a conversation are like, and how to get one of some length."""
    words = "the quick brown fox jumps over the lazy dog and then goes home again "
    yield "prose", lambda n: (words * (n // len(words) + 1))[:n]
    yield "source code", lambda n: (SOURCE * (n // len(SOURCE) + 1))[:n]
    yield "Japanese", lambda n: ("小さな箱で動くモデルに道を尋ねる。" * (n // 17 + 1))[: n // 3]


def body(text: Callable[[int], str], size: int) -> bytes:
    """Return an agent's body of about ``size`` bytes, with tools behind its messages."""
    parameters = {"type": "object", "properties": {"filePath": {"type": "string"}}}
    tools = [
        {"type": "function", "function": {"name": f"tool{n}", "parameters": parameters}}
        | {"description": text(1300)}
        for n in range(25)
    ]
    said: list[dict[str, Any]] = [{"role": "system", "content": text(13_600)}]
    for n in range((size - 50_000) // 6000):
        call = {"name": "read", "arguments": json.dumps({"filePath": f"/a/{n}"})}
        calls = [{"id": f"call_{n}", "type": "function", "function": call}]
        told = {"role": "assistant", "content": text(300), "reasoning_content": text(300)}
        said.append(told | {"tool_calls": calls})
        said.append({"role": "tool", "tool_call_id": f"call_{n}", "content": text(5200)})
    fields = {"model": "Nikola", "max_tokens": 32000, "messages": said, "tools": tools}
    return json.dumps(fields | {"stream": True}, ensure_ascii=False, separators=(",", ":")).encode()


def timed(steps: list[float], step: Callable[[], Any]) -> Any:
    """Run one step; note its microseconds."""
    before = time.thread_time_ns()
    result = step()
    steps.append((time.thread_time_ns() - before) / 1000)
    return result


def cut(data: bytes) -> tuple[list[float], Beginning]:
    """Return each step's time of a body never seen, and how it begins."""
    steps: list[float] = []
    pieces = conversation.by_pieces(data, READING)
    ended: list[Any] = []

    def step() -> bool:
        try:
            next(pieces)
        except StopIteration as end:
            ended.append(end.value)
        return bool(ended)

    while not timed(steps, step):
        pass
    if ended[0] is None:
        raise SystemExit("the body could not be cut")
    timed(steps, ended[0][0].encode)
    return steps, ended[0][1]


def whole(data: bytes) -> tuple[list[float], Beginning | None]:
    """Return each step's time of a body that is not cut, and how it begins."""
    steps: list[float] = []
    text = wirebody.check_text(data)
    while timed(steps, lambda: next(text, True)) is None:
        pass
    fields = timed(steps, lambda: wirebody.parse_fields(data))
    draft, start = timed(steps, lambda: conversation.read(fields, READING))
    raw = fields["messages"]
    found = timed(steps, lambda: conversation.beginning(data, raw, start, READING))
    timed(steps, draft.encode)
    return steps, found


def again(data: bytes, seen: Seen) -> float:
    """Return the time of a body whose beginning is known."""
    steps: list[float] = []

    def go_on() -> bytes:
        known = seen.find(READING.kind, data)
        went = None if known is None else conversation.go_on(data, known, READING)
        if went is None:
            raise SystemExit("the beginning was not known")
        return went[0].encode()

    timed(steps, go_on)
    return steps[0]


def full(data: bytes) -> float:
    """Return the time of a body that must be mended."""
    steps: list[float] = []
    odd = data.replace(b'"id":"call_0"', b'"id":7')
    fields = wirebody.parse_fields(odd)
    timed(steps, lambda: conversation.read(fields, READING)[0].encode())
    return steps[0]


def main() -> None:
    """Print the table."""
    heads = ("bytes", "new: step", "sum", "whole: step", "sum", "again", "full")
    print(f"{'':12}" + "".join(f"{head:>12}" for head in heads))
    for name, text in shapes():
        for size in SIZES:
            data = body(text, size)
            more = b',{"role":"user","content":"%b"}],"tools":' % (b"go on " * 300)
            turn = data.replace(b'],"tools":', more, 1)
            figures: list[float] = [len(data)]
            seen = Seen()
            for way in (cut, whole):
                runs = [way(data) for _ in range(ROUNDS)]
                figures += [min(max(steps) for steps, _ in runs), min(sum(s) for s, _ in runs)]
                if runs[0][1] is not None:
                    seen.keep(runs[0][1])
            figures.append(min(again(turn, seen) for _ in range(ROUNDS)))
            figures.append(min(full(data) for _ in range(5)))
            print(f"{name:12}" + "".join(f"{figure:12.0f}" for figure in figures))


if __name__ == "__main__":
    main()
