"""The real engine on a pruned checkpoint: it loads, generates, and thinks like the masked one.

The router chooses by score plus correction bias, and weighs by the score alone. So a bias of -1e9
takes an expert out of the choice and changes nothing else: the unpruned checkpoint with such
biases is the reference, run by the same engine, and every logit must agree.
"""

import json
import math
import shutil
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance.checkpoint.command import main
from appliance.checkpoint.layout import read_layout
from appliance.checkpoint.mask import Gates
from appliance.checkpoint.source import LocalSource
from tests import engines
from tests.checkpointbox import Shape, build, dice_of, random_mask, write_json, write_mask
from tests.engines import CHECKPOINT, ENGINE_PYTHON, EngineHandle

# Two engines are started here, of 62 layers each: minutes.
pytestmark = [pytest.mark.engine, pytest.mark.long, pytest.mark.timeout(1200)]

# The true numbers of layers and experts, of widths that the CPU's kernels take.
SHAPE = Shape(hidden=64, inner=32, heads=4, head_dim=32, vocabulary=1024, shards=4)
KEPT = 192
PROMPT = [dice_of("prompt").randrange(3, 900) for _ in range(24)]
SAME = 0.02  # nats: BF16 sums in another order; the control differs by more than ten times this
Logprobs = list[dict[int, float]]


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``source``, ``pruned``, and ``masked``: the source with biases of -1e9."""
    engines.require_real()
    folder = tmp_path_factory.mktemp("pruned")
    source = build(folder / "source", SHAPE)
    served = json.loads((CHECKPOINT / "config.json").read_text())
    ours = json.loads((source / "config.json").read_text())
    del ours["auto_map"]
    write_json(source / "config.json", served | ours | {"num_experts_per_tok": 8})
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        shutil.copy(CHECKPOINT / name, source)
    mask = write_mask(folder / "mask.json", SHAPE, KEPT)
    flags = ["--deleted-experts-file", str(mask), "--verify"]
    assert main([str(source), str(folder / "pruned"), *flags]) == 0
    shutil.copytree(source, folder / "masked")
    forbid(folder / "masked", random_mask(SHAPE, KEPT))
    return folder


def forbid(folder: Path, mask: dict[str, list[int]]) -> None:
    """Take experts out of the routers' choice."""
    source = LocalSource(folder)
    for layer, place in Gates(source, read_layout(source)).biases.items():
        with (folder / place.shard).open("r+b") as file:
            for expert in mask[str(layer)]:
                file.seek(place.offset + 4 * expert)
                file.write(struct.pack("<f", -1e9))
    source.close()


@contextmanager
def serving(folder: Path, log: Path) -> Iterator[EngineHandle]:
    """Serve a checkpoint with the real engine."""
    argv = [
        *(str(ENGINE_PYTHON.parent / "vllm"), "serve", str(folder)),
        *("--served-model-name", "tiny", "--max-model-len", "256", "--max-num-seqs", "4"),
        *("--max-logprobs", str(SHAPE.vocabulary), "--enforce-eager", "--no-enable-prefix-caching"),
    ]
    with engines.running(argv, log, engines.REAL_ENV) as engine:
        engine.wait_ready(2 * engines.REAL_READY_S)
        yield engine


def complete(engine: EngineHandle, **more: Any) -> dict[str, Any]:
    body = {"model": "tiny", "prompt": PROMPT, "temperature": 0, "ignore_eos": True} | more
    with engine.client(120) as client:
        answer = client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    choice: dict[str, Any] = answer.json()["choices"][0]
    return choice


def logprobs_of(folder: Path, log: Path) -> tuple[Logprobs, str]:
    """Return the distribution over all tokens at each place of the prompt, and a continuation."""
    with serving(folder, log) as engine:
        choice = complete(engine, prompt_logprobs=SHAPE.vocabulary, max_tokens=1)
        text = complete(engine, max_tokens=12)["text"]
    places = [place for place in choice["prompt_logprobs"] if place]
    found = [{int(token): entry["logprob"] for token, entry in place.items()} for place in places]
    assert [len(place) for place in found] == [SHAPE.vocabulary] * (len(PROMPT) - 1)
    return found, text


def farthest(first: Logprobs, second: Logprobs) -> float:
    """Return the largest difference of any token's log-probability at any place."""
    return max(
        abs(one[token] - two[token])
        for one, two in zip(first, second, strict=True)
        for token in one
    )


@pytest.fixture(scope="module")
def pruned(box: Path) -> tuple[Logprobs, str]:
    return logprobs_of(box / "pruned", box / "pruned.log")


def test_the_pruned_checkpoint_loads_and_generates(pruned: tuple[Logprobs, str]) -> None:
    places, text = pruned
    assert text
    for place in places:
        assert math.isclose(math.fsum(map(math.exp, place.values())), 1, rel_tol=1e-3)


def test_its_logits_are_those_of_the_unpruned_one_with_the_deleted_experts_masked_out(
    box: Path, pruned: tuple[Logprobs, str]
) -> None:
    places, text = logprobs_of(box / "masked", box / "masked.log")
    assert farthest(places, pruned[0]) < SAME
    assert text == pruned[1]


def test_unmasked_the_unpruned_one_differs_so_the_comparison_can_fail(
    box: Path, pruned: tuple[Logprobs, str]
) -> None:
    places, _ = logprobs_of(box / "source", box / "source.log")
    assert farthest(places, pruned[0]) > 10 * SAME
