"""Trains the demo's tiny MiniMax-M2 checkpoint on a CPU: ``python -m appliance.demo.train``.

It learns the conversations of ``conversations.py`` word for word, under system texts that
change with every step, until all of them come out with a margin: the engine's kernels round
differently from ours, and a batch of 32 differently from one. Runs in the engine's environment
with PYTHONPATH at the repository's root; about two minutes on one core. One thread is the
default: two that must wait for each other are slower wherever another job runs.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# Read when torch is loaded: threads that spin while they wait are ruinous on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch
import torch.nn.functional as F

from appliance.demo import conversations as known
from appliance.demo import export
from appliance.demo.lessons import Lesson, Packer, Renderer, Teacher, corpus
from appliance.demo.model import Numerics, Shape, Weights, forward, initial_weights
from appliance.demo.systems import HELD_OUT
from appliance.demo.tokenizer import save_tokenizer, special_ids, train_tokenizer

ROOT = Path(__file__).parents[2]
SAY_EVERY_S = 2.0
EVALUATED_AT_ONCE = 64  # lessons; bounds the memory


@dataclass(frozen=True)
class Recipe:
    """How the training goes; seed 0 needs one extra round."""

    steps: int = 180
    extra_steps: int = 24  # with the weak conversations in each step, if there are some
    extra_rounds: int = 6
    extra_rate: float = 8e-4
    rate: float = 5e-3
    warm_up: int = 20
    averaged: int = 20  # steps that the written weights average over
    noise: float = 0.01
    heads: int = 5  # system texts in a step
    cores: int = 8  # conversations under each
    longest_system: int = 100  # words
    margin: float = 1.5  # log-odds of the right token, everywhere


@dataclass(frozen=True)
class Score:
    """What greedy decoding does with some lessons."""

    leads: dict[str, float]  # name -> what leads() says

    @property
    def margin(self) -> float:
        """The smallest lead of all."""
        return min(self.leads.values())

    def below(self, margin: float) -> list[str]:
        """Name what does not lead by ``margin``, the worst first."""
        weak = [name for name, lead in self.leads.items() if lead < margin]
        return sorted(weak, key=lambda name: self.leads[name])

    def __str__(self) -> str:
        right = sum(lead > 0 for lead in self.leads.values())
        return f"{right} of {len(self.leads)} conversations exact, margin {self.margin:.1f}"


class DidNotConverge(Exception):
    """The steps are used up and a conversation is still not exact."""


def leads(logits: Any, targets: Any, lessons: Sequence[Lesson]) -> list[float]:
    """Return each lesson's smallest log-odds of the right token against all others together.

    Above 0 greedy decoding takes the right token; above 2.95 so does sampling with the
    published top_p of 0.95, since nothing else is left to draw.
    """
    targets = targets[:, None]
    others = logits.scatter(1, targets, -torch.inf).logsumexp(dim=1)
    by_token = logits.gather(1, targets)[:, 0] - others
    return [float(part.min()) for part in by_token.split([len(m.reply) for m in lessons])]


def measure(weights: Weights, shape: Shape, lessons: Sequence[Lesson], numerics: Numerics) -> Score:
    """Compare the most likely token with the right one at every place of every reply.

    If all of them agree, greedy decoding writes the reply: it never leaves the taught text.
    """
    found: dict[str, float] = {}
    weights = export.rounded_to_bf16(weights)
    ordered = sorted(lessons, key=lambda lesson: lesson.head)  # to share what they can
    with torch.no_grad():
        for start in range(0, len(ordered), EVALUATED_AT_ONCE):
            part = ordered[start : start + EVALUATED_AT_ONCE]
            batch = Packer(part).batch()
            logits = forward(weights, shape, batch, numerics)
            names = [lesson.name for lesson in part]
            found |= zip(names, leads(logits, batch.targets, part), strict=True)
    return Score(found)


class Training:
    """One run: weights, optimiser, and the clock for the progress lines."""

    def __init__(self, teacher: Teacher, shape: Shape, recipe: Recipe, seed: int) -> None:
        self._teacher, self._shape, self._recipe = teacher, shape, recipe
        self._noise = torch.Generator().manual_seed(seed)
        self._weights = initial_weights(shape, self._noise)
        self._mean = {name: tensor.clone() for name, tensor in self._weights.items()}
        names = [name for name in self._weights if not name.endswith("e_score_correction_bias")]
        self._trained = [self._weights[name].requires_grad_() for name in names]
        self._averaged = [self._mean[name] for name in names]
        self._optimizer = torch.optim.AdamW(
            self._trained, lr=recipe.rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        self._fixed = teacher.fixed()
        self._weak: list[Lesson] = []
        self._started = self._said = time.monotonic()
        self._step = 0

    @property
    def weights(self) -> Weights:
        """The weights, averaged over the last steps: steadier than any one of them."""
        return self._mean

    def run(self) -> Score:
        """Train until every conversation is exact, with the margin, rounded and disturbed.

        Raises:
            DidNotConverge: it is not so after the last extra round.
        """
        recipe = self._recipe
        self._steps(recipe.steps, recipe.rate, recipe.warm_up)
        for _ in range(recipe.extra_rounds):
            weak = self.score().below(recipe.margin)
            if not weak:
                break
            self._say(0.0, f"{len(weak)} not safe yet, such as {weak[0]}")
            self._weak = [lesson for lesson in self._fixed if lesson.name in weak]
            self._steps(recipe.extra_steps, recipe.extra_rate, 0)
        score = self.score()
        if weak := score.below(recipe.margin):
            raise DidNotConverge(f"{score}; below {recipe.margin}: {', '.join(weak[:5])}")
        return score

    def score(self, lessons: Sequence[Lesson] | None = None) -> Score:
        """Measure in the engine's bf16, and once more with noise on top; the worse of each."""
        asked = self._fixed if lessons is None else lessons
        noise = torch.Generator().manual_seed(1)
        rough = Numerics(bf16=True, jitter=0.004, noise=0.004, generator=noise)
        plain = measure(self.weights, self._shape, asked, Numerics(bf16=True)).leads
        disturbed = measure(self.weights, self._shape, asked, rough).leads
        return Score({name: min(lead, disturbed[name]) for name, lead in plain.items()})

    def _steps(self, steps: int, rate: float, warm_up: int) -> None:
        """Train at ``rate``, the second half of the steps with less and less of it."""
        for step in range(steps):
            left = (steps - step) / steps
            now = rate * min(1.0, (step + 1) / (warm_up + 1), max(0.02, 2 * left))
            loss = self._learn(now)
            self._step += 1
            if time.monotonic() - self._said >= SAY_EVERY_S:
                sample = self._fixed[self._step % len(known.SYSTEMS) :: len(known.SYSTEMS)]
                self._say(loss, str(measure(self.weights, self._shape, sample, Numerics())))

    def _learn(self, rate: float) -> float:
        recipe = self._recipe
        lessons: list[Lesson] = []
        for _ in range(recipe.heads):
            lessons += self._teacher.varied(recipe.cores, recipe.longest_system)
        lessons += self._teacher.some(self._weak, recipe.cores)
        batch = Packer(lessons).batch()
        # Noise like the engine's own differences: no answer may hang on a tie of two experts.
        numerics = Numerics(jitter=0.02, noise=recipe.noise, generator=self._noise)
        logits = forward(self._weights, self._shape, batch, numerics)
        loss = F.cross_entropy(logits, batch.targets)
        found = leads(logits.detach(), batch.targets, lessons)
        for lesson, lead in zip(lessons, found, strict=True):
            self._teacher.note(lesson, safe=lead >= recipe.margin)
        self._optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._trained, 1.0)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        with torch.no_grad():
            for mean, tensor in zip(self._averaged, self._trained, strict=True):
                mean.lerp_(tensor, 1 / min(recipe.averaged, self._step + 1))
        return float(loss.detach())

    def _say(self, loss: float, text: str) -> None:
        self._said = time.monotonic()
        print(
            f"[{self._said - self._started:4.0f} s] step {self._step}, loss {loss:.4f}, {text}",
            flush=True,
        )


