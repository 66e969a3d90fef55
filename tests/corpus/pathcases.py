"""The labelled corpora of paths: conversations with the paths that replies emit, and their labels.

A file holds one conversation and groups of cases, each ``[emitted, label, meant]``. The label is
``exact``, ``new`` or a kind of glitch; ``meant`` is what a mend may write, and nothing else. In a
group with ``never`` every mend is wrong.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from appliance.pathguard import Judged, PathGuard, mended
from appliance.pathhistory import read_all
from appliance.pathledger import Ledger
from appliance.pathrepair import Mode
from appliance.pathtools import Tools, read_tools

FOLDER = Path(__file__).parent / "paths"


@dataclass(frozen=True)
class Case:
    """One path that a reply emits in a tool call, and what it is."""

    corpus: str
    tool: str
    key: str
    emitted: str
    label: str
    meant: str | None = None
    never: bool = False

    @property
    def is_glitch(self) -> bool:
        return self.label not in ("exact", "new")


def load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return value


def names(folder: Path = FOLDER) -> list[str]:
    return sorted(path.stem for path in folder.glob("*.json"))


def cases(name: str) -> Iterator[Case]:
    for group in load(name)["groups"]:
        for emitted, label, *meant in group["cases"]:
            never = group.get("never", False)
            target = meant[0] if meant else None
            yield Case(name, group["tool"], group["key"], emitted, label, target, never)


# ---- the conversation as a request of each API


def chat(corpus: Mapping[str, Any]) -> dict[str, Any]:
    messages: list[dict[str, Any]] = []
    for at, step in enumerate(corpus["steps"]):
        if "call" in step:
            arguments = json.dumps(step["arguments"], ensure_ascii=False)
            function = {"name": step["call"], "arguments": arguments}
            call = {"id": f"call_{at}", "type": "function", "function": function}
            messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
            result = {"role": "tool", "tool_call_id": f"call_{at}", "content": step["result"]}
            messages.append(result)
        elif "user" in step:
            messages.append({"role": "user", "content": _parts(step)})
        else:
            messages.append({"role": "system", "content": step["system"]})
    tools = [
        {"type": "function", "function": {**tool, "parameters": schema}}
        for tool, schema in _tools(corpus)
    ]
    return {"model": "Nikola", "messages": messages, "tools": tools}


def messages(corpus: Mapping[str, Any]) -> dict[str, Any]:
    turns: list[dict[str, Any]] = []
    system = [step["system"] for step in corpus["steps"] if "system" in step]
    for at, step in enumerate(corpus["steps"]):
        if "call" in step:
            use = {"type": "tool_use", "id": f"toolu_{at}", "name": step["call"]}
            turns.append({"role": "assistant", "content": [{**use, "input": step["arguments"]}]})
            result = {"type": "tool_result", "tool_use_id": f"toolu_{at}"}
            content = [{"type": "text", "text": step["result"]}]
            turns.append({"role": "user", "content": [{**result, "content": content}]})
        elif "user" in step:
            turns.append({"role": "user", "content": _parts(step)})
    tools = [{**tool, "input_schema": schema} for tool, schema in _tools(corpus)]
    return {"model": "Nikola", "system": "\n".join(system), "messages": turns, "tools": tools}


def responses(corpus: Mapping[str, Any]) -> dict[str, Any]:
    items: list[dict[str, Any]] = []
    for at, step in enumerate(corpus["steps"]):
        if "call" in step:
            arguments = json.dumps(step["arguments"])
            call = {"type": "function_call", "call_id": f"fc_{at}", "name": step["call"]}
            items.append({**call, "arguments": arguments})
            output = {"type": "function_call_output", "call_id": f"fc_{at}"}
            items.append({**output, "output": step["result"]})
        elif "user" in step:
            items.append({"role": "user", "content": _parts(step, "input_text")})
        else:
            items.append({"role": "system", "content": step["system"]})
    tools = [{"type": "function", **tool, "parameters": s} for tool, s in _tools(corpus)]
    return {"model": "Nikola", "input": items, "tools": tools}


def _parts(step: Mapping[str, Any], kind: str = "text") -> list[dict[str, str]]:
    texts = [step["user"]]
    if "environment" in step:
        inner = step["environment"]
        texts.append(f"\n\n<environment_details>\n{inner}\n</environment_details>")
    return [{"type": kind, "text": text} for text in texts]


def _tools(corpus: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for name, told in corpus["tools"].items():
        schema = {"type": "object", "properties": told.get("properties", {})}
        yield {"name": name, "description": told.get("description", "")}, schema


@lru_cache
def ledger_of(name: str) -> Ledger:
    return read_all(json.dumps(chat(load(name))).encode())


@lru_cache
def tools_of(name: str) -> Tools:
    return read_tools(chat(load(name))["tools"])


# ---- what the guard makes of a case


@dataclass(frozen=True)
class Outcome:
    case: Case
    judged: tuple[Judged, ...]
    mended: str | None

    @property
    def kind(self) -> str:
        """The kind that was found first; nothing for none."""
        return self.judged[0].finding.kind.value if self.judged else ""

    @property
    def is_wrong_mend(self) -> bool:
        case = self.case
        return self.mended is not None and (case.never or self.mended != case.meant)


def outcome(case: Case, mode: Mode = Mode.REPAIR, ledger: Ledger | None = None) -> Outcome:
    guard = PathGuard(mode, tools_of(case.corpus), ledger or ledger_of(case.corpus))
    judged = guard.check(case.tool, case.key, case.emitted)
    return Outcome(case, tuple(judged), mended(case.emitted, judged))


@dataclass
class Score:
    """How often, by kind: ``[cases, detected, of the right kind, mended, mended wrongly]``."""

    rows: dict[str, Counter[str]]

    @classmethod
    def of(cls, outcomes: list[Outcome]) -> "Score":
        rows: dict[str, Counter[str]] = {}
        for one in outcomes:
            row = rows.setdefault(one.case.label, Counter())
            row["cases"] += 1
            row["found"] += bool(one.judged)
            row["same kind"] += one.kind == one.case.label
            row["mended"] += one.mended is not None
            row["wrong"] += one.is_wrong_mend
        return cls(rows)

    def total(self, column: str, *, glitches: bool | None = None) -> int:
        return sum(
            row[column]
            for label, row in self.rows.items()
            if glitches is None or glitches == (label not in ("exact", "new"))
        )

    @property
    def precision(self) -> float:
        mended = self.total("mended")
        return 1.0 if not mended else 1 - self.total("wrong") / mended

    @property
    def recall(self) -> float:
        return self.total("found", glitches=True) / max(1, self.total("cases", glitches=True))

    def table(self) -> str:
        columns = ("cases", "found", "same kind", "mended", "wrong")
        lines = [f"{'label':24}" + "".join(f"{column:>11}" for column in columns)]
        for label in sorted(self.rows):
            cells = "".join(f"{self.rows[label][column]:>11}" for column in columns)
            lines.append(f"{label:24}{cells}")
        lines.append(f"precision of mends {self.precision:.4f}, recall {self.recall:.4f}")
        return "\n".join(lines)
