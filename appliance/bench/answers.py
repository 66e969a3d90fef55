"""What came of one question, and how it is written down. Pure."""

import json
from dataclasses import asdict, dataclass

from appliance.bench.score import Outcome, Verdict


@dataclass(frozen=True)
class Answer:
    """What came of one question: the verdict, and the tokens of its prompt where told."""

    case: str
    arm: str
    verdict: Verdict
    prompt_tokens: int | None = None

    @property
    def key(self) -> tuple[str, str]:
        """The question that it answers."""
        return self.case, self.arm

    def line(self) -> str:
        """Return it as a line of the journal."""
        told = {"case": self.case, "arm": self.arm, **asdict(self.verdict)}
        told["prompt_tokens"] = self.prompt_tokens
        return json.dumps(told, ensure_ascii=False) + "\n"


def read_answer(line: str) -> Answer:
    """Return the answer of a line. Raises ValueError, KeyError or TypeError for another text."""
    told = json.loads(line)
    verdict = Verdict(Outcome(told["outcome"]), told["kind"], told["written"])
    return Answer(told["case"], told["arm"], verdict, told["prompt_tokens"])
