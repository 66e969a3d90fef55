"""The operator's side: talks to a running appliance's control API, by socket or by network."""

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import httpx
from rich.console import Console
from rich.table import Table

from appliance.errors import HostError
from appliance.host import control_socket
from appliance.incidentview import print_incident, print_incidents
from appliance.openai import CONTROL_PREFIX
from appliance.plaintext import duration
from appliance.settings import Settings
from appliance.trust import trust

POLL_S = 0.5
CONNECT_S = 10.0
SILENCE_S = 45.0  # three of the stream's heartbeats
_KEY_FILES = {"client": "api_key", "operator": "operator_key"}


@dataclass
class Operator:
    """A client of one appliance, chosen by its state folder or by URL and operator key."""

    settings: Settings
    state_dir: Path
    http: httpx.Client
    socket: Path | None

    @classmethod
    def of(cls, settings: Settings, url: str | None, key: str | None) -> Self:
        """Return the operator of the appliance at ``url``, or of this state folder."""
        state_dir = settings.state_dir.expanduser()
        if url:
            given = settings.operator_key.get_secret_value() if settings.operator_key else None
            secret = key or given or _kept_key(state_dir / _KEY_FILES["operator"])
            headers = {"authorization": f"Bearer {secret}"} if secret else {}
            trusted = trust(url, settings.tls_cert)
            try:
                http = httpx.Client(
                    base_url=url, headers=headers, timeout=30, trust_env=False, verify=trusted
                )
            except (httpx.InvalidURL, UnicodeEncodeError) as cause:
                raise HostError(
                    f"{url} or its key cannot be used: {cause}",
                    "write it like --url http://spark.local:9000 --key OPERATOR_KEY",
                ) from cause
        else:
            transport = httpx.HTTPTransport(uds=str(control_socket(state_dir)))
            http = httpx.Client(base_url="http://appliance", transport=transport, timeout=30)
        return cls(settings, state_dir, http, None if url else control_socket(state_dir))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.http.close()

    def key(self, which: str) -> str:
        """Return the client or operator key: given, or kept in the state folder."""
        secret = self.settings.api_key if which == "client" else self.settings.operator_key
        if secret:
            return secret.get_secret_value()
        path = self.state_dir / _KEY_FILES[which]
        kept = _kept_key(path)
        if not kept:
            raise HostError(
                f"there is no key in {path}", "start the appliance once, or name its --state-dir"
            )
        return kept

    def running_url(self) -> str:
        """Return the running appliance's address. Raises HostError when none runs."""
        path = self.state_dir / "address"
        try:
            return path.read_text(encoding="ascii").strip()
        except OSError:
            raise HostError(
                f"no appliance has run with the state folder {self.state_dir}",
                "start one: make demo, or appliance run; or name a URL",
            ) from None

    def call(self, method: str, path: str) -> dict[str, Any]:
        """Return the reply of a control route. Raises HostError when it does not answer 2xx."""
        if self.socket and not self.socket.exists():
            raise self._nobody(None)
        try:
            response = self.http.request(method, CONTROL_PREFIX + path)
        except httpx.HTTPError as cause:
            raise self._nobody(cause) from cause
        return self._read(method, path, response)

    @contextmanager
    def events(self, silence_s: float = SILENCE_S) -> Iterator[Iterator[tuple[str, Any]]]:
        """Open the event stream; yield its events, each a name and what it tells.

        They end with the appliance. Raises HostError when nobody answers, or the stream breaks.
        """
        if self.socket and not self.socket.exists():
            raise self._nobody(None)
        path, timeout = "/events", httpx.Timeout(CONNECT_S, read=silence_s)
        try:
            with self.http.stream("GET", CONTROL_PREFIX + path, timeout=timeout) as response:
                if response.headers.get("content-type", "").startswith("text/event-stream"):
                    yield read_events(response.iter_lines())
                else:
                    response.read()
                    self._read("GET", path, response)
                    raise self._no_appliance("GET", path, response)
        except httpx.HTTPError as cause:
            raise self._nobody(cause) from cause

    def _read(self, method: str, path: str, response: httpx.Response) -> dict[str, Any]:
        try:
            reply = response.json()
        except ValueError:
            reply = None
        if not isinstance(reply, dict) or not (response.is_success or "error" in reply):
            raise self._no_appliance(method, path, response)
        if not response.is_success:
            error = reply["error"]
            message = error.get("message") if isinstance(error, dict) else error
            raise HostError(f"{method} {CONTROL_PREFIX + path}: {response.status_code}: {message}")
        return reply

    def _no_appliance(self, method: str, path: str, response: httpx.Response) -> HostError:
        return HostError(
            f"{self.http.base_url} is no appliance: {method} {CONTROL_PREFIX + path} got "
            f"{response.status_code} {response.text[:100]!r}",
            "name its own address: --url http://HOST:9000",
        )

    def _nobody(self, cause: httpx.HTTPError | None) -> HostError:
        where = f"with the state folder {self.state_dir}" if self.socket else self.http.base_url
        why = type(cause).__name__ if cause else "it has no socket"
        if "CERTIFICATE_VERIFY_FAILED" in str(cause):
            return HostError(
                f"the certificate of {where} is not trusted here: {cause}",
                "copy its cert.pem to this machine, and: export SSL_CERT_FILE=/path/to/cert.pem",
            )
        return HostError(
            f"no appliance answers {where}: {why}",
            "start one: appliance run; or name it: --url URL --key OPERATOR_KEY",
        )


