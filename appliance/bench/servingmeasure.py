"""``appliance bench speed``, from the command line's words to the printed report."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from appliance.bench.benchy import environment
from appliance.bench.endpoint import Endpoint
from appliance.bench.measure import chosen_model, read_key
from appliance.bench.servingreport import Point, Spread
from appliance.bench.servingrun import Asked, Target, measure_speed
from appliance.bench.servingsample import Sample
from appliance.bench.servingtable import markdown
from appliance.errors import HostError, SettingsError
from appliance.host import memory_snapshot
from appliance.operator import Operator
from appliance.settings import Settings
from appliance.trust import trust

_LOCAL = ("127.0.0.1", "localhost", "::1")
_NAMES = ("A", "B")


def measure(options: argparse.Namespace, settings: Settings) -> int:
    """Measure and report what the command line asks for; return the exit code.

    Raises ApplianceError for an endpoint, a key, a tokenizer or a folder that cannot be used.
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    asked = asked_of(options, settings)
    earlier = read_points(options.compare) if options.compare else ()
    environment()  # before the progress: uv shows its own
    try:
        with _progress(console, len(asked.jobs())) as tell:
            report = measure_speed(
                asked, options.out, resume=options.resume, tell=tell, earlier=earlier
            )
    except KeyboardInterrupt:
        console.print("stopped; what was measured is kept: the same command with --resume goes on")
        raise
    print(markdown(report), end="")
    sys.stdout.flush()
    console.print(f"written: {options.out}/report.json, report.md, chart.png")
    return 0


def asked_of(options: argparse.Namespace, settings: Settings) -> Asked:
    """Return what the command line asks for. Raises ApplianceError as ``measure``."""
    if options.against and options.compare:
        raise SettingsError(
            "--against and --compare both name a second arm", "leave one of the two out"
        )
    operator = Operator.of(settings, None, None)
    with operator:
        own = None if options.url else operator.call("GET", "/plan")["settings"]
    key = _key(options, settings, operator, is_own=own is not None)
    url = options.url or operator.running_url()
    first = _Arm(url, key, options.model, own is not None)
    arms = [first]
    if options.against:
        key = read_key(options.against_key_file) if options.against_key_file else key
        arms.append(_Arm(options.against, key, options.against_model, False))
    names = options.names or ((options.out.name,) if len(arms) == 1 else _NAMES)
    if len(names) != len(arms):
        raise SettingsError(f"--names has {len(names)} for {len(arms)} endpoints", "--names A,B")
    targets, contexts = zip(
        *(_target(name, arm, settings) for name, arm in zip(names, arms, strict=True)), strict=True
    )
    return Asked(
        targets=targets,
        tokenizer=_tokenizer(options.tokenizer, own),
        prompts=options.prompts,
        concurrencies=options.concurrency,
        decode_tokens=options.decode,
        rounds=options.rounds,
        text=_text(options.text),
        exact=not options.any_length,
        context=min((size for size in contexts if size), default=None),
        demo=bool(own and own.get("profile") == "demo"),
        variables=_variables(targets, settings),
    )


@dataclass(frozen=True)
class _Arm:
    url: str
    key: str
    model: str | None
    is_own: bool


def _key(
    options: argparse.Namespace, settings: Settings, operator: Operator, *, is_own: bool
) -> str:
    """Return the key; the one that our state folder keeps goes to our own appliance alone."""
    if options.key:
        return str(options.key)
    if options.key_file:
        return read_key(options.key_file)
    if settings.api_key:
        return settings.api_key.get_secret_value()
    return operator.key("client") if is_own else ""


def _target(name: str, arm: _Arm, settings: Settings) -> tuple[Target, int | None]:
    """Return the endpoint, asked for its model, and the context that it has."""

    async def served() -> tuple[str, str, int | None]:
        trusted = trust(arm.url, settings.tls_cert, is_own=arm.is_own)
        async with Endpoint(arm.url, arm.key, trusted) as endpoint:
            model = await chosen_model(endpoint, arm.model)
            return endpoint.base_url, model, (await endpoint.contexts()).get(model)

    base_url, model, context = asyncio.run(served())
    is_local = arm.is_own or urlsplit(base_url).hostname in _LOCAL
    return Target(name, base_url, arm.key, model, _available if is_local else _unknown), context


def _available() -> int | None:
    return memory_snapshot().get("MemAvailable")


def _unknown() -> None:
    return None


def _tokenizer(given: str | None, own: Mapping[str, Any] | None) -> str:
    if given:
        return given
    if own is None:
        raise SettingsError(
            "prompts of a given length need the model's tokenizer",
            "--tokenizer FOLDER, a tokenizer.json, or a name on the Hub",
        )
    folder = Path(str(own.get("model_dir")))
    if not (folder / "tokenizer.json").is_file():
        raise HostError(
            f"there is no tokenizer.json in the appliance's model folder {folder}, seen from here",
            "--tokenizer FOLDER, with the same model's tokenizer.json",
        )
    return str(folder)


def _text(given: str) -> str:
    if given != "book" and not Path(given).is_file():
        raise SettingsError(f"--text {given} is no file", "name a long text, or leave it out")
    return given if given == "book" else str(Path(given).resolve())


def _variables(targets: Sequence[Target], settings: Settings) -> tuple[tuple[str, str], ...]:
    """Return the client's variables: our certificate to trust, and no proxy to the endpoints."""
    hosts = sorted({urlsplit(target.base_url).hostname or "" for target in targets})
    found = [("NO_PROXY", ",".join(hosts))]
    is_https = any(target.base_url.startswith("https:") for target in targets)
    if settings.tls_cert and is_https:
        found.append(("SSL_CERT_FILE", str(settings.tls_cert)))
    return tuple(found)


def read_points(folder: Path) -> tuple[Point, ...]:
    """Return the points of an earlier report's last arm. Raises HostError for no report."""
    path = folder / "report.json"
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        last = told["arms"][-1]
        return tuple(_point(one) for one in told["points"] if one["arm"] == last)
    except (OSError, ValueError, KeyError, TypeError, IndexError) as cause:
        raise HostError(
            f"{path} is no report of a speed: {cause!r}", "--compare DIR, the --out of another run"
        ) from cause


def _point(told: Mapping[str, Any]) -> Point:
    fields: dict[str, Any] = {
        name: Spread(**value) if isinstance(value, dict) else value for name, value in told.items()
    }
    return Point(**fields)


@contextmanager
def _progress(console: Console, total: int) -> Iterator[Callable[[int, Sample | None], None]]:
    """Show how far it is, and the last batch; yield whom to tell of one."""
    columns = (
        TextColumn("speed"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("llama-benchy gets ready", total=total)

        def tell(done: int, sample: Sample | None) -> None:
            bar.update(task, completed=done, description=_words(sample) if sample else "")
            if sample and not console.is_terminal:  # a log file shows no bar before its end
                console.print(f"{done} of {total}: {_words(sample)}")

        yield tell


def _words(sample: Sample) -> str:
    prefill, decode = (
        "?" if value is None else f"{value:,.0f}"
        for value in (sample.prefill_tps, sample.decode_tps)
    )
    return f"{sample.arm} {sample.cell.name}: prefill {prefill}, decode {decode} tok/s"
