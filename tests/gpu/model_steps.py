"""Steps over checkpoints, several engines at once: pruned, speculating; and FlashInfer."""

import json
import shutil
import statistics
import struct
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx

from appliance.checkpoint.command import main as delete_experts
from appliance.checkpoint.layout import read_layout
from appliance.checkpoint.mask import Gates
from appliance.checkpoint.source import LocalSource
from appliance.probes import WARMUP_QUESTION
from tests.checkpointbox import Shape, dice_of, random_mask, write_json
from tests.gpu import miniature
from tests.gpu.box import NotReady, Program
from tests.gpu.record import Facts, Outcome, Skip, require, spread
from tests.gpu.serving import rate
from tests.gpu.stage import (
    DEMO,
    ORIGINAL,
    Stage,
    complete,
    last_error,
    metric,
    relative_error,
    sayings,
)
from tests.gpu.streams import Way, ask_at_once, question

PRUNED, MASKED = "pruned", "masked"
SAME, APART = 0.02, 0.05  # relative errors: BF16 sums in another order; another model
GREEDY = 24  # tokens that are compared
SHARED_BYTES = 2**31  # of KV cache, for each of several engines on one GPU
SPECULATE: Mapping[str, Any] = {
    "num_speculative_tokens": 4, "prompt_lookup_max": 4, "prompt_lookup_min": 2
}  # fmt: skip


# ---- several engines on one machine

Wanted = Mapping[str, tuple[str, Sequence[str], Mapping[str, Any]]]


class Thoughts(NamedTuple):
    """What an engine thinks of some prompts.

    ``places`` are the centred logits at each place of them; ``greedy`` how each goes on, and
    ``leads`` by how much the best token was before the second each time, in nats.
    """

    places: list[list[float]]
    greedy: list[list[int]]
    leads: list[list[float]]


def start_each(
    stage: Stage, wanted: Wanted, variables: Mapping[str, Mapping[str, str]] | None = None
) -> tuple[dict[str, Program], dict[str, str]]:
    """Start engines at the same time; return those that are ready, and why the others are not.

    ``wanted`` is name -> checkpoint, flags, settings; ``variables`` name -> environment.
    """
    stage.clear()
    started: dict[str, Program] = {}
    ready: dict[str, Program] = {}
    failures: dict[str, str] = {}
    for name, (checkpoint, extra, chosen) in wanted.items():
        # vLLM measures nothing when it is told the bytes: so they can start side by side
        share = () if stage.box.on_cpu else ("--kv-cache-memory-bytes", str(SHARED_BYTES))
        utilization = {} if stage.box.on_cpu else {"gpu_memory_utilization": 0.1}
        started[name], _ = stage.box.start_engine(
            name, checkpoint, (*share, *extra), alone=False,
            variables=(variables or {}).get(name), **utilization, **chosen,
        )  # fmt: skip
    for name, program in started.items():
        try:
            program.wait_ready(stage.sizes.ready_s)
            ready[name] = program
        except NotReady as cause:
            failures[name] = f"{cause}: {last_error(program.log)}"
    return ready, failures


def start_all(stage: Stage, wanted: Wanted) -> dict[str, Program]:
    """Start engines at the same time. Raises NotReady unless all become ready."""
    ready, failures = start_each(stage, wanted)
    if failures:
        raise NotReady("; ".join(failures.values()))
    return ready


def told_all(stage: Stage) -> tuple[list[str], dict[str, Any]]:
    """Return flags and settings of an engine that tells log-probabilities of all tokens."""
    flags = ["--max-logprobs", str(stage.sizes.vocabulary), "--no-enable-prefix-caching"]
    return flags, {"enforce_eager": True, "max_model_len": 4096}


# ---- comparing what two engines think


def thoughts(stage: Stage, program: Program) -> Thoughts:
    """Ask for the logits at each place of some prompts, and for greedy continuations."""
    told = Thoughts([], [], [])
    for number in range(stage.sizes.prompts):
        dice = dice_of(f"prompt {number}")
        prompt = [dice.randrange(3, 900) for _ in range(48)]
        read = complete(program, prompt=prompt, max_tokens=1,
                        prompt_logprobs=stage.sizes.vocabulary)  # fmt: skip
        for place in read["prompt_logprobs"]:
            if place:
                by_token = sorted((int(token), entry["logprob"]) for token, entry in place.items())
                told.places.append(centred([value for _, value in by_token]))
        # by number: several tokens are written alike
        more = complete(program, prompt=prompt, max_tokens=GREEDY, return_token_ids=True,
                        logprobs=2, return_tokens_as_token_ids=True)  # fmt: skip
        told.greedy.append(more["token_ids"])
        told.leads.append([lead(best) for best in more["logprobs"]["top_logprobs"]])
    return told


def lead(best: Mapping[str, float]) -> float:
    """Return how far the best token is before the second."""
    first, second = sorted(best.values(), reverse=True)[:2]
    return first - second


