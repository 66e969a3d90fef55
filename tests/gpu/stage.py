"""What the steps of one call share: the box, the engine that serves several of them, the sizes."""

import json
import random
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.gpu import miniature
from tests.gpu.box import Box, NotReady, Program
from tests.gpu.record import Facts

ORIGINAL, DEEP, DEMO = "original", "deep", "demo"
# What an engine says of itself while it starts: name in the report, and where it stands.
SAYS = {
    "attention": r"Using (\S+) (?:attention )?backend",
    "experts": r"Using '?([A-Za-z0-9_ ]+)'? NvFp4 MoE",
    "kv_cache_dtype": r"kv_cache_dtype=([^,\s]+)",
    "load_s": r"Loading weights took ([\d.]+)",
    "model_load": r"Model loading took (.+)",
    "compile_s": r"torch\.compile t(?:ook|akes) ([\d.]+)",
    "graphs": r"(Graph capturing finished in .+)",
    "kv_tokens": r"KV cache size: ([\d,]+)",
    "init_s": r"init engine .*took ([\d.]+)",
    "async": r"Asynchronous scheduling is (\w+)",
    "version": r"vLLM API server version (\S+)",
}


@dataclass(frozen=True)
class Sizes:
    """How much each step does: the true run, or a dry one."""

    ready_s: float = 300.0  # of a first start, which compiles
    rounds: int = 6
    chunks: int = 300  # tokens of a timed stream
    turns: int = 12  # streams of a client, one after the other, a round
    reply: int = 64  # tokens of each of them
    firsts: int = 30  # short ones after them, for the first byte alone
    long_tokens: int = 110_000  # of the prompt that is abandoned
    context: int = 131_072
    vocabulary: int = 1024  # whose log-probabilities are compared
    prompts: int = 4
    copies: int = 12


DRY = Sizes(
    ready_s=390.0, rounds=5, chunks=24, turns=3, reply=12, firsts=6, long_tokens=6000,
    context=16_384, prompts=2, copies=2,
)  # fmt: skip


@dataclass
class Stage:
    """The box and what is on it; ``shared`` is the engine over the original miniature."""

    box: Box
    sizes: Sizes
    shared: Program | None = None
    failure: str = ""
    facts: Facts = field(default_factory=dict)

    def engine(self) -> Program:
        """Return the engine over the original miniature, started if it does not run.

        What failed once is not tried again: it would take the time of the other steps.
        """
        if self.failure:
            raise NotReady(f"the engine did not start before: {self.failure}")
        if self.shared is None or self.shared.process.poll() is not None:
            self.clear()
            self.shared = self._first_that_starts()
        return self.shared

    def clear(self) -> None:
        """End all that runs, so that the next step has the machine for itself."""
        self.box.end_all()
        self.shared = None

    def _first_that_starts(self) -> Program:
        """Start as production does; where that fails, without torch.compile and graphs."""
        reasons = []
        for eager in (False, True):
            name = "bare-eager" if eager else "bare"
            slow: dict[str, Any] = {"enforce_eager": True} if eager else {}
            program, plan = self.box.start_engine(
                name, self.original().name, max_model_len=self.sizes.context, **slow
            )
            self.facts = {"argv": list(plan.argv), "env": plan.own_env()}
            try:
                program.wait_ready(self.sizes.ready_s)
            except NotReady as cause:
                reasons.append(f"{cause}: {last_error(program.log)}")
                self.clear()
                continue
            self.facts |= {"ready_s": program.ready_s, "says": sayings(program.said())}
            self.facts["failed_before"] = reasons
            return program
        self.failure = "; ".join(reasons)
        raise NotReady(self.failure)

    def original(self) -> Path:
        """Return the miniature, made on the spot where it is not there yet."""
        folder = self.box.checkpoint(ORIGINAL)
        if not (folder / "config.json").exists():
            shape = miniature.CPU_SHAPE if self.box.on_cpu else miniature.SHAPE
            miniature.build(folder, shape, self.box.checkpoint(DEMO))
        return folder

    def deep(self) -> Program:
        """Return an engine alone on the machine, over the miniature of true widths and depth."""
        self.clear()
        folder = self.box.checkpoint(DEEP)
        if not (folder / "config.json").exists():
            shape = miniature.CPU_SHAPE if self.box.on_cpu else miniature.DEEP
            miniature.build(folder, shape, self.box.checkpoint(DEMO))
        program, _ = self.box.start_engine(DEEP, folder.name, max_model_len=8192)
        try:
            program.wait_ready(self.sizes.ready_s)
        except NotReady as cause:
            raise NotReady(f"{cause}: {last_error(program.log)}") from None
        return program

    def letters(self) -> list[int]:
        """Return tokens of plain letters: what is generated shall be text, and no tool call."""
        return [token for _, token in sorted(self._words().items())][:64]

    def words(self, count: int, seed: int) -> str:
        """Return a text of about so many tokens, another one for each seed."""
        dice = random.Random(seed)  # noqa: S311  nothing here is a secret
        return " ".join(dice.choices(sorted(self._words()), k=max(1, count // 2)))

    def _words(self) -> dict[str, int]:
        path = self.box.checkpoint(DEMO) / "tokenizer.json"
        vocabulary: dict[str, int] = json.loads(path.read_text())["model"]["vocab"]
        return {word: n for word, n in vocabulary.items() if re.fullmatch("[a-z]{2,}", word)}


def sayings(text: str) -> dict[str, str]:
    """Return what an engine's log says of it, the last time that it says so."""
    found = {name: re.findall(pattern, text) for name, pattern in SAYS.items()}
    return {name: str(values[-1]).strip() for name, values in found.items() if values}


def last_error(log: Path) -> str:
    """Return the line that says best why an engine ended."""
    lines = log.read_text(errors="replace").splitlines()
    telling = [line for line in lines if re.search(r"\b\w*(Error|Exception)\b:? ", line)]
    return (telling or lines or [""])[-1].strip()[-300:]


def metric(program: Program, *names: str) -> float:
    """Return the sum of all samples of these metrics."""
    with program.client(10) as client:
        text = client.get("/metrics").text
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(tuple(f"{name}{{" for name in names)) or line.split(" ")[0] in names
    )


def relative_error(found: Sequence[float], true: Sequence[float]) -> float:
    """Return ‖found - true‖ / ‖true‖."""
    top = sum((a - b) ** 2 for a, b in zip(found, true, strict=True))
    return float((top / sum(b * b for b in true)) ** 0.5)


def complete(program: Program, timeout_s: float = 120.0, **body: Any) -> dict[str, Any]:
    """Return the only choice of a plain completion."""
    asked = {"model": "Nikola", "temperature": 0, "ignore_eos": True, **body}
    with program.client(timeout_s) as client:
        answer = client.post("/v1/completions", json=asked)
    if answer.status_code != 200:
        raise RuntimeError(f"{program.name} answered {answer.status_code}: {answer.text[:300]}")
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice
