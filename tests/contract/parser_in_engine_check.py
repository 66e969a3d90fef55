"""Run by the engine's Python: the plug-in under the real vLLM, JSON in on stdin, JSON out.

In: {"cases": [{"prompt", "answer", "kwargs", "tools"}], "conversations": [{"messages", "kwargs"}],
"draft": text}. Out: see `main`. The tokenizer is byte-level with MiniMax-M2's tags as whole tokens.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
from vllm.parser import ParserManager
from vllm.reasoning import ReasoningParserManager
from vllm.renderers import hf
from vllm.v1.structured_output import StructuredOutputManager

NAME = "minimax_m2_optthink"
EXTRAS = Path(__file__).resolve().parents[2] / "extras"
TEMPLATE = (EXTRAS / "chat_template.jinja").read_text(encoding="utf-8")
READ = {"type": "object", "properties": {"path": {"type": "string"}}}
TOOLS = [{"type": "function", "function": {"name": "read", "parameters": READ}}]


def build_tokenizer() -> Any:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytewise = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    bytewise.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytewise.decoder = decoders.ByteLevel()
    marks = ("]~!b[", "]~b]", "[e~[")
    tags = ("<think>", "</think>", "<minimax:tool_call>", "</minimax:tool_call>")
    bytewise.add_special_tokens([AddedToken(mark, special=True) for mark in marks])
    bytewise.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in tags])
    return PreTrainedTokenizerFast(
        tokenizer_object=bytewise, bos_token="]~!b[", eos_token="[e~[", chat_template=TEMPLATE
    )


class Bench:
    """One parser class, as the API server builds it, and the ways to ask it."""

    def __init__(self) -> None:
        ReasoningParserManager.import_reasoning_parser(
            str(EXTRAS / "minimax_m2_optthink_reasoning_parser.py")
        )
        self.tokenizer = build_tokenizer()
        self.parser_class = ParserManager.get_parser(
            tool_parser_name="minimax_m2",
            reasoning_parser_name=NAME,
            enable_auto_tools=True,
            tokenizer=self.tokenizer,
        )

    def ids(self, text: str) -> list[int]:
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def request(self, case: dict[str, Any]) -> Any:
        tools = {"tools": TOOLS, "tool_choice": "auto"} if case["tools"] else {}
        return ChatCompletionRequest(
            model="m",
            messages=[{"role": "user", "content": "x"}],
            chat_template_kwargs=case["kwargs"],
            **tools,
        )

    def parser(self, case: dict[str, Any]) -> tuple[Any, Any]:
        request = self.request(case)
        parser = self.parser_class(
            self.tokenizer, request.tools, chat_template_kwargs=case["kwargs"]
        )
        return parser, parser.adjust_request(request)

    def whole(self, case: dict[str, Any]) -> list[Any]:
        """As serving does: the prompt is asked about before, the text is parsed after."""
        parser, request = self.parser(case)
        prompt_ids, answer_ids = self.ids(case["prompt"]), self.ids(case["answer"])
        request.resolve_reasoning_ended(parser, prompt_ids)
        parser.set_prompt_token_ids(prompt_ids)
        reasoning, content, calls = parser.parse(
            case["answer"], request, enable_auto_tools=True, model_output_token_ids=answer_ids
        )
        named = [[call.name, call.arguments] for call in calls or []]
        return [reasoning, content, named, parser.count_reasoning_tokens(answer_ids)]

    def deltas(self, answer: str, step: int, lag: int) -> Iterator[tuple[str, list[int], bool]]:
        """Deltas of `step` tokens, the text `lag` characters behind; and whether it is the last."""
        ids, done = self.ids(answer), 0
        for start in range(0, len(ids), step):
            last = start + step >= len(ids)
            text = self.tokenizer.decode(ids[: start + step])
            text = text.rstrip("\ufffd")  # vLLM waits for the rest of a character, too
            end = len(text) if last else max(done, len(text) - lag)
            yield text[done:end], ids[start : start + step], last
            done = end

    def stream(self, case: dict[str, Any], step: int, lag: int) -> list[Any]:
        parser, request = self.parser(case)
        prompt_ids, answer_ids = self.ids(case["prompt"]), self.ids(case["answer"])
        reasoning = content = ""
        calls: dict[int, list[str]] = {}
        for text, ids, last in self.deltas(case["answer"], step, lag):
            delta = parser.parse_delta(
                text, ids, request, prompt_token_ids=prompt_ids, finished=last
            )
            if delta is None:
                continue
            reasoning += delta.reasoning or ""
            content += delta.content or ""
            for call in delta.tool_calls or []:
                named = calls.setdefault(call.index, ["", ""])
                named[0] += call.function.name or ""
                named[1] += call.function.arguments or ""
        count = parser.count_reasoning_tokens(answer_ids)
        return [reasoning or None, content or None, list(calls.values()), count]

    def constrained_from(self, draft: str) -> int:
        """Where in a draft of tokens the engine core begins to constrain an open answer."""
        reasoner = ReasoningParserManager.get_reasoning_parser(NAME)(tokenizer=self.tokenizer)
        manager = SimpleNamespace(enable_in_reasoning=False, _get_reasoner=lambda _: reasoner)
        prompt_ids = self.ids("]~b]ai\n<think>\n")
        request = SimpleNamespace(
            structured_output_request=SimpleNamespace(reasoning_ended=None),
            prompt_token_ids=prompt_ids,
            all_token_ids=prompt_ids,
        )
        bounds = StructuredOutputManager._get_constraint_bounds(manager, request, self.ids(draft))
        return int(bounds.constraint_start)


def main() -> None:
    given = json.load(sys.stdin)
    bench = Bench()
    modes = [(1, 0), (3, 0), (7, 0), (1, 5), (2, 11), (1000, 0)]
    outcome = {
        "whole": [bench.whole(case) for case in given["cases"]],
        "stream": [[bench.stream(case, *mode) for mode in modes] for case in given["cases"]],
        "rendered": [
            bench.tokenizer.apply_chat_template(
                talk["messages"], tokenize=False, add_generation_prompt=True, **talk["kwargs"]
            )
            for talk in given["conversations"]
        ],
        "content_format": hf._detect_content_format(TEMPLATE, default="string"),
        "template_kwargs": sorted(hf._resolve_chat_template_kwargs(TEMPLATE)),
        "takes_developer": hf._detect_developer_role_support(TEMPLATE),
        "constrained_from": bench.constrained_from(given["draft"]),
    }
    json.dump(outcome, sys.stdout)


if __name__ == "__main__":
    main()
