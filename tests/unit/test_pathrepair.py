"""When a glitch is mended: each rule by itself, and that a wrong mend needs all of them to fail."""

from dataclasses import replace

import pytest

from appliance.glitches import EXACT, NEW, Verdict, compare
from appliance.partdiff import Kind
from appliance.pathguard import PathGuard, mended
from appliance.pathledger import (
    CALL,
    CONTENT,
    ENVIRONMENT,
    LISTING,
    TRUSTED,
    USER,
    WEB,
    Ledger,
    Page,
)
from appliance.pathrepair import Action, Mode, Place, Why, judge, refusal
from appliance.pathtools import Deed, Tools, read_tools
from tests.unit.test_glitches import ledger

SAFE = Verdict(Kind.CASE, "/w/a.ts", confidence=0.95, evidence=LISTING, changed=("A.ts",))
EMPTY = Ledger([Page()])


def why(verdict: Verdict = SAFE, *, deed: Deed = Deed.READ, place: Place = Place.KEY,
        mode: Mode = Mode.REPAIR, known: Ledger = EMPTY) -> Why | None:  # fmt: skip
    return refusal("/w/A.ts", verdict, deed=deed, place=place, ledger=known, mode=mode)


def test_a_sure_glitch_of_a_harmless_tool_is_mended() -> None:
    assert why() is None
    assert all(why(deed=deed) is None for deed in (Deed.READ, Deed.LIST, Deed.EDIT))


@pytest.mark.parametrize("place", [Place.COMMAND, Place.PATCH, Place.SHAPE])
@pytest.mark.parametrize("mode", [Mode.REPAIR, Mode.REPAIR_COMMANDS])
def test_commands_patches_and_guessed_values_are_never_mended(place: Place, mode: Mode) -> None:
    assert why(place=place, mode=mode) is Why.PLACE


def test_what_deletes_moves_or_executes_is_mended_only_when_that_was_chosen() -> None:
    assert why(deed=Deed.DANGER) is Why.TOOL
    assert why(deed=Deed.DANGER, mode=Mode.REPAIR_COMMANDS) is None


@pytest.mark.parametrize("mode", [Mode.REPAIR, Mode.REPAIR_COMMANDS])
def test_a_tool_that_nobody_understands_is_left_alone(mode: Mode) -> None:
    assert why(deed=Deed.UNCLEAR, mode=mode) is Why.UNCLEAR


def test_one_path_alone_must_be_meant() -> None:
    assert why(replace(SAFE, is_sole=False)) is Why.AMBIGUOUS


def test_a_doubtful_glitch_is_left() -> None:
    assert why(replace(SAFE, confidence=0.89)) is Why.UNSURE
    assert why(replace(SAFE, confidence=0.9)) is None


@pytest.mark.parametrize("evidence", [0, CONTENT, CALL, WEB, CONTENT | CALL | WEB])
def test_what_anybody_may_have_written_is_no_evidence(evidence: int) -> None:
    assert why(replace(SAFE, evidence=evidence)) is Why.EVIDENCE


@pytest.mark.parametrize("evidence", [USER, ENVIRONMENT, LISTING, LISTING | WEB])
def test_what_can_be_trusted_is_evidence(evidence: int) -> None:
    assert evidence & TRUSTED
    assert why(replace(SAFE, evidence=evidence)) is None


@pytest.mark.parametrize("said", ["Rename a.ts to A.ts", "open /w/A.ts please"])
def test_what_the_users_words_hold_in_this_spelling_is_left(said: str) -> None:
    assert why(known=ledger("/w/a.ts", said=said)) is Why.SAID


def test_the_last_part_of_a_new_file_is_left_unless_it_is_known() -> None:
    new = replace(SAFE, tail_changed=True, tail_known=False)
    assert why(new, deed=Deed.CREATE) is Why.NEW_NAME
    assert why(replace(new, tail_known=True), deed=Deed.CREATE) is None


def test_a_folder_is_mended_for_a_new_file_alone() -> None:
    folder = replace(SAFE, tail_known=False)
    assert why(folder, deed=Deed.CREATE) is None
    assert why(folder, deed=Deed.READ) is Why.NEW_NAME
    assert why(folder, deed=Deed.EDIT) is Why.NEW_NAME


