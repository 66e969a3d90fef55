"""Looks at every matrix that is to be quantised, before anything is written: is it fit for it?"""

from collections.abc import Iterator, Sequence
from functools import partial

from appliance.checkpoint.bar import Bar
from appliance.checkpoint.failures import CheckpointError
from appliance.checkpoint.formats import SHARED_SCALE, Format, Recipe
from appliance.checkpoint.headers import Header, read_headers
from appliance.checkpoint.jobs import in_order
from appliance.checkpoint.layout import QUANTISATION, Layout, read_json
from appliance.checkpoint.mixed import readable, section_of
from appliance.checkpoint.projections import Choice, Projection, by_format, find_projections
from appliance.checkpoint.quantise.bounds import Norms, input_bounds
from appliance.checkpoint.quantise.measure import error, largest
from appliance.checkpoint.source import Source
from appliance.checkpoint.surveyed import Measured, Survey
from appliance.checkpoint.tokenbytes import weights_of
from appliance.checkpoint.weigh import Scales


def survey(
    source: Source, layout: Layout, choice: Choice, keep_above: float | None, jobs: int
) -> Survey:
    """Measure what ``choice`` chooses, ``jobs`` layers at a time.

    What is further off than ``keep_above`` stays as it is, and with it what shares its format.
    Raises CheckpointError for a matrix that is missing, or cannot be quantised.
    """
    _check_choice(source, layout, choice)
    norms, scales = Norms(), Scales()

    def seen() -> Iterator[tuple[str, Header]]:
        headers = read_headers(source, layout.shards, jobs)
        for shard, header in zip(layout.shards, headers, strict=True):
            norms.look(shard, header)
            scales.add(header.tensors)
            yield shard, header

    found, others, head = find_projections(seen(), layout.layers, choice)
    by_layer: dict[int, list[Projection]] = {}
    for one in reversed(found):  # the head takes longest: it begins first
        by_layer.setdefault(one.layer, []).insert(0, one)
    measure = partial(_measure, source, choice.kind, norms, keep_above)
    measured: dict[str, Measured] = {}
    with Bar("measuring", sum(one.matrix.size for one in found)) as bar:
        for layer in in_order(measure, by_layer.values(), jobs, source.stop):
            measured |= {one.projection.module: one for one in layer}
            bar.add(sum(one.projection.matrix.size for one in layer))
    ordered = tuple(measured[one.module] for one in found)
    return Survey(choice, keep_above, ordered, tuple(others), head, weights_of(layout, scales))


def _check_choice(source: Source, layout: Layout, choice: Choice) -> None:
    file = read_json(source, QUANTISATION) if QUANTISATION in layout.others else {}
    readable(section_of(layout.config, file))
    if outside := sorted(n for n in choice.layers or () if n >= layout.layers):
        raise CheckpointError(
            f"--layers names layer {outside[0]}, and there are {layout.layers}, from 0 on"
        )
    if choice.head and layout.config.get("tie_word_embeddings"):
        raise CheckpointError(
            "the head is the embedding (tie_word_embeddings), which vLLM cannot read quantised",
            "leave --lm-head out",
            code="checkpoint_attention",
        )


def _measure(
    source: Source,
    kind: Format,
    norms: Norms,
    keep_above: float | None,
    layer: Sequence[Projection],
) -> list[Measured]:
    most: dict[str, float] = {}
    if kind in SHARED_SCALE:
        most = {one.module: largest(source, one) for one in layer}
    inputs = input_bounds(source, norms, layer) if kind is Format.FP8 else {}
    measured: list[Measured] = []
    for group in by_format(layer):
        shared = max(most.get(one.module, 0.0) for one in group)
        found = []
        for one in group:
            rows, columns = one.matrix.rows, one.matrix.columns
            recipe = Recipe(kind, rows, columns, shared, inputs.get(one.module, 0.0))
            found.append(Measured(one, recipe, error(source, one, recipe)))
        far = max(found, key=lambda one: one.error.relative)
        if keep_above is not None and far.error.relative > keep_above:
            why = f"{far.projection.kind}: {far.error.relative:.4f} is above {keep_above:g}"
            found = [Measured(one.projection, one.recipe, one.error, why) for one in found]
        measured += found
    return measured
