"""Requests made from our OpenAPI, right and wrong ones: each is answered as the schema says."""

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from appliance.openai import ROUTES
from tests import engines
from tests.accept.stage import staged
from tests.appliances import ApplianceProcess
from tests.gateway.openapi import VERB_PATHS, control_routes, model_routes
from tests.gateway.vitals import all_calm, look

AnyCase = Case[Any]
EXAMPLES = 25
LONG_EXAMPLES = 1500
MODES = {"right": GenerationMode.POSITIVE, "wrong": GenerationMode.NEGATIVE}
MODEL_PATHS = [(route.path, route.method) for route in ROUTES]
CONTROL_PATHS = [
    (path, method.upper())
    for path, at in control_routes()["paths"].items()
    for method in at
    if path not in VERB_PATHS
]
CHECKS: list[Any] = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApplianceProcess]:
    """Run one appliance for all of them."""
    with staged(tmp_path_factory.mktemp("openapi")) as stage:
        box = stage.appliance
        engines.shared_groups.add(box.process.pid)
        yield box
    engines.shared_groups.discard(box.process.pid)


def answered_as_told(
    box: ApplianceProcess, key: str, cases: st.SearchStrategy[AnyCase], count: int
) -> None:
    """Send so many requests; each reply must be as the schema says, and none a 5xx."""
    headers = {"authorization": f"Bearer {box.key(key)}"}

    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
    )
    @given(case=cases)
    def check(case: AnyCase) -> None:
        response = case.call(base_url=box.base_url, headers=headers, timeout=20)
        case.validate_response(response, checks=CHECKS)

    check()


def cases(schema: dict[str, Any], path: str, method: str, mode: str) -> st.SearchStrategy[AnyCase]:
    """Return requests of one operation, as the schema wants them or as it does not."""
    operation = schemathesis.openapi.from_dict(schema)[path][method]
    strategy: st.SearchStrategy[AnyCase] = operation.as_strategy(generation_mode=MODES[mode])
    return strategy


def test_the_schema_holds_every_route_that_passes() -> None:
    told = {(path, method.upper()) for path, at in model_routes()["paths"].items() for method in at}
    assert told == set(MODEL_PATHS)


def with_a_body(paths: list[tuple[str, str]]) -> list[tuple[str, str, str]]:
    """Return each operation with each mode: one without a body cannot be asked wrongly."""
    return [
        (path, method, mode)
        for path, method in paths
        for mode in MODES
        if mode == "right" or method == "POST"
    ]


@pytest.mark.parametrize(("path", "method", "mode"), with_a_body(MODEL_PATHS))
def test_a_model_route_answers_as_its_schema_says(
    target: ApplianceProcess, path: str, method: str, mode: str
) -> None:
    before = look(target)
    answered_as_told(target, "client", cases(model_routes(), path, method, mode), EXAMPLES)
    all_calm(target, before)


@pytest.mark.parametrize(("path", "method"), CONTROL_PATHS)
def test_a_control_route_answers_as_its_schema_says(
    target: ApplianceProcess, path: str, method: str
) -> None:
    before = look(target)
    count = EXAMPLES // 3
    answered_as_told(target, "operator", cases(control_routes(), path, method, "right"), count)
    all_calm(target, before)


@pytest.mark.parametrize("path", VERB_PATHS)
def test_a_verb_is_accepted_whatever_the_engine_does(target: ApplianceProcess, path: str) -> None:
    answered_as_told(target, "operator", cases(control_routes(), path, "POST", "right"), 3)
    with target.http("operator") as http:
        http.post("/appliance/v1/reset")
        http.post("/appliance/v1/start")
    target.until("ready", within_s=40)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("path", "method", "mode"), with_a_body(MODEL_PATHS))
def test_a_model_route_answers_as_its_schema_says_to_thousands(
    target: ApplianceProcess, path: str, method: str, mode: str
) -> None:
    before = look(target)
    answered_as_told(target, "client", cases(model_routes(), path, method, mode), LONG_EXAMPLES)
    all_calm(target, before)
