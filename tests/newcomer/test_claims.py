"""The README's commands exist, and a claim is compared line by line."""

import subprocess

import pytest

from appliance.cli import build_parser
from tests.engines import ROOT
from tests.newcomer.claims import Claim, claims, missing, plain, typed

README = (ROOT / "README.md").read_text(encoding="utf-8")


def commands_of(program: str) -> list[str]:
    """The first words after ``program``, as the README has them."""
    words = {line[1] for line in typed(README) if line[0] == program and len(line) > 1}
    return sorted(word for word in words if word.replace("-", "").isalpha())


def test_the_readme_makes_claims_that_can_be_followed() -> None:
    assert {claim.command for claim in claims(README)} >= {"make demo ONCE=1"}


@pytest.mark.parametrize("command", commands_of("appliance"))
def test_each_command_of_the_appliance_that_the_readme_names_exists(command: str) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args([command, "--help"])
    assert ended.value.code == 0


def test_each_target_of_make_that_the_readme_names_exists() -> None:
    listed = subprocess.run(
        ["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    known = {line.split()[1] for line in listed.splitlines() if line.startswith("make ")}
    assert set(commands_of("make")) - known == set()


@pytest.mark.parametrize(
    ("claimed", "printed", "lost"),
    [
        (["a 1 s"], ["a 22.5 s"], None),
        (["a", "b"], ["a", "b"], None),
        (["a", "b"], ["a", "x", "b"], "b"),
        (["a", "…", "b"], ["a", "x", "b"], None),
        (["b", "…", "a"], ["a", "b"], "a"),
        (
            ["ready since 2026-11-23T02:29:51+00:00"],
            ["ready since 2027-01-01T00:00:00+00:00"],
            None,
        ),
        (["a (log: …", "b"], ["a (log: /x/y)", "b"], None),
        (["a (log: …", "b"], ["a", "b"], "a (log: …"),
        (["14 checks: all passed"], ["14 checks: 2 FAILED"], "14 checks: all passed"),
    ],
    ids=["number", "order", "between", "gap", "swapped", "moment", "rest", "no rest", "failed"],
)
def test_claimed_lines_come_in_their_order(
    claimed: list[str], printed: list[str], lost: str | None
) -> None:
    assert missing(Claim("any", tuple(claimed)), printed) == lost


def test_colours_and_spaces_do_not_count() -> None:
    assert plain("\x1b[32mok\x1b[0m    0.05 s  live") == plain("ok     12.3 s live")
