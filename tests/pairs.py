"""Certificates for tests: made anew, with whatever is wrong with them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from appliance.selfsigned import make_pair

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=UTC)
NAMES = ("spark.example.com", "localhost", "127.0.0.1")


def write_pair(
    folder: Path, days: int = 825, now: datetime = NOW, names: Sequence[str] = NAMES
) -> tuple[Path, Path]:
    """Write a self-signed pair; return its certificate and its key."""
    folder.mkdir(parents=True, exist_ok=True)
    pair = make_pair(names, days, now)
    cert, key = folder / "cert.pem", folder / "key.pem"
    cert.write_bytes(pair.cert)
    key.write_bytes(pair.key)
    key.chmod(0o600)
    return cert, key
