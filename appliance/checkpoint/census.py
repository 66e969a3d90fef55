"""Which tensors each expert has: every one must have the same, and every layer all experts."""

from collections import Counter
from collections.abc import Iterable, Mapping

from appliance.checkpoint.headers import Tensor
from appliance.checkpoint.tensornames import Expert, Role, Router

Parts = frozenset[str]


def _parts(*suffixes: str) -> Parts:
    return frozenset(f"{matrix}.{suffix}" for matrix in ("w1", "w2", "w3") for suffix in suffixes)


FORMATS = {
    _parts("weight"): "unquantised",
    _parts("weight", "weight_scale_inv"): "FP8 by blocks",
    _parts("weight", "weight_scale", "weight_scale_2", "input_scale"): "ModelOpt NVFP4",
    _parts("weight", "weight_scale", "weight_scale_2"): "ModelOpt NVFP4, weights only",
    _parts("weight_packed", "weight_scale", "weight_global_scale", "input_global_scale"): (
        "compressed-tensors NVFP4"
    ),
}


class Census:
    """Counts a checkpoint's tensors, shard by shard."""

    def __init__(self, layers: int, experts: int) -> None:
        self._layers, self._experts = layers, experts
        self._parts: dict[tuple[int, int], set[str]] = {}
        self._routers: Counter[int] = Counter()
        self.tensors = 0
        self.data_bytes = 0

    def add(self, tensors: Iterable[Tensor], roles: Mapping[str, Role]) -> None:
        """Count the tensors of one file; ``roles`` says what each is."""
        for tensor in tensors:
            self.tensors += 1
            self.data_bytes += tensor.size
            match roles[tensor.name]:
                case Expert(layer, number, _, part):
                    self._parts.setdefault((layer, number), set()).add(part)
                case Router(layer):
                    self._routers[layer] += 1

    def parts(self) -> Parts:
        """Return what most experts have."""
        counted = Counter(frozenset(parts) for parts in self._parts.values())
        return counted.most_common(1)[0][0] if counted else frozenset()

    def format_name(self) -> str:
        """Return what the experts' tensors are, for people."""
        parts = self.parts()
        return FORMATS.get(parts, f"a format not known here ({len(parts)} tensors an expert)")

    def problems(self) -> list[str]:
        """Return a line for each expert that differs from the rest, and each layer that lacks any.

        A layer without any expert is dense: it lacks none, and must have no router.
        """
        usual, said = self.parts(), []
        for layer in range(self._layers):
            there = [number for number in range(self._experts) if (layer, number) in self._parts]
            if not there and not self._routers[layer]:
                said.append(f"layer {layer} has no experts")
                continue
            if len(there) != self._experts:
                said.append(f"layer {layer} has {len(there)} of {self._experts} experts")
            if not self._routers[layer]:
                said.append(f"layer {layer} has no router")
            for number in there:
                if differing := usual ^ self._parts[layer, number]:
                    said.append(
                        f"layer {layer}, expert {number} differs from the rest in "
                        f"{', '.join(sorted(differing)[:3])}"
                    )
        outside = {key for key in self._parts if key[0] >= self._layers or key[1] >= self._experts}
        said += [f"layer {layer}, expert {number} is too many" for layer, number in sorted(outside)]
        return said
