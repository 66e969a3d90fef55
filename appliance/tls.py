"""TLS: the certificate that the appliance shows, and what is wrong with it."""

import ssl
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)

from appliance.errors import SettingsError

WARN_DAYS = 30  # before the end
_NEW = "appliance cert makes a pair"


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, seen to fit together and to be valid now."""

    cert: Path
    key: Path
    ends: datetime  # in UTC
    names: tuple[str, ...]  # host names and addresses that it is for
    is_key_open: bool  # others than its owner may read the key

    def days_left(self, now: datetime) -> int:
        """Return how many whole days it is still valid."""
        return (self.ends - now).days

    def warnings(self, now: datetime) -> tuple[tuple[str, str], ...]:
        """Return what to know of it, each with what to type."""
        told = []
        if (days := self.days_left(now)) < WARN_DAYS:
            end = f"{self.cert} ends in {days} days, on {self.ends:%Y-%m-%d}"
            told.append((end, "renew it; a self-signed one: appliance cert --replace"))
        if self.is_key_open:
            told.append((f"others may read {self.key}", f"chmod 600 {self.key}"))
        return tuple(told)


def load_identity(cert: Path | None, key: Path | None, now: datetime) -> Identity | None:
    """Return what to serve HTTPS with; None where nothing is set.

    Raises SettingsError that names the file: unreadable, no PEM, encrypted, of different pairs,
    expired, or refused by OpenSSL.
    """
    if cert is None or key is None:
        return None
    leaf = _read_leaf(cert)
    if _public(leaf) != _public(_read_key(key)):
        raise SettingsError(
            f"APPLIANCE_TLS_KEY={key} is not the key of APPLIANCE_TLS_CERT={cert}",
            f"name the two files of one pair (the server's own certificate first); {_NEW}",
        )
    _check_dates(cert, leaf, now)
    _try(cert, key)
    is_open = bool(key.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH))
    return Identity(cert, key, leaf.not_valid_after_utc, _names(leaf), is_open)


def _read_leaf(cert: Path) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificates(_read(cert, "APPLIANCE_TLS_CERT"))[0]
    except ValueError as cause:
        raise SettingsError(
            f"APPLIANCE_TLS_CERT={cert} is no certificate in PEM: {cause}",
            f"its first line reads -----BEGIN CERTIFICATE-----; {_NEW}",
        ) from None


def _read(path: Path, variable: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as cause:
        raise SettingsError(
            f"{variable}={path} cannot be read: {cause.strerror}",
            f"name a PEM file that this user may read; {_NEW}",
        ) from cause


def _read_key(path: Path) -> PrivateKeyTypes:
    pem = _read(path, "APPLIANCE_TLS_KEY")
    try:
        return load_pem_private_key(pem, password=None)
    except TypeError:  # nobody is there to be asked for a password
        raise SettingsError(
            f"APPLIANCE_TLS_KEY={path} is encrypted",
            f"openssl pkey -in {path} -out plain.pem, and chmod 600 plain.pem",
        ) from None
    except (ValueError, UnsupportedAlgorithm):  # which may quote what it could not read
        raise SettingsError(
            f"APPLIANCE_TLS_KEY={path} is no private key in PEM",
            f"its first line reads -----BEGIN PRIVATE KEY-----; {_NEW}",
        ) from None


def _public(pair: x509.Certificate | PrivateKeyTypes) -> bytes:
    return pair.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _check_dates(cert: Path, leaf: x509.Certificate, now: datetime) -> None:
    if now > leaf.not_valid_after_utc:
        raise SettingsError(
            f"APPLIANCE_TLS_CERT={cert} expired on {leaf.not_valid_after_utc:%Y-%m-%d}",
            "renew it; a self-signed one: appliance cert --replace",
        )
    if now < leaf.not_valid_before_utc:
        raise SettingsError(
            f"APPLIANCE_TLS_CERT={cert} is valid from {leaf.not_valid_before_utc:%Y-%m-%d %H:%M} "
            f"UTC on, and here it is {now:%Y-%m-%d %H:%M}",
            "look at the clock: timedatectl",
        )


def _try(cert: Path, key: Path) -> None:
    """Load the pair as the server will."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(cert, key)
    except (ssl.SSLError, OSError) as cause:
        raise SettingsError(
            f"OpenSSL refuses APPLIANCE_TLS_CERT={cert} with APPLIANCE_TLS_KEY={key}: {cause}",
            f"use a key of EC P-256, or of RSA with 2048 bits; {_NEW}",
        ) from cause


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        found = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = map(str, found.get_values_for_type(x509.IPAddress))
    return (*found.get_values_for_type(x509.DNSName), *addresses)


def now_utc() -> datetime:
    """Return the time, as certificates have it."""
    return datetime.now(UTC)
