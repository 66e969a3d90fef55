"""The keys: made once, kept shut, compared whole; and what each opens."""

import ast
import inspect
import stat
import textwrap
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import keys
from appliance.clientkeys import (
    LOOK_S,
    ClientKey,
    KeyFile,
    add_key,
    digest,
    format_keys,
    revoke_key,
)
from appliance.errors import HostError
from appliance.fairqueue import Share
from appliance.keys import Access, Caller, Keys, bearer, ensure_key
from tests.unit.test_clientkeys import Clock

KEYS = Keys(client="client-key", operator="operator-key")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# ---- the files


def test_a_key_is_made_once_and_then_reused(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    key = ensure_key(path, None)
    assert len(key) >= 32
    assert ensure_key(path, None) == key
    assert path.read_text() == f"{key}\n"


def test_a_new_key_is_readable_by_its_owner_alone(tmp_path: Path) -> None:
    ensure_key(tmp_path / "api_key", None)
    assert mode(tmp_path / "api_key") == 0o600


def test_two_keys_are_never_the_same(tmp_path: Path) -> None:
    assert ensure_key(tmp_path / "a", None) != ensure_key(tmp_path / "b", None)


def test_a_file_that_others_may_read_is_tightened(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_text("my-own-key\n")
    path.chmod(0o644)
    assert ensure_key(path, None) == "my-own-key"
    assert mode(path) == 0o600


def test_a_given_key_is_used_and_not_written(tmp_path: Path) -> None:
    assert ensure_key(tmp_path / "api_key", "given") == "given"
    assert not (tmp_path / "api_key").exists()


@pytest.mark.parametrize("content", ["", "\n", "  \n"])
def test_an_empty_key_file_is_an_error_that_says_what_to_do(tmp_path: Path, content: str) -> None:
    path = tmp_path / "api_key"
    path.write_text(content)
    with pytest.raises(HostError, match="is empty") as caught:
        ensure_key(path, None)
    assert str(path) in caught.value.what
    assert "delete it" in caught.value.hint


def test_a_key_file_that_holds_no_text_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(HostError, match="cannot be used"):
        ensure_key(path, None)


def test_a_folder_in_the_files_place_is_an_error_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "api_key"
    path.mkdir(mode=0o755)
    before = mode(path)
    with pytest.raises(HostError, match="cannot be used"):
        ensure_key(path, None)
    assert mode(path) == before


def test_a_missing_folder_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "api_key"
    with pytest.raises(HostError, match="gone/api_key") as caught:
        ensure_key(path, None)
    assert "APPLIANCE_STATE_DIR" in caught.value.hint


# ---- what a key opens


@pytest.mark.parametrize(
    ("presented", "access"),
    [
        ("client-key", Access.CLIENT),
        ("operator-key", Access.OPERATOR),
        ("", Access.NOBODY),
        ("client-ke", Access.NOBODY),
        ("client-key ", Access.NOBODY),
        ("CLIENT-KEY", Access.NOBODY),
        ("schlüssel", Access.NOBODY),
    ],
)
def test_a_key_opens_what_it_is_for(presented: str, access: Access) -> None:
    assert KEYS.caller(presented).access is access


HEADERS = st.text(st.characters(max_codepoint=255), max_size=20)  # as Latin-1 is read


@given(HEADERS.filter(lambda text: text not in ("client-key", "operator-key")))
def test_nothing_else_opens_anything(presented: str) -> None:
    assert KEYS.caller(presented).access is Access.NOBODY


def test_an_operator_may_what_a_client_may() -> None:
    assert Access.OPERATOR > Access.CLIENT > Access.NOBODY


def test_keys_are_compared_in_constant_time_only() -> None:
    tree = ast.parse(inspect.getsource(keys.Keys))
    compared = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Compare)]
    calls = [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert compared == ["named is not self._known"]  # two tuples, and no key in it
    assert calls.count("secrets.compare_digest") == 1
    caller = ast.parse(textwrap.dedent(inspect.getsource(keys.Keys.caller)))
    leaves = [node for node in ast.walk(caller) if isinstance(node, (ast.Break, ast.Return))]
    assert len(leaves) == 1  # at its end: every key is looked at


# ---- named keys


def test_a_named_key_opens_what_a_client_may_under_its_name(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    secret = add_key(path, "laptop", max_running=1, max_waiting=2)
    caller = Keys("client-key", "operator-key", KeyFile(path)).caller(secret)
    assert caller == Caller(Access.CLIENT, Share("laptop", 1, 2))


def test_the_two_keys_keep_their_names_beside_named_ones(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    add_key(path, "laptop")
    known = Keys("client-key", "operator-key", KeyFile(path))
    shares = [known.caller(key).share for key in ("client-key", "operator-key", "neither", "")]
    assert shares == [Share("default"), Share("operator"), Share("nobody"), Share("nobody")]


def test_a_file_cannot_turn_the_operators_key_into_a_clients(tmp_path: Path) -> None:
    path = tmp_path / "keys.toml"
    path.write_text(format_keys([ClientKey("twin", digest("operator-key"))]))
    known = Keys("client-key", "operator-key", KeyFile(path))
    assert known.caller("operator-key").access is Access.OPERATOR


def test_a_new_and_a_revoked_key_count_within_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "keys.toml", Clock()
    known = Keys("client-key", "operator-key", KeyFile(path, clock))
    secret = add_key(path, "laptop")
    clock.now += LOOK_S
    assert known.caller(secret).access is Access.CLIENT
    revoke_key(path, "laptop")
    clock.now += LOOK_S
    assert known.caller(secret).access is Access.NOBODY


# ---- where a request carries it


@pytest.mark.parametrize(
    "authorization",
    ["Bearer k", "bearer k", "BEARER k", "Bearer  k", "Bearer k ", " Bearer k", "bEaReR   k  "],
)
def test_a_bearer_is_read_in_odd_spellings(authorization: str) -> None:
    assert bearer(authorization, None) == "k"


@pytest.mark.parametrize("authorization", [None, "", "Basic dXNlcg==", "Bearer", "Bearer ", "k"])
def test_without_a_bearer_anthropics_header_counts(authorization: str | None) -> None:
    assert bearer(authorization, " k ") == "k"
    assert bearer(authorization, None) == ""


def test_a_bearer_goes_before_anthropics_header() -> None:
    assert bearer("Bearer first", "second") == "first"


# ---- another operator key, while it runs


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    path = tmp_path / "operator_key"
    path.write_text("operator-key\n")
    return path


def test_a_new_operator_key_is_taken_and_the_old_one_opens_nothing(kept: Path) -> None:
    ring = Keys("client-key", "operator-key", None, kept)
    assert not ring.look()
    kept.write_text("another-key\n")
    assert ring.look()
    assert not ring.look()  # told once
    assert ring.caller("another-key").access is Access.OPERATOR
    assert ring.caller("operator-key").access is Access.NOBODY
    assert ring.caller("client-key").access is Access.CLIENT


def test_no_key_in_the_file_is_no_key_at_all_until_there_is_one(kept: Path) -> None:
    ring = Keys("client-key", "operator-key", None, kept)
    for revoke in (kept.unlink, lambda: kept.write_text(""), lambda: kept.write_text("client-key")):
        kept.write_text("operator-key")
        ring.look()
        assert ring.caller("operator-key").access is Access.OPERATOR
        revoke()
        assert ring.look()
        assert ring.caller("operator-key").access is Access.NOBODY
        assert ring.caller("").access is Access.NOBODY
        assert ring.caller("client-key").access is Access.CLIENT


def test_a_given_operator_key_is_looked_for_nowhere() -> None:
    ring = Keys("client-key", "operator-key")
    assert not ring.look()
    assert ring.caller("operator-key").access is Access.OPERATOR
