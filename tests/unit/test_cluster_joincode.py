"""The join code, its proofs, and the desk that takes one head."""

import contextlib
import hashlib
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.cluster.joincode import SECRET_BYTES, head_proof, read, spell, worker_proof
from appliance.cluster.joindesk import BURNT_S, CODE_S, MOST_TRIES, TRY_EVERY_S, JoinDesk
from appliance.cluster.peer import PeerError
from appliance.cluster.wire import JoinAsk, JoinReply
from appliance.errors import SettingsError

SECRET = bytes(range(SECRET_BYTES))
OURS, ANOTHER = hashlib.sha256(b"ours").digest(), hashlib.sha256(b"another").digest()
NONCE = b"\x07" * 32
SECRETS = st.binary(min_size=SECRET_BYTES, max_size=SECRET_BYTES)
LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


# ---- the code


@given(SECRETS)
def test_a_code_reads_back_however_it_is_typed(secret: bytes) -> None:
    code = spell(secret)
    assert len(code) == 20
    typed = code.lower().replace("-", " ").replace("0", "o").replace("1", "l")
    assert read(code) == read(typed) == secret


@given(SECRETS, st.integers(0, 17), st.sampled_from(LETTERS))
def test_a_slip_of_one_letter_is_found_before_anything_is_sent(
    secret: bytes, at: int, letter: str
) -> None:
    letters = list(spell(secret).replace("-", ""))
    slipped = [*letters[:at], letter, *letters[at + 1 :]]
    if slipped == letters:
        assert read("".join(slipped)) == secret
        return
    with contextlib.suppress(SettingsError):  # two letters of check miss one slip in 1024
        assert read("".join(slipped)) != secret


def test_the_check_finds_nearly_every_slip() -> None:
    letters, missed = spell(SECRET).replace("-", ""), 0
    for at, letter in itertools.product(range(18), LETTERS):
        slipped = letters[:at] + letter + letters[at + 1 :]
        if slipped != letters:
            with contextlib.suppress(SettingsError):
                read(slipped)
                missed += 1
    assert missed <= 3  # of 558


@pytest.mark.parametrize(
    ("code", "why"), [("", "0 letters"), ("ABC-DEF", "6 letters"), ("U" * 18, "no 'U'")]
)
def test_what_is_no_code_is_named(code: str, why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        read(code)


# ---- the proofs


def test_a_proof_for_one_certificate_nonce_head_or_role_fits_no_other() -> None:
    key = b"k" * 32
    proofs = [
        head_proof(SECRET, OURS, NONCE, "head"),
        head_proof(SECRET, ANOTHER, NONCE, "head"),
        head_proof(SECRET, OURS, b"\x08" * 32, "head"),
        head_proof(SECRET, OURS, NONCE, "other"),
        head_proof(SECRET[::-1], OURS, NONCE, "head"),
        worker_proof(SECRET, OURS, NONCE, "head", key),
        worker_proof(SECRET, OURS, NONCE, "head", b"l" * 32),
        worker_proof(SECRET, OURS, NONCE, "headk", key),
    ]
    assert len(set(proofs)) == len(proofs)


# ---- the desk


def an_ask(
    secret: bytes = SECRET, fingerprint: bytes = OURS, nonce: bytes = NONCE, head: str = "head"
) -> JoinAsk:
    return JoinAsk(head, nonce.hex(), head_proof(secret, fingerprint, nonce, head).hex())


def a_desk(now: float = 0.0) -> JoinDesk:
    desk = JoinDesk(OURS, lambda count: b"\x11" * count)
    desk.issue(SECRET, now)
    return desk


def refused(desk: JoinDesk, ask: JoinAsk, now: float) -> str:
    with pytest.raises(PeerError) as error:
        desk.answer(ask, now)
    return error.value.code


def test_who_knows_the_code_gets_the_key_and_a_proof_of_it() -> None:
    key = b"\x11" * 32
    proof = worker_proof(SECRET, OURS, NONCE, "head", key)
    assert a_desk().answer(an_ask(), 1.0) == JoinReply(key.hex(), proof.hex())


def test_a_replayed_join_is_refused() -> None:
    desk = a_desk()
    desk.answer(an_ask(), 1.0)
    assert refused(desk, an_ask(), 1.0 + TRY_EVERY_S) == "no_code"


def test_a_proof_made_for_the_certificate_of_who_stands_between_is_refused() -> None:
    assert refused(a_desk(), an_ask(fingerprint=ANOTHER), 1.0) == "wrong_code"


def test_a_code_expires_by_a_clock_that_only_counts_on() -> None:
    assert refused(a_desk(), an_ask(), CODE_S) == "code_expired"
    desk = a_desk()
    assert not desk.wants_code(CODE_S - 1)
    assert desk.wants_code(CODE_S)


def test_a_code_burns_after_its_tries_and_the_right_one_comes_too_late() -> None:
    desk, wrong = a_desk(), an_ask(SECRET[::-1])
    codes = [refused(desk, wrong, at * TRY_EVERY_S) for at in range(MOST_TRIES)]
    assert codes == ["wrong_code"] * (MOST_TRIES - 1) + ["code_burnt"]
    burnt_at = (MOST_TRIES - 1) * TRY_EVERY_S
    assert refused(desk, an_ask(), burnt_at + 1) == "join_too_soon"
    assert not desk.wants_code(burnt_at + BURNT_S - 1)
    assert desk.wants_code(burnt_at + BURNT_S)
    assert refused(desk, an_ask(), burnt_at + BURNT_S) == "no_code"


def test_a_try_a_moment_after_another_is_not_looked_at() -> None:
    desk = a_desk()
    assert refused(desk, an_ask(SECRET[::-1]), 1.0) == "wrong_code"
    assert refused(desk, an_ask(), 1.0 + TRY_EVERY_S / 2) == "join_too_soon"
    assert desk.answer(an_ask(), 1.0 + TRY_EVERY_S)


def test_a_new_code_makes_the_one_before_worthless() -> None:
    desk = a_desk()
    desk.issue(SECRET[::-1], 1.0)
    assert refused(desk, an_ask(), 2.0) == "wrong_code"


@given(st.lists(st.tuples(st.floats(0.0, 700.0), SECRETS), max_size=20))
def test_no_history_of_guesses_gets_the_key(guesses: list[tuple[float, bytes]]) -> None:
    desk, now = a_desk(), 0.0
    for after_s, guess in guesses:
        now += after_s
        if guess != SECRET:
            assert refused(desk, an_ask(guess), now) != ""
