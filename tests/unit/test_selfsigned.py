"""``appliance cert``: what it makes, where it puts it, and what it says."""

import ipaddress
import socket
import ssl
import stat
import threading
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

from appliance.cli import main
from appliance.errors import SettingsError
from appliance.lan import machine_names
from appliance.selfsigned import DAYS, make_pair
from appliance.tls import load_identity, now_utc
from appliance.trust import trust
from tests.pairs import NOW, write_pair


def test_a_pair_is_ec_p256_for_its_names_and_no_authority() -> None:
    pair = make_pair(("spark.example.com", "192.168.1.20", "::1"), DAYS, NOW)
    cert = x509.load_pem_x509_certificate(pair.cert)
    public = cert.public_key()
    assert isinstance(public, EllipticCurvePublicKey)
    assert public.curve.name == "secp256r1"
    names = cert.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["spark.example.com"]
    addresses = [ipaddress.ip_address("192.168.1.20"), ipaddress.ip_address("::1")]
    assert names.get_values_for_type(x509.IPAddress) == addresses
    assert not cert.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    assert (cert.not_valid_after_utc - NOW).days == DAYS
    assert cert.not_valid_before_utc < NOW


def test_two_pairs_differ_in_key_and_number() -> None:
    one, two = (make_pair(("a",), DAYS, NOW) for _ in range(2))
    assert one.key != two.key
    assert one.fingerprint != two.fingerprint


def test_this_machine_is_reached_by_its_name_and_on_loopback() -> None:
    names = machine_names(is_boxed=False)
    assert names[0] == socket.gethostname().lower()
    assert names[-3:] == ("localhost", "127.0.0.1", "::1")
    assert len(set(names)) == len(names)


def test_a_container_knows_of_no_name_but_loopback() -> None:
    assert machine_names(is_boxed=True) == ("localhost", "127.0.0.1", "::1")


@pytest.mark.parametrize("name", ["", "a b", "http://spark", "spark:9000", "user@spark", "a" * 300])
def test_a_host_that_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="--host"):
        make_pair((name,), DAYS, NOW)


@pytest.mark.parametrize("days", [0, -1, 3651])
def test_days_out_of_reason_are_refused(days: int) -> None:
    with pytest.raises(SettingsError, match="--days"):
        make_pair(("a",), days, NOW)


# ---- the command


def test_the_key_is_for_its_owner_alone_and_the_pair_is_served(tmp_path: Path) -> None:
    assert main(["cert", "--out", str(tmp_path / "new" / "tls")]) == 0
    cert, key = tmp_path / "new/tls/cert.pem", tmp_path / "new/tls/key.pem"
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE(key.parent.stat().st_mode) == 0o700
    identity = load_identity(cert, key, now_utc())
    assert identity is not None
    assert identity.warnings(now_utc()) == ()
    assert [path.name for path in sorted(key.parent.iterdir())] == ["cert.pem", "key.pem"]


def test_the_state_folder_is_where_it_goes_by_itself(tmp_path: Path) -> None:
    assert main(["cert", "--state-dir", str(tmp_path)]) == 0
    assert (tmp_path / "tls" / "key.pem").exists()


def test_a_pair_that_is_there_stays_unless_it_is_to_be_replaced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cert, key = write_pair(tmp_path)
    before = (cert.read_bytes(), key.read_bytes())
    assert main(["cert", "--out", str(tmp_path)]) == 1
    assert "--replace" in capsys.readouterr().err
    assert (cert.read_bytes(), key.read_bytes()) == before
    assert main(["cert", "--out", str(tmp_path), "--replace"]) == 0
    assert (cert.read_bytes(), key.read_bytes()) != before
    assert load_identity(cert, key, now_utc()) is not None


def test_it_says_where_all_is_and_how_kilo_and_openai_trust_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["cert", "--out", str(tmp_path), "--host", "Spark.Example.com"]) == 0
    said = capsys.readouterr().out
    for text in (
        f"APPLIANCE_TLS_CERT={tmp_path / 'cert.pem'}",
        f"APPLIANCE_TLS_KEY={tmp_path / 'key.pem'}",
        *("NODE_EXTRA_CA_CERTS=", "SSL_CERT_FILE=", "--cacert", "spark.example.com"),
    ):
        assert text in said
    assert "BEGIN" not in said


def test_a_folder_that_cannot_be_written_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert main(["cert", "--out", str(tmp_path / "file" / "tls")]) == 1
    assert "--out DIR" in capsys.readouterr().err


# ---- whom a client trusts


def handshake(server: tuple[Path, Path], client: ssl.SSLContext, name: str) -> None:
    """Shake hands over a socket pair. Raises ssl.SSLError when the client does not trust."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*server)
    ours, theirs = socket.socketpair()

    def serve() -> None:
        try:
            context.wrap_socket(theirs, server_side=True).close()
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        client.wrap_socket(ours, server_hostname=name).close()
    finally:
        ours.close()
        thread.join()


def test_pinned_its_certificate_passes_by_any_name_and_no_other_does(tmp_path: Path) -> None:
    ours = write_pair(tmp_path / "ours", now=now_utc())
    other = write_pair(tmp_path / "other", now=now_utc())
    own = trust("https://127.0.0.1:9000", ours[0], is_own=True)
    handshake(ours, own, "not-in-the-certificate")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(other, own, "localhost")


def test_of_a_chain_the_servers_own_alone_is_pinned(tmp_path: Path) -> None:
    ours = write_pair(tmp_path / "ours", now=now_utc())
    above = write_pair(tmp_path / "above", now=now_utc())
    ours[0].write_text(ours[0].read_text() + above[0].read_text())
    own = trust("https://127.0.0.1:9000", ours[0], is_own=True)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(above, own, "localhost")


def test_elsewhere_the_name_must_be_right_too(tmp_path: Path) -> None:
    ours = write_pair(tmp_path, now=now_utc())
    client = trust("https://spark.example.com:9000", ours[0])
    handshake(ours, client, "spark.example.com")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(ours, client, "another.example.com")


def test_without_a_word_nobody_self_signed_is_trusted(tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(
            write_pair(tmp_path, now=now_utc()), trust("https://localhost", None), "localhost"
        )


def test_the_certificate_passes_the_strict_checks_of_newer_pythons(tmp_path: Path) -> None:
    ours = write_pair(tmp_path, now=now_utc())
    strict = ssl.create_default_context(cafile=str(ours[0]))
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    handshake(ours, strict, "localhost")


def test_a_certificate_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_text("hello")
    for missing in ("no.pem", "c.pem"):
        with pytest.raises(SettingsError, match=missing):
            trust("https://localhost", tmp_path / missing, is_own=True)
