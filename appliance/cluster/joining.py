"""The head's side of a join: pin the certificate that the code vouches for, and get the key."""

import hmac
import secrets
import ssl
from collections.abc import Callable

import httpx

from appliance.cluster.identity import fingerprint_of, pinned
from appliance.cluster.joincode import head_proof, read, worker_proof
from appliance.cluster.membership import WorkerKept
from appliance.cluster.peer import PeerError, PeerLost
from appliance.cluster.wire import JOIN, MOST_BYTES, JoinAsk, JoinReply, Refusal, decode, encode

WITHIN_S = 10.0
_BETWEEN = "if the code was right, somebody stands between the two boxes: look at the cable"


def join(
    host: str, port: int, code: str, head: str, draw: Callable[[int], bytes] = secrets.token_bytes
) -> WorkerKept:
    """Return the worker at an address, proven to be the one that shows ``code``.

    Raises SettingsError for a slip in the code, PeerLost where nobody answers, PeerError where
    the worker refuses, or is not the one that shows the code.
    """
    secret = read(code)
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    certificate = _certificate(host, port, address)
    fingerprint, nonce = fingerprint_of(certificate), draw(32)
    proof = head_proof(secret, fingerprint, nonce, head)
    reply = _ask(address, certificate, JoinAsk(head, nonce.hex(), proof.hex()))
    expected = worker_proof(secret, fingerprint, nonce, head, bytes.fromhex(reply.key))
    if not hmac.compare_digest(expected, bytes.fromhex(reply.proof)):
        raise PeerError(
            f"what answers at {address} does not know the code", _BETWEEN, code="not_the_worker"
        )
    return WorkerKept(address, certificate, reply.key)


def _certificate(host: str, port: int, address: str) -> str:
    """Return the certificate that is shown there, by whomever."""
    try:
        return ssl.get_server_certificate((host, port), timeout=WITHIN_S)
    except (OSError, ValueError) as cause:  # ssl.SSLError is an OSError
        raise _nobody(address, cause) from cause


def _ask(address: str, certificate: str, ask: JoinAsk) -> JoinReply:
    body = b""
    try:
        with (
            httpx.Client(
                base_url=f"https://{address}",
                verify=pinned(certificate),
                timeout=WITHIN_S,
                trust_env=False,
            ) as http,
            http.stream("POST", JOIN, content=encode(ask)) as response,
        ):
            for piece in response.iter_raw():
                body += piece
                if len(body) > MOST_BYTES:
                    raise PeerError(f"what answers at {address} is no worker", _BETWEEN)
    except httpx.HTTPError as cause:
        raise _nobody(address, cause) from cause
    if response.status_code == 200:
        return decode(body, JoinReply)
    refusal = decode(body, Refusal)
    hint = f"{refusal.hint}; {_BETWEEN}" if refusal.code == "wrong_code" else refusal.hint
    raise PeerError(f"the worker refuses: {refusal.what}", hint, code=refusal.code)


def _nobody(address: str, cause: Exception) -> PeerLost:
    return PeerLost(
        f"no worker answers at {address}: {cause or type(cause).__name__}",
        "type appliance node on the worker box, and look at the cable and the address",
    )
