"""What ``appliance plan`` prints: settings with their origin, the model, the exact command."""

import json
import os
import sys

from rich.console import Console
from rich.table import Column, Table

from appliance.checkpoint.folder import read_model_facts
from appliance.errors import ModelFolderError
from appliance.facts import ModelFacts
from appliance.host import find_extras
from appliance.launch import HIDDEN, LaunchPlan, plan_launch
from appliance.profiles import BOX_PROFILES, MODEL_PROFILES
from appliance.settings import PREFIX, Settings
from appliance.sizes import format_size

PLANNED_PORT = 0  # the real one is picked at each start


def print_settings(settings: Settings) -> None:
    """Print every setting: its variable, its value now, what it means."""
    table = Table(*_name_and_value("variable"), "meaning", box=None, pad_edge=False)
    for name, field in type(settings).model_fields.items():
        table.add_row(PREFIX + name.upper(), _shown(settings, name), field.description or "")
    _console().print(table)


def print_plan(settings: Settings, form: str) -> int:
    """Print the plan as ``table``, ``json`` or ``shell``; 1 when the model is not servable."""
    plan = _plan(settings)
    if form == "shell":
        print(
            plan.shell() if plan else f"# engine=attach: {settings.engine_url} is started elsewhere"
        )
        return 0
    model, trouble = _model(settings)
    if form == "json":
        _print_json(settings, plan, model, trouble)
    else:
        _print_tables(settings, plan, model)
    if trouble:
        print(f"appliance: {trouble}", file=sys.stderr)
        return trouble.exit_code
    return 0


def _plan(settings: Settings) -> LaunchPlan | None:
    if settings.engine == "attach":
        return None
    return plan_launch(
        settings, find_extras(), port=PLANNED_PORT, api_key=HIDDEN, base_env=os.environ
    )


def _model(settings: Settings) -> tuple[ModelFacts | None, ModelFolderError | None]:
    if settings.engine == "attach":
        return None, None
    try:
        return read_model_facts(settings.model_dir), None
    except ModelFolderError as error:
        return None, error


def _print_json(
    settings: Settings,
    plan: LaunchPlan | None,
    model: ModelFacts | None,
    trouble: ModelFolderError | None,
) -> None:
    chosen = settings.model_dump(mode="json")
    view = {
        "settings": {
            name: {"value": value, "origin": settings.origin(name)}
            for name, value in chosen.items()
        },
        "model": None if model is None else {**vars(model), "folder": str(model.folder)},
        "problem": None if trouble is None else {"what": trouble.what, "hint": trouble.hint},
        "engine": None if plan is None else {"argv": list(plan.argv), "env": plan.own_env()},
    }
    print(json.dumps(view, indent=2))


def _print_tables(settings: Settings, plan: LaunchPlan | None, model: ModelFacts | None) -> None:
    console = _console()
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
    if model:
        console.print(f"\nmodel {model.folder}")
        console.print(_model_table(model))
    if plan:
        console.print("\nengine command (port and key are picked at each start)")
        print(plan.shell())


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
    if isinstance(value, tuple):
        return " ".join(map(str, value)) or "-"
    return json.dumps(value) if isinstance(value, dict) else str(value)


def _console() -> Console:
    return Console(soft_wrap=True, highlight=False, markup=False)
