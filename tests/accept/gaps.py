"""An answer with two gaps, one before its first event and one in the middle, and what it says."""

from typing import Any

from tests.fakes.script import Turn

GAP_S = 1.0  # five keep-alives of the stage
PATH = "My Project/Docs & Notes/Über-Design_v2/ReadMe (Final).TXT"
REASONING = "The user wants an answer. I should think about it first, then give it in full."
CONTENT = f"Here it is: {PATH} — done."
CALL = ("write", {"path": PATH, "text": 'line "one"\nline two\n'})
QUESTION = "What does it say?"


def gappy(*, calls: bool = False) -> Turn:
    """Return the answer: silent for GAP_S before its first event, and again after the eighth."""
    faults = {"silent_prefill": GAP_S, "stall_after": 8, "stall_s": GAP_S}
    return Turn(REASONING, CONTENT, (CALL,) if calls else (), faults=faults)


def said(message: dict[str, Any]) -> object:
    """Return an old turn's thought as the engine reads it, which takes either name in a chat."""
    return message.get("reasoning") or message.get("reasoning_content")
