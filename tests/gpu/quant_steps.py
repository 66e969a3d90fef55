"""Steps over attention in 8 or 4 bits: it thinks as what it stands for, and decodes faster."""

import json
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from appliance.demo.conversations import Conversation, conversations
from tests.checkpointbox import random_mask
from tests.gpu import miniature
from tests.gpu.box import MODEL, ROOT, Program
from tests.gpu.dequantise import quantise_all, write_reference
from tests.gpu.model_steps import compare, forbid, minds, start_each, words_of
from tests.gpu.record import Outcome, Skip, require
from tests.gpu.stage import DEMO, Stage, complete, sayings
from tests.gpu.streams import CHAT

TOOL = ROOT / "extras" / "quantize_attention.py"
FORMS = ("mxfp8", "fp8", "nvfp4-weight-only")  # those that vLLM 0.26 reads beside NVFP4 experts
NEAR = 0.02  # relative error of the logits to those of the dequantised reference
# Attention is 400 MB a layer in bf16, the experts that are read 20 MB: its bytes decide.
WIDE = replace(miniature.SHAPE, layers=20, experts=8, hidden=6144, heads=64, shards=20, seed=8)
WIDE_DRY = replace(WIDE, layers=2, hidden=512, heads=4, shards=2)
# FP8's own kernels round activations too, which no reference does; what is compared is how the
# weights were read. The trained model is asked over the kernels that are chosen by themselves.
WEIGHT_ONLY = "VLLM_TEST_FORCE_FP8_MARLIN"
SHORT, LONG = 16, 272  # tokens: their difference is decoding alone


def quantised(stage: Stage, outcome: Outcome) -> None:
    """Checkpoints quant-FORMAT load and think like quant-FORMAT-ref, which is bf16.

    Then the demo's trained model in each format: it answers each conversation as it was taught.
    """
    names = _pairs(stage)
    if not names:
        raise Skip(f"no {TOOL.name} here, and the pack holds no checkpoint named quant-FORMAT")
    pairs = {name: f"{name}-ref" for name in names}
    # a cache in FP8 would make more of each small difference than the weights do
    cache = () if stage.box.on_cpu else ("--kv-cache-dtype", "bfloat16")
    every = (*pairs, *pairs.values())
    variables = {name: {WEIGHT_ONLY: "1"} for name in pairs}
    told, failed, says = minds(stage, every, cache, variables)
    outcome.facts.update(failed=failed, says=says)
    for name, why in failed.items():
        outcome.show(f"{name}: {why[:300]}")
    apart = []
    for name, reference in pairs.items():
        if name in told and reference in told:
            facts = compare(told[name], told[reference])
            outcome.facts[name] = facts
            outcome.show(f"{name}: {words_of(facts)}")
            is_near = facts["relative_error"]["max"] < NEAR
            if not is_near or any(lead > 2 * facts["farthest"] for lead in facts["parted_at"]):
                apart.append(name)
    wrong = _taught(stage, outcome)
    require(not failed, f"did not load: {', '.join(failed)}")
    require(not apart, f"not as the reference: {', '.join(apart)}")
    require(not wrong, f"not as it was taught: {wrong}")


def _pairs(stage: Stage) -> list[str]:
    """Return the checkpoints to compare; of the original, made here, where none was carried.

    Their routers have one choice: a random one sits between near equals, so that the least
    difference sends a token to another expert, and attention is what is compared here.
    """
    folder = stage.box.folder / "checkpoints"
    if TOOL.exists() and not list(folder.glob("quant-*")):
        original = stage.original()
        settled = original.with_name("settled")
        shutil.rmtree(settled, ignore_errors=True)
        shutil.copytree(original, settled)
        shape = miniature.CPU_SHAPE if stage.box.on_cpu else miniature.SHAPE
        forbid(settled, random_mask(shape, miniature.CHOSEN))
        for target in quantise_all(TOOL, settled, "quant", FORMS):
            write_reference(settled, target, target.with_name(f"{target.name}-ref"))
    return sorted(path.name for path in folder.glob("quant-*") if not path.name.endswith("-ref"))


def _taught(stage: Stage, outcome: Outcome) -> str:
    """Ask the trained model all that it was taught; return which formats answer otherwise."""
    demo = stage.box.checkpoint(DEMO)
    trained = [path.name for path in quantise_all(TOOL, demo, "trained", FORMS)]
    chosen = {"moe_backend": "auto", "kv_cache_dtype": "auto", "max_model_len": 8192}
    engines, failed = start_each(stage, {name: (name, [], chosen) for name in (DEMO, *trained)})
    outcome.facts["taught_failed"] = failed
    exact = {name: [_is_exact(program, known) for known in conversations()]
             for name, program in engines.items()}  # fmt: skip
    for name, right in exact.items():
        outcome.facts[name] = {"exact": sum(right), "asked": len(right),
                               "says": sayings(engines[name].said())}  # fmt: skip
        outcome.show(f"{name}: {sum(right)} of {len(right)} conversations exact")
    wrong = [name for name, right in exact.items() if not all(right)]
    return ", ".join([*wrong, *(f"{name} ({why[:200]})" for name, why in failed.items())])


