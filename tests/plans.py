"""The launch plans that tests compare: one for each pair of box and model profile."""

from pathlib import Path

from appliance.launch import Extras, LaunchPlan, plan_launch
from appliance.settings import load_settings

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


def plan(box: str, model: str, **variables: str) -> LaunchPlan:
    """Return the plan of a box and a model, with further settings by variable name."""
    environ = {"APPLIANCE_PROFILE": box, "APPLIANCE_MODEL_PROFILE": model, **variables}
    return plan_launch(load_settings(environ), EXTRAS, port=8000, api_key="secret", base_env={})


def serve_arguments(launch: LaunchPlan) -> list[str]:
    """Return what follows ``vllm serve``."""
    return list(launch.argv[launch.argv.index("serve") + 1 :])
