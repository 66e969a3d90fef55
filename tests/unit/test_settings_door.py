"""Settings of the door: who can reach it, and over what."""

import pytest

from appliance.errors import SettingsError
from appliance.settings import PREFIX, Settings, load_settings

PAIR = {"TLS_CERT": "/tls/cert.pem", "TLS_KEY": "/tls/key.pem"}


def load(**variables: str) -> Settings:
    return load_settings({PREFIX + name: value for name, value in variables.items()})


def test_by_itself_it_listens_on_this_machine_alone() -> None:
    assert load().host == "127.0.0.1"
    assert load(LISTEN="loopback").host == "127.0.0.1"


def test_lan_listens_on_all_addresses_unless_one_is_named() -> None:
    assert load(LISTEN="lan").host == "0.0.0.0"
    assert load(LISTEN="lan", HOST="").host == "0.0.0.0"  # as compose hands over what is unset
    assert load(LISTEN="lan", HOST="192.168.1.20").host == "192.168.1.20"


def test_a_host_without_lan_is_taken_as_it_is() -> None:
    assert load(HOST="0.0.0.0").host == "0.0.0.0"
    assert load(HOST="0.0.0.0", LISTEN="loopback").host == "0.0.0.0"  # in a container


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1"])
def test_lan_on_a_loopback_address_is_a_contradiction(host: str) -> None:
    with pytest.raises(SettingsError, match=f"APPLIANCE_LISTEN=lan.*APPLIANCE_HOST={host}"):
        load(LISTEN="lan", HOST=host)


def test_any_other_word_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"APPLIANCE_LISTEN='wan'.*'loopback' or 'lan'"):
        load(LISTEN="wan")


@pytest.mark.parametrize("given", ["CERT", "KEY"])
def test_a_certificate_and_its_key_come_together(given: str) -> None:
    missing = {"CERT": "KEY", "KEY": "CERT"}[given]
    with pytest.raises(SettingsError, match=f"TLS_{given} is set and APPLIANCE_TLS_{missing} is "):
        load(**{f"TLS_{given}": "/tls/one.pem"})


def test_both_are_taken_and_none_is_plain_http() -> None:
    assert str(load(**PAIR).tls_key) == "/tls/key.pem"
    assert load().tls_cert is None
