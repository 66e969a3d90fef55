"""What is chosen about a second box, and each way in which that contradicts itself."""

import pytest

from appliance.clustersettings import CLUSTER_FLAGS
from appliance.errors import SettingsError
from appliance.settings import Settings, load_settings

CABLE = {
    "APPLIANCE_CLUSTER_ROLE": "head",
    "APPLIANCE_CLUSTER_HEAD": "192.168.100.1",
    "APPLIANCE_CLUSTER_WORKER": "192.168.100.2",
    "APPLIANCE_CLUSTER_INTERFACE": "enp1s0f0np0",
}


def load(**more: str) -> Settings:
    return load_settings(CABLE | {f"APPLIANCE_{name}": value for name, value in more.items()})


def refusal(**more: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**more)
    return str(caught.value)


def test_a_box_alone_splits_nothing() -> None:
    settings = load_settings({})
    assert (settings.cluster_role, settings.tensor_parallel_size) == ("off", 1)


@pytest.mark.parametrize("role", ["head", "worker"])
def test_a_box_of_two_splits_the_model_in_two(role: str) -> None:
    assert load(CLUSTER_ROLE=role).tensor_parallel_size == 2
    assert load(CLUSTER_ROLE=role, TENSOR_PARALLEL_SIZE="4").tensor_parallel_size == 4


@pytest.mark.parametrize("name", ["CLUSTER_HEAD", "CLUSTER_WORKER", "CLUSTER_INTERFACE"])
def test_a_cluster_without_an_address_or_its_interface_is_refused_by_name(name: str) -> None:
    assert f"needs APPLIANCE_{name}" in refusal(**{name: ""})


@pytest.mark.parametrize("address", ["127.0.0.1", "0.0.0.0", "::1", "224.0.0.1", "spark.local"])
def test_an_address_that_the_other_box_cannot_reach_is_refused(address: str) -> None:
    assert "APPLIANCE_CLUSTER_WORKER" in refusal(CLUSTER_WORKER=address)


@pytest.mark.parametrize("name", ["cable 0", "cable0;id", "-cable", "x" * 16, "cable0\n"])
def test_a_name_that_is_no_interfaces_is_refused(name: str) -> None:
    assert "APPLIANCE_CLUSTER_INTERFACE" in refusal(CLUSTER_INTERFACE=name)


def test_two_boxes_at_one_address_are_refused() -> None:
    assert "two boxes" in refusal(CLUSTER_WORKER="192.168.100.1")


def test_an_odd_split_over_two_boxes_is_refused() -> None:
    assert "set it to 2" in refusal(TENSOR_PARALLEL_SIZE="3")


def test_a_split_without_a_second_box_is_refused() -> None:
    with pytest.raises(SettingsError, match="needs a second box"):
        load_settings({"APPLIANCE_TENSOR_PARALLEL_SIZE": "2"})


def test_an_attached_engine_is_no_part_of_a_cluster() -> None:
    assert "ENGINE=attach" in refusal(ENGINE="attach", ENGINE_URL="http://127.0.0.1:8000")


@pytest.mark.parametrize("flag", [*CLUSTER_FLAGS, "-tp", "--nnodes=3", "--node_rank"])
def test_a_flag_of_the_distribution_is_the_appliances_own(flag: str) -> None:
    assert f"must not hold {flag}" in refusal(ENGINE_EXTRA_ARGS=flag)


def test_a_box_alone_may_still_be_given_such_a_flag() -> None:
    settings = load_settings({"APPLIANCE_ENGINE_EXTRA_ARGS": "--tensor-parallel-size 2"})
    assert settings.engine_extra_args == ("--tensor-parallel-size", "2")
