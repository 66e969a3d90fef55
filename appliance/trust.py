"""Whom the appliance's own commands trust when they talk to one over HTTPS."""

import ssl
from pathlib import Path

from appliance.errors import SettingsError

_END = "-----END CERTIFICATE-----\n"


def trust(url: str, cert: Path | None, *, is_own: bool = False) -> ssl.SSLContext:
    """Return whom a client trusts at ``url``: the usual authorities, and ``cert``.

    ``is_own``: the appliance of this machine, by whatever address. Its certificate alone passes,
    and whatever name that is for. SSL_CERT_FILE counts as it does everywhere. Raises
    SettingsError for a certificate that cannot be read.
    """
    if not url.lower().startswith("https:"):
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # trusts nobody, and costs no 60 ms
    if cert is None:
        return ssl.create_default_context()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if is_own else ssl.create_default_context()
    context.check_hostname = not is_own
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(cadata=_own(cert.read_text(encoding="utf-8")))
    except (OSError, ValueError) as cause:  # ssl.SSLError is an OSError
        raise SettingsError(
            f"APPLIANCE_TLS_CERT={cert} cannot be read as a certificate: {cause}",
            "name the PEM file that the appliance serves",
        ) from cause
    return context


def _own(pem: str) -> str:
    """Return the first certificate, the server's own.

    With the authority above it trusted too, and no look at the name, anybody's certificate of
    that authority would pass.
    """
    own, end, _ = pem.partition(_END)
    return own + end
