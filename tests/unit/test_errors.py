"""Every error says what failed and what to type next, and how to report it."""

import pytest

from appliance import errors
from appliance.errors import (
    ApplianceError,
    EngineNotReady,
    HostError,
    ModelFolderError,
    PortTaken,
    RequestError,
    SettingsError,
    UpstreamError,
    UpstreamTimeout,
    http_status,
)

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, ApplianceError) and kind is not RequestError
]


def test_an_error_reads_as_what_failed_and_then_what_to_type() -> None:
    assert str(HostError("the disk is full", "df -h")) == "the disk is full\n  -> df -h"


def test_an_error_without_a_hint_reads_as_what_failed() -> None:
    assert str(HostError("the disk is full")) == "the disk is full"


@pytest.mark.parametrize(("kind", "code"), [(SettingsError, 78), (PortTaken, 75), (HostError, 1)])
def test_exit_codes_are_those_of_sysexits(kind: type[ApplianceError], code: int) -> None:
    assert kind("what").exit_code == code


def test_a_bad_model_folder_is_no_settings_error() -> None:
    assert ModelFolderError("gone").exit_code not in (75, 78)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ApplianceError("a bug"), 500),
        (EngineNotReady("loading"), 503),
        (errors.EngineFailed("dead"), 503),
        (UpstreamError("reset"), 502),
        (UpstreamTimeout("silent"), 504),
        (RequestError(429, "queue_full", "later"), 429),
    ],
)
def test_every_error_has_its_http_status(error: ApplianceError, status: int) -> None:
    assert http_status(error) == status


def test_only_a_bad_request_is_called_the_clients_fault() -> None:
    assert RequestError(400, "invalid_json", "no JSON").error_type == "invalid_request_error"
    assert {kind.error_type for kind in KINDS} == {"server_error"}


def test_each_kind_has_a_code_of_its_own() -> None:
    codes = [kind.code for kind in KINDS]
    assert len(set(codes)) == len(codes)


def test_a_code_given_with_an_error_stays_with_that_error() -> None:
    assert EngineNotReady("full", code="queue_timeout").code == "queue_timeout"
    assert EngineNotReady("loading").code == "engine_not_ready"


def test_an_engine_error_says_when_to_come_back() -> None:
    assert EngineNotReady("loading").retry_after_s > 0
    assert EngineNotReady("loading", retry_after_s=3).retry_after_s == 3
