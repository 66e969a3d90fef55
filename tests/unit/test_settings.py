"""Settings: where each value comes from, and what is said when one is wrong."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from appliance.errors import SettingsError
from appliance.fieldtypes import OWNED_FLAGS, named_flag
from appliance.settings import PREFIX, Settings, load_settings
from tests.plans import GOLDEN


def load(**variables: str) -> Settings:
    return load_settings({PREFIX + name: value for name, value in variables.items()})


def refusal(**variables: str) -> str:
    """Return all that a refused setting says."""
    with pytest.raises(SettingsError) as caught:
        load(**variables)
    assert caught.value.exit_code == 78
    assert caught.value.hint
    return str(caught.value)


def toml(tmp_path: Path, text: str) -> str:
    path = tmp_path / "appliance.toml"
    path.write_text(text)
    return str(path)


# ---- precedence


def test_without_a_word_the_defaults_are_those_of_the_spark_and_its_model() -> None:
    settings = load_settings({})
    assert (settings.profile, settings.model_profile) == ("spark", "nikola")
    assert settings.origin("port") == "default"


def test_a_box_profile_goes_before_a_model_profile_before_a_default() -> None:
    settings = load(PROFILE="demo")
    assert settings.kv_cache_dtype == "auto"  # nikola wants fp8
    assert settings.origin("kv_cache_dtype").startswith("box profile demo: ")
    assert settings.tool_call_parser == "minimax_m2"
    assert settings.origin("tool_call_parser").startswith("model profile nikola: ")
    assert settings.origin("max_waiting") == "default"


def test_each_source_goes_before_the_one_below_it(tmp_path: Path) -> None:
    config = toml(tmp_path, 'max_model_len = 1000\nport = 1\nhost = "0.0.0.0"\n')
    environ = {"APPLIANCE_CONFIG": config, "APPLIANCE_PORT": "2", "APPLIANCE_HOST": "::1"}
    settings = load_settings(environ, {"host": "::"})
    assert (settings.max_model_len, settings.port, settings.host) == (1000, 2, "::")
    assert settings.origin("max_model_len") == f"file {config}"
    assert settings.origin("port") == "APPLIANCE_PORT"
    assert settings.origin("host") == "command line"


def test_the_file_may_choose_the_profiles(tmp_path: Path) -> None:
    config = toml(tmp_path, 'profile = "thor"\nmodel_profile = "custom"\n')
    settings = load(CONFIG=config)
    assert settings.origin("attention_backend").startswith("box profile thor")
    assert settings.tool_call_parser is None


def test_other_programs_variables_are_none_of_ours() -> None:
    assert load_settings({"PORT": "1", "VLLM_PORT": "2", "appliance_port": "3"}).port == 9000


@pytest.mark.parametrize("source", ["environment", "file", "command line"])
def test_an_empty_text_is_as_if_unset(tmp_path: Path, source: str) -> None:
    blank = {"load_format": "", "profile": "", "api_key": ""}
    if source == "environment":
        settings = load_settings({PREFIX + name.upper(): "" for name in blank})
    elif source == "file":
        lines = "".join(f'{name} = ""\n' for name in blank)
        settings = load(CONFIG=toml(tmp_path, lines))
    else:
        settings = load_settings({}, blank)
    assert settings == load_settings({})
    assert settings.origin("load_format").startswith("box profile spark")


# ---- values as people write them


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("port", "0", 0),
        ("enforce_eager", "on", True),
        ("enforce_eager", "Yes", True),
        ("flashinfer_autotune", "OFF", False),
        ("expandable_segments", "0", False),
        ("max_body_bytes", "1.5 MiB", 1_572_864),
        ("engine_command", "python -m vllm.entrypoints.cli.main", 3),
        ("engine_command", "'/opt/my engine/vllm'", ("/opt/my engine/vllm",)),
        ("engine_extra_args", """-O3 --x '{"a": 1, "b": 2}'""", ("-O3", "--x", '{"a": 1, "b": 2}')),
        ("cudagraph_capture_sizes", "1,2 4", (1, 2, 4)),
        ("sampling", '{"temperature": 0.5, "top_k": 3}', {"temperature": 0.5, "top_k": 3}),
        ("model_dir", "/models/My Model", Path("/models/My Model")),
        ("model_dir", "~/model", Path.home() / "model"),
        ("prompt_file", "~/prompt.txt", Path.home() / "prompt.txt"),
        ("queue_timeout_s", "0.5", 0.5),
    ],
)
def test_a_value_is_read_as_people_write_it(name: str, text: str, value: Any) -> None:
    read = getattr(load(**{name.upper(): text}), name)
    assert (len(read) if isinstance(value, int) and isinstance(read, tuple) else read) == value


def test_a_file_gives_lists_and_tables_as_toml_has_them(tmp_path: Path) -> None:
    lines = 'engine_extra_args = ["--seed", "b c"]\nsampling = { top_p = 0.9 }\napi_key = "k"\n'
    settings = load(CONFIG=toml(tmp_path, lines))
    assert settings.engine_extra_args == ("--seed", "b c")
    assert settings.sampling == {"top_p": 0.9}


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(load_settings({}), "port", 1)  # noqa: B010 - mypy knows that it is frozen


def test_every_field_is_documented_in_one_line() -> None:
    undocumented = [n for n, field in Settings.model_fields.items() if not field.description]
    assert undocumented == []


# ---- what is said of a bad value

BAD = [
    ("PORT", "abc", "valid integer"),
    ("PORT", "65536", "less than or equal to 65535"),
    ("ENGINE", "start", "'spawn' or 'attach'"),
    ("LOG_FORMAT", "xml", "'console' or 'json'"),
    ("MAX_BODY_BYTES", "lots", "64MiB"),
    ("MAX_BODY_BYTES", "0", "greater than 0"),
    ("GPU_MEMORY_UTILIZATION", "95", "less than 1"),
    ("GPU_MEMORY_UTILIZATION", "nan", "less than 1"),
    ("MAX_NUM_SEQS", "0", "greater than or equal to 1"),
    ("MAX_WAITING", "-1", "greater than or equal to 0"),
    ("ENFORCE_EAGER", "perhaps", "valid boolean"),
    ("QUEUE_TIMEOUT_S", "0", "greater than 0"),
    ("QUEUE_TIMEOUT_S", "inf", "finite"),
    ("CUDAGRAPH_CAPTURE_SIZES", "1,two", "valid integer"),
    ("SAMPLING", "temperature=1", '{"temperature": 1.0}'),
    ("SAMPLING", "[1]", "valid dictionary"),
    ("ENGINE_COMMAND", "  ", "at least 1 item"),
    ("ENGINE_EXTRA_ARGS", "'unfinished", "No closing quotation"),
    ("ENGINE_URL", "127.0.0.1:8000", "http://127.0.0.1:8000"),
    ("ENGINE_URL", "http://", "http://127.0.0.1:8000"),
    ("ENGINE_URL", "http://[::1", "IPv6"),
    ("PROFILE", "sparc", "spark, thor, demo"),
    ("MODEL_PROFILE", "Nikola", "nikola, qwen3.5-122b, custom"),
]


@pytest.mark.parametrize(("variable", "value", "advice"), BAD)
def test_a_bad_value_is_named_with_its_variable_and_what_to_write(
    variable: str, value: str, advice: str
) -> None:
    said = refusal(**{variable: value})
    assert f"APPLIANCE_{variable}={value!r}" in said
    assert advice in said


def test_a_bad_value_in_the_file_is_named_with_the_file(tmp_path: Path) -> None:
    config = toml(tmp_path, "port = 70000\n")
    assert f"port (file {config})=70000" in refusal(CONFIG=config)


def test_several_bad_values_are_told_at_once() -> None:
    said = refusal(PORT="abc", MAX_NUM_SEQS="0")
    assert "APPLIANCE_PORT" in said
    assert "APPLIANCE_MAX_NUM_SEQS" in said


@pytest.mark.parametrize("line", ["profile = 3", 'profile = ["spark"]', "max_body_bytes = 1.5"])
def test_a_bad_type_in_the_file_is_a_settings_error(tmp_path: Path, line: str) -> None:
    assert line.partition(" ")[0].upper() in refusal(CONFIG=toml(tmp_path, line)).upper()


@pytest.mark.parametrize(
    ("variable", "nearest"),
    [("APPLIANCE_PROT", "APPLIANCE_PORT"), ("APPLIANCE_MODEL_DIRECTORY", "APPLIANCE_MODEL_DIR")],
)
def test_an_unknown_variable_suggests_the_nearest(variable: str, nearest: str) -> None:
    said = refusal(**{variable.removeprefix(PREFIX): "x"})
    assert f"{variable} is no setting" in said
    assert f"did you mean {nearest}?" in said


def test_an_unknown_variable_far_from_all_names_the_list() -> None:
    assert "appliance plan --settings" in refusal(ZZZZZZZZZZ="x")


def test_an_unknown_name_in_the_file_suggests_the_nearest(tmp_path: Path) -> None:
    said = refusal(CONFIG=toml(tmp_path, "prot = 1\n"))
    assert "prot is no setting" in said
    assert "APPLIANCE_PORT" in said


@pytest.mark.parametrize("text", ["port =", "\x00"])
def test_a_file_that_is_no_toml_is_named(tmp_path: Path, text: str) -> None:
    config = toml(tmp_path, text)
    assert f"{config} is no TOML" in refusal(CONFIG=config)


def test_a_missing_file_is_named_with_its_variable() -> None:
    assert "APPLIANCE_CONFIG=/no/such.toml: No such file" in refusal(CONFIG="/no/such.toml")


@given(st.dictionaries(st.sampled_from(sorted(Settings.model_fields)), st.text(), max_size=4))
def test_whatever_stands_in_the_environment_there_is_no_bare_traceback(
    values: dict[str, str],
) -> None:
    said = "APPLIANCE_"
    try:
        load(**{name.upper(): value for name, value in values.items()})
    except SettingsError as error:
        said = str(error)
    assert "APPLIANCE_" in said


# ---- contradictions


def test_attach_needs_a_url() -> None:
    said = refusal(ENGINE="attach")
    assert "APPLIANCE_ENGINE_URL" in said
    assert "http://127.0.0.1:8000" in said


def test_a_url_needs_attach() -> None:
    assert "APPLIANCE_ENGINE=attach" in refusal(ENGINE_URL="http://127.0.0.1:8000")


@pytest.mark.parametrize(
    "argument",
    [
        "--trust-remote-code",
        "--trust_remote_code",
        "--trust-remote",
        "--trust",
        "--trust-remote-code=true",
        "--trust_remote_code=True",
        "--port=1",
        "--port 1",
        "--por=1",
        "--host 0.0.0.0",
        "--api-key=x",
        "--api_key x",
        "--config file.yaml",
        "--conf=file.yaml",
        "--uds /tmp/x",
        "--model other",
        "--",
    ],
)
def test_a_flag_that_the_appliance_owns_is_refused_in_every_spelling(argument: str) -> None:
    said = refusal(ENGINE_EXTRA_ARGS=f"--seed 1 {argument}")
    assert f"must not hold {argument.split('=')[0].split()[0]}" in said


@pytest.mark.parametrize(
    ("argument", "instead"),
    [
        ("--gpu-memory-utilization=0.97", "APPLIANCE_GPU_MEMORY_UTILIZATION"),
        ("--gpu_memory_utilization 0.97", "APPLIANCE_GPU_MEMORY_UTILIZATION"),
        ("--gpu-mem 0.97", "APPLIANCE_GPU_MEMORY_UTILIZATION"),
        ("--kv-cache-memory-bytes 1", "APPLIANCE_MEMORY_PROFILE"),
        ("--kv-cache-memory=2941976576", "APPLIANCE_MEMORY_PROFILE"),
        ("--max-model-len 99999", "APPLIANCE_MAX_MODEL_LEN"),
        ("--max_model=9", "APPLIANCE_MAX_MODEL_LEN"),
        ("--max-num-seqs 9", "APPLIANCE_MAX_NUM_SEQS"),
        ("--max-num-s 9", "APPLIANCE_MAX_NUM_SEQS"),
    ],
)
def test_a_flag_that_the_memory_plan_decides_is_refused_and_its_setting_named(
    argument: str, instead: str
) -> None:
    said = refusal(ENGINE_EXTRA_ARGS=f"--seed 1 {argument}")
    assert f"must not hold {argument.split('=')[0].split()[0]}: set " in said
    assert instead in said


@pytest.mark.parametrize("version", ["0.32", "0.33"])
def test_no_other_flag_of_vllm_is_taken_for_one_that_is_owned(version: str) -> None:
    flags = (GOLDEN / f"vllm-{version}-flags.txt").read_text().split()
    refused = {flag for flag in flags if named_flag(flag, OWNED_FLAGS)}
    assert refused == OWNED_FLAGS.keys()


@pytest.mark.parametrize(
    "arguments", ["--model-impl vllm", "-O3", "--seed=1", "--no-enable-prefix-caching", "port"]
)
def test_other_flags_pass(arguments: str) -> None:
    assert load(ENGINE_EXTRA_ARGS=arguments).engine_extra_args == tuple(arguments.split())


# ---- memory


def test_floors_that_do_not_descend_are_refused_with_both_named() -> None:
    said = refusal(MEMORY_STOP_FLOOR="2GiB")
    assert "APPLIANCE_MEMORY_STOP_FLOOR=2.0 GiB is below" in said
    assert "APPLIANCE_MEMORY_KILL_FLOOR=2.5 GiB" in said


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MEMORY_WARN_FLOOR", "1GiB"),
        ("MEMORY_STOP_FLOOR", "9GiB"),
        ("MEMORY_KILL_FLOOR", "9GiB"),
        ("MEMORY_KILL_FLOOR", "1GiB"),
        ("MEMORY_EMERGENCY", "9GiB"),
    ],
)
def test_each_floor_has_its_place_in_the_order(name: str, value: str) -> None:
    assert f"APPLIANCE_{name}" in refusal(**{name: value})


def test_floors_may_be_equal() -> None:
    names = ("WARN_FLOOR", "STOP_FLOOR", "KILL_FLOOR", "EMERGENCY")
    settings = load(**{f"MEMORY_{name}": "2GiB" for name in names})
    assert settings.memory_warn_floor == settings.memory_emergency == 2 * 2**30


def test_force_needs_the_guards() -> None:
    assert "APPLIANCE_MEMORY_GUARDS=on" in refusal(MEMORY_FORCE="on", MEMORY_GUARDS="off")
    assert load(MEMORY_FORCE="on").memory_force
    assert not load(MEMORY_GUARDS="off").memory_guards


@pytest.mark.parametrize(("box", "least"), [("spark", "2.0 GiB"), ("demo", "256.0 MiB")])
def test_force_keeps_the_emergency_of_the_box(box: str, least: str) -> None:
    said = refusal(PROFILE=box, MEMORY_FORCE="on", MEMORY_EMERGENCY="255MiB")
    assert f"APPLIANCE_MEMORY_EMERGENCY={least} at least, not 255.0 MiB" in said
    assert load(PROFILE=box, MEMORY_FORCE="on", MEMORY_EMERGENCY=least).memory_force
    assert not load(PROFILE=box, MEMORY_EMERGENCY="255MiB").memory_force


@pytest.mark.parametrize(
    ("name", "value"), [("MEMORY_PROFILE", "brave"), ("SWAP", "maybe"), ("MEMORY_GROWTH", "-1GiB")]
)
def test_a_wrong_choice_about_memory_is_refused(name: str, value: str) -> None:
    assert f"APPLIANCE_{name}" in refusal(**{name: value})


@pytest.mark.parametrize("name", ["EVICT_MAX", "MEMORY_GROWTH", "MAX_MODEL_LEN", "MAX_NUM_SEQS"])
def test_a_number_of_400_digits_is_refused(name: str) -> None:
    said = refusal(**{name: "9" * 400})
    assert f"APPLIANCE_{name}" in said
    assert "9" * 200 not in said, "it is cut"


def test_cgroups_to_push_out_are_a_list() -> None:
    settings = load(EVICT_CGROUPS="user.slice/user-1000.slice docker", CGROUP_BASE="~/cg")
    assert settings.evict_cgroups == ("user.slice/user-1000.slice", "docker")
    assert settings.cgroup_base == Path.home() / "cg"


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("user.slice /", "'/' is the root cgroup"),
        (".", "'.' is the root cgroup"),
        ("user.slice/../init.scope", "'..' is no name of a cgroup"),
        ("/var/lib", "'/var/lib' is not below /sys/fs/cgroup"),
        ("system.slice/sshd.service", "sshd.service must keep its memory"),
        (
            "user.slice/user-1000.slice docker user.slice",
            "user.slice holds user.slice/user-1000.sl",
        ),
    ],
)
def test_a_cgroup_that_must_not_be_pushed_out_is_refused(names: str, says: str) -> None:
    said = refusal(EVICT_CGROUPS=names)
    assert "APPLIANCE_EVICT_CGROUPS" in said
    assert says in said
    assert "--cgroup" not in said, "that is another command's"


def test_a_cgroup_that_is_named_twice_is_pushed_out_once() -> None:
    names = "user.slice docker /sys/fs/cgroup/user.slice/ user.slice-more"
    assert load(EVICT_CGROUPS=names).evict_cgroups == ("user.slice", "docker", "user.slice-more")
