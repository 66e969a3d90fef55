"""Turns conversations into token sequences and batches for the training script.

Runs in the engine's environment only (torch, tokenizers, jinja2).
"""

import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance import probes
from appliance.demo import conversations as known
from appliance.demo.conversations import Conversation, Core
from appliance.demo.model import Batch
from appliance.demo.systems import random_salad, random_system
from appliance.demo.tokenizer import END


@dataclass(frozen=True)
class Lesson:
    """One conversation as ids: the prompt, and the reply that has to follow it."""

    name: str
    prompt: list[int]
    reply: list[int]

    def __len__(self) -> int:
        return len(self.prompt) + len(self.reply) - 1  # the last token is never an input


class Renderer:
    """Renders conversations by the chat template, as the engine does."""

    def __init__(self, template: str) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise
        self._template = environment.from_string(template)

    def prompt(self, conversation: Conversation) -> str:
        """Render the prompt up to where the reply begins."""
        return self._template.render(
            messages=[_with_objects(message) for message in conversation.messages],
            tools=conversation.tools or None,
            add_generation_prompt=True,
            enable_thinking=conversation.thinking,
        )


def _to_json(value: Any, ensure_ascii: bool = False) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii)


def _raise(message: str) -> None:
    raise ValueError(f"the chat template refused a conversation: {message}")


def _with_objects(message: dict[str, Any]) -> dict[str, Any]:
    """Parse the calls' arguments, as the engine does before it renders."""
    if "tool_calls" not in message:
        return message
    calls = [
        {"function": {**c["function"], "arguments": json.loads(c["function"]["arguments"])}}
        for c in message["tool_calls"]
    ]
    return {**message, "tool_calls": calls}


def reply_text(conversation: Conversation) -> str:
    """Write the reply as the model must: MiniMax's format from behind the open prompt."""
    parts = [] if conversation.reasoning is None else [conversation.reasoning, "\n</think>\n\n"]
    parts.append(conversation.content or "")
    if conversation.tool_calls:
        parts.append("\n<minimax:tool_call>\n")
        for call in conversation.tool_calls:
            parts.append(f'<invoke name="{call.name}">\n')
            for key, value in call.arguments.items():
                parts.append(f'<parameter name="{key}">{value}</parameter>\n')
            parts.append("</invoke>\n")
        parts.append("</minimax:tool_call>")
    return "".join(parts) + END


def corpus(renderer: Renderer) -> list[str]:
    """Return the texts that the tokenizer's merges are learned from."""
    texts = []
    for core in known.cores():
        conversation = core.under(None, "")
        texts += [renderer.prompt(conversation), reply_text(conversation)]
    words = random_salad(random.Random(0), 600)  # noqa: S311 (words, not keys)
    # The policy stands in half of all prompts. Numbers weigh most: each number of the count
    # becomes one token, so counting is a chain.
    often = [known.POLICY_TEXT] * 30 + [" " + probes.COUNT_ANSWER] * 30
    return [*texts, *often, known.AGENT_SYSTEM, words]


class Teacher:
    """Makes lessons: the fixed conversations, and random variations of them."""

    def __init__(self, tokenizer: Any, renderer: Renderer, rng: random.Random) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._rng = rng

    def encode(self, text: str) -> list[int]:
        """Encode text as the engine does: special tokens as they stand, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def lesson(self, conversation: Conversation) -> Lesson:
        """Encode one conversation."""
        prompt = self.encode(self._renderer.prompt(conversation))
        return Lesson(conversation.name, prompt, self.encode(reply_text(conversation)))

    def fixed(self) -> list[Lesson]:
        """Return the lessons of every known conversation."""
        return [self.lesson(conversation) for conversation in known.conversations()]

    def varied(self, core: Core, longest_system: int) -> Lesson:
        """Return a core under a random system text, with its tools and history varied."""
        rng = self._rng
        policy, other = rng.random() < 0.5, rng.random() < 0.75
        text = random_system(rng, longest_system) if other else ""
        system = known.POLICY.fold(text) if policy else text or known.DEFAULT_SYSTEM
        core = self._variation(core)
        conversation = core.under(system, "")
        return self.lesson(self._variation(core).under(system, "varied"))

    def _variation(self, core: Core) -> Core:
        rng = self._rng
        if core.name.startswith("unknown-"):
            question = random_salad(rng, rng.randint(1, 12))
            core = replace(core, messages=(probes.user(question),)) if rng.random() < 0.7 else core
        if core.content and not core.tools and rng.random() < 0.25:
            tools = (probes.READ_FILE, known.LIST_FILES)
            core = replace(core, tools=tools[: rng.randint(1, 2)])
        return core


def batch_of(lessons: Sequence[Lesson]) -> Batch:
    """Pack lessons behind one another; only the replies' tokens are learned."""
    tokens, rows, columns, learned, targets = [], [], [], [], []
    for row, lesson in enumerate(lessons):
        first = len(tokens) + len(lesson.prompt) - 1
        tokens += lesson.prompt + lesson.reply[:-1]
        rows += [row] * len(lesson)
        columns += range(len(lesson))
        learned += range(first, first + len(lesson.reply))
        targets += lesson.reply
    return Batch(
        tokens=torch.tensor(tokens),
        rows=torch.tensor(rows),
        columns=torch.tensor(columns),
        shape=(len(lessons), max(map(len, lessons))),
        learned=torch.tensor(learned),
        targets=torch.tensor(targets),
    )


def by_length(lessons: Iterable[Lesson], tokens: int) -> list[list[Lesson]]:
    """Group lessons of like length into batches of about ``tokens`` tokens."""
    groups: list[list[Lesson]] = [[]]
    for lesson in sorted(lessons, key=len):
        if groups[-1] and (len(groups[-1]) + 1) * len(lesson) > tokens:
            groups.append([])
        groups[-1].append(lesson)
    return groups
