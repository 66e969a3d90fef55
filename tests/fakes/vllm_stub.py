"""The little of vLLM that the reasoning-parser plug-in touches, and the order in which it is asked.

`stream` and `whole` follow `DelegatingParser.parse_delta` and `.parse` of vLLM 0.32 without a tool
parser. The contract test runs the same answers through them and through the real ones.
"""

import importlib.util
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

PLUGIN = Path(__file__).parents[2] / "extras" / "minimax_m2_optthink_reasoning_parser.py"

NEW_HOME = "vllm.entrypoints.generate.base.protocol"  # 0.32 and 0.33
OLD_HOME = "vllm.entrypoints.openai.engine.protocol"  # 0.26
HOMES = (NEW_HOME, OLD_HOME)

SPECIAL = {
    "]~b]": 200019,
    "[e~[": 200020,
    "]~!b[": 200034,
    "<think>": 200050,
    "</think>": 200051,
    "<minimax:tool_call>": 200052,
    "</minimax:tool_call>": 200053,
}


class FakeTokenizer:
    """Seven whole tokens of MiniMax-M2; every other character is a token of its own."""

    def __init__(self, vocab: dict[str, int] | None = None) -> None:
        self.special = SPECIAL if vocab is None else vocab
        self.spelling = {token: text for text, token in self.special.items()}

    def get_vocab(self) -> dict[str, int]:
        return dict(self.special)

    def encode(self, text: str) -> list[int]:
        pattern = "|".join(re.escape(tag) for tag in self.special)
        pieces = re.split(f"({pattern})", text)
        return [
            token
            for piece in pieces
            for token in ([self.special[piece]] if piece in self.special else map(_token, piece))
        ]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(self.spelling.get(token) or chr(token - 300_000) for token in ids)


def _token(character: str) -> int:
    return 300_000 + ord(character)


def spelled(text: str) -> list[int]:
    """The ids of a text of which no tag came as a whole token."""
    return [_token(character) for character in text]


@dataclass
class DeltaMessage:
    """As vLLM's: which fields were set matters to what is sent."""

    content: str | None = None
    reasoning: str | None = None


class ReasoningParser:
    """The base class as the plug-in sees it."""

    engine_based_streaming = False

    def __init__(self, tokenizer: Any, *_: Any, **__: Any) -> None:
        self.model_tokenizer = tokenizer

    @property
    def vocab(self) -> dict[str, int]:
        vocab: dict[str, int] = self.model_tokenizer.get_vocab()
        return vocab


class ReasoningParserManager:
    """Remembers who registered under which name."""

    registered: dict[str, type] = {}  # noqa: RUF012  # shared by all, as in vLLM

    @classmethod
    def register_module(cls, name: str) -> Callable[[type], type]:
        def register(parser: type) -> type:
            cls.registered[name] = parser
            return parser

        return register


@contextmanager
def stubbed(home: str) -> Iterator[None]:
    """Stand in for vLLM in sys.modules, with DeltaMessage in one of its homes."""
    contents: dict[str, dict[str, Any]] = {
        "vllm.reasoning.abs_reasoning_parsers": {
            "ReasoningParser": ReasoningParser,
            "ReasoningParserManager": ReasoningParserManager,
        },
        home: {"DeltaMessage": DeltaMessage},
    }
    names = {
        ".".join(path.split(".")[: n + 1]) for path in contents for n in range(path.count("."))
    }
    modules = {name: ModuleType(name) for name in names | set(contents)}
    for name, module in modules.items():
        module.__path__ = []  # a package, as far as import is concerned
        vars(module).update(contents.get(name, {}))
    before = {name: module for name, module in sys.modules.items() if name.split(".")[0] == "vllm"}
    for name in before:
        del sys.modules[name]
    sys.modules.update(modules)
    try:
        yield
    finally:
        for name in modules:
            sys.modules.pop(name, None)
        sys.modules.update(before)


def load_plugin(home: str = NEW_HOME) -> ModuleType:
    """Import the plug-in by its path, as vLLM does."""
    spec = importlib.util.spec_from_file_location(PLUGIN.stem, PLUGIN)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with stubbed(home):
        spec.loader.exec_module(module)
    return module


@dataclass
class Answer:
    """What a client has at the end."""

    reasoning: str = ""
    content: str = ""
    handed_ids: list[int] = field(default_factory=list)  # what a tool parser would begin with

    def add(self, message: DeltaMessage | None) -> None:
        if message is not None:
            assert message.reasoning or message.content, "an empty message was sent"
            self.reasoning += message.reasoning or ""
            self.content += message.content or ""

    @property
    def channels(self) -> tuple[str | None, str | None]:
        return self.reasoning or None, self.content or None


Delta = tuple[str, Sequence[int]]


def stream(parser: Any, prompt_ids: Sequence[int], deltas: Sequence[Delta]) -> Answer:
    """Ask a parser in the order in which vLLM asks while streaming."""
    answer = Answer()
    ended = parser.is_reasoning_end(prompt_ids)
    if not ended:
        parser.adjust_initial_state_from_prompt(prompt_ids)
    for text, ids in deltas:
        if ended:
            answer.content += text
            continue
        answer.add(parser.extract_reasoning_streaming("", "", text, [], [], ids))
        assert parser.engine_based_streaming, "vLLM would ask for token ids instead"
        if parser.has_engine_confirmed_reasoning_end():
            ended = True
            answer.handed_ids = parser.extract_content_ids(list(ids))
            assert parser.finish_streaming() is None, "vLLM 0.32 drops this without a tool parser"
    if not ended:
        answer.add(parser.finish_streaming())
    return answer


def whole(parser: Any, prompt_ids: Sequence[int], text: str) -> tuple[str | None, str | None]:
    """Ask a parser in the order in which vLLM asks for a whole answer."""
    parser.is_reasoning_end(prompt_ids)
    request = SimpleNamespace(chat_template_kwargs=None)
    channels: tuple[str | None, str | None] = parser.extract_reasoning(text, request)
    return channels
