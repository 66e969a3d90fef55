"""The code that a person carries from the worker's screen to the head, and what it proves. Pure.

It holds 80 random bits, so a man in the middle who has recorded a proof cannot find it by trying,
and no PAKE is needed. Both proofs bind the certificate that the head was shown: whoever stands
between shows another one, and has a proof that fits nowhere.
"""

import hashlib
import hmac

from appliance.errors import SettingsError

SECRET_BYTES = 10
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's: none is taken for another
_ALIKE = str.maketrans({"I": "1", "L": "1", "O": "0", "-": None, " ": None})
_GROUP = 6
_SECRET_LETTERS, _CHECK_LETTERS = 16, 2
_HINT = "copy the whole code that appliance node shows on the worker"


def spell(secret: bytes) -> str:
    """Return the code of ten random bytes: three groups of six, the last two letters a check."""
    letters = _spelled(int.from_bytes(secret), _SECRET_LETTERS) + _check(secret)
    return "-".join(letters[at : at + _GROUP] for at in range(0, len(letters), _GROUP))


def read(code: str) -> bytes:
    """Return the secret of a code as typed. Raises SettingsError for a slip, before it is sent."""
    letters = code.upper().translate(_ALIKE)
    expected = _SECRET_LETTERS + _CHECK_LETTERS
    if len(letters) != expected:
        raise SettingsError(f"the code has {len(letters)} letters, not {expected}", _HINT)
    if odd := sorted(set(letters) - set(_LETTERS)):
        raise SettingsError(f"the code has no {odd[0]!r} in it", _HINT)
    number = 0
    for letter in letters[:_SECRET_LETTERS]:
        number = number * 32 + _LETTERS.index(letter)
    secret = number.to_bytes(SECRET_BYTES)
    if _check(secret) != letters[_SECRET_LETTERS:]:
        raise SettingsError("the code has a slip in it: its last two letters do not fit", _HINT)
    return secret


def head_proof(secret: bytes, fingerprint: bytes, nonce: bytes, head: str) -> bytes:
    """Return what proves that a head knows the code and sees the certificate ``fingerprint``."""
    return _mac(secret, b"head", fingerprint, nonce, head.encode())


def worker_proof(secret: bytes, fingerprint: bytes, nonce: bytes, head: str, key: bytes) -> bytes:
    """Return what proves to that head that the worker knows the code, and that the key is its."""
    return _mac(secret, b"worker", fingerprint, nonce, head.encode(), key)


def _mac(secret: bytes, *parts: bytes) -> bytes:
    # each part by its digest: no byte of one can pass for a byte of the next
    digests = (hashlib.sha256(part).digest() for part in (b"unglitched join 1", *parts))
    return hmac.digest(secret, b"".join(digests), "sha256")


def _check(secret: bytes) -> str:
    whole = int.from_bytes(hashlib.sha256(b"unglitched code" + secret).digest()[:2])
    return _spelled(whole % 1024, _CHECK_LETTERS)


def _spelled(number: int, count: int) -> str:
    return "".join(_LETTERS[(number >> (5 * at)) & 31] for at in reversed(range(count)))
