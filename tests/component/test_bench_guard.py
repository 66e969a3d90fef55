"""The path guard over the benchmark's questions: what is right stays as it is."""

import json
from random import Random

import pytest

from appliance.bench.arms import Arm
from appliance.bench.cases import EDIT_FILE, Case, make_cases
from appliance.bench.questions import Question, Sampling
from appliance.pathguard import PathGuard, mended
from appliance.pathhistory import read_all
from appliance.pathrepair import Mode
from appliance.pathtools import read_tools
from tests.fakes.glitching import GLITCHES

# The edit task's listing has rows of a size and a path.
TASKS = ("tool", "edit", "join")
ARM = Arm("on", "repair")


def guarded(case: Case, written: str) -> str:
    """Return what the guard makes of a path that a reply to this case has written."""
    body = Question(case, ARM).body(Sampling("m"))
    ledger = read_all(json.dumps(body).encode())
    guard = PathGuard(Mode.REPAIR, read_tools(body["tools"]), ledger)
    tool = "edit_file" if EDIT_FILE in case.tools else "read_file"
    meant = mended(written, guard.check(tool, "path", written))
    return written if meant is None else meant


@pytest.mark.parametrize("task", TASKS)
def test_no_right_answer_of_the_suite_is_touched(task: str) -> None:
    touched = {
        case.path: guarded(case, case.path)
        for case in make_cases(1, 90, (), (task,))
        if guarded(case, case.path) != case.path
    }
    assert touched == {}


@pytest.mark.parametrize("task", TASKS)
def test_a_spoiled_answer_is_mended_to_the_right_one_or_left(task: str) -> None:
    wrong = []
    for case in make_cases(1, 45, (), (task,)):
        for spoil in GLITCHES.values():
            written = spoil(case.path, Random(case.id))  # noqa: S311 - it can be repeated
            if guarded(case, written) not in (written, case.path):
                wrong.append((case.path, written, guarded(case, written)))
    assert wrong == []
