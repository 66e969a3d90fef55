"""The engine's command: the whole of it, and what never stands in it.

``UPDATE_GOLDEN=1 pytest tests/unit/test_launch.py`` writes tests/golden/launch-*.txt anew.
"""

import os
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.launch import HIDDEN, Extras, LaunchPlan, plan_launch
from appliance.settings import load_settings
from tests.engines import ROOT
from tests.plans import planned

GOLDEN = Path(__file__).parents[1] / "golden"
EXTRAS = Extras(Path("/EXTRAS/chat_template.jinja"), Path("/EXTRAS/optthink.py"))
KEY = "spawn-key-0123456789"
CASES = {
    "spark": {"PROFILE": "spark"},
    "thor": {"PROFILE": "thor"},
    "demo": {"PROFILE": "demo"},
    "qwen3.5-122b": {"MODEL_PROFILE": "qwen3.5-122b"},
    "custom": {"MODEL_PROFILE": "custom"},
}
REMOVED = {"VLLM_USE_FLASHINFER_MOE_FP4", "VLLM_NVFP4_GEMM_BACKEND"}  # vLLM 0.32
STRANGERS = {
    "APPLIANCE_API_KEY": "client-key",
    "APPLIANCE_OPERATOR_KEY": "operator-key",
    "AWS_SECRET_ACCESS_KEY": "aws",
    "HF_TOKEN": "hf_0123456789abcdef",
    "OPENAI_API_KEY": "sk-0123456789abcdef",
    "HTTP_PROXY": "http://proxy:3128",
    "PYTHONPATH": "/somewhere",
    "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH": "1",
}


def plan(**variables: str) -> LaunchPlan:
    return plan_within({}, **variables)


def plan_within(base_env: dict[str, str], /, **variables: str) -> LaunchPlan:
    """Plan inside the environment ``base_env``."""
    settings = load_settings({f"APPLIANCE_{name}": value for name, value in variables.items()})
    memory = planned(settings)
    return plan_launch(settings, EXTRAS, memory, port=8123, api_key=KEY, base_env=base_env)


def plan_without_memory(**variables: str) -> LaunchPlan:
    """Plan as where nobody looked at the memory."""
    settings = load_settings({f"APPLIANCE_{name}": value for name, value in variables.items()})
    return plan_launch(settings, EXTRAS, port=8123, api_key=KEY, base_env={})


def flag(made: LaunchPlan, name: str) -> str | None:
    """Return what stands after a flag; None when it is not there."""
    return made.argv[made.argv.index(name) + 1] if name in made.argv else None


# ---- the whole command


@pytest.mark.parametrize("case", CASES)
def test_the_command_is_the_one_on_file(case: str) -> None:
    path = GOLDEN / f"launch-{case}.txt"
    made = plan(**CASES[case]).shell() + "\n"
    if os.environ.get("UPDATE_GOLDEN") == "1":
        path.write_text(made)
    assert made == path.read_text(), "UPDATE_GOLDEN=1 writes it anew, if that is meant"


@pytest.mark.parametrize("case", CASES)
def test_the_shell_form_says_what_is_executed(case: str) -> None:
    made = plan(**CASES[case], ENGINE_COMMAND="'/opt/my engine/vllm'", MODEL_DIR="/m/My Model")
    words = shlex.split(made.shell().replace("\\\n", ""))
    assert tuple(words[len(made.own_env()) :]) == made.argv
    assignments = dict(word.split("=", 1) for word in words[: len(made.own_env())])
    assert assignments == made.own_env()


# ---- what never stands in it


@pytest.mark.parametrize("case", CASES)
def test_a_checkpoints_own_code_is_never_run(case: str) -> None:
    assert not [word for word in plan(**CASES[case]).argv if "trust" in word]


@pytest.mark.parametrize("case", CASES)
def test_the_key_travels_in_the_environment_alone_and_is_shown_nowhere(case: str) -> None:
    made = plan(**CASES[case])
    assert made.env["VLLM_API_KEY"] == KEY
    assert KEY not in " ".join(made.argv)
    assert KEY not in made.shell()
    assert made.own_env()["VLLM_API_KEY"] == HIDDEN


@pytest.mark.parametrize("case", CASES)
def test_no_variable_that_the_engine_removed_is_set(case: str) -> None:
    assert REMOVED.isdisjoint(plan(**CASES[case]).env)


@pytest.mark.parametrize("case", CASES)
def test_a_strangers_variable_does_not_reach_the_engine(case: str) -> None:
    made = plan_within(STRANGERS, **CASES[case])
    assert STRANGERS.keys().isdisjoint(made.env)
    assert (set(STRANGERS.values()) - {"1"}).isdisjoint(made.env.values())


def test_what_the_engine_needs_is_inherited_and_not_called_ours() -> None:
    needed = {
        "PATH": "/bin",
        "CUDA_HOME": "/cuda",
        "VLLM_LOGGING_LEVEL": "DEBUG",
        "NCCL_DEBUG": "I",
    }
    made = plan_within(needed)
    assert needed.items() <= made.env.items()
    assert needed.keys().isdisjoint(made.own_env())


def test_an_inherited_variable_does_not_outdo_ours() -> None:
    theirs = {"VLLM_API_KEY": "theirs", "VLLM_HOST_IP": "10.0.0.1", "VLLM_NO_USAGE_STATS": "off"}
    made = plan_within(theirs)
    assert made.env["VLLM_API_KEY"] == KEY
    assert set(theirs.values()).isdisjoint(made.env.values())
    assert theirs.keys() <= made.own_env().keys()


# ---- boxes


