"""What ``appliance plan`` prints: the memory, settings with their origin, the exact command."""

import json
import os
import sys
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Column, Table

from appliance.budgetview import nodes_text, plan_text, refusal_text
from appliance.checkpoint.folder import read_model_facts
from appliance.decode import plan_decode
from appliance.decodeview import decode_text
from appliance.errors import ApplianceError, DoesNotFit, ModelFolderError, SettingsError
from appliance.facts import HostFacts, ModelFacts
from appliance.factsfile import read_host, read_model
from appliance.fieldtypes import is_size
from appliance.host import find_extras
from appliance.kilo import kilo_limit, short_context
from appliance.launch import HIDDEN, LaunchPlan, plan_launch
from appliance.memory import Learned, MemoryPlan, plan_memory
from appliance.observe import observe
from appliance.part import part_of
from appliance.profiles import BOX_PROFILES, MODEL_PROFILES
from appliance.settings import PREFIX, Settings
from appliance.shard import plan_nodes
from appliance.sizes import format_size
from appliance.statefile import choice_of, kept_overheads
from appliance.swap import find_swap

PLANNED_PORT = 0  # the real one is picked at each start


def print_settings(settings: Settings) -> None:
    """Print every setting: its variable, its value now, what it means."""
    table = Table(*_name_and_value("variable"), "meaning", box=None, pad_edge=False)
    for name, field in type(settings).model_fields.items():
        table.add_row(PREFIX + name.upper(), _shown(settings, name), field.description or "")
    _console().print(table)


@dataclass(frozen=True)
class _Plan:
    """All that a start would go by, as far as it could be found out; ``trouble`` is what could not.

    ``launch`` is None where somebody else starts the engine, ``worker`` where one box serves.
    """

    host: HostFacts | None = None
    model: ModelFacts | None = None
    memory: MemoryPlan | None = None
    worker: MemoryPlan | None = None
    launch: LaunchPlan | None = None
    trouble: ApplianceError | None = None


def print_plan(
    settings: Settings,
    form: str,
    host_file: Path | None = None,
    model_file: Path | None = None,
    worker_file: Path | None = None,
) -> int:
    """Print the plan as ``table``, ``json`` or ``shell``; return the exit code.

    It is 78 when the memory does not fit, 1 when the model is not servable. ``host_file`` and
    ``model_file`` stand for a machine and a checkpoint that are not here, ``worker_file`` for the
    second box of a cluster, which is like the first without it. Raises SettingsError for a file
    that cannot be read, SwapError for a force_swap that must be there and is not.
    """
    plan = _plan(settings, host_file, model_file, worker_file)
    if form == "shell":
        not_ours = f"# engine=attach: {settings.engine_url} is started elsewhere"
        if not plan.trouble:
            print(plan.launch.shell() if plan.launch else not_ours)
    elif form == "json":
        _print_json(settings, plan)
    else:
        _print_tables(settings, plan)
    if plan.trouble:
        print(f"appliance: {plan.trouble}", file=sys.stderr)
        return plan.trouble.exit_code
    return 0


def _plan(
    settings: Settings, host_file: Path | None, model_file: Path | None, worker_file: Path | None
) -> _Plan:
    if settings.engine == "attach":
        return _Plan()
    plan = _planned(settings, host_file, model_file, worker_file)
    if isinstance(plan.trouble, DoesNotFit):
        return plan  # a command that nobody planned is not shown: it would take what it finds
    launch = plan_launch(
        settings,
        find_extras(),
        plan.memory,
        port=PLANNED_PORT,
        api_key=HIDDEN,
        base_env=os.environ,
        part=part_of(settings),
    )
    return replace(plan, launch=launch)


def _planned(
    settings: Settings, host_file: Path | None, model_file: Path | None, worker_file: Path | None
) -> _Plan:
    host = _host(settings, host_file)
    try:
        model = (
            read_model(*_text(model_file)) if model_file else read_model_facts(settings.model_dir)
        )
    except ModelFolderError as error:
        return _Plan(host, trouble=error)
    # what was learned here says nothing of another machine, or of another checkpoint
    learned = None if host_file or model_file else _learned(settings)
    try:
        if settings.cluster_role == "off":
            return _Plan(host, model, plan_memory(settings, host, model, learned))
        other = read_host(*_text(worker_file)) if worker_file else host
        return _Plan(host, model, *plan_nodes(settings, host, other, model, learned))
    except DoesNotFit as error:
        return _Plan(host, model, trouble=error)


