"""One measurement, from the command line's words to the files that it leaves."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appliance import __version__
from appliance.bench.answers import Answer
from appliance.bench.arms import make_arms
from appliance.bench.cases import TASKS, Case, make_cases
from appliance.bench.chart import svg
from appliance.bench.endpoint import Endpoint
from appliance.bench.journal import Journal, write_whole
from appliance.bench.questions import Question, Sampling, questions
from appliance.bench.report import Report, make_report
from appliance.bench.run import ask_all
from appliance.bench.score import Outcome
from appliance.bench.table import markdown
from appliance.errors import HostError, SettingsError
from appliance.operator import Operator
from appliance.samplepaths import STRATA
from appliance.settings import Settings
from appliance.trust import trust


def measure(options: argparse.Namespace, settings: Settings) -> int:
    """Ask, score and report what the command line asks for; return the exit code.

    Raises ApplianceError for an endpoint, a key, a model or a folder that cannot be used.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    cases = make_cases(options.seed, options.cases, options.strata, options.tasks)
    asked = questions(cases, make_arms(options.prompt, options.guard))
    try:
        report = asyncio.run(_ask(options, settings, cases, asked, console))
    except KeyboardInterrupt:
        console.print("stopped; what was answered is kept: the same command with --resume goes on")
        raise
    print(markdown(report), end="")
    sys.stdout.flush()
    console.print(f"written: {options.out}/report.json, report.md, chart.svg")
    return 0


async def _ask(
    options: argparse.Namespace,
    settings: Settings,
    cases: Sequence[Case],
    asked: Sequence[Question],
    console: Console,
) -> Report:
    async with _endpoint(options, settings) as endpoint:
        model = await chosen_model(endpoint, options.model)
        about = _about(options, endpoint.base_url, model, cases)
        sampling = Sampling(model, options.temperature, options.max_tokens)
        with (
            Journal.open(options.out, about, resume=options.resume) as journal,
            _progress(console, len(asked), journal.answers) as tell,
        ):
            try:
                await ask_all(
                    endpoint, asked, sampling, journal, concurrency=options.concurrency, tell=tell
                )
            finally:  # what there is, is shown: of a cut run too
                report = make_report(journal.about, asked, journal.answers)
                _write(report, options.out)
    return report


def _endpoint(options: argparse.Namespace, settings: Settings) -> Endpoint:
    """Return the endpoint that was named, or this machine's appliance.

    The key that our state folder keeps goes to our own appliance, and to nobody else.
    """
    operator = Operator.of(settings, None, None)
    key = options.key or (read_key(options.key_file) if options.key_file else "")
    if not key and settings.api_key:
        key = settings.api_key.get_secret_value()
    url = options.base_url or operator.running_url()
    is_own = not options.base_url
    if is_own and not key:
        key = operator.key("client")
    return Endpoint(url, key, trust(url, settings.tls_cert, is_own=is_own))


def read_key(path: Path) -> str:
    """Return the key that a file holds. Raises SettingsError, and never with the key in it."""
    try:
        key = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as cause:
        raise SettingsError(
            f"--key-file {path} cannot be read: {cause}", "name a file with the key"
        ) from None  # a decoding error holds what it could not decode: the key
    if not key:
        raise SettingsError(f"--key-file {path} is empty", "put the key on its first line")
    return key


async def chosen_model(endpoint: Endpoint, wanted: str | None) -> str:
    """Return the model to ask. Raises HostError for one that is not served, or no choice."""
    served = await endpoint.models()
    if wanted and (wanted in served or not served):
        return wanted
    names = ", ".join(sorted(served)[:20]) or "no list of models"
    if wanted:
        raise HostError(f"{endpoint.base_url} does not serve {wanted!r}", f"it serves: {names}")
    if len(served) != 1:
        raise HostError(
            f"{endpoint.base_url} serves {len(served)} models, and none was chosen",
            f"--model NAME; it serves: {names}",
        )
    return served[0]


def _about(
    options: argparse.Namespace, base_url: str, model: str, cases: Sequence[Case]
) -> dict[str, Any]:
    """Return the journal's header: what makes two runs the same measurement."""
    return {
        "format": 1,
        "base_url": base_url,
        "model": model,
        "seed": options.seed,
        "cases": len(cases),
        "strata": list(options.strata or STRATA),
        "tasks": list(options.tasks or TASKS),
        "prompt": list(options.prompt),
        "guard": list(options.guard),
        "temperature": options.temperature,
        "max_tokens": options.max_tokens,
        "begun": datetime.now(UTC).date().isoformat(),
        "version": __version__,
    }


@contextmanager
def _progress(
    console: Console, total: int, known: Sequence[Answer]
) -> Iterator[Callable[[Answer], None]]:
    """Show how far it is, and what came so far; yield whom to tell of an answer."""
    answers = list(known)
    line_every = max(1, total // 20)
    columns = (
        TextColumn("paths"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task(_so_far(answers), total=total, completed=len(answers))

        def tell(answer: Answer) -> None:
            answers.append(answer)
            bar.update(task, advance=1, description=_so_far(answers))
            # a log file shows no bar before its end
            if not console.is_terminal and len(answers) % line_every == 0:
                console.print(f"{len(answers)} of {total}: {_so_far(answers)}")

        yield tell


def _so_far(answers: Sequence[Answer]) -> str:
    outcomes = [answer.verdict.outcome for answer in answers]
    return f"{outcomes.count(Outcome.EXACT)} exact, {outcomes.count(Outcome.GLITCH)} glitched"


def _write(report: Report, folder: Path) -> None:
    write_whole(
        folder / "report.json", json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
    )
    write_whole(folder / "report.md", markdown(report))
    write_whole(folder / "chart.svg", svg(report))