def minds(
    stage: Stage, names: Sequence[str], flags: Sequence[str] = (),
    variables: Mapping[str, Mapping[str, str]] | None = None,
) -> tuple[dict[str, Thoughts], dict[str, str], dict[str, Facts]]:  # fmt: skip
    """Return what engines over these checkpoints think, why others do not, and what they say.

    All at once on a GPU; on a small machine's CPU one after the other. ``flags`` are for all of
    them, ``variables`` for each by its name.
    """
    usual, chosen = told_all(stage)
    told: dict[str, Thoughts] = {}
    failed: dict[str, str] = {}
    says: dict[str, Facts] = {}
    for group in [[name] for name in names] if stage.box.on_cpu else [names]:
        wanted: Wanted = {name: (name, [*usual, *flags], chosen) for name in group}
        ready, failures = start_each(stage, wanted, variables)
        failed |= failures
        for name, program in ready.items():
            try:
                told[name] = thoughts(stage, program)
            except (RuntimeError, httpx.HTTPError) as cause:  # the others may still answer
                failed[name] = f"{cause}: {last_error(program.log)}"
            says[name] = sayings(program.said())
    return told, failed, says


def centred(values: Sequence[float]) -> list[float]:
    """Return logits of mean 0, of log-probabilities, which are logits less a number."""
    mean = statistics.fmean(values)
    return [value - mean for value in values]


def compare(found: Thoughts, true: Thoughts) -> Facts:
    """Return how far the first is from the second.

    ``parted_at`` has, for each continuation that parts, by how much ``true`` held its own token
    for the better one: less than the logits differ by, and it is a tie.
    """
    pairs = list(zip(found.places, true.places, strict=True))
    farthest = max(abs(a - b) for pair in pairs for a, b in zip(*pair, strict=True))
    same = [_common(a, b) for a, b in zip(found.greedy, true.greedy, strict=True)]
    parted = [leads[n] for n, leads in zip(same, true.leads, strict=True) if n < len(leads)]
    return {"relative_error": spread([relative_error(a, b) for a, b in pairs]),
            "farthest": farthest, "greedy_same": same, "greedy_of": GREEDY,
            "parted_at": parted}  # fmt: skip


def _common(first: Sequence[int], second: Sequence[int]) -> int:
    """Return how many tokens are the same until the first that is not."""
    pairs = enumerate(zip(first, second, strict=True))
    return next((at for at, (a, b) in pairs if a != b), len(first))


def words_of(facts: Facts) -> str:
    """Return a comparison in a line."""
    error = facts["relative_error"]
    return (
        f"relative error p50 {error['p50']:.1e}, max {error['max']:.1e}; farthest "
        f"{facts['farthest']:.4f}; greedy tokens the same {facts['greedy_same']} "
        f"of {facts['greedy_of']}"
        + "".join(f", parted by {lead:.4f} nats" for lead in facts["parted_at"])
    )


# ---- pruning


def pruned(stage: Stage, outcome: Outcome) -> None:
    """The pruned miniature thinks like the original with the deleted experts masked out."""
    _prune(stage)
    told, failed, outcome.facts["says"] = minds(stage, (ORIGINAL, MASKED, PRUNED))
    outcome.facts["failed"] = failed
    require(not failed, "; ".join(failed.values()))
    same, control = compare(told[PRUNED], told[MASKED]), compare(told[PRUNED], told[ORIGINAL])
    outcome.facts.update(same=same, control=control)
    outcome.show(f"pruned against masked: {words_of(same)}")
    outcome.show(f"control, against unmasked: {words_of(control)}")
    require(control["relative_error"]["p50"] > APART, "the control is no other model")
    require(same["relative_error"]["max"] < SAME, "pruned and masked differ")


def _prune(stage: Stage) -> None:
    original, pruned_, masked = (stage.original(), stage.box.checkpoint(PRUNED),
                                 stage.box.checkpoint(MASKED))  # fmt: skip
    shape: Shape = miniature.CPU_SHAPE if stage.box.on_cpu else miniature.SHAPE
    mask = random_mask(shape, miniature.KEPT)
    if not (pruned_ / "config.json").exists():
        shutil.rmtree(pruned_, ignore_errors=True)
        path = pruned_.with_name("mask.json")
        write_json(path, mask)
        flags = ["--deleted-experts-file", str(path), "--verify"]
        code = delete_experts([str(original), str(pruned_), *flags])
        require(code == 0, f"delete_experts ended with {code}")
    if not (masked / "config.json").exists():
        fresh = masked.with_name("masked.new")
        shutil.rmtree(fresh, ignore_errors=True)
        shutil.copytree(original, fresh)
        forbid(fresh, mask)
        fresh.rename(masked)


