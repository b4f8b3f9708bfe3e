"""Which passwords may be chosen."""

import pytest
from hypothesis import given as forall
from hypothesis import strategies as st

from web.password_rules import MAX_PASSWORD_LENGTH, is_guessable, weakness_of

OWN = ("ann-smith", "ann.smith@wonderland.example", "Ann", "Smithereen")


def code_of(password: str, min_length: int = 15) -> str:
    weak = weakness_of(password, min_length=min_length, own_words=OWN)
    return weak.code if weak else ""


@pytest.mark.parametrize(
    "password",
    [
        "violet teapots sing",
        "7Gk2pQwz9LmX4vTb",
        "the kettle's on the left shelf",
        "наливайте чай вовремя",
        "ein Regenbogen über dem Fjord",
        "   spaces   count   too   ",
        "a password that is long",
    ],
)
def test_a_sentence_or_chance_will_do(password: str) -> None:
    assert code_of(password) == ""


@pytest.mark.parametrize(
    "password",
    [
        "passwordpassword",
        "Passw0rd123456789",
        "P@ssw0rd!P@ssw0rd!",
        "changeme-changeme",
        "administrator2026",
        "inventivinventiv",
        "Inventiv-Agents-2026",
        "correct horse battery staple",
        "correcthorsebatterystaple",
        "qwertyuiopasdfgh",
        "azertyuiopqsdfghjklm",
        "123456789012345678",
        "987654321098765432",
        "abcdefghijklmnopqr",
        "aaaaaaaaaaaaaaaaaa",
        "abcxyzabcxyzabcxyz",
        "!!!!????!!!!????!!!!",
        "motdepasse motdepasse",
    ],
)
def test_what_is_guessed_first_is_refused(password: str) -> None:
    assert code_of(password) == "password_too_common"


@pytest.mark.parametrize(
    "password",
    ["ann.smith@wonderland.example", "Wonderland-Smithereen", "smith-ann-smith-ann-smith", "SMITHEREEN1234567"],
)
def test_a_password_is_not_made_of_ones_own_names(password: str) -> None:
    assert code_of(password) == "password_too_common"


def test_anothers_names_are_no_secret_of_mine() -> None:
    assert weakness_of("Wonderland-Smithereen", min_length=15) is None


def test_length_is_counted_in_characters() -> None:
    assert code_of("é" * 14) == "password_too_short"
    assert code_of("violet teapots", min_length=15) == "password_too_short"
    assert code_of("violet teapots", min_length=14) == ""
    long = "violet teapots sing " * 6 + "violetts"
    assert (len(long), code_of(long)) == (MAX_PASSWORD_LENGTH, "")
    assert code_of(long + "x") == "password_too_long"


def test_a_refusal_never_repeats_the_password() -> None:
    for password in ("short", "passwordpassword", "x" * 200):
        weak = weakness_of(password, min_length=15)
        assert weak is not None
        assert password not in weak.message


_LETTERS = st.text(max_size=160)


@forall(_LETTERS, st.integers(8, 128))
def test_any_text_is_judged_and_length_always_counts(password: str, min_length: int) -> None:
    weak = weakness_of(password, min_length=min_length, own_words=OWN)
    if len(password) < min_length:
        assert weak is not None
        assert weak.code == "password_too_short"
    if weak is None:
        assert min_length <= len(password) <= MAX_PASSWORD_LENGTH


@forall(st.sampled_from(["password", "inventiv", "qwertyuiop", "1234567890", "smithereen"]), st.integers(2, 8))
def test_repeating_a_guessable_part_makes_nothing_of_it(part: str, times: int) -> None:
    assert is_guessable(part * times, OWN)
