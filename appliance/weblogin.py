"""Log-ins of browsers: a random token for the operator key, for a while. Pure, time is given.

A page must not keep the key itself. It shows the key once, and gets a cookie that only the
browser can read. Of the token its digest alone is kept, in memory: a restart ends every log-in,
as does a change of the operator key, which the composition root answers with ``end_all``.

The token against cross-site requests (``csrf``) is made of the log-in's own token, so that there
is nothing more to keep, and who has the one cannot make the other.
"""

import hashlib
import hmac
import secrets
from dataclasses import dataclass

MOST = 32  # further ones end the oldest: a page that logs in again and again fills nothing
_CSRF = b"unglitched csrf"


@dataclass
class Login:
    """One log-in; times are monotonic seconds. ``is_over`` once it has ended, for whatever reason.

    Who streams for long holds on to it, and stops when it is no longer ``is_good``.
    """

    began: float
    seen: float
    idle_s: float
    total_s: float
    is_over: bool = False

    def is_good(self, now: float) -> bool:
        """Tell whether it holds; to ask is to use it."""
        if now - self.began >= self.total_s or now - self.seen >= self.idle_s:
            self.is_over = True
        if not self.is_over:
            self.seen = now
        return not self.is_over

    def left_s(self, now: float) -> float:
        """Return for how long it holds at most, in seconds."""
        return max(0.0, self.began + self.total_s - now)


class Logins:
    """The log-ins in force. ``idle_s`` without a request ends one, and ``total_s`` in any case."""

    def __init__(self, idle_s: float, total_s: float, most: int = MOST) -> None:
        self._idle_s = idle_s
        self._total_s = total_s
        self._most = most
        self._all: dict[bytes, Login] = {}  # by the digest of its token, the oldest first

    def __len__(self) -> int:
        return len(self._all)

    def begin(self, now: float) -> tuple[str, Login]:
        """Log somebody in who has shown the operator key; return the token too, which is not kept.

        Where there are ``most`` already, the oldest ends.
        """
        while len(self._all) >= self._most:
            self._end(next(iter(self._all)))
        token = secrets.token_urlsafe(32)
        login = self._all[_digest(token)] = Login(now, now, self._idle_s, self._total_s)
        return token, login

    def find(self, token: str, now: float) -> Login | None:
        """Return the log-in of a token, which is used by that; None where there is none."""
        kept = _digest(token)
        login = self._all.get(kept)
        if login is None or login.is_good(now):
            return login
        self._end(kept)
        return None

    def end(self, token: str) -> None:
        """End one; nothing happens where there is none."""
        self._end(_digest(token))

    def end_all(self) -> None:
        """End them all: the key that opened them opens no more."""
        for kept in list(self._all):
            self._end(kept)

    def _end(self, kept: bytes) -> None:
        if login := self._all.pop(kept, None):
            login.is_over = True


def csrf_of(token: str) -> str:
    """Return what a page of this log-in sends in ``x-csrf-token``."""
    return hmac.new(token.encode(), _CSRF, hashlib.sha256).hexdigest()


def is_csrf(token: str, told: str) -> bool:
    """Tell whether ``told`` is this log-in's, in constant time."""
    return hmac.compare_digest(csrf_of(token).encode(), told.encode())


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
