"""One acceptance run: every step in its order, what came of it kept, and the report at the end."""

import argparse
import hashlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from rich.console import Console
from rich.text import Text

from appliance import __version__
from appliance.accept.actions import ACTIONS, Act
from appliance.accept.anonymous import hide_all
from appliance.accept.box import Box, Tell
from appliance.accept.gather import gather, who
from appliance.accept.journal import Journal, open_journal
from appliance.accept.page import page
from appliance.accept.report import make_report
from appliance.accept.sampler import Sampler
from appliance.accept.steps import (
    BY_NAME,
    STEPS,
    Finding,
    Outcome,
    Step,
    Verdict,
    blocker,
    failed,
    overall,
    skipped,
)
from appliance.bench.journal import write_whole
from appliance.errors import ApplianceError, HostError, SettingsError
from appliance.settings import Settings

REPORT, DATA = "report.html", "report.json"
STARTERS = frozenset({"plan", "start", "kill", "drain"})  # after these the engine may be another
_STYLES = {Verdict.PASSED: "green", Verdict.FAILED: "bold red", Verdict.SKIPPED: "yellow"}
Rows = Sequence[Mapping[str, Any]]


def accept(options: argparse.Namespace, settings: Settings) -> int:
    """Do what has not passed yet, write the report; 0 when every step passed that had to.

    Raises ApplianceError for a folder that cannot be used. Ctrl-C loses nothing.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    box = Box.of(settings, options.url, options.key, options.client_key or "")
    about = _about(box)
    journal, told = open_journal(options.out, about, fresh=options.fresh)
    console.print(f"accept: {told}; files go to {options.out}/")
    with journal:
        try:
            _steps(box, journal, options, console)
        except KeyboardInterrupt:
            console.print("accept: stopped; the same command goes on from here")
            raise
        finally:
            written = write_report(box, journal.outcomes, options.out)
        verdict = overall(journal.outcomes.values())
    console.print(f"accept: {verdict or 'unfinished'}; the report is {written}")
    console.print(
        "  keys, names and addresses are hidden in it; look through it before you send it"
    )
    return 0 if verdict is Verdict.PASSED else 1


def write_report(box: Box, outcomes: Mapping[str, Outcome], folder: Path) -> Path:
    """Write the page and its data, with nothing in them that tells whose box it is."""
    tree = make_report("acceptance", now(), outcomes, gather(box))
    tree = hide_all(tree, who(box))
    write_whole(folder / DATA, json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    write_whole(folder / REPORT, page(tree))
    return folder / REPORT


def now() -> str:
    """Return this moment, UTC, in ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def _about(box: Box) -> dict[str, Any]:
    """Return the journal's header: what makes two runs the same."""
    about: dict[str, Any] = {"format": 1, "version": __version__, "begun": now()}
    where = box.url if not box.is_here else str(box.operator.state_dir)
    try:
        status, plan = box.status(), box.plan()
    except HostError:
        return {**about, "box": where, "model": "", "settings": "", "was_running": False}
    settings = json.dumps(plan["settings"], sort_keys=True).encode()
    return {
        **about,
        "box": where,
        "model": status["model"],
        "settings": hashlib.sha256(settings).hexdigest(),
        "was_running": status["state"] not in ("stopped", "failed"),
    }


def _steps(box: Box, journal: Journal, options: argparse.Namespace, console: Console) -> None:
    for number, step in enumerate(STEPS, 1):
        head = f"{number:>2}/{len(STEPS)}"
        if step.name in journal.outcomes:
            _say(console, head, journal.outcomes[step.name], "before: ")
            continue
        with _showing(console, f"{head} {step.title}") as tell:
            outcome = _do(step, box, journal, options, tell)
        journal.add(outcome)
        _say(console, head, outcome)


def _do(step: Step, box: Box, journal: Journal, options: argparse.Namespace, tell: Tell) -> Outcome:
    at, began = now(), time.monotonic()
    if blocking := blocker(step, journal.outcomes):
        reason = f"it needs what did not pass: {BY_NAME[blocking].title}"
        return Outcome(step.name, skipped(reason, "appliance accept, once that is mended"), at, 0.0)
    with Sampler(box.available_bytes) as sampler:
        act = Act(
            box=box,
            folder=options.out,
            nonce=str(journal.about["begun"]),
            was_running=bool(journal.about["was_running"]),
            with_kill=options.with_kill,
            look=lambda: _doctor_rows(box, options.doctor),
            tell=tell,
            low_water=lambda: sampler.low_water,
        )
        finding = _found(step, act)
    return Outcome(step.name, finding, at, round(time.monotonic() - began, 2), sampler.samples)


def _found(step: Step, act: Act) -> Finding:
    """Return what a step found. What it could not do is a failure of that step alone."""
    try:
        looks = bool(step.needs) and step.name not in STARTERS
        spawn = act.box.status()["spawn"] if looks else None
        finding = ACTIONS[step.name](act)
        if spawn is not None and act.box.status()["spawn"] > spawn > 0:
            told = f"the engine ended meanwhile, and was started again ({finding.detail})"
            return failed(told, "appliance incidents show", **finding.figures)
        return finding
    except ApplianceError as error:
        return failed(error.what, error.hint)
    except (httpx.HTTPError, ValueError, LookupError, TypeError) as cause:
        return failed(f"{type(cause).__name__}: {cause}", "appliance status; appliance smoke")


def _doctor_rows(box: Box, file: str | None) -> Rows | None:
    """Return the doctor's rows: from a file ("-": stdin), or of this host; None if it is not it."""
    if file:
        return read_doctor(file)
    return look_here(box) if box.is_here else None


def read_doctor(file: str) -> Rows:
    """Return the rows of ``appliance doctor --json``. Raises SettingsError for another text."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        rows: Rows = json.loads(text)["rows"]
        _ = [(row["name"], row["level"], row["value"], row["next"]) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as cause:
        raise SettingsError(
            f"--doctor {file} is not the doctor's answer: {cause}",
            "make it on the host: appliance doctor --json > doctor.json",
        ) from None
    return rows


_OF_THE_RUNNING = ("profile", "model_dir", "engine", "engine_url", "engine_command", "host", "port")


def look_here(box: Box) -> Rows:
    """Return the doctor's rows for this host, and for the settings that the appliance goes by."""
    from appliance.doctor.checkup import checkup, read_case  # Docker's SDK takes its time to load

    try:
        told = box.plan()["settings"]
    except HostError:
        told = {}
    flags = {name: told[name] for name in _OF_THE_RUNNING if told.get(name)}
    flags["state_dir"] = str(box.operator.state_dir)
    return [asdict(row) for row in checkup(read_case(flags, Path()))]


# ---- what a person sees


@contextmanager
def _showing(console: Console, what: str) -> Iterator[Callable[[str], None]]:
    began = time.monotonic()
    with console.status(what) as status:

        def tell(text: str) -> None:
            status.update(f"{what}: {text} ({time.monotonic() - began:.0f} s)")

        yield tell


def _say(console: Console, head: str, outcome: Outcome, before: str = "") -> None:
    finding, title = outcome.finding, BY_NAME[outcome.step].title
    verdict = Text(f"{finding.verdict:<8}", _STYLES[finding.verdict])
    line = f" {outcome.seconds:6.1f} s  {title:<18} {before}{finding.detail}"
    console.print(Text.assemble(f"{head} ", verdict, line))
    if finding.next and finding.verdict is not Verdict.PASSED:
        console.print(Text(f"{'':34}-> {finding.next}"))
