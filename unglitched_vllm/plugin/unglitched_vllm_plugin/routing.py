"""Sigmoid top-k routing with a correction bias, added to vLLM's CPU router.

vLLM's ``CPURouter._compute_routing`` (fused_moe/router/cpu_router.py, 0.32 and 0.33) asserts
softmax where no groups are asked for, although MiniMax-M2 asks for sigmoid. We wrap that one
method: a sigmoid router without groups is answered here, every other one by vLLM.
"""

import importlib
import inspect
from typing import Any

ROUTER_MODULE = "vllm.model_executor.layers.fused_moe.router.cpu_router"
ROUTER_FIELDS = (
    "top_k",
    "use_grouped_topk",
    "renormalize",
    "scoring_func",
    "routed_scaling_factor",
    "e_score_correction_bias",
    "custom_routing_function",
)
METHOD_PARAMETERS = ("self", "hidden_states", "router_logits", "indices_type", "input_ids")
_MARK = "_unglitched_sigmoid_routing"


class PluginMismatch(RuntimeError):
    """vLLM's CPU router is not the one that this plug-in was written for."""

    def __init__(self, found: str) -> None:
        super().__init__(
            f"unglitched-vllm-plugin does not fit this vLLM: {found} in {ROUTER_MODULE}. "
            "Install the vLLM release that the appliance pins, or remove the plug-in "
            "(pip uninstall unglitched-vllm-plugin) if this vLLM routes sigmoid on CPU itself."
        )


def register() -> None:
    """Entry point: add sigmoid routing on a CPU platform, once; do nothing elsewhere.

    vLLM calls this in the API server, the engine core and each worker, some of them forked
    from one another, so a second call must find the first one's work and leave it.

    Raises:
        PluginMismatch: the router's class, method or fields are not where they were. vLLM
            does not catch it, so the engine stops at start and not at its first request.
    """
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        install(load_router_class())


def load_router_class() -> Any:
    """Import vLLM's CPU router class and check its shape."""
    try:
        module = importlib.import_module(ROUTER_MODULE)
    except ModuleNotFoundError as cause:
        raise PluginMismatch(f"no module {cause.name}") from cause
    router_class = getattr(module, "CPURouter", None)
    if router_class is None:
        raise PluginMismatch("no class CPURouter")
    return router_class


def install(router_class: Any) -> None:
    """Wrap ``router_class._compute_routing``, unless that is done already."""
    original = getattr(router_class, "_compute_routing", None)
    if original is None:
        raise PluginMismatch("no method CPURouter._compute_routing")
    if hasattr(original, _MARK):
        return
    found = tuple(inspect.signature(original).parameters)
    if found != METHOD_PARAMETERS:
        raise PluginMismatch(f"CPURouter._compute_routing{found}, expected {METHOD_PARAMETERS}")
    accepted = inspect.signature(router_class.__init__).parameters
    missing = [field for field in ROUTER_FIELDS if field not in accepted]
    if missing:
        raise PluginMismatch(f"CPURouter without {', '.join(missing)}")

    def compute_routing(
        self: Any,
        hidden_states: Any,
        router_logits: Any,
        indices_type: Any,
        *,
        input_ids: Any = None,
    ) -> Any:
        ours = (
            self.scoring_func == "sigmoid"
            and not self.use_grouped_topk
            and self.custom_routing_function is None
        )
        if not ours:
            return original(self, hidden_states, router_logits, indices_type, input_ids=input_ids)
        return route_sigmoid(
            router_logits,
            top_k=self.top_k,
            bias=self.e_score_correction_bias,
            renormalize=self.renormalize,
            scale=self.routed_scaling_factor,
        )

    setattr(compute_routing, _MARK, True)
    router_class._compute_routing = compute_routing


def route_sigmoid(
    router_logits: Any,
    *,
    top_k: int,
    bias: Any = None,
    renormalize: bool = True,
    scale: float = 1.0,
) -> tuple[Any, Any]:
    """Choose ``top_k`` experts for each token, as MiniMax-M2 does.

    The bias steers the choice alone: weights come from the scores without it.

    Args:
        router_logits: [tokens, experts], any float type; computed in float32.
        top_k: experts for each token.
        bias: [experts] or None.
        renormalize: make each token's weights add up to 1 (before ``scale``).
        scale: factor on the weights.

    Returns:
        Weights, float32 [tokens, top_k], and expert ids, int32 [tokens, top_k], best first and
        both contiguous: vLLM's CPU kernel reads them as plain buffers.
    """
    scores = router_logits.float().sigmoid()
    choice = scores if bias is None else scores + bias.float()
    # Sorted, unlike vLLM's own: a token's experts are then summed in one order whatever the
    # batch around it, which keeps its rounding the same.
    ids = choice.topk(top_k, dim=-1, sorted=True).indices
    weights = scores.gather(-1, ids)
    if renormalize:
        weights = weights / weights.sum(dim=-1, keepdim=True)
    if scale != 1.0:
        weights = weights * scale
    return weights.contiguous(), ids.int().contiguous()
