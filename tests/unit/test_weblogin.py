"""Log-ins: random, bounded, ended by time, by hand, or with the key that opened them."""

from hypothesis import given
from hypothesis import strategies as st

from appliance.weblogin import Logins, csrf_of, is_csrf


def logins(idle_s: float = 60, total_s: float = 600, most: int = 4) -> Logins:
    return Logins(idle_s, total_s, most)


def test_a_token_is_found_until_it_has_idled_for_too_long() -> None:
    box = logins()
    token, login = box.begin(0)
    assert box.find(token, 59) is login
    assert box.find(token, 118) is login  # each look is use
    assert box.find(token, 178) is None
    assert login.is_over
    assert len(box) == 0


@given(st.lists(st.floats(0, 59), max_size=40))
def test_however_it_is_used_it_ends_at_its_time(pauses: list[float]) -> None:
    box = logins()
    token, login = box.begin(0)
    now = 0.0
    for pause in pauses:
        now += pause
        assert (box.find(token, now) is login) == (now < 600)
        assert login.left_s(now) == max(0.0, 600 - now)
        if now >= 600:
            return
    assert box.find(token, now + 600) is None


def test_who_listens_on_uses_it_and_is_told_when_it_is_over() -> None:
    box = logins()
    token, login = box.begin(0)
    assert all(login.is_good(now) for now in range(0, 600, 50))
    assert not login.is_good(600)
    assert not login.is_good(0)  # it never comes back
    assert box.find(token, 0) is None


def test_one_too_many_ends_the_oldest() -> None:
    box = logins(most=2)
    (first, oldest), *others = [box.begin(now) for now in range(3)]
    assert oldest.is_over
    assert box.find(first, 3) is None
    assert [box.find(token, 3) for token, _ in others] == [login for _, login in others]
    assert len(box) == 2


def test_an_end_ends_one_and_all_ends_all_for_those_who_listen_too() -> None:
    box = logins()
    (one, first), (other, second), (_, third) = [box.begin(0) for _ in range(3)]
    box.end(one)
    box.end("nobody's")
    assert (first.is_good(1), second.is_good(1)) == (False, True)
    box.end_all()
    assert not second.is_good(2)
    assert not third.is_good(2)
    assert box.find(other, 2) is None


def test_the_token_itself_is_nowhere_kept() -> None:
    box = logins()
    token, login = box.begin(0)
    assert token not in repr(vars(box))
    assert token not in repr(login)


@given(st.text(max_size=70))
def test_no_guess_is_a_log_in_nor_its_csrf_token(guess: str) -> None:
    box = logins()
    token, _ = box.begin(0)
    assert box.find(guess, 0) is None
    assert not is_csrf(token, guess)


def test_each_log_in_has_its_own_csrf_token() -> None:
    box = logins()
    (one, _), (other, _) = box.begin(0), box.begin(0)
    assert one != other
    assert is_csrf(one, csrf_of(one))
    assert not is_csrf(one, csrf_of(other))
    assert csrf_of(one) != one
