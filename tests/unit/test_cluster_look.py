"""What a node sees of itself: the checkpoint's identity without its weights, driver, cable."""

import json
import struct
from pathlib import Path

import pytest

from appliance.cluster.nodelook import (
    SHAPING,
    Places,
    checkpoint_identity,
    installed_engine,
    look_at_node,
    shaping,
)
from appliance.cluster.wire import FactsReply, decode, encode
from appliance.settings import Settings, load_settings


def a_shard(path: Path, *, name: str = "a", weights: bytes = b"\0" * 8) -> None:
    header = json.dumps({name: {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}).encode()
    path.write_bytes(struct.pack("<Q", len(header)) + header + weights)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    a_shard(folder / "model-1.safetensors")
    a_shard(folder / "model-2.safetensors", name="b")
    return folder


def test_a_copy_of_a_checkpoint_has_its_identity_and_another_one_has_not(model: Path) -> None:
    first = checkpoint_identity(model)
    assert len(first) == 64
    a_shard(model / "model-2.safetensors", name="b", weights=b"\1" * 8)
    assert checkpoint_identity(model) == first  # weights are not read: model verify does that
    a_shard(model / "model-2.safetensors", name="c")
    other = checkpoint_identity(model)
    (model / "config.json").write_text('{"a": 1}')
    assert len({first, other, checkpoint_identity(model)}) == 3


@pytest.mark.parametrize("damage", [b"", b"\0" * 4, b"\xff" * 8])
def test_a_damaged_shard_or_no_checkpoint_has_no_identity(model: Path, damage: bytes) -> None:
    (model / "model-1.safetensors").write_bytes(damage)
    assert checkpoint_identity(model) == ""
    assert checkpoint_identity(model / "none") == ""


def settings(model: Path, **more: str) -> Settings:
    return load_settings(
        {
            "APPLIANCE_PROFILE": "demo",
            "APPLIANCE_MODEL_DIR": str(model),
            "APPLIANCE_CLUSTER_ROLE": "head",
            "APPLIANCE_CLUSTER_HEAD": "192.168.100.1",
            "APPLIANCE_CLUSTER_WORKER": "192.168.100.2",
            "APPLIANCE_CLUSTER_INTERFACE": "cable0",
            **more,
        }
    )


def test_a_box_is_read_from_the_kernel_s_own_files(model: Path, tmp_path: Path) -> None:
    places = Places(tmp_path / "net", tmp_path / "infiniband", tmp_path / "nvidia")
    for path, text in {
        places.net / "cable0/mtu": "9000\n",
        places.net / "cable0/speed": "200000\n",
        places.infiniband / "roce0/ports/1/state": "4: ACTIVE\n",
        places.infiniband / "roce1/ports/1/state": "1: DOWN\n",
        places.nvidia / "version": "NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  "
        "580.95.05  Release Build\n",
        places.nvidia / "gpus/0/information": "Model: \t NVIDIA GB10\nIRQ: 1\n",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    facts = look_at_node(settings(model), places)
    assert (facts.mtu, facts.link_mbps, facts.rdma_devices) == (9000, 200_000, ("roce0",))
    assert (facts.driver, facts.accelerator) == ("580.95.05", "NVIDIA GB10")
    assert facts.memory_total_bytes > 0


def test_what_is_not_there_is_empty_and_no_error(model: Path, tmp_path: Path) -> None:
    none = tmp_path / "none"
    facts = look_at_node(settings(model), Places(none, none, none))
    assert (facts.mtu, facts.link_mbps, facts.rdma_devices, facts.driver) == (None, None, (), "")


def test_the_version_beside_the_engine_s_program_is_the_engine_s(tmp_path: Path) -> None:
    program = tmp_path / "bin/vllm"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    assert installed_engine([str(program)]) == ""
    (tmp_path / "lib/python3.11/site-packages/vllm-0.33.0+cpu.dist-info").mkdir(parents=True)
    assert installed_engine([str(program)]) == "0.33.0+cpu"
    assert installed_engine([str(tmp_path / "none")]) == ""


def test_every_shaping_setting_is_a_setting_and_travels_however_long_it_is(model: Path) -> None:
    assert set(SHAPING) <= set(Settings.model_fields)
    arguments = " ".join(f"--flag-{number}=x" for number in range(200))
    one = settings(model, APPLIANCE_ENGINE_EXTRA_ARGS=arguments)
    other = settings(model, APPLIANCE_ENGINE_EXTRA_ARGS=arguments + "y")
    assert shaping(one) != shaping(other)
    facts = look_at_node(one)
    assert decode(encode(FactsReply(facts, 1.0)), FactsReply).facts == facts
