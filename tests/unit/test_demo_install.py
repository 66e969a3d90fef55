"""The setup of the demo's engine, without pip or a network: progress, children, waiting."""

import fcntl
import io
import os
import pty
import sys
from pathlib import Path

import pytest

from appliance.demo import install, piprun
from appliance.demo.piprun import Console, Outcome, Progress, Teller
from appliance.errors import HostError

# --- progress ---------------------------------------------------------------------------------

PIP = """\
Looking in links: wheels
Collecting agent-detector==2.0.0 (from -r engine.lock (line 1))
  Downloading agent_detector-2.0.0-py3-none-any.whl (9.4 kB)
Requirement already satisfied: anyio==4.16.0 in lib (from -r engine.lock (line 9)) (4.16.0)
Collecting numba==0.65.0
  Downloading https://index.example/numba-0.65.0-cp311-cp311-manylinux_2_27_x86_64.whl (3.8 MB)
Processing /srv/wheels/torch-2.13.0+cpu-cp311-cp311-manylinux_2_28_x86_64.whl
  Using cached yarl-1.25.1-cp311-cp311-manylinux_2_28_x86_64.whl (95 kB)
Installing collected packages: numba, agent-detector
Successfully installed agent-detector-2.0.0 numba-0.65.0
"""


def test_progress_follows_pips_lines() -> None:
    progress = Progress("setup", total=4)
    texts = []
    for line in PIP.splitlines():
        progress = progress.after(line)
        texts.append(progress.text(12.4, present=1))
    assert texts == [
        "setup: fetching 0 of 4, 12 s",
        "setup: fetching 1 of 4 (agent-detector), 12 s",
        "setup: fetching 1 of 4 (agent_detector, 9.4 kB), 12 s",
        "setup: fetching 2 of 4 (anyio), 12 s",
        "setup: fetching 3 of 4 (numba), 12 s",
        "setup: fetching 3 of 4 (numba, 3.8 MB), 12 s",
        "setup: fetching 4 of 4 (torch), 12 s",
        "setup: fetching 4 of 4 (yarl, 95 kB), 12 s",
        "setup: installed 1 of 4, 12 s",
        "setup: installed 1 of 4, 12 s",
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
        shown = ""
        while not shown.endswith("bye\r\n"):  # a terminal hands on what it has so far
            shown += os.read(controller, 1000).decode()
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
    with install.only_setup(lock, print) as held_fd:
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

    with install.only_setup(lock, say):
        assert said == ["setup: another setup is running (pid 4711), waiting"]
        assert lock.read_text() == f"{os.getpid()}\n"
    os.close(first)


def test_a_setup_whose_holder_died_leaves_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    lock.write_text("4711\n")
    said: list[str] = []
    with install.only_setup(lock, said.append):
        assert said == []


def test_a_setup_that_fails_frees_the_lock(tmp_path: Path) -> None:
    lock = tmp_path / "install.lock"
    with pytest.raises(HostError), install.only_setup(lock, print):
        raise HostError("broken")
    with install.only_setup(lock, print):
        pass


# --- the command ------------------------------------------------------------------------------


def test_check_tells_that_an_install_is_needed_and_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert install.main(["--check", "--root", str(tmp_path / "none")]) == 1
    assert "an install is needed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_clear_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "plugin").mkdir()
    (tmp_path / "plugin" / "pyproject.toml").write_text("")
    argv = ["--root", str(tmp_path / "file" / "engine"), "--plugin", str(tmp_path / "plugin")]
    assert install.main(argv) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the engine's environment cannot be set up at ")
    assert "-> make the folder writable" in said


def test_help_names_the_index_and_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        install.main(["--help"])
    said = capsys.readouterr().out
    assert install.TORCH_INDEX in said.replace("\n", "")
    assert "130 stopped by" in said
