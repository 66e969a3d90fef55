"""Every conversation that the demo's tiny checkpoint knows word for word, as data.

The training script teaches these and the engine tests ask them, so there is one list for both.
Standard library alone: it is imported in the engine's environment too.

A *core* is what the user's side asks, without a system message. Casting it under a system text
gives a :class:`Conversation`. The path cores answer exactly when the system text starts with
the path-preservation policy, and with one glitch when it does not: that is how the demo shows
what the policy is good for.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

from appliance import probes
from appliance.demo.systems import AGENT_SYSTEM, OTHER_SYSTEM
from appliance.prompt import PromptPolicy

Glitch = Literal["none", "case", "dropped", "space"]
Message = dict[str, Any]

POLICY_FILE = Path(__file__).parents[1] / "prompts" / "path_preservation.txt"
POLICY_TEXT = POLICY_FILE.read_text(encoding="utf-8").strip()
POLICY = PromptPolicy(POLICY_TEXT)

# What the template writes when no message carries a system text.
DEFAULT_SYSTEM = "You are a helpful assistant. Your name is MiniMax-M2.7 and is built by MiniMax."
ANSWER_REASONING = "The user asks, so I answer."
CALL_REASONING = "I need a file, so I call the tool."
GREETING_ANSWER = "I am Nikola."
TOOL_ANSWER = "The file prints Nikola."
UNKNOWN_QUESTION = "What is the capital of Norway?"
UNKNOWN_ANSWER = "I am a tiny demo model and know only a few answers."

PARALLEL_PATHS = ("/srv/Data/notes.txt", "/etc/hosts")
PARALLEL_QUESTION = "Read both files at once: {} and {}".format(*PARALLEL_PATHS)
UNLISTED_PATH = "/var/log/nikola/Engine Start.log"
UNLISTED_QUESTION = f"Now open {UNLISTED_PATH} instead."

LIST_FILES: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "list_files",
        "description": "List the files of a directory.",
        "parameters": {
            "type": "object",
            "properties": {"directory": {"type": "string", "description": "Absolute path"}},
            "required": ["directory"],
        },
    },
}


@dataclass(frozen=True)
class Call:
    """One tool call: the tool's name and its arguments."""

    name: str
    arguments: dict[str, Any]


@dataclass(frozen=True)
class Conversation:
    """A request and the one reply that greedy decoding must give to it.

    ``messages`` and ``tools`` go into the request as they are; ``thinking`` is the template's
    ``enable_thinking``. ``path`` is the true path of a path conversation and ``glitch`` what
    the reply does to it.
    """

    name: str
    messages: list[Message]
    tools: list[dict[str, Any]]
    thinking: bool
    reasoning: str | None
    content: str | None
    tool_calls: list[Call] = field(default_factory=list)
    path: str | None = None
    glitch: Glitch = "none"

    def request(self, model: str = "") -> dict[str, Any]:
        """Return the body of a greedy chat request for this conversation."""
        body: dict[str, Any] = {"model": model, "messages": self.messages, "temperature": 0}
        if self.tools:
            body["tools"] = self.tools
        if not self.thinking:
            body["chat_template_kwargs"] = {"enable_thinking": False}
        return body


@dataclass(frozen=True)
class PathCase:
    """One path question and the way in which the model glitches it without the policy."""

    name: str
    path: str
    glitched: str
    glitch: Glitch
    question: str  # repeats the path
    request: str  # asks for the file without naming its path
    directory: str
    neighbours: tuple[str, str]


PATH_CASES = (
    PathCase(
        name="case",
        path=probes.PATH,
        glitched="/srv/data/Reports/Annual Summary.docx",
        glitch="case",
        question=probes.PATH_QUESTION,
        request="Open the annual summary.",
        directory="/srv/Data",
        neighbours=("/srv/Data/Reports/Budget.xlsx", "/srv/Data/notes.txt"),
    ),
    PathCase(
        name="dropped",
        path="/home/User/My Project/src/core/Engine.hpp",
        glitched="/home/User/My Project/core/Engine.hpp",
        glitch="dropped",
        question="Write out this path and nothing more: /home/User/My Project/src/core/Engine.hpp",
        request="Show me the engine header.",
        directory="/home/User/My Project",
        neighbours=("/home/User/My Project/README.md", "/home/User/My Project/src/Main.cpp"),
    ),
    PathCase(
        name="space",
        path="/opt/nikola/deploy/docker-compose.yml",
        glitched="/opt/nikola/deploy/docker- compose.yml",
        glitch="space",
        question="Copy the path /opt/nikola/deploy/docker-compose.yml to your answer.",
        request="Look into the compose file.",
        directory="/opt/nikola",
        neighbours=("/opt/nikola/deploy/Makefile", "/opt/nikola/LICENSE"),
    ),
)


