"""Steps over attention in 8 or 4 bits: it thinks as what it stands for, and decodes faster."""

import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.gpu import miniature
from tests.gpu.box import ROOT, Program
from tests.gpu.dequantise import quantise_all, write_reference
from tests.gpu.model_steps import GREEDY, compare, minds, start_each, words_of
from tests.gpu.record import Outcome, Skip, require
from tests.gpu.stage import DEMO, Stage, complete, sayings

TOOL = ROOT / "extras" / "quantize_attention.py"
FORMS = ("mxfp8", "fp8", "nvfp4-weight-only")  # those that vLLM 0.26 reads beside NVFP4 experts
NEAR = 0.02  # relative error of the logits to those of the dequantised reference
# Attention is 400 MB a layer in bf16, the experts that are read 20 MB: its bytes decide.
WIDE = replace(miniature.SHAPE, layers=20, experts=8, hidden=6144, heads=64, shards=20, seed=8)
WIDE_DRY = replace(WIDE, layers=2, hidden=512, heads=4, shards=2)
SHORT, LONG = 16, 272  # tokens: their difference is decoding alone


def quantised(stage: Stage, outcome: Outcome) -> None:
    """Checkpoints quant-FORMAT load and think like quant-FORMAT-ref, which is bf16."""
    names = _pairs(stage)
    if not names:
        raise Skip(f"no {TOOL.name} here, and the pack holds no checkpoint named quant-FORMAT")
    pairs = {name: f"{name}-ref" for name in names}
    told, failed, says = minds(stage, (*pairs, *pairs.values()))
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
            if not is_near or min(facts["greedy_same"]) < GREEDY:
                apart.append(name)
    require(not failed, f"did not load: {', '.join(failed)}")
    require(not apart, f"not as the reference: {', '.join(apart)}")


def _pairs(stage: Stage) -> list[str]:
    """Return the checkpoints to compare; of the original, made here, where none was carried."""
    folder = stage.box.folder / "checkpoints"
    if TOOL.exists() and not list(folder.glob("quant-*")):
        original = stage.original()
        for target in quantise_all(TOOL, original, "quant", FORMS):
            write_reference(original, target, target.with_name(f"{target.name}-ref"))
    return sorted(path.name for path in folder.glob("quant-*") if not path.name.endswith("-ref"))


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
