"""The file of named keys: written whole, kept shut, read anew, and never a key in it."""

import json
import resource
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.clientkeys import (
    LOOK_S,
    MOST,
    RESERVED,
    ClientKey,
    KeyFile,
    add_key,
    digest,
    format_keys,
    parse_keys,
    read_keys,
    revoke_key,
)
from appliance.errors import HostError


@dataclass
class Clock:
    """A clock that the test turns."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "client_keys.toml"


NAMES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,31}", fullmatch=True).filter(
    lambda name: name not in RESERVED
)
LIMITS = st.none() | st.integers(1, 10**6)
KEYS = st.builds(
    ClientKey,
    NAMES,
    st.binary(min_size=32, max_size=32),
    st.just("") | st.dates().map(str),
    LIMITS,
    LIMITS | st.just(0),
)


@given(st.lists(KEYS, max_size=8, unique_by=lambda key: key.name))
def test_what_is_written_is_read_back(keys: list[ClientKey]) -> None:
    assert parse_keys(format_keys(keys), "here") == tuple(keys)


def test_a_key_is_kept_as_a_digest_alone(path: Path) -> None:
    secret = add_key(path, "laptop")
    assert len(secret) == 64
    assert secret not in path.read_text()
    assert [key.sha256 for key in read_keys(path)] == [digest(secret)]


def test_the_file_is_its_owners_alone_even_if_it_was_not(path: Path) -> None:
    path.write_text("")
    path.chmod(0o644)
    add_key(path, "laptop")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_file_is_no_keys_and_its_folder_is_made_with_the_first(path: Path) -> None:
    deep = path.parent / "new" / "keys.toml"
    assert read_keys(deep) == ()
    add_key(deep, "laptop")
    assert [key.name for key in read_keys(deep)] == ["laptop"]


def test_a_name_that_is_taken_is_kept_unless_it_is_to_be_replaced(path: Path) -> None:
    first = add_key(path, "laptop", max_running=1)
    with pytest.raises(HostError, match="already") as caught:
        add_key(path, "laptop")
    assert "--replace" in caught.value.hint
    second = add_key(path, "laptop", max_waiting=3, replace=True)
    (key,) = read_keys(path)
    assert key == ClientKey("laptop", digest(second), key.made, None, 3)
    assert first != second


def test_revoking_leaves_the_others_as_they_were(path: Path) -> None:
    for name in ("a", "b", "c"):
        add_key(path, name)
    before = read_keys(path)
    revoke_key(path, "b")
    assert read_keys(path) == (before[0], before[2])


def test_revoking_what_is_not_there_names_what_is(path: Path) -> None:
    add_key(path, "laptop")
    with pytest.raises(HostError, match="no key 'desktop'; there are: laptop"):
        revoke_key(path, "desktop")


ODD_NAMES = ["", "Laptop", "a b", "-a", "a" * 33, "ü", "a\n", 'a"]', "a\x1b[2J", "\u202ea", "a/b"]


@pytest.mark.parametrize("name", [*ODD_NAMES, *RESERVED])
def test_a_name_that_no_label_could_hold_is_refused(path: Path, name: str) -> None:
    with pytest.raises(HostError) as caught:
        add_key(path, name)
    assert caught.value.what.isprintable()
    assert not path.exists()


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_file_with_an_odd_name_is_refused_in_plain_letters(name: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_keys(f"[{json.dumps(name)}]\nsha256 = '{'0' * 64}'", "here")
    assert "is no name for a key" in caught.value.what
    assert caught.value.what.isprintable()


def row(made: str) -> str:
    return f"[laptop]\nsha256 = '{'0' * 64}'\nmade = {made}\n"


@pytest.mark.parametrize("made", ["'2026-11-23'", "2026-11-23", '"2026-11-23"', "'20261123'"])
def test_the_day_that_a_key_was_made_is_read_in_any_spelling_and_written_in_one(made: str) -> None:
    (key,) = parse_keys(row(made), "here")
    assert key.made == "2026-11-23"
    assert 'made = "2026-11-23"' in format_keys([key])


@pytest.mark.parametrize(
    "made",
    [
        *("7", "true", "[]", "{}", "'yesterday'", "'2026-13-01'", "2026-11-23T10:00:00"),
        *('"2026-11-23\\u001b[2J"', '"\\u202e"', '"a\\"\\n[operator]\\nb"', f"'{'9' * 9000}'"),
    ],
)
def test_what_is_no_day_is_refused_in_plain_letters_and_never_printed(made: str) -> None:
    with pytest.raises(HostError) as caught:
        parse_keys(row(made), "here")
    assert "[laptop] made=" in caught.value.what
    assert caught.value.what.isprintable()
    assert len(caught.value.what) < 200


def test_there_is_a_most_of_keys(path: Path) -> None:
    key = ClientKey("a", bytes(32))
    path.write_text(format_keys(replace(key, name=f"k{n}") for n in range(MOST)))
    with pytest.raises(HostError, match=f"there are {MOST} keys"):
        add_key(path, "one-more")
    add_key(path, "k0", replace=True)
    assert len(read_keys(path)) == MOST


def test_keys_made_at_once_are_all_kept(path: Path) -> None:
    names = [f"k{n}" for n in range(12)]
    with ThreadPoolExecutor(4) as pool:
        secrets = list(pool.map(lambda name: add_key(path, name), names))
    kept = {key.name: key.sha256 for key in read_keys(path)}
    assert kept == {name: digest(key) for name, key in zip(names, secrets, strict=True)}


GOOD = f'sha256 = "{"0" * 64}"'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a", "no TOML"),
        ("a = 1", "no table"),
        ("[a]", "needs sha256"),
        ('[a]\nsha256 = "abc"', "needs sha256"),
        (f"[A]\n{GOOD}", "no name"),
        (f"[operator]\n{GOOD}", "always"),
        (f'[a]\n{GOOD}\nkey = "x"', "no field 'key'"),
        (f"[a]\n{GOOD}\nmax_running = 0", "max_running=0"),
        (f"[a]\n{GOOD}\nmax_running = true", "max_running=True"),
        (f'[a]\n{GOOD}\nmax_waiting = "4"', "max_waiting='4'"),
        (f"[a]\n{GOOD}\nmax_waiting = -1", "max_waiting=-1"),
        ("\n".join(f"[k{n}]\n{GOOD}" for n in range(MOST + 1)), "more than"),
    ],
)
def test_a_file_that_cannot_be_meant_is_an_error_that_names_what(
    path: Path, text: str, says: str
) -> None:
    path.write_text(text)
    with pytest.raises(HostError, match=says) as caught:
        KeyFile(path)
    assert str(path) in caught.value.what


def test_a_file_that_is_no_text_is_an_error_and_stays_as_it_is(path: Path) -> None:
    path.write_bytes(b"\xff")
    with pytest.raises(HostError, match="cannot be used"):
        add_key(path, "laptop")
    assert path.read_bytes() == b"\xff"


def test_a_folder_that_cannot_be_written_names_the_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(HostError, match="cannot be written") as caught:
        add_key(tmp_path / "file" / "keys.toml", "laptop")
    assert "APPLIANCE_CLIENT_KEYS" in caught.value.hint


# ---- while it runs


def test_the_file_is_looked_at_once_a_second_at_most(path: Path) -> None:
    clock = Clock()
    keys = KeyFile(path, clock)
    add_key(path, "laptop")
    clock.now += LOOK_S / 2
    assert keys.current() == ()
    clock.now += LOOK_S / 2
    assert [key.name for key in keys.current()] == ["laptop"]


def test_what_has_not_changed_is_the_same_object(path: Path) -> None:
    clock = Clock()
    add_key(path, "laptop")
    keys = KeyFile(path, clock)
    before = keys.current()
    clock.now += 10 * LOOK_S
    assert keys.current() is before


def test_a_slip_of_the_pen_keeps_the_keys_that_there_were(path: Path) -> None:
    clock = Clock()
    add_key(path, "laptop")
    keys = KeyFile(path, clock)
    good = path.read_text()
    path.write_text("[laptop")
    clock.now += LOOK_S
    assert [key.name for key in keys.current()] == ["laptop"]
    path.write_text(good.replace("laptop", "desktop"))
    clock.now += LOOK_S
    assert [key.name for key in keys.current()] == ["desktop"]


def test_a_file_that_is_gone_takes_its_keys_along(path: Path) -> None:
    clock = Clock()
    add_key(path, "laptop")
    keys = KeyFile(path, clock)
    path.unlink()
    clock.now += LOOK_S
    assert keys.current() == ()


def test_a_revoked_key_ends_though_the_first_look_at_it_failed(path: Path) -> None:
    clock = Clock()
    add_key(path, "laptop")
    keys = KeyFile(path, clock)
    revoke_key(path, "laptop")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))  # no file can be opened
    try:
        clock.now += LOOK_S
        assert [key.name for key in keys.current()] == ["laptop"]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    clock.now += LOOK_S
    assert keys.current() == ()
