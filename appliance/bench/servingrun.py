"""One measurement of speed: the jobs that are left, the memory meanwhile, and the files."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from appliance import __version__
from appliance.bench.benchy import LOG, VERSION, Benchy, draw
from appliance.bench.journal import Lines, write_whole
from appliance.bench.servingplan import Cell, Job, cells, make_jobs
from appliance.bench.servingreport import Point, SpeedReport, make_report
from appliance.bench.servingsample import Sample, read_sample, sample_of
from appliance.bench.servingtable import markdown
from appliance.errors import HostError

PUBLISHED = Path(__file__).with_name("published.json")
SAMPLE_S = 0.2

Tell = Callable[[int, Sample | None], None]  # batches that are done, and the last one


@dataclass(frozen=True)
class Target:
    """One arm: an endpoint with its name in the report.

    ``available`` returns its machine's MemAvailable in bytes, None where it cannot be read.
    """

    name: str
    base_url: str
    key: str
    model: str
    available: Callable[[], int | None]


@dataclass(frozen=True)
class Asked:
    """What is measured. ``text`` is a file or ``book``; ``exact``: answers have no other length.

    ``context`` is what fits an endpoint, in tokens; ``variables`` are for the client's process.
    """

    targets: tuple[Target, ...]
    tokenizer: str
    prompts: tuple[int, ...]
    concurrencies: tuple[int, ...] = (1,)
    decode_tokens: int = 128
    rounds: int = 3
    text: str = "book"
    exact: bool = True
    context: int | None = None
    demo: bool = False
    variables: tuple[tuple[str, str], ...] = ()

    def grid(self) -> tuple[tuple[Cell, ...], tuple[Cell, ...]]:
        """Return the cells that fit the context, and those that do not."""
        return cells(self.prompts, self.concurrencies, self.decode_tokens, self.context)

    def jobs(self) -> tuple[Job, ...]:
        """Return all that is to be measured, in order."""
        return make_jobs([target.name for target in self.targets], self.grid()[0], self.rounds)

    def about(self) -> dict[str, Any]:
        """Return the journal's header: what makes two runs the same measurement. No key."""
        return {
            "format": 1,
            "arms": [target.name for target in self.targets],
            "endpoints": {
                target.name: {"base_url": target.base_url, "model": target.model}
                for target in self.targets
            },
            "prompts": list(self.prompts),
            "concurrencies": list(self.concurrencies),
            "decode_tokens": self.decode_tokens,
            "rounds": self.rounds,
            "text": Path(self.text).name,
            "exact": self.exact,
            "unfit": [cell.name for cell in self.grid()[1]],
            "demo": self.demo,
            "begun": datetime.now(UTC).date().isoformat(),
            "tool": f"llama-benchy {VERSION}",
            "version": __version__,
        }


class Measures(Protocol):
    """What measures one batch: llama-benchy's driver."""

    def ask(self, told: Mapping[str, Any]) -> dict[str, Any]:
        """Return what a job came to, in llama-benchy's words. Raises HostError."""


class SpeedJournal(Lines[Sample]):
    """The journal of a measurement of speed."""

    name = "samples.jsonl"
    entry = staticmethod(read_sample)


def start_benchy(asked: Asked, out: Path) -> Benchy:
    """Return the driver, ready to measure. Raises HostError."""
    setup = {
        "tokenizer": asked.tokenizer,
        "text": asked.text,
        "decode_tokens": asked.decode_tokens,
        "exact": asked.exact,
    }
    return Benchy(setup, out / LOG, dict(asked.variables))


def measure_speed(
    asked: Asked,
    out: Path,
    *,
    resume: bool = False,
    tell: Tell = lambda _done, _sample: None,
    earlier: Sequence[Point] = (),
    start: Callable[[Asked, Path], AbstractContextManager[Measures]] = start_benchy,
    draws: Callable[[Path, Path], None] = draw,
) -> SpeedReport:
    """Measure what is not in ``out`` yet; leave report.json, report.md and chart.png there.

    Raises HostError when an endpoint fails: what was measured is kept, and in the report.
    """
    jobs = asked.jobs()
    if not jobs:
        raise HostError(
            f"no prompt fits the context of {asked.context} tokens", "--prompts 512,2048"
        )
    with SpeedJournal.open(out, asked.about(), resume=resume) as journal:
        done = {sample.key for sample in journal.entries}
        left = [job for job in jobs if job.key not in done]
        try:
            if left:
                with start(asked, out) as benchy:
                    tell(len(jobs) - len(left), None)
                    for number, sample in enumerate(_measured(asked, left, benchy), 1):
                        journal.add(sample)
                        tell(len(jobs) - len(left) + number, sample)
        finally:  # what there is, is shown: of a cut run too
            report = make_report(
                journal.about,
                journal.entries,
                published(),
                missing=len(jobs) - len({sample.key for sample in journal.entries}),
                earlier=earlier,
            )
            _write(report, out)
    draws(out / "report.json", out / "chart.png")
    return report


def _measured(asked: Asked, jobs: Sequence[Job], benchy: Measures) -> Iterator[Sample]:
    targets = {target.name: target for target in asked.targets}
    warmed: set[tuple[str, Cell]] = set()
    for job in jobs:
        target = targets[job.arm]
        is_first = (job.arm, job.cell) not in warmed  # of this run: a resumed one is cold again
        warmed.add((job.arm, job.cell))
        with low_water(target.available) as lowest:
            told = benchy.ask(
                {
                    "base_url": target.base_url,
                    "key": target.key,
                    "model": target.model,
                    "prompt_tokens": job.cell.prompt_tokens,
                    "concurrency": job.cell.concurrency,
                    "warm": is_first,
                }
            )
        try:
            yield sample_of(job, told, lowest())
        except (KeyError, TypeError) as cause:
            raise HostError(
                f"llama-benchy told something else than it should: {cause!r}"
            ) from cause


@contextmanager
def low_water(available: Callable[[], int | None]) -> Iterator[Callable[[], int | None]]:
    """Look at the memory again and again; yield who tells the least that was seen."""
    seen: list[int] = []
    ended = threading.Event()

    def look() -> None:
        while True:
            value = available()
            if value is None:
                return  # what cannot be read now is not worth asking each time
            seen.append(value)
            if ended.wait(SAMPLE_S):
                return

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: min(seen, default=None)
    finally:
        ended.set()
        thread.join()


def published() -> dict[str, Any]:
    """Return the speeds that others have published, with their sources."""
    told: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return told


def _write(report: SpeedReport, folder: Path) -> None:
    text = json.dumps(report.as_json(), indent=2, ensure_ascii=False) + "\n"
    write_whole(folder / "report.json", text)
    write_whole(folder / "report.md", markdown(report))
