"""The plans that tests compare: one for each pair of box and model, on the machines on file."""

from pathlib import Path

from appliance.facts import HostFacts, ModelFacts
from appliance.factsfile import read_host, read_model
from appliance.launch import Extras, LaunchPlan, plan_launch
from appliance.memory import MemoryPlan, plan_memory
from appliance.settings import Settings, load_settings

GOLDEN = Path(__file__).parent / "golden"
HOSTS = {"spark": "spark", "thor": "thor", "demo": "demo-24g"}

PAIRS = (
    ("spark", "nikola"),
    ("thor", "nikola"),
    ("demo", "nikola"),
    ("spark", "qwen3.5-122b"),
    ("spark", "custom"),
)
EXTRAS = Extras(
    Path("/extras/chat_template.jinja"),
    Path("/extras/minimax_m2_optthink_reasoning_parser.py"),
)


def golden_host(name: str) -> HostFacts:
    """Return a machine on file."""
    path = GOLDEN / "hosts" / f"{name}.json"
    return read_host(path.read_text(encoding="utf-8"), path.name)


def golden_model(name: str) -> ModelFacts:
    """Return a checkpoint on file."""
    path = GOLDEN / "models" / f"{name}.json"
    return read_model(path.read_text(encoding="utf-8"), path.name)


def chosen(box: str, model: str, **variables: str) -> Settings:
    """Return the settings of a box and a model, with further ones by variable name."""
    environ = {"APPLIANCE_PROFILE": box, "APPLIANCE_MODEL_PROFILE": model, **variables}
    return load_settings(environ)


def planned(settings: Settings) -> MemoryPlan:
    """Return the memory plan of these settings, on the machine on file."""
    model = "qwen3.5-122b" if settings.model_profile == "qwen3.5-122b" else "nikola"
    model = "demo" if settings.profile == "demo" else model
    return plan_memory(settings, golden_host(HOSTS[settings.profile]), golden_model(model))


def plan(box: str, model: str, **variables: str) -> LaunchPlan:
    """Return the launch plan of a box and a model, with further settings by variable name."""
    settings = chosen(box, model, **variables)
    return plan_launch(
        settings, EXTRAS, planned(settings), port=8000, api_key="secret", base_env={}
    )


def serve_arguments(launch: LaunchPlan) -> list[str]:
    """Return what follows ``vllm serve``."""
    return list(launch.argv[launch.argv.index("serve") + 1 :])
