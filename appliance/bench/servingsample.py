"""What one batch of requests came to, as llama-benchy measures it. Pure."""

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from appliance.bench.servingplan import Cell, Job


@dataclass(frozen=True)
class Sample:
    """One batch. Speeds are tokens a second of all its requests together; None: not observable.

    ``ttft_ms`` holds each request's time to the first token, as a client sees it;
    ``low_water_bytes`` the least MemAvailable meanwhile, None where it could not be read.
    """

    arm: str
    prompt_tokens: int
    concurrency: int
    round: int
    prefill_tps: float | None
    decode_tps: float | None
    decode_request_tps: float | None
    peak_tps: float | None
    ttft_ms: tuple[float, ...]
    low_water_bytes: int | None

    @property
    def cell(self) -> Cell:
        """Where in the grid it is."""
        return Cell(self.prompt_tokens, self.concurrency)

    @property
    def key(self) -> tuple[str, Cell, int]:
        """Whose sample it is: the job's key."""
        return self.arm, self.cell, self.round

    def line(self) -> str:
        """Return it as a line of the journal."""
        return json.dumps(asdict(self)) + "\n"


def read_sample(line: str) -> Sample:
    """Return what ``line`` has written. Raises ValueError, KeyError or TypeError for no sample."""
    told = json.loads(line)
    return Sample(**{**told, "ttft_ms": tuple(told["ttft_ms"])})


def sample_of(job: Job, told: Mapping[str, Any], low_water_bytes: int | None) -> Sample:
    """Return the sample of one run in llama-benchy's words: its JSON's ``benchmarks[0]``.

    Raises KeyError or TypeError where a later version says it otherwise.
    """
    return Sample(
        arm=job.arm,
        prompt_tokens=job.cell.prompt_tokens,
        concurrency=job.cell.concurrency,
        round=job.round,
        prefill_tps=_mean(told["pp_throughput"]),
        decode_tps=_mean(told["tg_throughput"]),
        decode_request_tps=_mean(told["tg_req_throughput"]),
        peak_tps=_mean(told["peak_throughput"]),
        ttft_ms=tuple(round(value, 2) for value in (told["e2e_ttft"] or {"values": ()})["values"]),
        low_water_bytes=low_water_bytes,
    )


def _mean(metric: Mapping[str, Any] | None) -> float | None:
    return round(statistics.fmean(metric["values"]), 3) if metric and metric["values"] else None
