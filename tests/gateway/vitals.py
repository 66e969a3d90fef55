"""What must be as before when the storm is over: places, connections, files, memory."""

from dataclasses import dataclass
from pathlib import Path

from tests.appliances import ASKED, CHAT, WEB, ApplianceProcess, metric
from tests.engines import wait_until

SETTLE_S = 20.0
MIB = 2**20


@dataclass(frozen=True)
class Vitals:
    """One look at the appliance's process."""

    files: int
    rss_bytes: int


def look(box: ApplianceProcess) -> Vitals:
    """Count the open files and the resident bytes."""
    folder = Path(f"/proc/{box.process.pid}")
    fields = (folder / "statm").read_text().split()
    return Vitals(len(list((folder / "fd").iterdir())), int(fields[1]) * 4096)


def is_idle(box: ApplianceProcess) -> bool:
    """Tell whether nobody has or awaits a place, here and in the engine."""
    requests = box.status()["requests"]
    told = WEB.get(f"{box.fake.url}/metrics").text
    engine = sum(metric(told, f"vllm:num_requests_{what}") for what in ("running", "waiting"))
    return (requests["running"], requests["waiting"], engine) == (0, 0, 0)


def all_calm(box: ApplianceProcess, before: Vitals, *, growth: int = 32 * MIB) -> Vitals:
    """Wait for every place and every connection to be given back; then ask a good question."""
    wait_until(lambda: is_idle(box), SETTLE_S, "every place to be free again")
    few = before.files + 8  # what a pool keeps, and the look itself
    wait_until(lambda: look(box).files <= few, SETTLE_S, f"at most {few} open files")
    with box.http() as http:
        reply = http.post(CHAT, json=ASKED)
    assert reply.status_code == 200, reply.text
    after = look(box)
    assert after.rss_bytes - before.rss_bytes < growth, (before, after)
    return after
