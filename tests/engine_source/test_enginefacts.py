"""What the appliance says about its engine, from the file that the build wrote."""

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.enginefacts import EngineFacts, engine_facts, read_engine_facts
from unglitched_vllm.source import enginejson
from unglitched_vllm.source.patches import read_series
from unglitched_vllm.source.upstream import Artifact

MADE_FROM = Artifact("vllm-0.33.0.tar.gz", 1, "0" * 64)
WHOLE = {"format": 1, "source": "build", "vllm": "0.33.0", "patches": ["0001-a"], "target": "thor"}
WRONG: list[dict[str, Any]] = [
    {"patches": None},
    {"format": 2},
    {"source": "magic"},
    {"source": ["wheel"]},
]


def environment(folder: Path, facts: dict[str, Any] | None = None) -> Path:
    """Make an engine's environment; return its program."""
    program = folder / "bin" / "vllm"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    if facts is not None:
        (folder / "ENGINE.json").write_text(json.dumps(facts))
    return program


def test_what_the_build_writes_the_appliance_reads(tmp_path: Path) -> None:
    wheel = tmp_path / "vllm.whl"
    wheel.write_bytes(b"x")
    patches = read_series()
    enginejson.write(
        tmp_path,
        source="build",
        vllm="0.33.0",
        patches=patches,
        made_from=MADE_FROM,
        wheel=wheel,
        target="thor",
        arch_list="11.0",
    )
    names = tuple(patch.name for patch in patches)
    facts = engine_facts([str(environment(tmp_path / "x")), "serve"])
    assert facts == EngineFacts("host")
    facts = read_engine_facts(tmp_path / "ENGINE.json")
    assert facts == EngineFacts("build", "0.33.0", "thor", names)
    assert facts.summary == f"vLLM 0.33.0, compiled from source for thor; {', '.join(names)}"


def test_the_file_is_found_beside_the_engine_s_program(tmp_path: Path) -> None:
    program = environment(tmp_path / "engine", WHOLE)
    assert engine_facts([str(program)]).target == "thor"


def test_it_is_found_through_a_link_to_the_program(tmp_path: Path) -> None:
    program = environment(tmp_path / "engine", WHOLE)
    link = tmp_path / "usr" / "bin" / "vllm"
    link.parent.mkdir(parents=True)
    link.symlink_to(program)
    assert engine_facts([str(link)]).source == "build"


def test_it_is_found_where_the_program_itself_is_a_link_out(tmp_path: Path) -> None:
    outside = environment(tmp_path / "system")
    inside = tmp_path / "engine" / "bin" / "python"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(outside)
    (tmp_path / "engine" / "ENGINE.json").write_text(json.dumps(WHOLE))
    assert engine_facts([str(inside), "-m", "vllm"]).source == "build"


def test_an_engine_without_the_file_is_the_host_s(tmp_path: Path) -> None:
    facts = engine_facts([str(environment(tmp_path))])
    assert facts.summary == "engine of the host"
    assert facts.as_json()["source"] == "host"


@pytest.mark.parametrize("command", [[], ["/no/such/vllm"]], ids=["none", "absent"])
def test_an_engine_that_is_not_there_is_the_host_s(command: list[str]) -> None:
    assert engine_facts(command) == EngineFacts("host")


def test_the_stock_wheel_without_patches_says_so(tmp_path: Path) -> None:
    program = environment(tmp_path, {**WHOLE, "source": "wheel", "patches": [], "target": ""})
    assert engine_facts([str(program)]).summary == "vLLM 0.33.0, the stock wheel; no patches"


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "null", "{}", '{"format": 1}', "\x00", "[" * 100_000),
        *(json.dumps({**WHOLE, **wrong}) for wrong in WRONG),
    ],
    ids=range(11),
)
def test_a_file_that_cannot_be_read_is_an_unknown_engine_and_no_crash(
    tmp_path: Path, text: str
) -> None:
    file = tmp_path / "ENGINE.json"
    file.write_text(text)
    facts = read_engine_facts(file)
    assert facts.source == "unknown"
    assert str(file) in facts.summary
