"""Every failure that the appliance names: what failed, what to type next, how to report it.

An error carries its exit code (sysexits.h numbers, for the CLI) and its HTTP status with an
OpenAI-shaped type and code (for the relay), so that one table-free rule maps it either way.
"""

from typing import ClassVar

from appliance.budget import BudgetRow, Shortfall


class ApplianceError(Exception):
    """What failed (with the values) and what to type next.

    ``what`` is one sentence; ``hint`` is the next step; ``code`` is a stable snake_case word
    for machines. ``is_passing`` says that it is about somebody else, who may be there again.
    """

    exit_code: ClassVar[int] = 1
    is_passing: ClassVar[bool] = False
    status: ClassVar[int] = 500
    error_type: ClassVar[str] = "server_error"
    code: str = "internal_error"

    def __init__(self, what: str, hint: str = "", *, code: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        if code is not None:
            self.code = code

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.hint}" if self.hint else self.what


class SettingsError(ApplianceError):
    """Settings that cannot be parsed, or that contradict each other."""

    exit_code = 78  # EX_CONFIG
    code = "bad_settings"


class HostError(ApplianceError):
    """The machine, or a folder on it, is not as the plan needs it."""

    code = "host"


class PortTaken(HostError):
    """The appliance's own port (or its state folder) is in use by another process."""

    exit_code = 75  # EX_TEMPFAIL: it may work later
    code = "port_taken"


class SwapError(ApplianceError):
    """force_swap is missing, or did not do what it was asked."""

    code = "swap_failed"


class ModelFolderError(HostError):
    """The model folder is missing, incomplete, or no checkpoint."""

    code = "model_folder"


class DoesNotFit(HostError):
    """The memory plan does not add up, or cannot be made: every shortfall at once.

    ``table`` is the budget as far as it could be computed.
    """

    exit_code = 78  # EX_CONFIG: the choice does not fit the machine
    code = "does_not_fit"

    def __init__(
        self,
        what: str,
        hint: str = "",
        *,
        shortfalls: tuple[Shortfall, ...] = (),
        table: tuple[BudgetRow, ...] = (),
    ) -> None:
        super().__init__(what, hint)
        self.shortfalls = shortfalls
        self.table = table


class EngineError(ApplianceError):
    """The engine cannot serve this request now."""

    status = 503
    code = "engine_error"

    def __init__(
        self, what: str, hint: str = "", *, code: str | None = None, retry_after_s: int = 10
    ) -> None:
        super().__init__(what, hint, code=code)
        self.retry_after_s = retry_after_s


class EngineNotReady(EngineError):
    """The engine is loading, stopping, or busy for longer than a request may wait."""

    code = "engine_not_ready"


class EngineFailed(EngineError):
    """The engine gave up, or was stopped: an operator must act."""

    code = "engine_failed"


class SpawnFailed(EngineError):
    """The engine's process could not be started at all."""

    code = "spawn_failed"


class UpstreamError(ApplianceError):
    """The engine did not answer as HTTP should: refused, reset, or silent."""

    status = 502
    code = "upstream_error"


class UpstreamTimeout(UpstreamError):
    """The engine did not answer within its time."""

    status = 504
    code = "upstream_timeout"


class RequestError(ApplianceError):
    """A client's request that is refused here: its fault, and what to send instead."""

    error_type = "invalid_request_error"

    def __init__(self, status: int, code: str, what: str, hint: str = "") -> None:
        super().__init__(what, hint, code=code)
        self.http_status = status


def http_status(error: ApplianceError) -> int:
    """Return the HTTP status of an error."""
    return error.http_status if isinstance(error, RequestError) else error.status
