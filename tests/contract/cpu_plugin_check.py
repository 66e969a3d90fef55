"""Runs in the engine's environment: the plug-ins' routing and waiting, against vLLM's own code.

Prints one JSON object: case name -> null, or what was wrong. The test beside it starts this in
a subprocess, as torch and vLLM are installed in the engine's environment alone.
"""

import json
import os
import time
from collections.abc import Callable
from typing import Any

import torch
import vllm.platforms
import zmq
from vllm.distributed.device_communicators import shm_broadcast
from vllm.model_executor.layers.fused_moe.router import cpu_router

from unglitched_vllm.plugin.unglitched_vllm_plugin import routing, waiting
from unglitched_vllm.plugin.unglitched_vllm_plugin.routing import PluginMismatch, register

TOLERANCE = 1e-5
SHAPES = ((1, 8, 2), (7, 8, 2), (64, 192, 8), (33, 256, 8), (5, 4, 4), (0, 8, 2))


def reference(logits: Any, bias: Any, top_k: int) -> list[dict[int, float]]:
    """Route token by token in Python: expert id -> weight, for each token."""
    routed = []
    for row in logits.tolist():
        scores = [torch.tensor(x).sigmoid().item() for x in row]
        choice = scores if bias is None else [s + b for s, b in zip(scores, bias, strict=True)]
        best = sorted(range(len(row)), key=lambda e: -choice[e])[:top_k]
        total = sum(scores[e] for e in best)
        routed.append({e: scores[e] / total for e in best})
    return routed


def router(top_k: int, experts: int, **fields: Any) -> Any:
    """Build vLLM's own CPU router."""
    return cpu_router.CPURouter(top_k=top_k, global_num_experts=experts, **fields)


def ask(of: Any, logits: Any) -> tuple[Any, Any]:
    """Route ``logits`` [tokens, experts] by ``of``."""
    weights, ids = of._compute_routing(torch.zeros(len(logits), 4), logits, None)
    return weights, ids


def differs(tokens: int, experts: int, top_k: int, *, biased: bool) -> str | None:
    """Compare one random case with the reference."""
    generator = torch.Generator().manual_seed(tokens * 1000 + experts + biased)
    logits = torch.randn(tokens, experts, generator=generator) * 2
    bias = torch.randn(experts, generator=generator) * 0.3 if biased else None
    of = router(top_k, experts, scoring_func="sigmoid", e_score_correction_bias=bias)
    weights, ids = ask(of, logits)
    if (weights.dtype, ids.dtype) != (torch.float32, torch.int32):
        return f"dtypes {weights.dtype}, {ids.dtype}"
    if not (weights.is_contiguous() and ids.is_contiguous()):
        return "not contiguous"
    expected = reference(logits, None if bias is None else bias.tolist(), top_k)
    for token, want in enumerate(expected):
        got = dict(zip(ids[token].tolist(), weights[token].tolist(), strict=True))
        if got.keys() != want.keys():
            return f"token {token}: experts {sorted(got)} instead of {sorted(want)}"
        worst = max(abs(got[e] - want[e]) for e in want)
        if worst > TOLERANCE:
            return f"token {token}: weights off by {worst:.1e}"
    return None


def ties_keep_the_weights_right() -> str | None:
    """Equal scores: any of the tied experts may be chosen, each once, with equal weights."""
    weights, ids = ask(router(3, 8, scoring_func="sigmoid"), torch.zeros(4, 8))
    if any(len(set(row)) != 3 for row in ids.tolist()):
        return f"an expert was chosen twice: {ids.tolist()}"
    return None if torch.allclose(weights, torch.full((4, 3), 1 / 3)) else "unequal weights"


def the_bias_steers_the_choice_and_not_the_weight() -> str | None:
    """A biased loser is chosen, and weighs what its own score says."""
    bias = torch.tensor([0.0, 0.0, 0.0, 0.9])
    of = router(2, 4, scoring_func="sigmoid", e_score_correction_bias=bias)
    weights, ids = ask(of, torch.tensor([[2.0, 1.0, 0.0, -1.0]]))
    want = torch.tensor([2.0, -1.0]).sigmoid()
    got = dict(zip(ids[0].tolist(), weights[0].tolist(), strict=True))
    if got.keys() != {0, 3}:
        return f"chose {sorted(got)}"
    off = max(abs(got[0] - want[0] / want.sum()), abs(got[3] - want[1] / want.sum()))
    return None if off < TOLERANCE else f"weights off by {off:.1e}"