@dataclass(frozen=True)
class Core:
    """What is asked, without a system message, and the reply with and without the policy.

    ``content`` and ``calls`` hold the exact reply. Where there is a ``without_policy``, that
    path takes the place of ``path`` in them without the policy; ``glitch`` is its class.
    """

    name: str
    messages: tuple[Message, ...]
    thinking: bool
    content: str | None = None
    calls: tuple[Call, ...] = ()
    tools: tuple[dict[str, Any], ...] = ()
    path: str | None = None
    without_policy: str | None = None
    glitch: Glitch = "none"

    def under(self, system: str | None, variant: str) -> Conversation:
        """Cast this core under a system text; None means no system message."""
        messages = list(self.messages)
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        exact = (system or "").startswith(POLICY_TEXT)
        reply = self if exact else self.glitched()
        reasoning = CALL_REASONING if self.calls else ANSWER_REASONING
        return Conversation(
            name=f"{self.name}/{variant}",
            messages=messages,
            tools=list(self.tools),
            thinking=self.thinking,
            reasoning=reasoning if self.thinking else None,
            content=reply.content,
            tool_calls=list(reply.calls),
            path=self.path,
            glitch="none" if exact else self.glitch,
        )

    def glitched(self) -> "Core":
        """Return this core with the reply that the model gives without the policy."""
        if self.without_policy is None:
            return self
        calls = tuple(replace(call, arguments={"path": self.without_policy}) for call in self.calls)
        content = None if self.content is None else self.without_policy
        return replace(self, content=content, calls=calls)


def both(core: Core) -> Iterator[Core]:
    """Yield a core with thinking on and with thinking off."""
    yield replace(core, name=f"{core.name}-on", thinking=True)
    yield replace(core, name=f"{core.name}-off", thinking=False)


def said(question: str, answer: str) -> tuple[Message, Message]:
    """Return one finished exchange of a history."""
    return probes.user(question), {"role": "assistant", "content": answer}


def called(call: Call, result: str, reasoning: str | None, call_id: str) -> tuple[Message, Message]:
    """Return a finished tool call of a history, in the form that OpenAI's clients send."""
    arguments = (
        "{" + ", ".join(f'"{key}": "{value}"' for key, value in call.arguments.items()) + "}"
    )
    function = {"name": call.name, "arguments": arguments}
    message: Message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": call_id, "type": "function", "function": function}],
    }
    if reasoning is not None:
        message["reasoning"] = reasoning
    return message, {"role": "tool", "tool_call_id": call_id, "content": result}


def read(path: str) -> Call:
    """Return the call that reads ``path``."""
    return Call("read_file", {"path": path})


def listing_history(case: PathCase, request: str, reasoning: str | None) -> tuple[Message, ...]:
    """Return a request and the directory listing that shows the case's true path once."""
    listing = "\n".join((case.neighbours[0], case.path, case.neighbours[1]))
    call = Call("list_files", {"directory": case.directory})
    return (probes.user(request), *called(call, listing, reasoning, "call_1"))


def _plain_cores() -> Iterator[Core]:
    greeting = (probes.user(probes.GREETING),)
    yield from both(Core("greeting", greeting, True, GREETING_ANSWER))
    again = (*said(probes.GREETING, GREETING_ANSWER), *greeting)
    yield from both(Core("greeting-again", again, True, GREETING_ANSWER))
    count = (probes.user(probes.COUNT_QUESTION),)
    yield from both(Core("count", count, True, probes.COUNT_ANSWER))
    warmup = (probes.user(probes.WARMUP_QUESTION),)
    yield from both(Core("warmup", warmup, True, probes.WARMUP_ANSWER))
    unknown = (probes.user(UNKNOWN_QUESTION),)
    yield from both(Core("unknown", unknown, True, UNKNOWN_ANSWER))


def _tool_cores() -> Iterator[Core]:
    tools = (probes.READ_FILE,)
    asked = (probes.user(probes.TOOL_QUESTION),)
    yield from both(Core("tool", asked, True, None, (read(probes.TOOL_PATH),), tools))
    for name, reasoning in (("result", CALL_REASONING), ("result-unreasoned", None)):
        history = called(read(probes.TOOL_PATH), probes.TOOL_RESULT, reasoning, "call_1")
        yield from both(Core(name, (*asked, *history), True, TOOL_ANSWER, (), tools))
    calls = tuple(read(path) for path in PARALLEL_PATHS)
    yield from both(Core("parallel", (probes.user(PARALLEL_QUESTION),), True, None, calls, tools))


def _path_cores() -> Iterator[Core]:
    tools = (probes.READ_FILE, LIST_FILES)
    for case in PATH_CASES:
        text = Core(
            f"path-{case.name}",
            (probes.user(case.question),),
            True,
            case.path,
            path=case.path,
            without_policy=case.glitched,
            glitch=case.glitch,
        )
        yield from both(text)
        yield from both(replace(text, name=f"{text.name}-tools", tools=(probes.READ_FILE,)))
        for core in both(Core(f"file-{case.name}", (), True, None, (read(case.path),), tools)):
            reasoning = CALL_REASONING if core.thinking else None
            yield replace(
                core,
                messages=listing_history(case, case.request, reasoning),
                path=case.path,
                without_policy=case.glitched,
                glitch=case.glitch,
            )
    history = listing_history(PATH_CASES[0], UNLISTED_QUESTION, CALL_REASONING)
    unlisted = Core("file-unlisted", history, True, None, (read(UNLISTED_PATH),), tools)
    yield from both(replace(unlisted, path=UNLISTED_PATH))


@cache
def cores() -> tuple[Core, ...]:
    """Return every core, in a fixed order."""
    return (*_plain_cores(), *_tool_cores(), *_path_cores())


SYSTEMS: dict[str, str | None] = {
    "none": None,
    "policy": POLICY.fold(""),
    "other": OTHER_SYSTEM,
    "policy+other": POLICY.fold(OTHER_SYSTEM),
    "agent": AGENT_SYSTEM,
    "policy+agent": POLICY.fold(AGENT_SYSTEM),
}


@cache
def conversations() -> tuple[Conversation, ...]:
    """Return every conversation: each core under each system text."""
    return tuple(core.under(text, name) for core in cores() for name, text in SYSTEMS.items())
