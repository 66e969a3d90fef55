"""What the appliance accepts to serve HTTPS with, and what it says of the rest."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from appliance.errors import SettingsError
from appliance.tls import WARN_DAYS, Identity, load_identity, now_utc
from tests.pairs import NAMES, NOW, write_pair


def refusal(cert: Path, key: Path, now: datetime = NOW) -> str:
    with pytest.raises(SettingsError) as caught:
        load_identity(cert, key, now)
    assert caught.value.exit_code == 78
    assert caught.value.hint
    return str(caught.value)


def loaded(cert: Path, key: Path, now: datetime = NOW) -> Identity:
    identity = load_identity(cert, key, now)
    assert identity is not None
    return identity


def test_nothing_set_is_no_identity() -> None:
    assert load_identity(None, None, NOW) is None


def test_a_good_pair_tells_its_names_and_its_end_and_warns_of_nothing(tmp_path: Path) -> None:
    identity = loaded(*write_pair(tmp_path, days=90))
    assert identity.names == NAMES
    assert identity.ends == NOW + timedelta(days=90)
    assert identity.days_left(NOW) == 90
    assert identity.warnings(NOW) == ()


@pytest.mark.parametrize(("days", "warned"), [(WARN_DAYS, False), (WARN_DAYS - 1, True)])
def test_the_last_thirty_days_are_told(tmp_path: Path, days: int, warned: bool) -> None:
    identity = loaded(*write_pair(tmp_path, days=days))
    told = identity.warnings(NOW)
    assert bool(told) == warned
    assert all(f"ends in {days} days" in what and "appliance cert" in hint for what, hint in told)


def test_a_key_that_others_may_read_is_told(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path)
    key.chmod(0o640)
    assert loaded(cert, key).warnings(NOW) == ((f"others may read {key}", f"chmod 600 {key}"),)


def test_an_expired_certificate_is_refused_with_the_day(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path, days=10)
    said = refusal(cert, key, NOW + timedelta(days=11))
    assert f"{cert} expired on 2026-12-03" in said
    assert "--replace" in said


def test_a_certificate_of_tomorrow_points_at_the_clock(tmp_path: Path) -> None:
    said = refusal(*write_pair(tmp_path), NOW - timedelta(days=1))
    assert "timedatectl" in said
    assert "here it is 2026-11-22 09:30" in said


def test_files_of_two_pairs_are_refused_by_name(tmp_path: Path) -> None:
    cert, _ = write_pair(tmp_path / "a")
    _, key = write_pair(tmp_path / "b")
    said = refusal(cert, key)
    assert str(cert) in said
    assert f"{key} is not the key of" in said


@pytest.mark.parametrize("which", ["cert", "key"])
def test_a_file_that_is_not_there_is_named_with_its_variable(tmp_path: Path, which: str) -> None:
    files = dict(zip(("cert", "key"), write_pair(tmp_path), strict=True))
    files[which].unlink()
    said = refusal(files["cert"], files["key"])
    assert f"APPLIANCE_TLS_{which.upper()}={files[which]} cannot be read" in said
    assert "appliance cert" in said


@pytest.mark.parametrize("which", ["cert", "key"])
@pytest.mark.parametrize(
    "content", [b"", b"hello", b"\xff\xfe\0", b"-----BEGIN CERTIFICATE-----\n"]
)
def test_a_file_that_is_no_pem_is_named(tmp_path: Path, which: str, content: bytes) -> None:
    files = dict(zip(("cert", "key"), write_pair(tmp_path), strict=True))
    files[which].write_bytes(content)
    assert f"APPLIANCE_TLS_{which.upper()}={files[which]} is no " in refusal(
        files["cert"], files["key"]
    )


def test_the_two_files_swapped_are_refused(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path)
    assert "is no certificate" in refusal(key, cert)


def test_an_encrypted_key_is_refused_and_nobody_is_asked_for_its_password(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path)
    plain = load_pem_private_key(key.read_bytes(), None)
    cipher = BestAvailableEncryption(b"secret")
    key.write_bytes(plain.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, cipher))
    said = refusal(cert, key)
    assert f"{key} is encrypted" in said
    assert "openssl pkey" in said


def test_a_key_of_another_kind_does_not_fit(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path)
    other = rsa.generate_private_key(65537, 2048)
    key.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    assert "is not the key of" in refusal(cert, key)


def test_what_is_refused_never_quotes_the_key(tmp_path: Path) -> None:
    cert, key = write_pair(tmp_path)
    lines = key.read_text().splitlines()
    key.write_text("\n".join([lines[0], lines[1][:-8] + "!!!!!!!!", *lines[2:]]))
    assert lines[1][:20] not in refusal(cert, key)


def test_now_is_in_utc() -> None:
    assert now_utc().tzinfo is UTC