def softmax_and_groups_stay_with_vllm() -> str | None:
    """What vLLM routes by itself comes out bit for bit as before the plug-in."""
    logits = torch.randn(16, 8, generator=torch.Generator().manual_seed(5))
    weights, ids = ask(router(2, 8), logits)
    own_weights, own_ids = cpu_router._softmax_topk(logits, 2, True)
    if not (torch.equal(weights, own_weights) and torch.equal(ids, own_ids)):
        return "softmax changed"
    grouped = router(
        2, 8, use_grouped_topk=True, num_expert_group=2, topk_group=1, scoring_func="sigmoid"
    )
    weights, ids = ask(grouped, logits)
    own_weights, own_ids = cpu_router._grouped_topk(logits, 2, True, 2, 1, "sigmoid", 1.0, None)
    same = torch.equal(weights, own_weights) and torch.equal(ids, own_ids)
    return None if same else "grouped routing changed"


def a_second_registration_changes_nothing() -> str | None:
    """Plug-ins load several times; the wrapper must not wrap itself."""
    before = cpu_router.CPURouter._compute_routing
    register()
    return None if cpu_router.CPURouter._compute_routing is before else "wrapped twice"


def other_platforms_are_left_alone() -> str | None:
    """On a platform that is not a CPU nothing is touched, nor even imported."""

    class NotACpu:
        def is_cpu(self) -> bool:
            return False

    real, untouched = vllm.platforms.current_platform, routing.ROUTER_MODULE
    vllm.platforms.current_platform = NotACpu()
    routing.ROUTER_MODULE = "vllm.no_such_module"
    before = shm_broadcast.sched_yield
    try:
        register()
        waiting.register()
    finally:
        vllm.platforms.current_platform, routing.ROUTER_MODULE = real, untouched
    return None if shm_broadcast.sched_yield is before else "the readers of another platform nap"


def vllms_readers_nap() -> str | None:
    """A reader that waits on shared memory lets go of the processor: it uses less of it."""
    if shm_broadcast.sched_yield is waiting.nap:
        return "they napped before"
    waiting.register()
    waiting.register()
    if shm_broadcast.sched_yield is not waiting.nap:
        return "vLLM's readers no longer call sched_yield: drop the plug-in"
    notify = f"ipc:///tmp/unglitched-{os.getpid()}"
    reader = shm_broadcast.SpinCondition(True, zmq.Context.instance(), notify, busy_loop_s=60)
    reader.record_read()
    used, waited = time.process_time(), time.monotonic()
    for _ in range(200):
        reader.wait()
    used, waited = time.process_time() - used, time.monotonic() - waited
    return None if used < waited / 2 else f"{used:.3f} s of processor in {waited:.3f} s of waiting"


def refused(router_class: Any, because: str) -> str | None:
    """Say what went wrong if ``install`` takes this class, or refuses it unclearly."""
    try:
        routing.install(router_class)
    except PluginMismatch as refusal:
        return None if because in str(refusal) else f"unclear: {refusal}"
    return f"accepted a class without {because}"


def a_moved_router_is_refused() -> str | None:
    """Each way in which vLLM may move is named in the refusal."""

    class NoMethod:
        pass

    class OtherSignature:
        def _compute_routing(self, x: Any) -> Any:
            return x

    class NoFields:
        def _compute_routing(
            self, hidden_states: Any, router_logits: Any, indices_type: Any, *, input_ids: Any
        ) -> Any:
            return router_logits

    return (
        refused(NoMethod, "_compute_routing")
        or refused(OtherSignature, "expected")
        or refused(NoFields, "scoring_func")
    )


def main() -> None:
    """Run every case and print the outcome."""
    original = cpu_router.CPURouter._compute_routing
    register()
    register()
    outcome: dict[str, str | None] = {
        "installed": None if original is not cpu_router.CPURouter._compute_routing else "no"
    }
    for tokens, experts, top_k in SHAPES:
        for biased in (False, True):
            name = f"{tokens}x{experts} top {top_k}{' biased' if biased else ''}"
            outcome[name] = differs(tokens, experts, top_k, biased=biased)
    cases: tuple[Callable[[], str | None], ...] = (
        ties_keep_the_weights_right,
        the_bias_steers_the_choice_and_not_the_weight,
        softmax_and_groups_stay_with_vllm,
        a_second_registration_changes_nothing,
        other_platforms_are_left_alone,
        vllms_readers_nap,
        a_moved_router_is_refused,
    )
    outcome.update({case.__name__: case() for case in cases})
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
