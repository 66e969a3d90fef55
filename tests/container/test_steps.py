"""The scripts of the image and around it, each by itself; they need no Docker engine."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from appliance.modelpull import HOMES
from tests.container import world
from tests.container.world import PROJECT
from tests.fakes.rangeserver import hub
from tests.pulls import FILES, content_of

pytestmark = pytest.mark.container

DOCKER = PROJECT / "docker"
FORBIDDEN = re.compile(r"^#\s*syntax=|<<|--link\b|--start-interval|COPY --parents|--exclude", re.M)


def test_hadolint_finds_nothing(hadolint: Path) -> None:
    done = world.run(hadolint, DOCKER / "Dockerfile")
    assert (done.returncode, done.stdout) == (0, "")


def test_the_dockerfile_keeps_to_what_older_buildkits_know() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    code = "\n".join(line for line in text.splitlines() if not re.match(r"#(?!\s*syntax=)", line))
    assert FORBIDDEN.findall(code) == []


def test_every_stage_says_what_it_is_for() -> None:
    lines = (DOCKER / "Dockerfile").read_text(encoding="utf-8").splitlines()
    told: set[str] = set()
    for number, line in enumerate(lines):
        if line.startswith("# ---- "):
            told |= set(re.findall(r"[a-z][a-z-]+", line.partition(":")[0]))
        elif (stage := re.match(r"FROM .* AS (\S+)", line)) and not near_a_heading(lines, number):
            pytest.fail(f"line {number + 1}: {stage[1]} has no heading")
    assert {"runtime", "demo", "sidecar", "force-swap"} <= told


def near_a_heading(lines: list[str], number: int) -> bool:
    """Tell whether a heading stands above, with nothing but its own stages between."""
    above = "\n".join(lines[:number]).rpartition("# ---- ")[2]
    return len(above.splitlines()) < 14


def test_no_base_is_pinned_to_a_digest_that_nobody_resolved() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    assert re.findall(r"^ARG \w+_DIGEST=(.*)$", text, re.MULTILINE) == ["", ""]
    assert "sha256:" not in text.replace("@sha256:...", "")


def test_every_base_has_a_full_version_tag() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    tags = re.findall(r"^ARG \w+_IMAGE=(\S+)$", text, re.MULTILINE)
    assert len(tags) == 2
    assert all(re.search(r":.*\d{2}\.\d+|:\w+-\d{8}$", tag) for tag in tags), tags


def test_a_change_in_our_code_makes_nothing_else_anew() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    whole = [stage for stage in text.split("\nFROM ") if "\nCOPY appliance /" in stage]
    assert [stage.splitlines()[0] for stage in whole] == ["build AS appliance"]


def account(tmp_path: Path, passwd: str) -> subprocess.CompletedProcess[str]:
    """Add the user to a made-up base image's lists."""
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text(passwd)
    (etc / "group").write_text("root:x:0:\n")
    return world.run("sh", DOCKER / "account.sh", etc, tmp_path / "out", "unglitched", "10001")


def test_the_user_is_added_to_the_bases_own(tmp_path: Path) -> None:
    assert account(tmp_path, "root:x:0:0::/root:/bin/sh\n").returncode == 0
    lines = (tmp_path / "out" / "passwd").read_text().splitlines()
    assert lines[0].startswith("root:")
    assert lines[1].split(":")[:4] == ["unglitched", "x", "10001", "10001"]
    assert (tmp_path / "out" / "group").read_text().splitlines()[1] == "unglitched:x:10001:"


def test_a_base_that_has_the_number_is_refused(tmp_path: Path) -> None:
    done = account(tmp_path, "root:x:0:0::/:/bin/sh\nother:x:10001:10001::/:/bin/sh\n")
    assert done.returncode == 1
    assert "10001" in done.stderr


def up(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run docker/up.sh in an environment without a choice of a box."""
    clean = {name: value for name, value in os.environ.items() if name != "COMPOSE_PROFILES"}
    return subprocess.run(
        [str(DOCKER / "up.sh"), *words],
        env={**clean, **env},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_an_unknown_box_is_refused() -> None:
    done = up("up", "sparc")
    assert done.returncode == 1
    assert "sparc is no box" in done.stderr


def test_an_incomplete_model_is_answered_with_the_command_that_fetches_it(
    tmp_path: Path, image: str
) -> None:
    assert image
    done = up("up", "spark", MODEL_PATH=str(tmp_path))
    assert done.returncode == 1
    assert "make model" in done.stderr


def test_the_model_is_fetched_into_its_folder_at_its_revision(tmp_path: Path) -> None:
    with hub() as there:
        there.add(HOMES["nikola"], FILES)
        env = {"HF_ENDPOINT": there.api.url, "MODEL_PATH": str(tmp_path / "model")}
        other = up("model", MODEL_REVISION="v9", **env)
        assert other.returncode == 66, other.stderr
        assert "v9" in other.stderr
        done = up("model", **env)
    assert done.returncode == 0, done.stderr
    assert content_of(tmp_path / "model") == FILES


def test_a_model_without_a_folder_is_not_fetched() -> None:
    done = up("model", MODEL_PATH="")
    assert done.returncode == 1
    assert "MODEL_PATH is not set" in done.stderr