def forbid(folder: Path, mask: Mapping[str, Sequence[int]]) -> None:
    """Take experts out of the routers' choice: their correction bias becomes -1e9."""
    source = LocalSource(folder)
    for layer, place in Gates(source, read_layout(source)).biases.items():
        with (folder / place.shard).open("r+b") as file:
            for expert in mask[str(layer)]:
                file.seek(place.offset + 4 * expert)
                file.write(struct.pack("<f", -1e9))
    source.close()


# ---- speculation


def ngram(stage: Stage, outcome: Outcome) -> None:
    """Prompt lookup on a load that repeats its prompt: how much is accepted, what it gains."""
    sizes = {} if stage.box.on_cpu else {"cudagraph_capture_sizes": (1, 2, 4, 5, 10, 20)}
    plain = {"max_model_len": 8192, "moe_backend": "auto", "kv_cache_dtype": "auto", **sizes}
    wanted: dict[str, tuple[str, list[str], dict[str, Any]]] = {"off": (DEMO, [], plain)}
    # vLLM refuses prompt lookup on the CPU beside async scheduling; the one on the GPU it takes
    for method in ("ngram",) if stage.box.on_cpu else ("ngram", "ngram_gpu"):
        config = json.dumps({"method": method, **SPECULATE})
        flags = ["--speculative-config", config]
        wanted[method] = (DEMO, flags + ["--no-async-scheduling"] * (method == "ngram"), plain)
    engines = start_all(stage, wanted)
    rates: dict[str, list[float]] = {name: [] for name in engines}
    texts: dict[str, str] = {}
    for turn in range(stage.sizes.copies):
        order = list(engines) if turn % 2 == 0 else list(engines)[::-1]
        for name in order:
            body = question(WARMUP_QUESTION, 160, temperature=0, ignore_eos=False,
                            chat_template_kwargs={"enable_thinking": False})  # fmt: skip
            stream = ask_at_once(Way.to(engines[name], name), [body])[0]
            texts[name] = stream.text
            if turn:  # the first one warms up
                rates[name].append(rate([stream]))
    for name, program in engines.items():
        _tell_rate(outcome, name, program, rates)
    same = len(set(texts.values())) == 1
    outcome.facts["texts"] = texts
    outcome.show(f"the same text from all: {same}")
    require(same, "speculation changed the text")


def _tell_rate(
    outcome: Outcome, name: str, program: Program, rates: Mapping[str, list[float]]
) -> None:
    drafted = metric(program, "vllm:spec_decode_num_draft_tokens_total")
    accepted = metric(program, "vllm:spec_decode_num_accepted_tokens_total")
    share = accepted / drafted if drafted else 0.0
    ratios = [a / b for a, b in zip(rates[name], rates["off"], strict=True)]
    outcome.facts[name] = {
        "tokens_per_s": spread(rates[name]), "drafted": drafted, "accepted": accepted,
        "ratio": {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)},
        "says": sayings(program.said()),
    }  # fmt: skip
    outcome.show(
        f"{name}: {statistics.median(rates[name]):.0f} tokens/s, {statistics.median(ratios):.2f} x "
        f"off ({min(ratios):.2f} to {max(ratios):.2f}); {accepted:.0f} of {drafted:.0f} drafted "
        f"tokens accepted ({100 * share:.0f} %)"
    )


# ---- FlashInfer


def flashinfer(stage: Stage, outcome: Outcome) -> None:
    """The card's attention backend comes up once its kernels are compiled, and streams."""
    if stage.box.on_cpu:
        raise Skip("the CPU engine has no such backend")
    stage.clear()
    program, plan = stage.box.start_engine(
        "flashinfer", stage.original().name, attention_backend="FLASHINFER", max_model_len=8192
    )
    outcome.facts["argv"] = list(plan.argv)
    try:
        program.wait_ready(10 * stage.sizes.ready_s)  # the step's own limit ends it before
    except NotReady as cause:
        raise NotReady(f"{cause}: {last_error(program.log)}") from None
    body = question(stage.words(64, 1), stage.sizes.chunks, temperature=1.0, seed=1)
    ask_at_once(Way.to(program, "warm"), [body])
    stream = ask_at_once(Way.to(program, "bare"), [body])[0]
    outcome.facts.update(ready_s=program.ready_s, says=sayings(program.said()),
                         gap_s=spread(stream.gaps_s), ttft_s=stream.ttft_s)  # fmt: skip
    outcome.show(
        f"ready after {program.ready_s:.0f} s, attention "
        f"{outcome.facts['says'].get('attention', 'unsaid')}; first byte "
        f"{1e3 * stream.ttft_s:.1f} ms, {1e3 * statistics.median(stream.gaps_s):.2f} ms a chunk"
    )


STEPS: dict[str, Callable[[Stage, Outcome], None]] = {
    "pruned": pruned, "ngram": ngram, "flashinfer": flashinfer,
}  # fmt: skip
