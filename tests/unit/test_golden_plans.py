"""The budgets of the machines on file, as ``appliance plan`` prints them.

``UPDATE_GOLDEN=1 pytest tests/unit/test_golden_plans.py`` writes tests/golden/plan-*.txt anew, and
the README where it shows them.
"""

import os

import pytest

from appliance.budgetview import plan_text, refusal_text
from appliance.errors import DoesNotFit
from appliance.memory import plan_memory
from appliance.settings import load_settings
from tests.engines import ROOT
from tests.plans import GOLDEN, golden_host, golden_model

README = ROOT / "README.md"
CARD = {"APPLIANCE_GPU_MEMORY_UTILIZATION": "0.95"}
# name on file: box profile, machine, checkpoint, further settings
CASES: dict[str, tuple[str, str, str, dict[str, str]]] = {
    "spark": ("spark", "spark", "nikola", {}),
    "spark-card": ("spark", "spark", "nikola", CARD),
    "spark-bad-kit": ("spark", "spark-bad-kit", "nikola", {}),
    "thor": ("thor", "thor", "nikola", {}),
    "demo-24g": ("demo", "demo-24g", "demo", {}),
}


def budget(case: str) -> str:
    box, host, model, further = CASES[case]
    settings = load_settings({"APPLIANCE_PROFILE": box, **further})
    try:
        plan = plan_memory(settings, golden_host(host), golden_model(model))
    except DoesNotFit as error:
        return refusal_text(error) + "\n"
    return plan_text(plan) + "\n"


def marks(case: str) -> tuple[str, str]:
    """What stands around a budget in the README."""
    return f"<!-- plan {case} -->\n```text\n", f"```\n<!-- end of plan {case} -->\n"


@pytest.mark.parametrize("case", CASES)
def test_the_budget_is_the_one_on_file(case: str) -> None:
    path = GOLDEN / f"plan-{case}.txt"
    made = budget(case)
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes it anew"


@pytest.mark.parametrize("case", CASES)
def test_a_budget_fits_a_terminal_of_120_columns_but_for_the_advice(case: str) -> None:
    table = budget(case).partition("\n\n")[0]
    assert max(map(len, table.splitlines())) <= 120


@pytest.mark.parametrize("case", CASES)
def test_the_readme_shows_the_budget_on_file(case: str) -> None:
    begin, end = marks(case)
    text = README.read_text(encoding="utf-8")
    head, found, rest = text.partition(begin)
    assert found, f"the README has lost plan {case}"
    shown, mark, tail = rest.partition(end)
    assert mark, f"the README has lost the end of plan {case}"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        README.write_text(head + begin + budget(case) + end + tail, encoding="utf-8")
        return
    assert shown == budget(case)