def _host(settings: Settings, host_file: Path | None) -> HostFacts:
    if host_file:
        return read_host(*_text(host_file))
    # as a start does: without the helper, nothing is counted on to be pushed out
    lock = settings.state_dir / "force_swap.lock"  # it is not taken here
    swap = find_swap(settings.swap, settings.swap_command, lock)
    return observe(settings.evict_cgroups if swap else (), settings.cgroup_base)


def _learned(settings: Settings) -> Learned | None:
    return Learned.of(kept_overheads(settings.state_dir, choice_of(settings, os.environ)))


def _text(path: Path) -> tuple[str, str]:
    try:
        return path.read_text(encoding="utf-8"), str(path)
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(f"{path} cannot be read: {cause}", "name a JSON file") from None


def _print_json(settings: Settings, plan: _Plan) -> None:
    chosen = settings.model_dump(mode="json")
    trouble, launch = plan.trouble, plan.launch
    view = {
        "settings": {
            name: {"value": value, "origin": settings.origin(name)}
            for name, value in chosen.items()
        },
        "host": asdict(plan.host) if plan.host else None,
        "model": {**asdict(plan.model), "folder": str(plan.model.folder)} if plan.model else None,
        "memory": asdict(plan.memory) if plan.memory else None,
        **({"worker": asdict(plan.worker)} if plan.worker else {}),
        "kilo": _kilo(settings, plan.memory) if plan.memory else None,
        "problem": _problem(trouble) if trouble else None,
        "engine": {"argv": list(launch.argv), "env": launch.own_env()} if launch else None,
    }
    print(json.dumps(view, indent=2))


def _short_for_kilo(settings: Settings, memory: MemoryPlan) -> tuple[str, str] | None:
    return short_context(memory.max_model_len, is_chosen=settings.max_model_len is not None)


def _kilo(settings: Settings, memory: MemoryPlan) -> dict[str, Any]:
    what, cure = _short_for_kilo(settings, memory) or (None, None)
    return {"limit": kilo_limit(memory.max_model_len), "warning": what, "hint": cure}


def _problem(trouble: ApplianceError) -> dict[str, Any]:
    view: dict[str, Any] = {"code": trouble.code, "what": trouble.what, "hint": trouble.hint}
    if isinstance(trouble, DoesNotFit):
        view["shortfalls"] = [asdict(short) for short in trouble.shortfalls]
        view["table"] = [asdict(row) for row in trouble.table]
    return view


def _print_tables(settings: Settings, plan: _Plan) -> None:
    console = _console()
    if plan.memory:
        print(plan_text(plan.memory), end="\n\n")
        if plan.worker:
            print(nodes_text(plan.memory, plan.worker), end="\n\n")
        if short := _short_for_kilo(settings, plan.memory):
            print(f"{short[0]}\n  -> {short[1]}", end="\n\n")
    elif isinstance(plan.trouble, DoesNotFit):
        print(refusal_text(plan.trouble), end="\n\n")
    for kind, profiles, name in (
        ("box", BOX_PROFILES, settings.profile),
        ("model", MODEL_PROFILES, settings.model_profile),
    ):
        profile = profiles[name]
        console.print(f"{kind} profile {name} ({profile.level}): {profile.about}")
    source = Column("from", overflow="fold")
    chosen = Table(*_name_and_value("setting"), source, box=None, pad_edge=False)
    for name in type(settings).model_fields:
        if settings.origin(name) != "default":
            chosen.add_row(name, _shown(settings, name), settings.origin(name))
    console.print("\nsettings (others are at their defaults: appliance plan --settings)")
    console.print(chosen)
    if plan.model:
        console.print(f"\nmodel {plan.model.folder}")
        console.print(_model_table(plan.model))
        if not plan.memory and (decode := plan_decode(settings, plan.model)):
            print(f"\n{decode_text(decode)}")
    if plan.launch:
        console.print("\nengine command (port and key are picked at each start)")
        print(plan.launch.shell())


def _model_table(model: ModelFacts) -> Table:
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_row("architecture", f"{model.architecture} ({model.model_type})")
    table.add_row("layers, experts", f"{model.num_layers}, {model.num_experts}")
    table.add_row("quantization", model.quantization or "none")
    table.add_row("weights", f"{format_size(model.weights_bytes)} in {model.shard_count} files")
    table.add_row("longest context", f"{model.max_position_embeddings} tokens")
    return table


def _name_and_value(name: str) -> tuple[Column, Column]:
    # both are there to be copied: on a narrow terminal neither may end in an ellipsis
    return Column(name, no_wrap=True), Column("value", overflow="fold")


def _shown(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if value is None:
        return "-"
    if is_size(type(settings).model_fields[name]):
        return format_size(value)
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "-"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)
