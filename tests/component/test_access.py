"""Who may go where: every route that the application has, with every key."""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from appliance.admission import Gate
from appliance.app import Parts, build_app
from appliance.assembly import build_engine
from appliance.control import Control
from appliance.door import RELAYED, methods_of
from appliance.gateway import build_relay
from appliance.host import StateFolder, find_extras
from appliance.hostcheck import Hosts
from appliance.keys import Keys
from appliance.metrics import Metrics
from appliance.prompt import PromptPolicy
from appliance.settings import load_settings
from appliance.weblogin import Logins
from appliance.webpages import read_pages
from tests.appliances import CONTROL, WEB, ApplianceProcess, environment, web

KEYS = ("none", "wrong", "client", "operator")
ALL, CLIENTS, OPERATOR, LOGIN = "all", "clients", "operator", "login"

# The least that each route asks for. A route without a row fails the first test.
ROWS = {
    ("GET", "/health/live"): ALL,
    ("GET", "/v1/health/live"): ALL,
    ("GET", "/health"): ALL,
    ("GET", "/health/ready"): ALL,
    ("GET", "/v1/health/ready"): ALL,
    ("GET", "/metrics"): CLIENTS,
    ("GET", "/kilo.json"): CLIENTS,
    ("GET", "/v1/models"): CLIENTS,
    ("POST", "/v1/chat/completions"): CLIENTS,
    ("POST", "/v1/completions"): CLIENTS,
    ("POST", "/v1/responses"): CLIENTS,
    ("POST", "/v1/messages"): CLIENTS,
    ("POST", "/v1/messages/count_tokens"): CLIENTS,
    ("POST", "/tokenize"): CLIENTS,
    ("POST", "/v1/embeddings"): CLIENTS,
    **{("GET", page): ALL for page in read_pages()},
    ("GET", f"{CONTROL}/login"): LOGIN,
    ("POST", f"{CONTROL}/login"): LOGIN,
    ("POST", f"{CONTROL}/logout"): OPERATOR,
    ("GET", f"{CONTROL}/figures"): OPERATOR,
    ("GET", f"{CONTROL}/budget"): OPERATOR,
    ("GET", f"{CONTROL}/kilo"): OPERATOR,
    ("GET", f"{CONTROL}/status"): OPERATOR,
    ("GET", f"{CONTROL}/plan"): OPERATOR,
    ("GET", f"{CONTROL}/logs"): OPERATOR,
    ("GET", f"{CONTROL}/events"): OPERATOR,
    ("POST", f"{CONTROL}/start"): OPERATOR,
    ("GET", f"{CONTROL}/incidents"): OPERATOR,
    ("GET", f"{CONTROL}/incidents/{{incident}}"): OPERATOR,
    ("POST", f"{CONTROL}/stop"): OPERATOR,
    ("POST", f"{CONTROL}/drain"): OPERATOR,
    ("POST", f"{CONTROL}/restart"): OPERATOR,
    ("POST", f"{CONTROL}/reset"): OPERATOR,
}
# Routes that would change the shared appliance: their door is tried, what is behind it is not.
CHANGING = {f"{CONTROL}/{verb}" for verb in ("stop", "drain", "restart")}


def routes_of(folder: Path) -> set[tuple[str, str]]:
    """Return (method, path) of all that the application serves."""
    settings = load_settings(environment(folder))
    policy, metrics, gate = PromptPolicy(""), Metrics(), Gate(1, 1)
    with contextlib.closing(StateFolder(settings.state_dir)) as state:
        built = build_engine(settings, find_extras(), policy, metrics, state)
        engine, incidents = asyncio.run(built)
    relay = build_relay(settings, engine, gate, policy, metrics)
    keys = Keys("client", "operator")
    control = Control(engine, gate, settings, metrics, Hosts(), incidents)
    door: Any = build_app(Parts(control, relay, metrics, keys, Logins(1, 1)))
    relayed = {(method, path) for path, route in RELAYED.items() for method in methods_of(route)}
    return set(_flat(door.app.app.routes)) | {row for row in relayed if row[0] != "HEAD"}


def _flat(routes: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for route in routes:
        if hasattr(route, "path"):
            yield from ((method, route.path) for method in route.methods - {"HEAD"})
        else:  # FastAPI keeps an included router whole
            yield from _flat(route.original_router.routes)


def test_every_route_has_a_row_and_every_row_a_route(tmp_path: Path) -> None:
    assert routes_of(tmp_path) == set(ROWS)


def status(box: ApplianceProcess, method: str, path: str, key: str) -> int:
    """Return the status of the head; event streams are left at once."""
    secret = {"none": "", "wrong": "wrong"}.get(key) if key in ("none", "wrong") else box.key(key)
    with (
        web(box.base_url, secret or "") as client,
        client.stream(method, path, content=b"{" if method == "POST" else None) as reply,
    ):
        return reply.status_code


def behind(path: str) -> tuple[int, ...]:
    """Return what may be behind an open door: no incident is called {incident}."""
    return (404,) if "{" in path else (200, 202, 204)


@pytest.mark.parametrize(("method", "path"), ROWS, ids=[path for _, path in ROWS])
def test_each_key_opens_what_it_is_for(box: ApplianceProcess, method: str, path: str) -> None:
    needs = ROWS[method, path]
    got = {
        key: status(box, method, path, key)
        for key in KEYS
        if not (path in CHANGING and key == "operator")
    }
    if needs == ALL:
        assert got == dict.fromkeys(KEYS, 200)
        return
    if needs == LOGIN:  # anybody may try: GET is told 401, a body that is no JSON 400 or 415
        assert got["client"] == 403
        expected = (401, 401) if method == "GET" else (415, 415)
        assert (got["none"], got["wrong"]) == expected
        return
    assert (got["none"], got["wrong"]) == (401, 401)
    if needs == OPERATOR:
        assert got["client"] == 403
        assert path in CHANGING or got["operator"] in behind(path)
        return
    opened = 200 if method == "GET" else 400  # a body that is no JSON got past the door
    assert (got["client"], got["operator"]) == (opened, opened)


@pytest.mark.parametrize(
    ("method", "path"),
    [row for row, needs in ROWS.items() if needs == OPERATOR and row[1] not in CHANGING],
)
def test_the_socket_needs_no_key(box: ApplianceProcess, method: str, path: str) -> None:
    with box.local() as client, client.stream(method, path) as reply:
        assert reply.status_code in behind(path)


def test_the_socket_serves_models_without_a_key_too(box: ApplianceProcess) -> None:
    with box.local() as client:
        assert client.get("/v1/models").status_code == 200
        assert client.get("/health").json()["last_lines"] == []


def test_a_key_opens_more_words_of_health(box: ApplianceProcess) -> None:
    told = {}
    for key in ("none", "client", "operator"):
        headers = {} if key == "none" else {"authorization": f"Bearer {box.key(key)}"}
        told[key] = set(WEB.get(f"{box.base_url}/health", headers=headers).json())
    assert told["client"] - told["none"] == {"message", "hint", "memory", "engine_build"}
    assert told["operator"] - told["client"] == {"last_lines"}


def test_a_websocket_is_not_let_in(box: ApplianceProcess) -> None:
    upgrade = {
        "connection": "Upgrade",
        "upgrade": "websocket",
        "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec-websocket-version": "13",
    }
    reply = WEB.get(f"{box.base_url}{CONTROL}/status", headers=upgrade)
    assert reply.status_code == 401
