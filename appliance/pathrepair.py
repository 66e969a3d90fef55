"""When a glitch may be mended: a wrong mend is worse than none. Pure."""

from dataclasses import dataclass
from enum import StrEnum

from appliance.glitches import Verdict
from appliance.partdiff import STYLE, Kind
from appliance.pathledger import TRUSTED, Ledger
from appliance.pathtools import Deed

SURE = STYLE  # the confidence from which a glitch is mended


class Mode(StrEnum):
    """How far the guard of paths goes."""

    OFF = "off"
    OBSERVE = "observe"
    REPAIR = "repair"
    CONSTRAIN = "constrain"  # observe, and ask the engine to decode reads by the known paths
    REPAIR_COMMANDS = "repair-commands"  # and those of tools that delete, move or execute

    @property
    def mends(self) -> bool:
        """Whether replies may be changed."""
        return self in (Mode.REPAIR, Mode.REPAIR_COMMANDS)


class Action(StrEnum):
    """What was done about a glitch."""

    OBSERVED = "observed"  # nothing may be changed in this mode
    MENDED = "mended"
    LEFT = "left"  # it was not safe to mend


class Place(StrEnum):
    """Where in a tool's arguments a path stands."""

    KEY = "key"  # the value of a key that holds paths by its name
    SHAPE = "shape"  # a value that looks like a path, of a key that does not say so
    COMMAND = "command"  # a word of a shell command
    PATCH = "patch"  # the head of a file in a patch


class Why(StrEnum):
    """Why a glitch was left as it came."""

    PLACE = "place"  # a command, a patch, or a value whose key does not say that it is a path
    TOOL = "tool"  # it deletes, moves or executes
    UNCLEAR = "unclear"  # nothing tells what the tool does
    AMBIGUOUS = "ambiguous"  # more than one path may be meant
    UNSURE = "unsure"  # it may have been meant so
    EVIDENCE = "evidence"  # the path meant was shown by nothing that can be trusted
    SAID = "said"  # the user's own words hold this spelling
    PASSED = "passed"  # it had to pass before it was whole
    NEW_NAME = "new_name"  # nothing has shown the whole of the path meant; a new file may be so


@dataclass(frozen=True)
class Finding:
    """One glitch, without the path: for a metric and a log."""

    kind: Kind
    action: Action
    why: Why | None = None


def judge(
    text: str, verdict: Verdict, *, deed: Deed, place: Place, ledger: Ledger, mode: Mode
) -> Finding | None:
    """Return what is done about an emitted path; None if it is no glitch.

    Where the action is MENDED, ``verdict.meant`` takes its place.
    """
    if verdict.kind is None or mode is Mode.OFF:
        return None
    if not mode.mends:
        return Finding(verdict.kind, Action.OBSERVED)
    why = refusal(text, verdict, deed=deed, place=place, ledger=ledger, mode=mode)
    return Finding(verdict.kind, Action.LEFT if why else Action.MENDED, why)


def refusal(
    text: str, verdict: Verdict, *, deed: Deed, place: Place, ledger: Ledger, mode: Mode
) -> Why | None:
    """Return why a glitch may not be mended, None if it may."""
    if place is not Place.KEY:
        return Why.PLACE
    if deed is Deed.UNCLEAR:
        return Why.UNCLEAR
    if deed is Deed.DANGER and mode is not Mode.REPAIR_COMMANDS:
        return Why.TOOL
    if not verdict.is_sole:
        return Why.AMBIGUOUS
    if not verdict.tail_known and (deed is not Deed.CREATE or verdict.tail_changed):
        return Why.NEW_NAME
    if verdict.confidence < SURE or verdict.meant == text:
        return Why.UNSURE
    if not verdict.evidence & TRUSTED:
        return Why.EVIDENCE
    if ledger.user_said(text) or any(map(ledger.user_said, verdict.changed)):
        return Why.SAID
    return None
