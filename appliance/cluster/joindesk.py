"""The worker's side of a join: one code at a time, which ends, and burns. Pure.

Time is handed in, in seconds of a clock that only counts on: nobody's calendar matters.
"""

import hmac
from collections.abc import Callable
from dataclasses import dataclass

from appliance.cluster.joincode import head_proof, worker_proof
from appliance.cluster.peer import PeerError
from appliance.cluster.wire import JoinAsk, JoinReply

CODE_S = 600.0
MOST_TRIES = 5
BURNT_S = 30.0  # without any code, after one was burnt
TRY_EVERY_S = 1.0
_LOOK = "look at the worker: appliance node shows a code while it has no head"


class JoinRefused(PeerError):
    """A join that is refused: ``code`` says why."""

    status = 403
    code = "join_refused"


class TooSoon(JoinRefused):
    """Another try came a moment ago, or a code was burnt."""

    status = 429
    code = "join_too_soon"


@dataclass(frozen=True)
class Issued:
    """A code in force: its secret, its end, and how many have tried in vain."""

    secret: bytes
    ends_at: float
    tries: int = 0


class JoinDesk:
    """Issues codes, and takes one head. ``draw`` returns so many random bytes."""

    def __init__(self, fingerprint: bytes, draw: Callable[[int], bytes]) -> None:
        self._fingerprint = fingerprint
        self._draw = draw
        self._issued: Issued | None = None
        self._not_before = 0.0

    def issue(self, secret: bytes, now: float) -> None:
        """Put a new code in force; the one before is worth nothing from now on."""
        self._issued = Issued(secret, now + CODE_S)

    def wants_code(self, now: float) -> bool:
        """Whether there is none in force, and it is time for one."""
        is_over = self._issued is None or now >= self._issued.ends_at
        return is_over and now >= self._not_before

    def answer(self, ask: JoinAsk, now: float) -> JoinReply:
        """Return the key for a head that proves itself; the code is used up. Raises JoinRefused."""
        if now < self._not_before:
            raise TooSoon("another head tried a moment ago", "wait a minute, then try again")
        self._not_before = now + TRY_EVERY_S
        issued = self._issued
        if issued is None:
            raise JoinRefused("there is no code in force", _LOOK, code="no_code")
        if now >= issued.ends_at:
            self._issued = None
            raise JoinRefused("the code has expired", _LOOK, code="code_expired")
        nonce = bytes.fromhex(ask.nonce)
        expected = head_proof(issued.secret, self._fingerprint, nonce, ask.head)
        if not hmac.compare_digest(expected, bytes.fromhex(ask.proof)):
            self._fail(issued, now)
        self._issued = None
        key = self._draw(32)
        proof = worker_proof(issued.secret, self._fingerprint, nonce, ask.head, key)
        return JoinReply(key.hex(), proof.hex())

    def _fail(self, issued: Issued, now: float) -> None:
        tries = issued.tries + 1
        if tries < MOST_TRIES:
            self._issued = Issued(issued.secret, issued.ends_at, tries)
            left = MOST_TRIES - tries
            raise JoinRefused(f"the code is wrong; {left} tries left", _LOOK, code="wrong_code")
        self._issued = None
        self._not_before = now + BURNT_S
        what = f"the code is wrong, and now worth nothing: it was tried {tries} times"
        raise JoinRefused(what, f"{_LOOK}; a new one comes in half a minute", code="code_burnt")
