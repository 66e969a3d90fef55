"""What the doctor thinks of the model and of its place in memory. Pure."""

from collections.abc import Iterator, Sequence

from appliance.decode import plan_decode
from appliance.decodeview import decode_line
from appliance.doctor.dockerfacts import DockerFacts
from appliance.doctor.row import Row, Unseen, fail, ok, warn
from appliance.enginefacts import EngineFacts
from appliance.errors import DoesNotFit
from appliance.facts import HostFacts, ModelFacts
from appliance.kilo import short_context
from appliance.memory import MemoryPlan, plan_memory
from appliance.settings import Settings
from appliance.sizes import format_size


def engine_row(
    docker: DockerFacts | Unseen, command: Sequence[str], program: str | None, native: EngineFacts
) -> Row:
    """Return which engine it is, and which of our patches are in it.

    That of our container, where there is one; else the host's own: ``program`` is where its
    ``command`` is found.
    """
    seen = docker if isinstance(docker, DockerFacts) else None
    for container in seen.containers if seen else ():
        if container.engine is not None:
            level = warn if container.engine.problem else ok
            return level("engine", container.engine.summary)
    if program is not None:
        return (warn if native.problem else ok)("engine", f"{program}: {native.summary}")
    if seen:
        return ok("engine", "in the image; a container will tell which")
    return fail(
        "engine",
        f"there is no {command[0]} here, and no Docker",
        "install vLLM, and name it: APPLIANCE_ENGINE_COMMAND; or install Docker",
    )


def attached_row(url: str, status: int | Unseen) -> Row:
    """Return whether an engine that somebody else runs answers."""
    if isinstance(status, Unseen):
        return fail("engine", f"{url}: {status.why}", "start it where it runs")
    if status == 200:
        return ok("engine", f"{url} is healthy, and started elsewhere")
    return fail("engine", f"{url} answers {status}", "look at its own log")


def model_row(model: ModelFacts | Unseen, variable: str = "") -> Row:
    """Return whether the model folder is complete; ``variable`` is what names it, if not ours."""
    if isinstance(model, Unseen):
        own = "APPLIANCE_MODEL_DIR"
        return fail("model", model.why, model.next.replace(own, variable or own))
    weights = f"{format_size(model.weights_bytes)} in {model.shard_count} files"
    return ok("model", f"{model.folder}: {model.architecture}, {weights}")


def decode_row(settings: Settings, model: ModelFacts) -> Row | None:
    """Return what a token reads and how fast that can be; None where the parts are not known."""
    plan = plan_decode(settings, model)
    return ok("decode", decode_line(plan), "appliance plan") if plan else None


def memory_rows(
    settings: Settings, host: HostFacts, model: ModelFacts | Unseen, running: str
) -> Iterator[Row]:
    """Yield the memory budget. ``running`` says which engine of ours holds its memory now."""
    free = f"{format_size(host.memory_available_bytes)} available"
    if running:
        yield _running_row(settings, host, f"{free}, while {running}")
        return
    if isinstance(model, Unseen):
        yield warn("memory", f"{free}; there is no budget without a model")
        return
    try:
        plan = plan_memory(settings, host, model)
    except DoesNotFit as refusal:
        yield from _shortfall_rows(refusal, free)
        return
    yield _plan_row(plan, free)
    chosen = settings.max_model_len is not None
    if short := short_context(plan.max_model_len, is_chosen=chosen):
        yield warn("Kilo Code", *short)


def _running_row(settings: Settings, host: HostFacts, value: str) -> Row:
    floor = settings.memory_warn_floor
    if host.memory_available_bytes < floor:
        below = f"{value}: below the {format_size(floor)} at which it warns"
        return warn("memory", below, "appliance status")
    return ok("memory", value)


def _shortfall_rows(refusal: DoesNotFit, free: str) -> Iterator[Row]:
    for short in refusal.shortfalls:
        yield fail("memory", f"{short.what} ({free})", next(iter(short.remedies), "appliance plan"))
    if not refusal.shortfalls:
        yield fail("memory", f"{refusal.what} ({free})", refusal.hint)


def _plan_row(plan: MemoryPlan, free: str) -> Row:
    value = (
        f"{free}, {format_size(plan.needed_available_bytes)} are needed; "
        f"{plan.max_model_len:,} tokens of context"
    )
    if plan.warnings:
        return warn("memory", f"{value}; {plan.warnings[0]}", "appliance plan")
    return ok("memory", value, "appliance plan")
