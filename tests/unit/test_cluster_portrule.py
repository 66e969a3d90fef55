"""The text of the packet rule, and what of a host's state is read back from it."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.portrule import (
    Closed,
    checked,
    digest,
    is_in_force,
    parse_rule,
    rule_text,
    unit_text,
)
from appliance.errors import SettingsError

PICKED = (32768, 60999)
CLOSED = checked("enp1s0f0np0", "192.168.100.2", (9001, 29501), PICKED)
PORTS = st.integers(1024, 65535)
RULES = st.builds(
    checked,
    st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,14}", fullmatch=True),
    st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str),
    st.lists(PORTS, max_size=4).map(tuple),
    st.tuples(PORTS, PORTS).map(lambda ends: (min(ends), max(ends))),
)


@given(RULES)
def test_what_is_written_reads_back_as_it_was(closed: Closed) -> None:
    assert parse_rule(rule_text(closed)) == closed


@given(RULES, RULES)
def test_two_rules_never_carry_one_mark(one: Closed, other: Closed) -> None:
    assert (digest(one) == digest(other)) == (one == other)


@pytest.mark.parametrize("interface", ["", "a b", 'x"', "eth0;", "a" * 16, "-x", "é", "eth0\n"])
def test_an_interface_that_nft_would_read_otherwise_is_refused(interface: str) -> None:
    with pytest.raises(SettingsError, match="--cable"):
        checked(interface, "10.0.0.2", (9001,), PICKED)


@pytest.mark.parametrize("peer", ["", "10.0.0.0/8", "host", "10.0.0.2; accept", "10.0.0.2\n"])
def test_a_peer_that_is_no_address_is_refused(peer: str) -> None:
    with pytest.raises(SettingsError, match="--peer"):
        checked("eth0", peer, (9001,), PICKED)


@pytest.mark.parametrize(("ports", "picked"), [((22,), PICKED), ((), (1, 60999)), ((), (9, 8))])
def test_the_machine_s_own_services_are_never_closed(
    ports: tuple[int, ...], picked: tuple[int, int]
) -> None:
    with pytest.raises(SettingsError, match="1024"):
        checked("eth0", "10.0.0.2", ports, picked)


def test_only_what_opens_a_connection_is_dropped_and_the_peer_comes_first() -> None:
    text = rule_text(CLOSED)
    accepted = text.index('iifname "enp1s0f0np0" ip saddr 192.168.100.2 accept')
    dropped = text.index("tcp flags & (syn | ack) == syn tcp dport { 9001, 29501, 32768-60999 }")
    assert accepted < dropped
    assert "ip6 saddr fd00::2 accept" in rule_text(checked("eth0", "fd00::2", (), PICKED))
    assert [line for line in text.splitlines() if line.startswith(("table", "delete"))] == [
        "table inet unglitched",
        "delete table inet unglitched",
        "table inet unglitched {",
    ]


def test_the_unit_loads_the_file_before_the_network_and_removes_its_own_table_alone() -> None:
    lines = unit_text(CLOSED, "/etc/unglitched/ports.nft").splitlines()
    assert "Before=network-pre.target shutdown.target" in lines
    assert "ExecStart=/usr/sbin/nft -f /etc/unglitched/ports.nft" in lines
    assert "ExecStop=-/usr/sbin/nft delete table inet unglitched" in lines
    assert not any("flush" in line for line in lines)


@pytest.mark.parametrize(
    "text", ["", "table inet unglitched {}", "# for: {}", "# for: [1]", '# for: ["a;", 1, 2, 3]']
)
def test_a_file_of_somebody_else_s_is_none_of_ours(text: str) -> None:
    assert parse_rule(text) is None


def listed(**changes: object) -> str:
    rules = [{}, {}, {"comment": digest(CLOSED)}]
    found = {"hooks": ["input"], "rules": rules} | changes
    chains = [{"chain": {"hook": hook}} for hook in found["hooks"]]  # type: ignore[attr-defined]
    return json.dumps({"nftables": [*chains, *({"rule": rule} for rule in found["rules"])]})  # type: ignore[attr-defined]


def test_a_table_that_is_not_this_rule_whole_is_not_in_force() -> None:
    assert is_in_force(CLOSED, listed())
    other = checked("enp1s0f0np0", "192.168.100.3", (9001, 29501), PICKED)
    assert not is_in_force(other, listed())
    more = {"rules": [{}, {}, {}, {"comment": digest(CLOSED)}]}  # one let in by hand
    for text in (listed(**more), listed(hooks=[]), listed(rules=[]), "", "[]", "{}", "null"):
        assert not is_in_force(CLOSED, text)
