"""What runs before a spawn, in a whole appliance: it ends with the start that wanted it."""

import shlex
import sys
from pathlib import Path

from appliance import tree
from tests.appliance_tasks import StartAppliance, eventually
from tests.appliances import CONTROL

HELPER = """
import json, os, pathlib, sys, time
lives = pathlib.Path({lives!r})
with lives.open("a") as file:
    file.write(f"{{os.getpid()}}\\n")
if len(lives.read_text().split()) == 1:
    time.sleep(600)
print(json.dumps({{"schema": "force_swap/1", "mechanisms": []}}))
"""


async def test_a_stop_ends_the_preparation_and_the_next_start_has_the_machine_for_itself(
    start: StartAppliance, tmp_path: Path
) -> None:
    lives = tmp_path / "lives.txt"
    script = tmp_path / "helper.py"
    script.write_text(HELPER.format(lives=str(lives)))
    command = shlex.join([sys.executable, "-S", str(script)])
    box = await start(state="preparing", swap="on", swap_command=command)

    async def helped() -> bool:
        return lives.exists() and lives.read_text().endswith("\n")

    await eventually(helped, "the helper")
    first = int(lives.read_text())
    await box.operator.post(f"{CONTROL}/stop")
    await box.until("stopped")
    await box.operator.post(f"{CONTROL}/start")
    await box.until("ready")
    assert tree.read_process(first) is None
    assert box.snapshot.spawn == 2
