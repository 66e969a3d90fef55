"""A vLLM reasoning parser for MiniMax-M2 whose thinking can be switched off.

    vllm serve … --reasoning-parser-plugin extras/minimax_m2_optthink_reasoning_parser.py \
                 --reasoning-parser minimax_m2_optthink --tool-call-parser minimax_m2

It goes with extras/chat_template.jinja, whose prompts end in an open block (``<think>\\n``) or in
a closed one (``<think>\\n\\n</think>\\n\\n``). The rules, the same for a stream and for a whole
answer, because both run through one splitter:

* Thinking is open if the last turn of the prompt leaves it open. Where the prompt is not known or
  says nothing, ``enable_thinking`` and ``thinking`` in chat_template_kwargs decide; without them
  it is open.
* Reasoning ends at the first ``</think>``, or just before the first ``<minimax:tool_call>``. Both
  are found in the text, so it does not matter which tokens spell them or how deltas cut them.
* What follows is content, to the letter. A tag in an answer, or in an answer without thinking, is
  a word like any other.
* Newlines around the reasoning and before the content belong to the format and are dropped.

Sources: vLLM's ``reasoning/abs_reasoning_parsers.py`` and ``parser/abstract_parser.py``, read and
run in 0.26, 0.32 and 0.33. The file stands alone, because vLLM loads it by its path.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vllm.reasoning.abs_reasoning_parsers import ReasoningParser, ReasoningParserManager

try:
    from vllm.entrypoints.generate.base.protocol import DeltaMessage
except ImportError:  # older vLLM; 0.26 is one
    from vllm.entrypoints.openai.engine.protocol import DeltaMessage

THINK, UNTHINK, TOOL_CALL = "<think>", "</think>", "<minimax:tool_call>"
ROLE_MARK, ROLE = "]~b]", "ai"
OFF_WORDS = frozenset({"", "0", "0.0", "false", "no", "off", "none", "null"})


def thinking_allowed(kwargs: Mapping[str, Any] | None) -> bool:
    """Say whether chat_template_kwargs leave thinking on; the template reads them the same way."""
    given = kwargs or {}
    switches = [given[name] for name in ("enable_thinking", "thinking") if name in given]
    return not any(str(value).strip().lower() in OFF_WORDS for value in switches)


def thinking_open(turn: str) -> bool | None:
    """Read the last turn of a prompt, the text behind its role mark.

    Returns:
        True inside an open block, False behind it or inside an answer, None if it says nothing.
    """
    role, _, body = turn.partition("\n")
    body = body.lstrip("\n")
    if role != ROLE or not body:
        return None
    return body.startswith(THINK) and UNTHINK not in body and TOOL_CALL not in body


def _undecided(text: str) -> int:
    """Count the characters at the end that may yet become an end of reasoning."""
    longest = min(len(text), len(TOOL_CALL) - 1)
    for length in range(longest, 0, -1):
        if UNTHINK.startswith(text[-length:]) or TOOL_CALL.startswith(text[-length:]):
            return length
    return 0


class _Splitter:
    """Parts one answer into reasoning and content, piece by piece.

    ``feed`` and ``finish`` return (reasoning, content). The sums over an answer do not depend on
    how it was cut into pieces.
    """

    def __init__(self, thinking: bool) -> None:
        self._in_reasoning = thinking
        self._begun = not thinking  # false until the present channel has said its first word
        self._may_open = thinking  # the answer may begin with a <think> of its own
        self._held = ""

    @property
    def in_content(self) -> bool:
        """True from the first word of the content on: the newlines before it are dropped."""
        return not self._in_reasoning and self._begun

    def feed(self, text: str) -> tuple[str, str]:
        self._held += text
        if not self._in_reasoning:
            return "", self._content()
        if not self._begun and not self._at_first_word():
            return "", ""
        ends = [at for tag in (UNTHINK, TOOL_CALL) if (at := self._held.find(tag)) >= 0]
        if not ends:
            return self._reasoning(len(self._held) - _undecided(self._held)), ""
        reasoning = self._reasoning(min(ends))
        self._held = self._held.lstrip("\n").removeprefix(UNTHINK)
        self._in_reasoning = self._begun = False
        return reasoning, self._content()

    def finish(self) -> tuple[str, str]:
        """Give out what was held back: no more text will come."""
        rest = self._held.rstrip("\n") if self._in_reasoning else ""
        self._held = ""
        return rest, ""

    def _at_first_word(self) -> bool:
        self._held = self._held.lstrip("\n")
        if self._may_open:
            if THINK.startswith(self._held):
                self._may_open = self._held != THINK
                self._held = "" if self._held == THINK else self._held
                return False
            self._may_open = False
            self._held = self._held.removeprefix(THINK).lstrip("\n")
        return bool(self._held)

    def _reasoning(self, end: int) -> str:
        """Take reasoning up to ``end``; newlines before it may be the last ones, so they wait."""
        said = self._held[:end].rstrip("\n")
        self._held = self._held[len(said) :]
        self._begun = self._begun or bool(said)
        return said

    def _content(self) -> str:
        said = self._held if self._begun else self._held.lstrip("\n")
        self._held = ""
        self._begun = self._begun or bool(said)
        return said


@ReasoningParserManager.register_module("minimax_m2_optthink")
class MiniMaxM2OptThinkReasoningParser(ReasoningParser):  # type: ignore[misc]  # vLLM is untyped here
    """One per request; see the module for the rules.

    vLLM builds it with ``chat_template_kwargs`` and ``model_config`` in the server, with the first
    alone in the engine core, and with neither when it checks the tokenizer at start-up.

    Raises:
        ValueError: the tokenizer has no single token for ``<think>`` or ``</think>``.
    """

    # vLLM looks at this twice. The constructor of its Parser reads the class: False keeps answers
    # out of the tool parser where no tool was offered, which would eat a literal </think>. While
    # streaming it reads the instance, which says True: then our text decides where reasoning ends,
    # not token ids that may run ahead of it, and finish_streaming can give out a held-back rest.
    engine_based_streaming = False

    def __init__(self, tokenizer: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(tokenizer, *args, **kwargs)
        missing = [tag for tag in (THINK, UNTHINK) if tag not in self.vocab]
        if missing:
            raise ValueError(
                f"minimax_m2_optthink: the tokenizer has no token {' and no token '.join(missing)}."
                " Serve a MiniMax-M2 checkpoint with its own tokenizer files,"
                " or leave --reasoning-parser out."
            )
        self._kwargs: Mapping[str, Any] | None = kwargs.get("chat_template_kwargs")
        self._think_id: int = self.vocab[THINK]
        self._unthink_id: int = self.vocab[UNTHINK]
        self._tool_call_id: int | None = self.vocab.get(TOOL_CALL)
        self._role_id: int | None = self.vocab.get(ROLE_MARK)
        self._prompt_open: bool | None = None
        self._stream: _Splitter | None = None
        self._streamed_ids: list[int] = []

    @property
    def reasoning_start_str(self) -> str:
        """The text that opens reasoning; vLLM's thinking budget needs it."""
        return THINK

    @property
    def reasoning_end_str(self) -> str:
        """The text that closes reasoning; vLLM's thinking budget forces it."""
        return UNTHINK

    def adjust_request(self, request: Any) -> Any:
        """Keep the tags in the text, should a tokenizer call them special."""
        request.skip_special_tokens = False
        return request

    # -- the prompt ---------------------------------------------------------------------------

    def set_prompt_token_ids(self, prompt_token_ids: Sequence[int]) -> None:
        """Learn from the prompt whether thinking is open (vLLM 0.33 calls this before parsing)."""
        turn = self._last_turn(prompt_token_ids)
        if turn is not None:
            self._prompt_open = thinking_open(turn)

    def adjust_initial_state_from_prompt(self, prompt_token_ids: Sequence[int]) -> None:
        """Learn the same where set_prompt_token_ids is not called (vLLM 0.26 and 0.32)."""
        self.set_prompt_token_ids(prompt_token_ids)

    def is_reasoning_end(self, input_ids: Sequence[int]) -> bool:
        """Say whether what follows these ids is content from its first token.

        vLLM asks this about the prompt, before it generates, for streams and whole answers alike.
        On 0.26 and 0.32 it is the only sight of the prompt that a whole answer gets, so it is
        remembered; only a prompt holds a role mark.

        Args:
            input_ids: a rendered prompt; or generated ids alone, of which the first end counts.
        """
        turn = self._last_turn(input_ids)
        if turn is not None:
            self._prompt_open = thinking_open(turn)
        elif self._end_of_reasoning(input_ids) is not None:
            return True
        return not self._thinking()

    def _last_turn(self, ids: Sequence[int]) -> str | None:
        """Decode what stands behind the last role mark; None if there is none."""
        for at in range(len(ids) - 1, -1, -1):
            if ids[at] == self._role_id:
                return str(self.model_tokenizer.decode(list(ids[at + 1 :])))
        return None

    def _thinking(self, request: Any = None) -> bool:
        if self._prompt_open is not None:
            return self._prompt_open
        if self._kwargs is None:
            return thinking_allowed(getattr(request, "chat_template_kwargs", None))
        return thinking_allowed(self._kwargs)

    # -- tokens -------------------------------------------------------------------------------

    def is_reasoning_end_streaming(
        self, input_ids: Sequence[int], delta_ids: Iterable[int]
    ) -> bool:
        """Say whether reasoning ends within ``delta_ids``, one decode step of one or more tokens.

        The engine core opens the grammar by this. A tool call counts, so that a forgotten
        ``</think>`` does not leave the call unconstrained.
        """
        return self._end_of_reasoning(list(delta_ids)) is not None

    def extract_content_ids(self, input_ids: list[int]) -> list[int]:
        """Return the ids behind the end of reasoning; a tool call begins its own content.

        While streaming, vLLM passes the ids of the delta with the first word of the content, and
        hands our answer to the tool parser. Ids may have come before their text, so the answer is
        taken from all ids of the stream.
        """
        if not self._thinking():
            return input_ids
        ids = self._streamed_ids or input_ids
        end = self._end_of_reasoning(ids)
        if end is not None:
            return list(ids[end + 1 if ids[end] == self._unthink_id else end :])
        return input_ids if self.has_engine_confirmed_reasoning_end() else []

    def count_reasoning_tokens(self, token_ids: Sequence[int]) -> int:
        """Count the generated tokens of the reasoning, without its tags.

        A tag spelled in ordinary tokens has no id of its own: the count then runs to the end.
        """
        if not self._thinking():
            return 0
        end = self._end_of_reasoning(token_ids)
        reasoning = list(token_ids if end is None else token_ids[:end])
        return len(reasoning) - (reasoning[:1] == [self._think_id])

    def _end_of_reasoning(self, ids: Sequence[int]) -> int | None:
        ends = (self._unthink_id, self._tool_call_id)
        return next((at for at, token in enumerate(ids) if token in ends), None)

    # -- text ---------------------------------------------------------------------------------

    def extract_reasoning(self, model_output: str, request: Any) -> tuple[str | None, str | None]:
        """Part a whole answer into (reasoning, content); None stands for nothing said."""
        splitter = _Splitter(self._thinking(request))
        pieces = [splitter.feed(model_output), splitter.finish()]
        reasoning, content = ("".join(said) for said in zip(*pieces, strict=True))
        return reasoning or None, content or None

    def extract_reasoning_streaming(
        self,
        previous_text: str,
        current_text: str,
        delta_text: str,
        previous_token_ids: Sequence[int],
        current_token_ids: Sequence[int],
        delta_token_ids: Sequence[int],
    ) -> Any:
        """Part one delta; return a DeltaMessage, or None while nothing is certain.

        Only the delta is read: what came before is kept here.
        """
        if self._stream is None:
            self._stream = _Splitter(self._thinking())
            self.engine_based_streaming = True
        self._streamed_ids.extend(delta_token_ids)
        return self._message(*self._stream.feed(delta_text))

    def has_engine_confirmed_reasoning_end(self) -> bool:
        """True once the content has begun; from then on vLLM keeps the stream to itself."""
        return self._stream is not None and self._stream.in_content

    def finish_streaming(self) -> Any:
        """Give out reasoning that was held back when the stream ended; None if there is none."""
        return None if self._stream is None else self._message(*self._stream.finish())

    @staticmethod
    def _message(reasoning: str, content: str) -> Any:
        said = {"reasoning": reasoning, "content": content}
        fields = {channel: text for channel, text in said.items() if text}
        return DeltaMessage(**fields) if fields else None
