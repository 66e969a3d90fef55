"""Drives llama-benchy: one batch of requests after the other, as told on stdin.

A script, run in an environment of its own, where llama-benchy is. The first line on stdin is
``{"tokenizer": NAME_OR_PATH, "text": FILE_OR_BOOK, "decode_tokens": N, "exact": BOOL}``; the
answer is ``{"text_tokens": N}``. Each further line is a job: ``{"base_url",
"key", "model", "prompt_tokens", "concurrency", "warm"}``; its answer is one of llama-benchy's
``benchmarks``. Where something fails, an answer is ``{"why": TEXT}``. What llama-benchy itself
prints goes to stderr. Nothing of ours is imported, and nothing imports it.
"""

import asyncio
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from llama_benchy.client import LLMClient
from llama_benchy.config import BenchmarkConfig
from llama_benchy.corpus import LightweightTokenizer, TokenizedCorpus
from llama_benchy.prompts import PromptGenerator
from llama_benchy.runner import BenchmarkRunner

BOOK = "https://www.gutenberg.org/files/1661/1661-0.txt"  # llama-benchy's own
# The appliance's prompt, which is in its prefix cache, would count as prompt that was processed.
HEADERS = {"x-appliance-prompt": "off"}


class Text:
    """A text as llama-benchy takes it from a book: tokens, and who made them."""

    def __init__(self, file: str, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        text = Path(file).read_text(encoding="utf-8", errors="replace")
        self._tokens = tokenizer.encode(text, add_special_tokens=False)

    def get_tokenizer(self) -> Any:
        """Return the tokenizer."""
        return self._tokenizer

    def get_tokens(self) -> Any:
        """Return all tokens of the text."""
        return self._tokens


class Ends:
    """Listens to llama-benchy: the first request that failed, and why. No word of a prompt."""

    def __init__(self) -> None:
        self.why = ""

    def request_end(self, *, error: str, **_told: object) -> None:
        """Note how a request has ended."""
        self.why = self.why or error

    def __getattr__(self, _name: str) -> Callable[..., None]:
        return lambda **_told: None  # what else it tells is no business of ours


def corpus_of(told: dict[str, Any]) -> Any:
    """Return the text that prompts are cut from. Raises whatever reading it raises."""
    tokenizer = LightweightTokenizer.from_pretrained(told["tokenizer"])
    if told["text"] != "book":
        return Text(told["text"], tokenizer)
    return TokenizedCorpus(BOOK, told["tokenizer"], "")


def config_of(setup: dict[str, Any], job: dict[str, Any]) -> Any:
    """Return one batch of requests in llama-benchy's words."""
    return BenchmarkConfig(
        base_url=job["base_url"],
        api_key=job["key"] or "EMPTY",
        model=job["model"],
        served_model_name=job["model"],
        tokenizer=setup["tokenizer"],
        pp_counts=[job["prompt_tokens"]],
        tg_counts=[setup["decode_tokens"]],
        exact_tg=setup["exact"],
        depths=[0],
        num_runs=1,
        no_cache=False,  # each prompt begins elsewhere in the text: no two share a beginning
        latency_mode="api",
        no_warmup=not job["warm"],
        skip_coherence=True,  # appliance smoke asks better questions
        adapt_prompt=True,
        enable_prefix_caching=False,
        book_url="",
        post_run_cmd=None,
        concurrency_levels=[job["concurrency"]],
        save_result="/dev/null",
        result_format="json",
        exit_on_first_fail=True,
        no_results_on_fail=True,
    )


def run(setup: dict[str, Any], corpus: Any, job: dict[str, Any]) -> dict[str, Any]:
    """Return what one batch came to, or ``why`` it failed."""
    config, ends = config_of(setup, job), Ends()
    client = LLMClient(
        config.base_url, config.api_key, config.served_model_name, None, setup["exact"]
    )
    client.headers.update(HEADERS)
    runner = BenchmarkRunner(config, client, PromptGenerator(corpus), progress=ends)
    try:
        asyncio.run(runner.run_suite())
    except SystemExit:
        return {"why": ends.why or "the endpoint refused a first question; see benchy.log"}
    told: dict[str, Any] = runner.results.runs[0].model_dump()
    return {"why": ends.why} if ends.why else told


def main() -> None:
    """Answer each line of stdin with one of stdout, until there is no more."""
    answers, sys.stdout = sys.stdout, sys.stderr

    def answer(told: dict[str, Any]) -> None:
        print(json.dumps(told), file=answers, flush=True)

    setup = json.loads(sys.stdin.readline())
    try:
        corpus = corpus_of(setup)
    except (Exception, SystemExit) as cause:  # whatever it is, it is told to who waits
        answer({"why": f"{type(cause).__name__}: {cause}"})
        return
    answer({"text_tokens": len(corpus.get_tokens())})
    for line in sys.stdin:
        answer(run(setup, corpus, json.loads(line)))


if __name__ == "__main__":
    main()
