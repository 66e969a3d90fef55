"""Where the network finds this machine."""

import ipaddress
from pathlib import Path

import pytest

from appliance.fieldtypes import is_loopback
from appliance.lan import in_container, lan_addresses, lan_urls


def test_addresses_are_ipv4_each_once_and_never_loopback() -> None:
    found = lan_addresses()
    assert len(set(found)) == len(found)
    for address in found:
        assert ipaddress.IPv4Address(address)
        assert not is_loopback(address)


def test_interfaces_without_a_device_add_nothing(tmp_path: Path) -> None:
    assert set(lan_addresses(tmp_path)) <= set(lan_addresses())
    assert len(lan_addresses(tmp_path)) <= 1  # of the default route


def test_a_loopback_card_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "lo" / "device").mkdir(parents=True)
    assert "127.0.0.1" in lan_addresses(tmp_path)


def test_a_container_is_known_by_its_mark(tmp_path: Path) -> None:
    marks = (tmp_path / "docker", tmp_path / "podman")
    assert not in_container(marks)
    marks[1].touch()
    assert in_container(marks)


def test_urls_name_each_address_or_say_that_one_belongs_there() -> None:
    told = lan_urls("https", 9000, ("192.168.1.20", "10.0.0.4"))
    assert told == "https://192.168.1.20:9000 https://10.0.0.4:9000"
    assert lan_urls("http", 1, ()) == "http://ADDRESS-OF-THIS-BOX:1"


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        *((name, True) for name in ("127.0.0.1", "127.1.2.3", "::1", "localhost")),
        *((name, False) for name in ("0.0.0.0", "::", "192.168.1.20", "spark.local", "")),
    ],
)
def test_loopback_is_told_from_the_network(host: str, alone: bool) -> None:
    assert is_loopback(host) is alone
