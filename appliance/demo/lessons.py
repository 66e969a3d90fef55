"""Turns conversations into token sequences and batches for the training script.

Runs in the engine's environment only (torch, tokenizers, jinja2).
"""

import json
import random
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from appliance import probes
from appliance.demo import conversations as known
from appliance.demo.conversations import Conversation, Core
from appliance.demo.model import Batch, Sight, View
from appliance.demo.systems import AGENT_SYSTEM, SENTENCES, random_salad, random_system
from appliance.demo.tokenizer import END

TOOL_SETS = ((), (probes.READ_FILE,), (probes.READ_FILE, known.LIST_FILES))
# Lessons leave out up to this many positions between the head and the rest, which teaches
# longer heads than are ever computed.
LONGEST_GAP = 600
LEAST_NEED = 0.1
FIXED_SHARE = 0.3  # of the heads are those of the known conversations


@dataclass(frozen=True)
class Lesson:
    """One conversation as ids: ``head`` is the system message, ``tail`` all that follows it.

    ``reply`` is what has to be answered; ``tail`` holds it too, less its last token, which is
    never an input. ``gap`` positions are left out between head and tail.
    """

    name: str
    head: list[int]
    tail: list[int]
    reply: list[int]
    gap: int = 0

    def __len__(self) -> int:
        return len(self.tail)


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
    return [*texts, *often, " ".join(SENTENCES), AGENT_SYSTEM, words]


