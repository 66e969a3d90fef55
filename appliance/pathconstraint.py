"""Requests whose reads are constrained to known paths: what is added to them, and when not.

It is tried only where it is safe, and left off wherever something is not known: an engine that
may not write a path writes another one instead.
"""

import hashlib
import statistics
from collections import OrderedDict, deque
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import msgspec
import structlog

from appliance.exchange import Exchange
from appliance.metrics import Metrics
from appliance.openai import NO_JSON
from appliance.pathfresh import read_fresh
from appliance.pathgrammar import TooMany, Unspelled, build, structural_tag
from appliance.pathhistory import Reader
from appliance.pathledger import CALL, TRUSTED
from appliance.pathrepair import Mode
from appliance.pathtools import constrainable, read_tools
from appliance.pathwire import CHAT
from appliance.turns import in_turns

log = structlog.get_logger()

MOST_CONVERSATIONS = 256  # of which the first bytes are remembered
LATE_S = 0.3  # a first byte so much later than usual: the grammar costs too much
_USUAL_OF = 5  # requests whose first bytes make the usual one


class Outcome(StrEnum):
    """What became of a request in the mode ``constrain``."""

    ADDED = "added"
    UNFIT = "unfit"  # the client chose a format, or a tool
    NONE = "none"  # no tool that reads, or no fresh listing
    INCOMPLETE = "incomplete"  # a listing was not complete
    MANY = "many"
    WINDOWS = "windows"
    LATE = "late"  # once its first byte came too late: not again
    REFUSED = "refused"  # by the engine: asked again without, and not again


class _Asked(msgspec.Struct):
    messages: list[msgspec.Raw] = []
    tools: Any = None
    tool_choice: Any = None
    response_format: Any = None
    structured_outputs: Any = None
    guided_json: Any = None
    guided_regex: Any = None
    guided_choice: Any = None
    guided_grammar: Any = None

    @property
    def is_fit(self) -> bool:
        """Whether the client leaves to the engine what it answers with."""
        formats = (
            *(self.response_format, self.structured_outputs, self.guided_json),
            *(self.guided_regex, self.guided_choice, self.guided_grammar),
        )
        return self.tool_choice in (None, "auto") and all(one is None for one in formats)


@dataclass
class _Conversation:
    """What is remembered of one: when its first bytes came, and its last grammar."""

    usual: deque[float] = field(default_factory=lambda: deque(maxlen=_USUAL_OF))
    tag: bytes = b""
    stopped: Outcome | None = None


class Constraint:
    """What is added to one request, if anything; it is told how that went."""

    def __init__(self, tag: bytes, conversation: _Conversation, metrics: Metrics) -> None:
        self._tag = tag
        self._is_new = bool(tag) and hashlib.sha256(tag).digest() != conversation.tag
        self._conversation = conversation
        self._metrics = metrics

    @property
    def is_added(self) -> bool:
        """Whether the request is constrained."""
        return bool(self._tag)

    def added(self, body: bytes) -> bytes:
        """Return the body with the constraint in it, behind all that the client sent."""
        return b'%b,"response_format":%b}' % (body[: body.rindex(b"}")], self._tag)

    def refused(self) -> None:
        """Note that the engine did not take it: the request is asked without."""
        self._tag = b""
        self._conversation.stopped = Outcome.REFUSED
        self._metrics.path_constraints.labels(Outcome.REFUSED.value).inc()

    def note(self, exchange: Exchange) -> None:
        """Note when a stream's first byte came, from its place on."""
        if exchange.ttft_s is None or not exchange.streaming or exchange.status != 200:
            return
        first_s, one = exchange.ttft_s - exchange.queued_s, self._conversation
        if self._is_new and self._tag:
            one.tag = hashlib.sha256(self._tag).digest()
            if one.usual and first_s > statistics.median(one.usual) + LATE_S:
                one.stopped = Outcome.LATE
                log.info("path.constraint.late", id=exchange.request_id, seconds=round(first_s, 3))
            return
        one.usual.append(first_s)


class PathConstraints:
    """Makes the constraints of all requests. ``reader`` is shared with the guards of replies."""

    def __init__(self, metrics: Metrics, reader: Reader) -> None:
        self._metrics = metrics
        self._reader = reader
        self._conversations: OrderedDict[bytes, _Conversation] = OrderedDict()

    async def make(self, exchange: Exchange) -> Constraint | None:
        """Return what is to be added to a request; None where nothing ever would be."""
        if exchange.path_mode is not Mode.CONSTRAIN or exchange.route.path != CHAT:
            return None
        try:
            asked = msgspec.json.decode(exchange.body, type=_Asked)
        except (*NO_JSON, msgspec.ValidationError):
            return None  # the engine refuses it
        conversation = self._conversation(asked.messages)
        outcome, tag = await self._decide(exchange, asked, conversation)
        self._metrics.path_constraints.labels(outcome.value).inc()
        return Constraint(tag, conversation, self._metrics)

    async def _decide(
        self, exchange: Exchange, asked: _Asked, conversation: _Conversation
    ) -> tuple[Outcome, bytes]:
        if not asked.is_fit:
            return Outcome.UNFIT, b""
        if conversation.stopped is not None:
            return conversation.stopped, b""
        if not (keys := constrainable(asked.tools)):
            return Outcome.NONE, b""
        fresh = await in_turns(read_fresh(asked.messages, read_tools(asked.tools)))
        if fresh.is_cut:
            return Outcome.INCOMPLETE, b""
        if not fresh.closed:
            return Outcome.NONE, b""
        ledger = await in_turns(self._reader.read(exchange.body))
        try:
            known = list(ledger.paths(TRUSTED | CALL))
            grammars = {}
            for only in {only for some in keys.values() for only in some.values()}:
                steps = build(known, fresh.closed, ledger.roots, files_only=only)
                grammars[only] = await in_turns(steps)
        except TooMany:
            return Outcome.MANY, b""
        except Unspelled:
            return Outcome.WINDOWS, b""
        tag = {
            name: {key: grammars[only] for key, only in some.items()} for name, some in keys.items()
        }
        return Outcome.ADDED, structural_tag(tag)

    def _conversation(self, messages: list[msgspec.Raw]) -> _Conversation:
        """Return what is known of the conversation that begins with the same two messages."""
        key = hashlib.blake2b(b"\0".join(bytes(raw) for raw in messages[:2])).digest()
        known = self._conversations.setdefault(key, _Conversation())
        self._conversations.move_to_end(key)
        if len(self._conversations) > MOST_CONVERSATIONS:
            self._conversations.popitem(last=False)
        return known