def _kept_key(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""


def read_events(lines: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Yield the events of the control API's stream: it writes each as two lines."""
    name = ""
    for line in lines:
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def show_status(operator: Operator, *, as_json: bool) -> int:
    """Print the status; 0 when ready, 1 when not."""
    status = operator.call("GET", "/status")
    if as_json:
        print(json.dumps(status, indent=2))
    else:
        _print_status(status)
    return 0 if status["status"] == "ready" else 1


def _print_status(status: dict[str, Any]) -> None:
    table = Table(show_header=False, box=None, pad_edge=False)
    requests = status["requests"]
    rows = {
        "state": status["state"],
        "reason": status["reason"],
        "what": status["message"],
        "type": status["hint"],
        "progress": _bar(status["phase"], status["progress"]),
        "next": _then(status["next"], status["next_at"]),
        "degraded": ", ".join(status["degraded"]),
        "since": _ago(status["since"]),
        "model": f"{status['model']}, context {status['max_model_len'] or 'not known yet'}",
        "requests": f"{requests['running']} of {requests['places']} places, "
        f"{requests['waiting']} waiting",
        "spawn": _spawn(status),
    }
    for name, value in rows.items():
        if value:
            table.add_row(name, str(value))
    console = Console(soft_wrap=True, highlight=False, markup=False)
    console.print(table)
    for line, times in _folded(status["last_lines"]):
        print(f"  | {line}" + (f"  ({times} times)" if times > 1 else ""))


def _folded(lines: list[str]) -> Iterator[tuple[str, int]]:
    """Yield each line with how often it stands there in a row."""
    for line, same in groupby(lines):
        yield line, len(list(same))


BAR = 24  # characters


def _bar(phase: str | None, fraction: float | None) -> str:
    if not phase or fraction is None:
        return phase or ""
    full = round(fraction * BAR)
    return f"[{'#' * full}{'.' * (BAR - full)}] {phase}"


def _then(what: str | None, moment: str | None) -> str:
    if not what or not moment:
        return what or ""
    left = datetime.fromisoformat(moment).timestamp() - time.time()
    return f"{what} in {duration(max(left, 0))}"


def _ago(moment: str) -> str:
    return f"{duration(time.time() - datetime.fromisoformat(moment).timestamp())} ({moment})"


def _spawn(status: dict[str, Any]) -> str:
    safer = status["safer_plans"]
    return f"{status['spawn']}, on a safer plan (step {safer})" if safer else str(status["spawn"])


def show_incidents(operator: Operator, wanted: str | None, *, as_json: bool) -> int:
    """Print the list of incidents, or the ``wanted`` one ("": the newest)."""
    kept = operator.call("GET", "/incidents")["incidents"]
    if wanted == "" and kept:
        wanted = kept[0]["id"]
    if not wanted:
        print(json.dumps(kept, indent=2)) if as_json else print_incidents(kept)
        return 0
    incident = operator.call("GET", f"/incidents/{quote(wanted, safe='')}")
    print(json.dumps(incident, indent=2)) if as_json else print_incident(incident)
    return 0


UP = ("start", "restart", "reset")


def change(operator: Operator, verb: str, *, wait: bool, as_json: bool) -> int:
    """Ask for a change of the engine and see it through; 0 when it got there."""
    status = operator.call("POST", f"/{verb}")
    wanted = ("ready",) if verb in UP else ("stopped",)
    if status["engine"] == "attach" and verb not in UP:
        wanted = ("draining",)
    with _progress(quiet=as_json or not wait) as show:
        # A request is taken in a moment later: the first look may still see the old state.
        spawn = status["spawn"]
        while wait and not _arrived(status, verb, wanted, spawn):
            show(f"{status['state']} {status['phase'] or ''}".strip())
            time.sleep(POLL_S)
            status = operator.call("GET", "/status")
    if as_json:
        print(json.dumps(status, indent=2))
    elif wait:
        _print_status(status)
    else:
        print(f"{verb} asked for; appliance status tells how it goes")
    return 0 if not wait or status["state"] in wanted else 1


def _arrived(status: dict[str, Any], verb: str, wanted: tuple[str, ...], spawn: int) -> bool:
    if verb == "restart" and status["engine"] == "spawn" and int(status["spawn"]) == spawn:
        return bool(status["state"] == "failed")  # the old one is still there, and may be ready
    if status["state"] in wanted:
        return True
    if "accepted" in status:
        return False
    if verb not in UP:
        return int(status["spawn"]) > spawn  # somebody has started it again
    return status["state"] in ("failed", "stopped", "backoff", "unreachable")


@contextmanager
def _progress(*, quiet: bool) -> Iterator[Any]:
    console = Console(stderr=True)
    if quiet:
        yield lambda _text: None
        return
    with console.status("asking") as status:
        yield lambda text: status.update(text)