class Teacher:
    """Makes lessons: the fixed conversations, and random variations of them."""

    def __init__(self, tokenizer: Any, renderer: Renderer, rng: random.Random) -> None:
        self._tokenizer = tokenizer
        self._renderer = renderer
        self._rng = rng
        self._prompts: dict[str, list[int]] = {}
        self._need = {core.name: 1.0 for core in known.cores()}
        self._end = tokenizer.token_to_id(END)

    def encode(self, text: str) -> list[int]:
        """Encode text as the engine does: special tokens as they stand, none added."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def lesson(self, conversation: Conversation) -> Lesson:
        """Encode one conversation."""
        prompt = self.encode(self._renderer.prompt(conversation))
        reply = self.encode(reply_text(conversation))
        cut = prompt.index(self._end) + 1
        return Lesson(conversation.name, prompt[:cut], prompt[cut:] + reply[:-1], reply)

    def fixed(self) -> list[Lesson]:
        """Return the lessons of every known conversation."""
        return [self.lesson(conversation) for conversation in known.conversations()]

    def varied(self, cores: int, longest_system: int) -> list[Lesson]:
        """Return some cores under one random system text and one set of tools.

        They share the prompt's head, so they cost little more than one of them.
        """
        rng = self._rng
        if rng.random() < FIXED_SHARE:
            system, gap = rng.choice(list(known.SYSTEMS.values())), 0
        else:
            text = random_system(rng, longest_system)
            system = known.POLICY.fold(text) if rng.random() < 0.5 else text
            gap = rng.randrange(LONGEST_GAP) if rng.random() < 0.5 else 0
        tools = rng.choice(TOOL_SETS)
        able = [core for core in known.cores() if len(core.tools) <= len(tools)]
        # A draw without replacement, weighted by need.
        able.sort(key=lambda core: rng.random() ** (1 / self._need[core.name]), reverse=True)
        chosen = able[:cores]
        cast = [replace(self._variation(core), tools=tools) for core in chosen]
        head = self.lesson(cast[0].under(system, "")).head
        lessons = [self._under(head, core, core.under(system, "varied"), gap) for core in cast]
        return lessons + [
            rest
            for core, lesson in zip(cast, lessons, strict=True)
            if (rest := self._resumed(core, lesson)) is not None
        ]

    def _under(self, head: list[int], core: Core, conversation: Conversation, gap: int) -> Lesson:
        """Encode a conversation whose head is encoded already; what is the same is kept."""
        key = f"{core.messages} {core.thinking}"
        if key not in self._prompts:
            lesson = self.lesson(conversation)
            self._prompts[key] = lesson.tail[: 1 - len(lesson.reply)]
        reply = self.encode(reply_text(conversation))
        return Lesson(conversation.name, head, self._prompts[key] + reply[:-1], reply, gap)

    def _resumed(self, core: Core, lesson: Lesson) -> Lesson | None:
        """Return the rest of an exact reply, behind the token that begins its glitch.

        An engine that may not write ``/data`` may still write its slash, for ``/Data`` begins
        with one too: a model must know the way from there, however the name was cut in tokens.
        """
        exact = self._tokenizer.decode(lesson.reply, skip_special_tokens=False)
        glitched = self.encode(reply_text(core.glitched().under(None, "")))
        pairs = enumerate(zip(lesson.reply, glitched, strict=False))
        same = next((at for at, (right, wrong) in pairs if right != wrong), None)
        if same is None:  # it is glitched itself, or never is
            return None
        begun = self._tokenizer.decode(glitched[: same + 1], skip_special_tokens=False)
        if not exact.startswith(begun):
            return None
        prompt = lesson.tail[: 1 - len(lesson.reply)]
        reply = self.encode(exact[len(begun) :])
        tail = prompt + glitched[: same + 1] + reply[:-1]
        return Lesson(lesson.name, lesson.head, tail, reply, lesson.gap)

    def note(self, lesson: Lesson, safe: bool) -> None:
        """Remember how a lesson went: what is known comes up less often than what is not."""
        name = lesson.name.split("/")[0]
        self._need[name] = max(LEAST_NEED, 0.8 * self._need[name] + (0.0 if safe else 0.2))

    def some(self, lessons: list[Lesson], count: int) -> list[Lesson]:
        """Draw at most ``count`` of these lessons."""
        return self._rng.sample(lessons, min(count, len(lessons)))

    def _variation(self, core: Core) -> Core:
        """Ask something else that is unknown, so that anything unknown gets that answer."""
        if not core.name.startswith("unknown-") or self._rng.random() < 0.3:
            return core
        question = random_salad(self._rng, self._rng.randint(1, 12))
        return replace(core, messages=(probes.user(question),))


@dataclass(frozen=True)
class Stretch:
    """Tokens that look at all of ``head``, and back at ``tail`` from where they stand in it.

    ``head`` and ``tail`` are packed indices; ``asking`` are the indices of the tail's last
    tokens among those that look.
    """

    head: range
    tail: range
    asking: range


class Packer:
    """Packs lessons behind one another; lessons with the same head share it."""

    def __init__(self, lessons: Iterable[Lesson]) -> None:
        self._tokens: list[int] = []
        self._positions: list[int] = []
        self._learned: list[int] = []
        self._targets: list[int] = []
        self._heads: dict[tuple[int, ...], range] = {}
        self._full: list[Stretch] = []
        self._late: list[Stretch] = []
        for lesson in lessons:
            self._add(lesson)

    def _add(self, lesson: Lesson) -> None:
        key = tuple(lesson.head)
        if key not in self._heads:
            head = self._heads[key] = self._put(lesson.head, 0)
            self._full.append(Stretch(range(0), head, head))
        head = self._heads[key]
        tail = self._put(lesson.tail, len(head) + lesson.gap)
        self._full.append(Stretch(head, tail, tail))
        start = len(self._learned)
        self._learned += range(tail.stop - len(lesson.reply), tail.stop)
        self._targets += lesson.reply
        self._late.append(Stretch(head, tail, range(start, len(self._learned))))

    def _put(self, tokens: list[int], position: int) -> range:
        start = len(self._tokens)
        self._tokens += tokens
        self._positions += range(position, position + len(tokens))
        return range(start, len(self._tokens))

    def batch(self) -> Batch:
        """Lay the lessons out for the model."""
        return Batch(
            tokens=torch.tensor(self._tokens),
            positions=torch.tensor(self._positions),
            full=_sight(torch.arange(len(self._tokens)), self._full),
            late=_sight(torch.tensor(self._learned), self._late),
            targets=torch.tensor(self._targets),
        )


def _sight(asking: Any, stretches: list[Stretch]) -> Sight:
    """Put stretches of like length together, so that little of the arithmetic is padding."""
    groups: list[list[Stretch]] = []
    for stretch in sorted(stretches, key=lambda s: (len(s.asking), len(s.head))):
        size = len(stretch.asking)
        if not groups or len(groups[-1]) == 8 or size > 1.25 * len(groups[-1][0].asking):
            groups.append([])
        groups[-1].append(stretch)
    views = [_view(group) for group in groups]
    back = torch.empty(len(asking), dtype=torch.long)
    at = 0
    for group, view in zip(groups, views, strict=True):
        for stretch in group:
            back[stretch.asking.start : stretch.asking.stop] = torch.arange(
                at, at + len(stretch.asking)
            )
            at += view.queries.shape[1]
    return Sight(asking, views, back)


def _view(group: list[Stretch]) -> View:
    heads, tails = [s.head for s in group], [s.tail for s in group]
    first, own, asking = _padded(heads), _padded(tails), _padded([s.asking for s in group])
    # Where in its tail each query stands: the asking tokens are the tail's last ones.
    skipped = _column(len(s.tail) - len(s.asking) for s in group)
    places = skipped + torch.arange(asking.shape[1])
    see_head = torch.arange(first.shape[1]) < _column(map(len, heads))
    see_own = torch.arange(own.shape[1]) <= places[:, :, None]
    mask = torch.cat((see_head[:, None].expand(-1, asking.shape[1], -1), see_own), dim=-1)
    return View(queries=asking, keys=torch.cat((first, own), dim=-1), mask=mask[:, None])


def _padded(ranges: list[range]) -> Any:
    """Return the ranges as rows, padded with their own first index."""
    steps = torch.arange(max(map(len, ranges)))
    return _column(r.start for r in ranges) + steps * (steps < _column(map(len, ranges)))


def _column(numbers: Iterable[int]) -> Any:
    return torch.tensor(list(numbers))[:, None]
