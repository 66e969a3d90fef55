"""One engine over two boxes: each one's whole command, and what stands in neither.

``UPDATE_GOLDEN=1 pytest tests/unit/test_part.py`` writes tests/golden/launch-cluster-*.txt anew.
"""

import os

import pytest

from appliance.launch import LaunchPlan, plan_launch
from appliance.part import Part, part_of
from appliance.settings import Settings, load_settings
from appliance.shard import plan_nodes
from tests.plans import EXTRAS, GOLDEN, HOSTS, golden_host, golden_model
from tests.unit.test_clustersettings import CABLE

CASES = [(profile, role) for profile in ("spark", "demo") for role in ("head", "worker")]


def settings_of(profile: str, role: str, **more: str) -> Settings:
    variables = {f"APPLIANCE_{name}": value for name, value in more.items()}
    return load_settings(
        CABLE | {"APPLIANCE_PROFILE": profile, "APPLIANCE_CLUSTER_ROLE": role} | variables
    )


def plan(profile: str, role: str, **more: str) -> LaunchPlan:
    settings = settings_of(profile, role, **more)
    host = golden_host(HOSTS[profile])
    model = golden_model("demo" if profile == "demo" else "nikola")
    memory, _ = plan_nodes(settings, host, host, model)
    key = "secret"
    return plan_launch(
        settings, EXTRAS, memory, port=8123, api_key=key, base_env={}, part=part_of(settings)
    )


def part(profile: str, role: str, **more: str) -> Part:
    made = part_of(settings_of(profile, role, **more))
    assert made is not None
    return made


@pytest.mark.parametrize(("profile", "role"), CASES)
def test_the_command_of_each_box_is_the_one_on_file(profile: str, role: str) -> None:
    path = GOLDEN / f"launch-cluster-{profile}-{role}.txt"
    made = plan(profile, role).shell() + "\n"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(made, encoding="utf-8")
    assert made == path.read_text(encoding="utf-8"), "UPDATE_GOLDEN=1 writes it anew"


def test_a_box_alone_has_no_part() -> None:
    assert part_of(load_settings({})) is None


def test_both_boxes_meet_at_the_heads_address() -> None:
    head, worker = part("spark", "head"), part("spark", "worker")
    assert head.master_addr == worker.master_addr == head.own_addr == "192.168.100.1"
    assert (head.rank, worker.rank) == (0, 1)
    assert worker.own_addr == "192.168.100.2"


def test_only_the_head_has_a_door() -> None:
    head, worker = plan("spark", "head").argv, plan("spark", "worker").argv
    assert "--host" in head
    assert "--headless" not in head
    assert "--host" not in worker
    assert "--port" not in worker
    assert "--headless" in worker


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_step_that_waits_for_a_dead_box_is_cut_short(role: str) -> None:
    made = plan("spark", role, CLUSTER_EXECUTE_TIMEOUT_S="12.4")
    assert made.env["VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS"] == "12"


@pytest.mark.parametrize("role", ["head", "worker"])
def test_nothing_of_a_part_goes_by_another_network_than_the_cable(role: str) -> None:
    env = plan("spark", role).env
    assert env["GLOO_SOCKET_IFNAME"] == env["NCCL_SOCKET_IFNAME"] == "enp1s0f0np0"
    assert env["VLLM_HOST_IP"] == part("spark", role).own_addr


def test_on_a_cpu_each_part_takes_one_thread_of_wherever_it_runs() -> None:
    env = plan("demo", "worker").env
    assert (env["VLLM_CPU_OMP_THREADS_BIND"], env["OMP_NUM_THREADS"]) == ("nobind", "1")
    assert "NCCL_SOCKET_IFNAME" not in env


def test_both_boxes_plan_the_same_context_and_cache() -> None:
    head, worker = plan("spark", "head").memory, plan("spark", "worker").memory
    assert head is not None
    assert worker is not None
    assert (head.kv_bytes, head.max_model_len) == (worker.kv_bytes, worker.max_model_len)


def test_with_ray_the_boxes_are_rays_business() -> None:
    argv = plan("spark", "head", CLUSTER_EXECUTOR="ray").argv
    assert argv[argv.index("--distributed-executor-backend") + 1] == "ray"
    assert {"--nnodes", "--node-rank", "--master-addr"}.isdisjoint(argv)
