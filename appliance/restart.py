"""When a failed engine is tried again, and when not: backoff and circuit breaker. Pure.

The circuit breaker exists because a restart loop does harm: each death on a box with unified
memory may leak some, until nobody can log in any more (eugr/spark-vllm-docker#257).
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Grade(StrEnum):
    """What a cause of failure says about another try."""

    PERMANENT = "permanent"  # the same again would fail the same way
    TRANSIENT = "transient"  # it may work
    MEMORY = "memory"  # it may work with a safer plan
    AWAITED = "awaited"  # nothing was tried: another box must be there first


@dataclass(frozen=True)
class Reason:
    """Why the engine is in its state: a stable code, the values, and what to type next.

    ``grade`` matters for reasons of failure alone.
    """

    code: str
    what: str = ""
    hint: str = ""
    grade: Grade = Grade.TRANSIENT


RESET_HINT = "find the cause with appliance incidents, then type appliance reset"


@dataclass(frozen=True)
class RestartPolicy:
    """Lengths in seconds. ``rungs`` is how many plans there are, from the chosen to the safest."""

    backoff_s: float = 30.0
    backoff_cap_s: float = 900.0
    max_failures: int = 3
    window_s: float = 7200.0
    rungs: int = 3
    max_jitter: float = 0.1


@dataclass(frozen=True)
class History:
    """What the engine's past means for its next start. Outlives the sidecar.

    ``failures`` are the moments (seconds since boot) of those that count for the breaker;
    ``rung`` is how many safer plans were taken; ``gave_up`` is why no start is tried any more.
    """

    failures: tuple[float, ...] = ()
    rung: int = 0
    gave_up: Reason | None = None


@dataclass(frozen=True)
class Retry:
    """Try again after ``wait_s``."""

    wait_s: float


@dataclass(frozen=True)
class GiveUp:
    """Do not try again; ``reason`` says why."""

    reason: Reason


def backoff_s(failures: int, policy: RestartPolicy, jitter: float = 0.0) -> float:
    """Return the wait after the ``failures``-th failure in a row, in seconds.

    It doubles, up to a cap. ``jitter`` (0 to 1) is drawn outside and adds at most a tenth.
    """
    doubled = policy.backoff_s * 2.0 ** min(max(failures - 1, 0), 32)
    return min(doubled, policy.backoff_cap_s) * (1 + policy.max_jitter * min(max(jitter, 0), 1))


def warned(history: History, reason: Reason, policy: RestartPolicy) -> History:
    """Return the history after a death that costs no retry, for the engine was not wanted.

    For want of memory, the next start takes a safer plan all the same.
    """
    if reason.grade is not Grade.MEMORY:
        return history
    return replace(history, rung=min(history.rung + 1, policy.rungs - 1))


def judge(
    history: History, reason: Reason, at: float, jitter: float, policy: RestartPolicy
) -> tuple[History, Retry | GiveUp]:
    """Return the history after a failure at ``at`` (seconds since boot), and what to do.

    A permanent cause is not counted: nothing was tried in vain, and an operator who corrects a
    setting step by step is not to be locked out. Nor is an absent box, which is waited for.
    """
    if reason.grade is Grade.PERMANENT:
        return history, GiveUp(reason)
    if reason.grade is Grade.AWAITED:
        return history, Retry(backoff_s(1, policy, jitter))
    recent = (*(t for t in history.failures if 0 <= at - t < policy.window_s), at)
    history = replace(history, failures=recent)
    if len(recent) >= policy.max_failures:
        window = f"{policy.window_s / 3600:.3g} h"
        failures = "a failure" if len(recent) == 1 else f"{len(recent)} failures"
        what = f"gave up after {failures} in {window}; the last: {reason.what}"
        given_up = Reason("gave_up", what, RESET_HINT, reason.grade)
        return replace(history, gave_up=given_up), GiveUp(given_up)
    if reason.grade is Grade.MEMORY:
        if history.rung + 1 >= policy.rungs:
            what = f"the safest plan did not fit either: {reason.what}"
            given_up = Reason("gave_up", what, RESET_HINT, reason.grade)
            return replace(history, gave_up=given_up), GiveUp(given_up)
        history = replace(history, rung=history.rung + 1)
    return history, Retry(backoff_s(len(recent), policy, jitter))