def test_what_the_ledger_holds_as_emitted_is_no_glitch() -> None:
    for kind in (USER, LISTING, CONTENT, CALL, WEB):
        page = Page()
        page.add("/w/a.ts", LISTING)
        page.add("/w/A.ts", kind)
        assert compare("/w/A.ts", Ledger([page])) is EXACT


@pytest.mark.parametrize("verdict", [EXACT, NEW])
@pytest.mark.parametrize("mode", list(Mode))
def test_what_is_no_glitch_is_no_finding(verdict: Verdict, mode: Mode) -> None:
    told = judge("x", verdict, deed=Deed.READ, place=Place.KEY, ledger=EMPTY, mode=mode)
    assert told is None


@pytest.mark.parametrize(
    ("mode", "action"),
    [
        (Mode.OFF, None),
        (Mode.OBSERVE, Action.OBSERVED),
        (Mode.REPAIR, Action.MENDED),
        (Mode.REPAIR_COMMANDS, Action.MENDED),
    ],
)
def test_a_mode_decides_what_is_done(mode: Mode, action: Action | None) -> None:
    told = judge("/w/A.ts", SAFE, deed=Deed.READ, place=Place.KEY, ledger=EMPTY, mode=mode)
    assert (told.action if told else None) is action


TOOLS = read_tools([{"name": "read"}, {"name": "rm"}])
KNOWN = ledger("/w/src/a.ts", "/w/src/b c.ts", root="/w")


@pytest.mark.parametrize(
    ("tool", "key", "value", "actions", "meant"),
    [
        ("read", "path", "/w/src/A.ts", [Action.MENDED], "/w/src/a.ts"),
        ("read", "path", "/w/src/a.ts", [], None),
        ("read", "item", "/w/src/A.ts", [Action.LEFT], None),
        ("read", "content", "/w/src/A.ts", [], None),
        ("rm", "path", "/w/src/A.ts", [Action.LEFT], None),
        ("read", "command", "cat /w/src/A.ts '/w/src/b c. ts'", [Action.LEFT] * 2, None),
        ("read", "patch", "--- a/src/A.ts\n+++ b/src/a.ts\n", [Action.LEFT], None),
        ("read", "input", "no patch src/A.ts", [], None),
        ("other", "path", "/w/src/A.ts", [Action.LEFT], None),
    ],
)
def test_an_argument_is_judged_by_its_tool_and_its_key(
    tool: str, key: str, value: str, actions: list[Action], meant: str | None
) -> None:
    judged = PathGuard(Mode.REPAIR, TOOLS, KNOWN).check(tool, key, value)
    assert [one.finding.action for one in judged] == actions
    assert mended(value, judged) == meant


def test_a_path_that_a_space_made_two_words_is_found_in_a_command() -> None:
    known = ledger("/w/docker-compose.yml", root="/w")
    judged = PathGuard(Mode.OBSERVE, Tools(), known).check(
        "bash", "command", "docker compose -f docker- compose. yml up -d"
    )
    assert [(one.finding.kind, one.meant) for one in judged] == [
        (Kind.INSERTED_SPACE, "docker-compose.yml")
    ]


@pytest.mark.parametrize(
    ("mode", "tool", "holds"),
    [
        (Mode.REPAIR, "read", True),
        (Mode.REPAIR, "rm", False),
        (Mode.REPAIR_COMMANDS, "rm", True),
        (Mode.REPAIR_COMMANDS, "other", False),
        (Mode.OBSERVE, "read", False),
    ],
)
def test_a_value_that_cannot_be_mended_need_not_be_held(mode: Mode, tool: str, holds: bool) -> None:
    guard = PathGuard(mode, TOOLS, KNOWN)
    assert guard.may_mend(tool, "path") is holds
    assert not guard.may_mend(tool, "command")
    assert not guard.may_mend(tool, "item")


def test_a_finding_tells_no_path() -> None:
    told = judge("/w/A.ts", SAFE, deed=Deed.READ, place=Place.KEY, ledger=EMPTY, mode=Mode.REPAIR)
    assert "/w" not in repr(told)
