"""docker/monitoring/up.sh: secrets are made once, kept to their owner, and replaced in place."""

import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.engines import ROOT

# A Docker that writes down what it is told, and whose appliance makes keys.
DOCKER = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
*"imagetools inspect"*) echo "sha256:$(printf '%064d' "$(wc -l <"$CALLS")")" ;;
*"appliance key new"*) [ -z "$NO_KEY" ] && echo "key-$(wc -l <"$CALLS")" ;;
esac
"""


@dataclass
class Clone:
    """A clone that has the script alone."""

    folder: Path

    def run(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return self.script("docker/monitoring/up.sh", *words, **env)

    def script(self, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            words,
            cwd=self.folder,
            env={
                "PATH": f"{self.folder / 'bin'}:{os.environ['PATH']}",
                "CALLS": str(self.folder / "calls"),
                **env,
            },
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    @property
    def calls(self) -> list[str]:
        return (self.folder / "calls").read_text().splitlines()

    def kept(self, name: str) -> Path:
        return self.folder / ".monitoring" / name


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    (tmp_path / "docker" / "monitoring").mkdir(parents=True)
    shutil.copy(ROOT / "docker" / "monitoring" / "up.sh", tmp_path / "docker" / "monitoring")
    shutil.copy(ROOT / "docker" / "dotenv.sh", tmp_path / "docker")
    docker = tmp_path / "docker-program"
    docker.write_text(DOCKER)
    docker.chmod(0o755)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "docker").symlink_to(docker)
    return Clone(tmp_path)


def test_a_first_start_makes_a_limited_key_and_a_password_and_starts_both(clone: Clone) -> None:
    done = clone.run("up", "demo")
    assert done.returncode == 0, done.stderr
    (asked,) = (call for call in clone.calls if "appliance key new" in call)
    assert "exec -T demo appliance key new prometheus" in asked
    assert "--max-running 1 --max-waiting 0" in asked
    assert clone.calls[-1].endswith("--profile monitoring up --detach prometheus grafana")
    assert len(clone.kept("grafana.password").read_text().strip()) == 32


def test_the_secrets_are_behind_a_folder_that_only_its_owner_may_enter(clone: Clone) -> None:
    clone.run("up", "demo")
    folder = clone.kept("").stat()
    assert stat.S_IMODE(folder.st_mode) == 0o700
    # each container reads its secret through a mount, under a user of its own
    for name in ("prometheus.key", "grafana.password"):
        assert stat.S_IMODE(clone.kept(name).stat().st_mode) == 0o644


def test_the_key_is_told_nowhere(clone: Clone) -> None:
    done = clone.run("up", "demo")
    key = clone.kept("prometheus.key").read_text().strip()
    assert key.startswith("key-")
    assert key not in done.stdout + done.stderr


def test_a_second_start_keeps_both_secrets(clone: Clone) -> None:
    clone.run("up", "demo")
    names = ("prometheus.key", "grafana.password")
    before = [clone.kept(name).read_text() for name in names]
    clone.run("up", "demo")
    assert [clone.kept(name).read_text() for name in names] == before


def test_another_key_goes_into_the_same_file_which_a_container_has_mounted(clone: Clone) -> None:
    clone.run("up", "demo")
    file = clone.kept("prometheus.key")
    before, inode = file.read_text(), file.stat().st_ino
    assert clone.run("key", "demo").returncode == 0
    assert file.read_text() != before
    assert file.stat().st_ino == inode


def test_a_box_that_makes_no_key_costs_nothing_and_says_what_to_type(clone: Clone) -> None:
    clone.run("up", "demo")
    before = clone.kept("prometheus.key").read_text()
    done = clone.run("key", "demo", NO_KEY="1")
    assert done.returncode == 1
    assert "make up BOX=demo" in done.stderr
    assert clone.kept("prometheus.key").read_text() == before


def test_two_passwords_differ_and_are_printed_when_asked(clone: Clone) -> None:
    clone.run("up", "demo")
    first = clone.run("password").stdout
    clone.kept("grafana.password").unlink()
    clone.run("up", "demo")
    assert clone.run("password").stdout not in {first, ""}


def test_down_ends_both_and_not_the_box(clone: Clone) -> None:
    clone.run("up", "demo")
    assert clone.run("down", "demo").returncode == 0
    assert clone.calls[-1].endswith("rm --stop --force prometheus grafana")


@pytest.mark.parametrize(
    ("words", "code", "hint"),
    [
        ((), 1, "make monitoring BOX=demo"),
        (("up", "tower"), 1, "use spark, thor or demo"),
        (("upp",), 2, "usage:"),
        (("password",), 1, "make monitoring"),
    ],
)
def test_what_cannot_be_done_is_refused_with_what_to_type(
    clone: Clone, words: tuple[str, ...], code: int, hint: str
) -> None:
    done = clone.run(*words)
    assert done.returncode == code
    assert hint in done.stderr
    assert not clone.kept("").exists()


def test_make_pin_pins_both_images_as_compose_names_them(clone: Clone) -> None:
    for name in ("compose.yaml", "compose.monitoring.yaml", "docker/pin.sh"):
        shutil.copy(ROOT / name, clone.folder / name)
    hub = clone.folder / "bin" / "python3"
    hub.write_text("#!/bin/sh\nprintf '%040d' 7\n")
    hub.chmod(0o755)
    done = clone.script("docker/pin.sh")
    assert done.returncode == 0, done.stdout + done.stderr
    asked = " ".join(clone.calls)
    assert re.search(r"inspect prom/prometheus:v[\d.]+ .*inspect grafana/grafana:[\d.]+ ", asked)
    kept = (clone.folder / ".env").read_text()
    for name in ("PROMETHEUS", "GRAFANA"):
        assert re.search(rf"^{name}_DIGEST=@sha256:\d{{64}}$", kept, re.MULTILINE)
