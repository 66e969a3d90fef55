"""The system-prompt policy: where the path-preservation text goes in each kind of request.

Pure: a function from a request's fields to the same fields with the text folded in. The
result is byte-stable (no time, no ids), so the engine's prefix cache shares it between
clients, and idempotent, so a request that passes twice is not prefixed twice.
"""

from dataclasses import dataclass
from typing import Any

SEPARATOR = "\n\n"
INSTRUCTION_ROLES = ("system", "developer")


@dataclass(frozen=True)
class PromptPolicy:
    """Folds ``text`` in front of whatever system prompt a request brings.

    ``text`` empty means the policy is off and every method returns its argument.
    """

    text: str

    def fold(self, existing: str) -> str:
        """Put the policy text first, once."""
        if not self.text or existing == self.text or existing.startswith(self.text + SEPARATOR):
            return existing
        return self.text + SEPARATOR + existing if existing else self.text

    def fold_content(self, content: Any) -> Any:
        """Fold into message content of any accepted shape: a string, text parts, or null.

        A list of parts keeps its parts; the text becomes a part of its own in front, unless
        the first text part already starts with it. Content of another shape passes as it is:
        the engine's own error names it.
        """
        if isinstance(content, list):
            return self._fold_parts(content)
        if isinstance(content, str):
            return self.fold(content)
        return self.text if content is None and self.text else content

    def apply_to_messages(self, messages: list[Any]) -> list[Any]:
        """Fold into the first system (or developer) message; put one at the start if none is.

        One message, never two: MiniMax's own template drops every system message but the
        first, and a client's later one must not be displaced by ours.
        """
        if not self.text:
            return messages
        for index, message in enumerate(messages):
            if isinstance(message, dict) and message.get("role") in INSTRUCTION_ROLES:
                folded = {**message, "content": self.fold_content(message.get("content"))}
                return [*messages[:index], folded, *messages[index + 1 :]]
        return [{"role": "system", "content": self.text}, *messages]

    def _fold_parts(self, parts: list[Any]) -> list[Any]:
        if not self.text:
            return parts
        first = next((p["text"] for p in parts if isinstance(p, dict) and _is_text(p)), "")
        if first == self.text or first.startswith(self.text + SEPARATOR):
            return parts
        # The separator belongs to our part: templates join parts without one.
        return [{"type": "text", "text": self.text + SEPARATOR}, *parts]


def _is_text(part: dict[str, Any]) -> bool:
    return isinstance(part.get("text"), str)
