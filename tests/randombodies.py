"""Random JSON bodies, written in every way that JSON allows: for laws that want thousands."""

import json
from random import Random
from typing import Any

NAMES = ("messages", "model", "stream", "mess\nages", 'mes"sages', "é", "", "m", "messages ")
TEXTS = ("", "a", "messages", '"messages":[', "\\", '\\"', "]}", "{", "é日😀", "\n\t", "a\\u0041")
LONG_TEXT = 'a "long" one, é日😀 in it,\n\\and plain words, é, of which there are enough: ' * 3
ROLES = ("system", "developer", "user", "assistant", "tool")


def seeded(seed: int) -> Random:
    """Return a source of bodies that are the same in each run."""
    return Random(seed)  # noqa: S311  nothing here is a secret


def spelled(random: Random, text: str) -> str:
    """Return a JSON string that means ``text``, some of its letters escaped."""
    plain = json.dumps(text, ensure_ascii=random.random() < 0.5)
    if random.random() < 0.7 or not text:
        return plain
    at = random.randrange(len(text))
    letter = text[at]
    if ord(letter) > 0xFFFF:
        return plain
    head, tail = json.dumps(text[:at])[1:-1], json.dumps(text[at + 1 :])[1:-1]
    return f'"{head}\\u{ord(letter):04x}{tail}"'


def space(random: Random) -> str:
    """Return what may stand between two marks, mostly nothing."""
    return random.choice(("", "", "", "", " ", "\n", " \t\r\n"))


def value(random: Random, depth: int = 3) -> str:
    """Return the text of a random value."""
    kind = random.randrange(7 if depth > 0 else 4)
    if kind == 0:
        return random.choice(("null", "true", "false"))
    if kind == 1:
        return random.choice(("0", "-1", "12", "1.5e3", "-0.25"))
    if kind in (2, 3):
        return spelled(random, random.choice(TEXTS))
    inner = [value(random, depth - 1) for _ in range(random.randrange(3))]
    if kind == 4:
        return listed(random, inner)
    return members(random, [(random.choice(NAMES), text) for text in inner])


def listed(random: Random, inner: list[str]) -> str:
    """Return the text of a list."""
    comma = f"{space(random)},{space(random)}"
    return f"[{space(random)}{comma.join(inner)}{space(random)}]"


def members(random: Random, inner: list[tuple[str, str]]) -> str:
    """Return the text of an object; a name may stand in it twice."""
    told = [f"{spelled(random, name)}{space(random)}:{space(random)}{text}" for name, text in inner]
    comma = f"{space(random)},{space(random)}"
    return "{" + space(random) + comma.join(told) + space(random) + "}"


def body(random: Random) -> bytes:
    """Return a body: an object of random members, ``messages`` often among them."""
    inner = [(random.choice(NAMES), value(random)) for _ in range(random.randrange(5))]
    return (space(random) + members(random, inner) + space(random)).encode()


def message(random: Random) -> dict[str, Any]:
    """Return a message that a client may send, of a shape that passes as it is."""
    role = random.choice(ROLES)
    texts = (*TEXTS, LONG_TEXT, LONG_TEXT)
    said: dict[str, Any] = {"role": role, "content": random.choice(texts)}
    if random.random() < 0.3:
        said["content"] = [{"type": "text", "text": random.choice(texts)} for _ in range(2)]
    if role == "tool":
        said["tool_call_id"] = "call_1"
    if role == "assistant" and random.random() < 0.5:
        function = {"name": "read", "arguments": "{}"}
        said["tool_calls"] = [{"id": "call_1", "type": "function", "function": function}]
        said["reasoning_content"] = random.choice(TEXTS)
    return said


def rendered(random: Random, thing: Any) -> str:
    """Return one of the texts of a value."""
    if isinstance(thing, dict):
        return members(random, [(name, rendered(random, inner)) for name, inner in thing.items()])
    if isinstance(thing, list):
        return listed(random, [rendered(random, inner) for inner in thing])
    return spelled(random, thing) if isinstance(thing, str) else json.dumps(thing)