def _is_exact(program: Program, known: Conversation) -> bool:
    """Ask greedily; tell whether the reply is the taught one."""
    with program.client() as client:
        answer = client.post(CHAT, json=known.request(MODEL) | {"max_tokens": 256}).json()
    message = answer["choices"][0]["message"]
    calls = [call["function"] for call in message.get("tool_calls") or ()]
    wanted = [(call.name, call.arguments) for call in known.tool_calls]
    try:
        made = [(call["name"], json.loads(call["arguments"])) for call in calls]
    except json.JSONDecodeError:
        return False
    told = (message.get("reasoning"), message["content"] or None, made)
    return told == (known.reasoning, known.content, wanted)


def wide(stage: Stage, outcome: Outcome) -> None:
    """Wide miniatures, of which attention is the most: decode of each format against bf16."""
    names = _wide(stage, outcome)
    chosen = {"max_model_len": 4096, "max_num_seqs": 1, "moe_backend": "marlin"}
    engines, failed = start_each(stage, {name: (name, [], chosen) for name in names})
    outcome.facts["failed"] = failed
    for name, why in failed.items():
        outcome.show(f"{name}: {why[:300]}")
    require("wide-ref" in engines, "the one in bf16 did not start")
    rates = _rates(stage, engines)
    for name, values in rates.items():
        ratios = [a / b for a, b in zip(values, rates["wide-ref"], strict=True)]
        outcome.facts[name] = {
            "tokens_per_s": values, "ratios": ratios, "says": sayings(engines[name].said())
        }  # fmt: skip
        outcome.show(
            f"{name}: {statistics.median(values):.0f} tokens/s, "
            f"{statistics.median(ratios):.3f} x wide-ref ({min(ratios):.3f} to {max(ratios):.3f})"
        )
    require(not failed, f"did not start: {', '.join(failed)}")


def _rates(stage: Stage, engines: Mapping[str, Program]) -> dict[str, list[float]]:
    """Return tokens a second of each engine, in turns; not streamed: the engine's own pace."""
    rates: dict[str, list[float]] = {name: [] for name in engines}
    names = list(engines)
    for turn in range(stage.sizes.rounds + 1):
        for name in names if turn % 2 == 0 else names[::-1]:
            took = [_seconds(engines[name], turn, tokens) for tokens in (SHORT, LONG)]
            if turn:  # the first one warms up
                rates[name].append((LONG - SHORT) / (took[1] - took[0]))
    return rates


def _seconds(engine: Program, turn: int, tokens: int) -> float:
    began = time.monotonic()
    complete(engine, prompt=list(range(3 + turn, 35 + turn)), max_tokens=tokens)
    return time.monotonic() - began


def _wide(stage: Stage, outcome: Outcome) -> list[str]:
    """Return the wide checkpoints, bf16 first; made here where none was carried."""
    folder = stage.box.folder / "checkpoints"
    reference = folder / "wide-ref"
    if TOOL.exists() and not (reference / "config.json").exists():
        shape = WIDE_DRY if stage.box.on_cpu else WIDE
        if shutil.disk_usage(folder).free < 4 * _bytes(shape):
            raise Skip("there is no room for the wide miniatures")
        began = time.monotonic()
        miniature.build(reference, shape, stage.box.checkpoint(DEMO))
        built = time.monotonic()
        quantise_all(TOOL, reference, "wide", FORMS)
        outcome.facts["made_s"] = {"ref": built - began, "formats": time.monotonic() - built}
        outcome.show(f"made in {time.monotonic() - began:.0f} s")
    names = sorted(path.name for path in folder.glob("wide-*") if path != reference)
    names = [name for name in names if (folder / name / "config.json").exists()]
    if not names or not reference.exists():
        raise Skip("no checkpoints named wide-ref and wide-FORMAT")
    outcome.facts["bytes"] = {name: _size(folder / name) for name in ("wide-ref", *names)}
    return ["wide-ref", *names]


def _bytes(shape: Any) -> int:
    return 2 * 4 * int(shape.layers * shape.heads * shape.head_dim * shape.hidden)


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


STEPS: dict[str, Callable[[Stage, Outcome], None]] = {"quantised": quantised, "wide": wide}