def test_the_ptxas_path_is_set_on_thor_alone() -> None:
    assert plan(PROFILE="thor").own_env()["TRITON_PTXAS_PATH"] == "/usr/local/cuda/bin/ptxas"
    assert "TRITON_PTXAS_PATH" not in plan(PROFILE="spark").env
    assert "TRITON_PTXAS_PATH" not in plan(PROFILE="demo").env


def test_nothing_is_fetched_or_reported_at_run_time() -> None:
    env = plan().env
    assert (env["HF_HUB_OFFLINE"], env["TRANSFORMERS_OFFLINE"]) == ("1", "1")
    assert (env["VLLM_NO_USAGE_STATS"], env["DO_NOT_TRACK"]) == ("1", "1")


def test_the_demo_loads_our_plug_ins_and_no_strangers() -> None:
    project = tomllib.loads((ROOT / "unglitched_vllm/plugin/pyproject.toml").read_text())
    names = project["project"]["entry-points"]["vllm.general_plugins"]
    assert plan(PROFILE="demo").env["VLLM_PLUGINS"].split(",") == list(names)


# ---- memory

MEMORY_FLAGS = ("--gpu-memory-utilization", "--kv-cache-memory-bytes", "--max-model-len")


def test_utilization_cache_context_and_crowd_are_those_of_the_memory_plan() -> None:
    memory, made = planned(load_settings({})), plan()
    given = tuple(flag(made, name) for name in (*MEMORY_FLAGS, "--max-num-seqs"))
    wanted = (memory.gpu_memory_utilization, memory.kv_bytes, memory.max_model_len, 2)
    assert given == tuple(map(str, wanted))


def test_a_cache_that_is_not_computed_is_left_to_the_engine() -> None:
    settings = load_settings({})
    memory = replace(planned(settings), kv_is_computed=False)
    made = plan_launch(settings, EXTRAS, memory, port=1, api_key=KEY, base_env={})
    assert flag(made, "--gpu-memory-utilization") == str(memory.gpu_memory_utilization)
    assert "--kv-cache-memory-bytes" not in made.argv


def test_the_cpu_engine_is_told_its_cache_in_its_environment() -> None:
    settings = load_settings({"APPLIANCE_PROFILE": "demo"})
    memory = replace(planned(settings), kv_bytes=3 * 2**30)
    made = plan_launch(settings, EXTRAS, memory, port=1, api_key=KEY, base_env={})
    assert made.env["VLLM_CPU_KVCACHE_SPACE"] == "3"
    assert {"--gpu-memory-utilization", "--kv-cache-memory-bytes"}.isdisjoint(made.argv)
    assert "VLLM_CPU_KVCACHE_SPACE" not in plan().env


def test_a_cache_size_that_is_inherited_does_not_outdo_the_plans() -> None:
    made = plan_within({"VLLM_CPU_KVCACHE_SPACE": "40"}, PROFILE="demo")
    assert made.env["VLLM_CPU_KVCACHE_SPACE"] == "1"


def test_without_a_memory_plan_the_settings_are_all_that_is_given() -> None:
    made = plan_without_memory(GPU_MEMORY_UTILIZATION="0.5", MAX_MODEL_LEN="1000")
    assert [flag(made, name) for name in MEMORY_FLAGS] == ["0.5", None, "1000"]


# ---- settings


def test_the_engine_listens_on_the_loopback_whatever_the_appliance_does() -> None:
    made = plan(HOST="0.0.0.0", PORT="9000")
    assert (flag(made, "--host"), flag(made, "--port")) == ("127.0.0.1", "8123")
    assert made.base_url == "http://127.0.0.1:8123"


def test_a_setting_that_is_unset_leaves_the_choice_to_the_engine() -> None:
    made = plan_without_memory(PROFILE="demo", MODEL_PROFILE="custom")
    for name in ("--gpu-memory-utilization", "--max-model-len", "--moe-backend", "--load-format"):
        assert name not in made.argv


def test_eager_mode_captures_no_graphs() -> None:
    assert "--cudagraph-capture-sizes" not in plan(ENFORCE_EAGER="on").argv
    assert "--enforce-eager" not in plan(ENFORCE_EAGER="off").argv
    assert flag(plan(), "--cudagraph-capture-sizes") == "1"


@pytest.mark.parametrize(("switch", "shown"), [("on", ""), ("off", "no-")])
def test_autotune_is_switched_either_way(switch: str, shown: str) -> None:
    made = plan(FLASHINFER_AUTOTUNE=switch)
    assert [word for word in made.argv if "autotune" in word] == [
        f"--{shown}enable-flashinfer-autotune"
    ]


@pytest.mark.parametrize(("switch", "mode"), [("on", "True"), ("off", "False")])
def test_expandable_segments_are_switched_either_way(switch: str, mode: str) -> None:
    env = plan(EXPANDABLE_SEGMENTS=switch).env
    assert env["PYTORCH_CUDA_ALLOC_CONF"] == f"expandable_segments:{mode}"


def test_our_parser_comes_with_our_template_and_another_with_neither() -> None:
    ours, other = plan(), plan(REASONING_PARSER="qwen3")
    assert flag(ours, "--chat-template") == "/EXTRAS/chat_template.jinja"
    assert flag(ours, "--reasoning-parser-plugin") == "/EXTRAS/optthink.py"
    assert flag(other, "--reasoning-parser") == "qwen3"
    assert {"--chat-template", "--reasoning-parser-plugin"}.isdisjoint(other.argv)


def test_without_a_tool_parser_tools_are_not_switched_on() -> None:
    assert "--enable-auto-tool-choice" not in plan(MODEL_PROFILE="custom").argv


def test_further_flags_stand_last_so_that_they_win() -> None:
    assert plan(ENGINE_EXTRA_ARGS="--seed 7").argv[-2:] == ("--seed", "7")
