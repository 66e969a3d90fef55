"""The arms of the measurement: the appliance's prompt on or off, its guard off or at work. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from appliance.openai import GUARD_HEADER, INJECTION_HEADER

PROMPTS = ("on", "off")
GUARDS = ("off", "observe", "repair")


@dataclass(frozen=True)
class Arm:
    """One way of asking. An endpoint that is no appliance ignores both headers."""

    prompt: str
    guard: str

    @property
    def name(self) -> str:
        """How people read it, and how the journal names it."""
        return f"prompt {self.prompt}, guard {self.guard}"

    @property
    def headers(self) -> dict[str, str]:
        """What is sent along."""
        return {INJECTION_HEADER: self.prompt, GUARD_HEADER: self.guard}


def make_arms(prompts: Sequence[str], guards: Sequence[str]) -> tuple[Arm, ...]:
    """Return every pair; the guards of one prompt are neighbours, as their requests are equal."""
    return tuple(Arm(prompt, guard) for prompt in prompts for guard in guards)
