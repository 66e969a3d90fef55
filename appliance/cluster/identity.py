"""A node's own certificate: who it is, for as long as its state folder is there."""

import hashlib
import os
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from appliance.errors import HostError
from appliance.statefile import write_private

# A box without a battery for its clock boots in 1970: the certificate is pinned, and its dates
# mean nothing. RFC 5280 writes "no end" as this.
_BEGIN = datetime(1970, 1, 1, tzinfo=UTC)
_END = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
_FILE = "node.pem"


@dataclass(frozen=True)
class Identity:
    """A file with the key and the certificate, and the certificate's SHA-256."""

    file: Path
    fingerprint: bytes


def ensure_identity(folder: Path) -> Identity:
    """Return the identity kept in ``folder``, made (0600) on first use. Raises HostError."""
    file = folder / _FILE
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not file.exists():
            write_private(file, _new())
        os.chmod(file, 0o600)
        return Identity(file, fingerprint_of(file.read_text(encoding="ascii")))
    except (OSError, ValueError) as cause:
        raise HostError(
            f"{file} cannot be used: {cause}",
            "delete it: a new one is made, and the head must join again",
        ) from cause


def fingerprint_of(pem: str) -> bytes:
    """Return the SHA-256 of the certificate in a PEM text. Raises ValueError."""
    begin = pem.find("-----BEGIN CERTIFICATE-----")
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem[max(begin, 0) :])).digest()


def _new() -> bytes:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Unglitched node")])
    cert = (
        x509.CertificateBuilder(name, name, key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_BEGIN)
        .not_valid_after(_END)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return pem + cert.public_bytes(Encoding.PEM)


def pinned(pem: str) -> ssl.SSLContext:
    """Return a client's trust in this certificate alone, whatever name or address it is at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.load_verify_locations(cadata=pem)
    return context
