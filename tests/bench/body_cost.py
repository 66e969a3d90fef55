"""What a body costs, in microseconds of CPU: run me by hand, ``python -m tests.bench.body_cost``.

Each line is one shape and size. *new*: a body never seen, by its longest step, which is how long
others wait (and by the sum of its steps). *again*: the same conversation, one turn later. *full*:
unpacked whole, as a conversation is that must be mended.
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


def new(data: bytes) -> tuple[list[float], Beginning | None]:
    """Return each step's time of a body never seen, and how it begins."""
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
    print(f"{'':12} {'bytes':>9} {'new: step':>10} {'(sum)':>8} {'again':>8} {'full':>8}")
    for name, text in shapes():
        for size in SIZES:
            data = body(text, size)
            turn = data.replace(
                b'],"tools":', b',{"role":"user","content":"' + b"go on " * 300 + b'"}],"tools":', 1
            )
            runs = [new(data) for _ in range(ROUNDS)]
            seen = Seen()
            if runs[0][1] is not None:
                seen.keep(runs[0][1])
            step = min(max(steps) for steps, _ in runs)
            total = min(sum(steps) for steps, _ in runs)
            known = min(again(turn, seen) for _ in range(ROUNDS))
            whole = min(full(data) for _ in range(5))
            figures = f"{step:10.0f} {total:8.0f} {known:8.0f} {whole:8.0f}"
            print(f"{name:12} {len(data):9} {figures}")


if __name__ == "__main__":
    main()
