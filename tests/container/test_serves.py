"""The demo, as compose.yaml starts it: it serves, comes back, stops in order, leaves nothing."""

import re
import threading
from collections.abc import Iterator

import httpx
import pytest

from tests.container import world
from tests.container.world import Stack, docker, inspect, patiently

# Each start of the real engine takes half a minute, and more on a busy machine.
pytestmark = [pytest.mark.container, pytest.mark.timeout(900)]

GONE_S = 30.0
STREAM = {
    "model": "Nikola",
    "messages": [{"role": "user", "content": "Count from 1 to 200."}],
    "stream": True,
    "temperature": 0,
    "ignore_eos": True,
    "max_tokens": 300,
}


def chunks(client: httpx.Client) -> Iterator[str]:
    """Yield the data of each event of a long stream."""
    with client.stream("POST", "/v1/chat/completions", json=STREAM) as response:
        assert response.status_code == 200
        for line in response.iter_lines():
            if line.startswith("data: "):
                yield line.removeprefix("data: ")


def test_every_smoke_check_passes(demo: Stack) -> None:
    said = demo.said("appliance", "smoke")
    assert "all passed" in said
    assert "glitched" in said  # the demo's model, without the prompt


def test_it_answers_on_the_loopback_alone(demo: Stack) -> None:
    ports = inspect("container", demo.container)["NetworkSettings"]["Ports"]
    assert {entry["HostIp"] for entry in ports["9000/tcp"]} == {"127.0.0.1"}


def test_health_tells_a_key_holder_what_the_engine_was_made_from(demo: Stack) -> None:
    with demo.client() as client:
        build = client.get("/health").json()["engine_build"]
    assert (build["source"], build["patches"], build["problem"]) == ("cpu", [], "")
    assert "engine_build" not in httpx.get(f"{demo.url}/health").json()


def test_it_asks_for_a_key(demo: Stack) -> None:
    assert httpx.get(f"{demo.url}/v1/models").status_code == 401


def test_the_root_is_read_only_and_no_process_has_a_right(demo: Stack) -> None:
    assert "Read-only file system" in demo.exec("touch", "/opt/engine/x").stderr
    status = demo.said("sh", "-c", "cat /proc/[0-9]*/status")
    assert set(re.findall(r"^Cap(?:Prm|Eff|Bnd):\s+(\w+)", status, re.MULTILINE)) == {"0" * 16}
    assert set(re.findall(r"^NoNewPrivs:\s+(\d)", status, re.MULTILINE)) == {"1"}


def test_no_process_in_it_is_root(demo: Stack) -> None:
    status = demo.said("sh", "-c", "cat /proc/[0-9]*/status")
    assert set(re.findall(r"^Uid:\s+(\d+)", status, re.MULTILINE)) == {"10001"}


def test_nothing_is_written_but_to_the_volume_and_tmpfs(demo: Stack) -> None:
    changes = docker("diff", demo.container).splitlines()
    # Docker's own: the init program that it mounts, and the folders above it.
    assert [
        line for line in changes if not re.match(r"[AC] (/usr)?(/sbin(/docker-init)?)?$", line)
    ] == []


def test_the_state_is_its_users_alone(demo: Stack) -> None:
    said = demo.said(
        "stat", "-c", "%a %u", "/var/lib/unglitched/state", "/var/lib/unglitched/state/api_key"
    )
    assert said.split() == ["700", "10001", "600", "10001"]


def test_docker_is_out_of_reach(demo: Stack) -> None:
    found = inspect("container", demo.container)
    assert not found["HostConfig"]["Privileged"]
    assert not found["HostConfig"]["CapAdd"]
    assert [m["Type"] for m in found["Mounts"]] == ["volume"]
    assert (
        demo.said("sh", "-c", "ls /run/docker.sock /var/run/docker.sock 2>&1; true").count(
            "No such"
        )
        == 2
    )


def test_a_killed_engine_comes_back_and_leaves_no_zombie(demo: Stack) -> None:
    with demo.client() as client:
        spawn = client.get("/health").json()["spawn"]
        (core,) = (
            pid for pid, _, name in demo.processes() if "EngineCor" in name
        )  # the kernel keeps 15 letters
        demo.said("sh", "-c", f"kill -9 {core}")
        patiently(lambda: client.get("/health/ready").status_code == 503, GONE_S, "503")
        demo.until("ready", spawn + 1)
        assert client.get("/v1/models").status_code == 200
    assert [row for row in demo.processes() if row[1] == "Z"] == []
    assert inspect("container", demo.container)["RestartCount"] == 0


def test_docker_stop_lets_a_stream_end_and_exits_0(demo: Stack) -> None:
    with demo.client() as client:
        events = chunks(client)
        first = next(events)
        container = demo.container
        stop = threading.Thread(target=docker, args=("stop", container), kwargs={"within_s": 180})
        stop.start()
        rest = list(events)
        stop.join()
    assert first.startswith("{")
    assert rest[-1] == "[DONE]"
    # 143 would be a default action; 137 a grace period that was too short.
    state = inspect("container", container)["State"]
    assert (state["Status"], state["ExitCode"], state["OOMKilled"]) == ("exited", 0, False)
    assert "to=draining" in demo.logs()


def test_an_engine_that_an_operator_stops_does_not_end_the_container(demo: Stack) -> None:
    demo.said("appliance", "stop")
    try:
        assert demo.state["Running"]
        assert httpx.get(f"{demo.url}/health/live").status_code == 200
        assert httpx.get(f"{demo.url}/health/ready").status_code == 503
    finally:
        demo.compose("kill")  # a stopped engine stays stopped: the next test gets a new start


def test_down_leaves_nothing(image: str) -> None:
    with world.stack("down") as made:
        done = made.compose("create", "--no-build")
        assert done.returncode == 0, done.stderr
        assert len(made.left()) == 3  # a container, a volume, a network
        made.down()
        assert made.left() == []
