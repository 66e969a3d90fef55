"""The suite: what is asked, drawn by seed. Pure.

A cell is one stratum of paths under one task. Its cases come in groups that share what is shown
before the question, so that an engine with a prefix cache reads a long text once a group. A case
is the same whatever else is chosen: fewer cases are the first ones of more.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from appliance.bench.distractors import distractor
from appliance.probes import READ_FILE, user
from appliance.samplepaths import STRATA, distinct_paths

Message = dict[str, Any]
GROUP = 5  # cases that share their paths
_DRAWN = 12  # paths drawn for a group: those asked for, and their neighbours
CASES_A_CELL = 5

_NOTES = ("amber", "birch", "cobalt", "dune", "ember")
_LISTED = "call_1"


def _tool(name: str, about: str, **parameters: str) -> dict[str, Any]:
    properties = {key: {"type": "string", "description": text} for key, text in parameters.items()}
    schema = {"type": "object", "properties": properties, "required": list(parameters)}
    function = {"name": name, "description": about, "parameters": schema}
    return {"type": "function", "function": function}


LIST_FILES = _tool("list_files", "List files with their sizes.", directory="Where to look")
EDIT_FILE = _tool(
    "edit_file",
    "Replace a text in a file.",
    path="The file's path, as it was listed",
    old="What is there",
    new="What shall be there",
)


@dataclass(frozen=True)
class Case:
    """One question. ``path`` is the right answer, ``others`` are the other paths in sight.

    ``is_call`` says that the answer is a tool call's argument, and not a text.
    """

    id: str
    stratum: str
    task: str
    path: str
    others: tuple[str, ...]
    messages: tuple[Message, ...]
    tools: tuple[dict[str, Any], ...] = ()

    @property
    def is_call(self) -> bool:
        """Whether the answer is a tool call."""
        return bool(self.tools)


@dataclass(frozen=True)
class _Draw:
    """What a case is made from: its group's paths, which of them is asked for, and by chance."""

    paths: tuple[str, ...]
    place: int
    rng: Random
    seed: int

    @property
    def path(self) -> str:
        return self.paths[self.place]


Made = tuple[Sequence[str], Sequence[Message], Sequence[dict[str, Any]]]


def _echo(draw: _Draw) -> Made:
    question = f"Repeat this path exactly and write nothing else: {draw.path}"
    return (), [user(question)], ()


def _tool_argument(draw: _Draw) -> Made:
    return (), [user(f"Read the file {draw.path}")], [READ_FILE]


def _edit(draw: _Draw) -> Made:
    folder = draw.path[: _cut(draw.path)]
    siblings = [folder + other[_cut(other) :] for other in draw.paths[1::2]]
    shown = sorted({draw.path, *siblings, *draw.paths[::2]})
    draw.rng.shuffle(shown)
    sizes = draw.rng.sample(range(1_000, 99_999), len(shown))
    listing = "\n".join(f"{size:>7} {path}" for size, path in zip(sizes, shown, strict=True))
    size = sizes[shown.index(draw.path)]
    call = {"name": "list_files", "arguments": '{"directory": "."}'}
    messages = [
        user("List all files with their sizes in bytes."),
        {
            "role": "assistant",
            "content": "",
            "tool_calls": [{"id": _LISTED, "type": "function", "function": call}],
        },
        {"role": "tool", "tool_call_id": _LISTED, "content": listing},
        {"role": "assistant", "content": "Here they are."},
        user(f"In the file of {size} bytes, replace timeout=30 by timeout=60. Edit it at once."),
    ]
    return shown, messages, [LIST_FILES, EDIT_FILE]


def _join(draw: _Draw) -> Made:
    cut = _cut(draw.path)
    folder, name = draw.path[: cut - 1], draw.path[cut:]
    question = f"The folder is {folder}\nThe file in it is {name}\nRead that file."
    return (folder,), [user(question)], [READ_FILE]


def _recall(tokens: int) -> Callable[[_Draw], Made]:
    def recall(draw: _Draw) -> Made:
        shown = draw.paths[:GROUP]
        notes = "\n".join(f"{name}: {path}" for name, path in zip(_NOTES, shown, strict=True))
        text = distractor(tokens, draw.seed)
        question = (
            f"Keep these paths in mind:\n{notes}\n\nThis is what happened since:\n{text}\n\n"
            f"Which path was kept under the name {_NOTES[draw.place]}? "
            "Write that path exactly and nothing else."
        )
        return shown, [user(question)], ()

    return recall


def _cut(path: str) -> int:
    """Return where a path's last component begins."""
    return max(path.rfind("/"), path.rfind("\\")) + 1


TASKS: Mapping[str, Callable[[_Draw], Made]] = {
    "echo": _echo,
    "tool": _tool_argument,
    "edit": _edit,
    "join": _join,
    "recall-1k": _recall(1_000),
    "recall-8k": _recall(8_000),
    "recall-32k": _recall(32_000),
}


def make_cases(
    seed: int, count: int | None, strata: Sequence[str] = (), tasks: Sequence[str] = ()
) -> tuple[Case, ...]:
    """Return the suite: ``count`` cases, dealt evenly to every cell of strata and tasks.

    None for ``count`` gives each cell its five; no strata or tasks means all of them.
    """
    cells = [(s, t) for t in tasks or TASKS for s in strata or STRATA]
    wanted = len(cells) * CASES_A_CELL if count is None else count
    shares = [len(range(place, wanted, len(cells))) for place in range(len(cells))]
    made = [_cell(seed, *cell, share) for cell, share in zip(cells, shares, strict=True)]
    return tuple(case for cell in made for case in cell)


def _cell(seed: int, stratum: str, task: str, count: int) -> Iterator[Case]:
    for number in range(count):
        group, place = divmod(number, GROUP)
        key = f"{seed}/{stratum}/{task}/{group}"
        paths = distinct_paths(stratum, _DRAWN, Random(key))  # noqa: S311 - it can be repeated
        draw = _Draw(paths, place, Random(f"{key}/{place}"), seed)  # noqa: S311
        shown, messages, tools = TASKS[task](draw)
        others = tuple(path for path in shown if path != draw.path)
        case_id = f"{task}/{stratum}/{number}"
        yield Case(case_id, stratum, task, draw.path, others, tuple(messages), tuple(tools))
