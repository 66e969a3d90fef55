"""The path bench, short: one question of each kind of path, asked as coding agents are served."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from appliance import __version__
from appliance.accept.box import Box
from appliance.bench.answers import Answer
from appliance.bench.arms import GUARDS, make_arms
from appliance.bench.cases import make_cases
from appliance.bench.endpoint import Endpoint
from appliance.bench.journal import Journal
from appliance.bench.questions import Sampling, questions
from appliance.bench.report import make_report
from appliance.bench.run import ask_all

SEED = 1
CASES = 18  # nine kinds of path, written as a text and as a tool's argument
TASKS = ("echo", "tool")
MAX_TOKENS = 2048  # reasoning included
AT_ONCE = 4


async def ask_paths(
    box: Box, model: str, guard: str, places: int, folder: Path, tell: Callable[[str], None]
) -> dict[str, Any]:
    """Return the report of the short path bench; its answers are kept in ``folder``.

    A run that was cut goes on with what has no answer yet.
    """
    arms = make_arms(("on",), (guard if guard in GUARDS else "repair",))
    asked = questions(make_cases(SEED, CASES, (), TASKS), arms)
    about = {"model": model, "seed": SEED, "cases": CASES, "guard": guard, "version": __version__}
    async with Endpoint(box.url, box.key, box.trusted) as endpoint:
        with Journal.open(folder, about, resume=True) as journal:

            def told(_answer: Answer) -> None:
                tell(f"{len(journal.answers)} of {len(asked)}")

            sampling = Sampling(model, max_tokens=MAX_TOKENS)
            atonce = max(1, min(places, AT_ONCE))
            await ask_all(endpoint, asked, sampling, journal, concurrency=atonce, tell=told)
            return make_report(journal.about, asked, journal.answers).as_json()