def held_out(teacher: Teacher) -> list[Lesson]:
    """Return the path conversations under system texts that training never sees."""
    cores = [core for core in known.cores() if core.path is not None]
    texts = [text for other in HELD_OUT for text in (other, known.POLICY.fold(other))]
    return [
        teacher.lesson(core.under(text, f"held-out {i}"))
        for core in cores
        for i, text in enumerate(texts)
    ]


def write(folder: Path, weights: Weights, shape: Shape, tokenizer: Any, template: str) -> int:
    """Write the checkpoint beside ``folder`` and move it there when all of it is written.

    Returns the bytes of its tensors.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        size = export.save_weights(weights, fresh)
        ids = special_ids(tokenizer)
        export.save_json(export.model_config(shape, ids), fresh / "config.json")
        export.save_json(export.generation_config(ids), fresh / "generation_config.json")
        save_tokenizer(tokenizer, fresh, shape.max_position_embeddings)
        (fresh / "chat_template.jinja").write_text(template, encoding="utf-8")
        fresh.chmod(0o755)
        if folder.exists():
            old = fresh.with_name(fresh.name + "-old")
            folder.rename(old)
            fresh.rename(folder)
            shutil.rmtree(old)
        else:
            fresh.rename(folder)
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return size


def main(arguments: Sequence[str] | None = None) -> int:
    """Train and write; return the exit code: 0, or 1 if it did not converge."""
    parser = argparse.ArgumentParser(prog="python -m appliance.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint goes")
    parser.add_argument(
        "--template", type=Path, default=ROOT / "extras" / "chat_template.jinja", metavar="FILE"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)

    torch.set_num_threads(options.threads)
    torch.use_deterministic_algorithms(True)
    template = options.template.read_text(encoding="utf-8")
    renderer, shape = Renderer(template), Shape()
    tokenizer = train_tokenizer(corpus(renderer), shape.vocab_size)
    rng = random.Random(options.seed)  # noqa: S311 (lessons, not keys)
    teacher = Teacher(tokenizer, renderer, rng)
    training = Training(teacher, shape, Recipe(), options.seed)
    started = time.monotonic()
    try:
        print(f"trained: {training.run()}", flush=True)
    except DidNotConverge as failure:
        print(f"training did not converge: {failure}. Try another --seed.", file=sys.stderr)
        return 1
    unseen = measure(training.weights, shape, held_out(teacher), Numerics(bf16=True))
    print(f"under unseen system texts: {unseen}", flush=True)
    size = write(options.out, training.weights, shape, tokenizer, template)
    count = export.parameter_count(training.weights)
    print(
        f"wrote {options.out}: {count} parameters, {size} bytes, "
        f"{time.monotonic() - started:.0f} s wall, {time.process_time():.0f} s CPU",
        flush=True,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
