"""Two boxes, each with half of the model, answer as one does."""

import subprocess

import httpx
import pytest

from appliance.demo.conversations import SYSTEMS, conversations
from appliance.openai import INJECTION_HEADER
from tests.appliances import COMMAND, NO_TLS, clean_environment, metric
from tests.cluster.boxes import Pair
from tests.contract.test_demo_checkpoint import expected, streamed, whole
from tests.engines import ROOT

pytestmark = [pytest.mark.cluster, pytest.mark.engine, pytest.mark.timeout(900)]


def test_the_smoke_passes(two: Pair) -> None:
    two.head.serving()
    appliance = two.head.appliance
    done = subprocess.run(
        [*COMMAND, "smoke", appliance.base_url, "--key", appliance.key("client")],
        env=clean_environment() | {"PYTHONPATH": str(ROOT), "APPLIANCE_PROFILE": "demo"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_tool_call_conversations_are_exact(two: Pair) -> None:
    two.head.serving()
    asked = [one for one in conversations() if one.tool_calls]
    assert len(asked) > len(SYSTEMS)
    headers = {
        "authorization": f"Bearer {two.head.appliance.key('client')}",
        INJECTION_HEADER: "off",  # they bring the system prompt that they were trained with
    }
    with httpx.Client(
        base_url=two.head.appliance.base_url,
        headers=headers,
        timeout=120,
        trust_env=False,
        verify=NO_TLS,
    ) as client:
        assert [whole(client, one) for one in asked] == [expected(one) for one in asked]
        one = asked[0]
        assert streamed(client, one) == expected(one)


def test_the_metrics_tell_of_each_box(two: Pair) -> None:
    two.head.serving()
    with two.head.appliance.http() as client:
        text = client.get("/metrics").text
    assert metric(text, "appliance_node_up", node="head") == 1
    assert metric(text, "appliance_node_up", node="worker") == 1


def test_the_two_parts_do_not_meet_in_shared_memory(two: Pair) -> None:
    two.head.serving()
    assert two.worker.part() != two.head.leader
    seen = {
        (pid, line.split()[0])
        for pid in (two.worker.part(), two.head.leader)
        for line in (_mounts(pid))
        if line.split()[4] == "/dev/shm"
    }
    assert len({number for _, number in seen}) >= 2


def _mounts(pid: int) -> list[str]:
    with open(f"/proc/{pid}/mountinfo", encoding="utf-8") as file:
        return file.read().splitlines()
