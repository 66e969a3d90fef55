"""The largest input scale of each layer, before and after its experts were deleted.

vLLM's fused kernels quantise activations by the largest of a layer's input scales: when the
expert that had it is gone, those of all others are scaled in another way, mostly a better one.
"""

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.headers import read_header
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.prune import PrunePlan
from appliance.checkpoint.scalars import read_scalars
from appliance.checkpoint.source import Source
from appliance.checkpoint.tensornames import expert_of


def input_scales(source: Source, plan: PrunePlan, jobs: int) -> dict[int, tuple[float, float]]:
    """Return by layer the largest of all experts, and of those that stay. Empty without any."""
    mask = plan.wanted.rules.mask
    largest: dict[int, tuple[float, float]] = {}

    def read(shard: str) -> list[tuple[str, float]]:
        return list(read_scalars(source, shard, read_header(source, shard)))

    shards = plan.shards.plans
    with Bar("reading scales", len(shards), unit="shards") as bar:
        for scalars in in_order(read, shards, jobs, source.stop):
            bar.add(1)
            for name, value in scalars:
                expert = expert_of(name)
                if expert is None or not expert.part.endswith(".input_scale"):
                    continue
                stays = mask.new_number(expert.layer, expert.number) is not None
                before, after = largest.get(expert.layer, (0.0, 0.0))
                largest[expert.layer] = (max(before, value), max(after, value) if stays else after)
    return dict(sorted(largest.items()))
