"""``appliance cert``: a certificate of one's own, and how clients come to trust it."""

import contextlib
import ipaddress
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from appliance.errors import HostError, SettingsError
from appliance.lan import in_container, machine_names
from appliance.tls import now_utc

DAYS = 825  # the most that Apple's clients take
SLACK = timedelta(hours=1)  # a client's clock may be behind


@dataclass(frozen=True)
class Pair:
    """A self-signed certificate and its key, in PEM."""

    cert: bytes
    key: bytes
    names: tuple[str, ...]
    ends: datetime
    fingerprint: str


def make_pair(names: Sequence[str], days: int, now: datetime) -> Pair:
    """Return a new pair for these names. Raises SettingsError for a name that is none."""
    if not 1 <= days <= 3650:
        raise SettingsError(f"--days {days} is not within 1 and 3650", f"leave it out: {DAYS}")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Unglitched {names[0]}"[:64])])
    ends = (now + timedelta(days=days)).replace(microsecond=0)
    public = key.public_key()
    builder = (
        x509.CertificateBuilder(subject, subject, public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - SLACK)
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName(list(map(_general, names))), critical=False)
        # No authority: who trusts it trusts this server, and nothing that its key might sign.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(public), critical=False)
    )
    cert = builder.sign(key, hashes.SHA256())
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    fingerprint = cert.fingerprint(hashes.SHA256()).hex(":").upper()
    return Pair(cert.public_bytes(Encoding.PEM), pem, tuple(names), ends, fingerprint)


def _usage() -> x509.KeyUsage:
    others = (
        *("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"),
        *("key_cert_sign", "crl_sign", "encipher_only", "decipher_only"),
    )
    return x509.KeyUsage(digital_signature=True, **dict.fromkeys(others, False))


def _general(name: str) -> x509.GeneralName:
    with contextlib.suppress(ValueError):
        return x509.IPAddress(ipaddress.ip_address(name))
    try:
        ascii_name = name.encode("idna").decode()
        if not name or any(letter in name for letter in "/:@ "):
            raise ValueError("a host name alone, or an address")
        return x509.DNSName(ascii_name)
    except ValueError as cause:  # UnicodeError too
        raise SettingsError(
            f"--host {name!r} is no name of a host: {cause}",
            "write it like --host spark.example.com or --host 192.168.1.20",
        ) from None


def write_cert(hosts: Sequence[str], folder: Path, days: int, *, replace: bool) -> int:
    """Make a pair for this machine and ``hosts``, write it, and say what to do with it."""
    is_boxed = in_container()
    if is_boxed and not hosts:
        print("in a container: name the machine as its clients do, with --host", file=sys.stderr)
    own = machine_names(is_boxed=is_boxed)
    names = tuple(dict.fromkeys((*(host.lower() for host in hosts), *own)))
    pair = make_pair(names, days, now_utc())
    cert, key = folder / "cert.pem", folder / "key.pem"
    if not replace and (there := [path for path in (cert, key) if path.exists()]):
        raise HostError(
            f"{there[0]} is there already: clients may trust it",
            "appliance cert --replace makes a new one; --out DIR puts it elsewhere",
        )
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(key, pair.key, 0o600)
        _write(cert, pair.cert, 0o644)
    except OSError as cause:
        raise HostError(
            f"{folder} cannot be written: {cause.strerror}", "name another folder: --out DIR"
        ) from cause
    print(instructions(pair, cert.absolute(), key.absolute()))
    return 0


def _write(path: Path, content: bytes, mode: int) -> None:
    """Write a new file beside it and put it in place: never half a one, never open to others."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.unlink(missing_ok=True)
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    fresh.replace(path)


def instructions(pair: Pair, cert: Path, key: Path) -> str:
    """Return what to type next, at the server and at its clients."""
    return f"""\
certificate  {cert}
             for {", ".join(pair.names)}
             until {pair.ends:%Y-%m-%d}, SHA-256 {pair.fingerprint}
key          {key}, which stays on this machine

serve with it:
  APPLIANCE_TLS_CERT={cert}
  APPLIANCE_TLS_KEY={key}

copy cert.pem, and nothing else, to each client, and trust it there before the client starts:
  Kilo Code, and all that runs on Node    export NODE_EXTRA_CA_CERTS=/path/to/cert.pem
  OpenAI's and Anthropic's Python clients export SSL_CERT_FILE=/path/to/cert.pem
  curl                                    --cacert /path/to/cert.pem"""
