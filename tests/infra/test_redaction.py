"""A log line tells no secret, however it came into the line, and is one line."""

import pytest

from domain.api_key import key_from
from infra.redaction import HIDDEN, MAX_VALUE_LENGTH, hide_secrets, redacted

KEY = key_from(bytes(28))
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJlLXNpZ25hdHVyZQ"


@pytest.mark.parametrize(
    ("secret", "text"),
    [
        (KEY, f"the key {KEY} was refused"),
        (JWT, f"token {JWT}"),
        ("wb_1_" + "a" * 64, "agent sent wb_1_" + "a" * 64),
        ("hf_" + "aB3" * 11, "401 for hf_" + "aB3" * 11),
        ("hunter2secret", "postgres://inventiv:hunter2secret@db:5432/x"),
        ("hunter2secret", "nats://web:hunter2secret@127.0.0.1:4222"),
        ("c2VjcmV0LXNlY3JldA==", "Authorization: Basic c2VjcmV0LXNlY3JldA=="),
    ],
)
def test_what_looks_like_a_secret_is_hidden(secret: str, text: str) -> None:
    shown = redacted(text)
    assert secret not in shown
    assert HIDDEN in shown


@pytest.mark.parametrize("text", ["an ordinary sentence", "http://127.0.0.1:8003/healthz", "sk-inv-12ab34", "wk_0192"])
def test_what_is_no_secret_stays(text: str) -> None:
    assert redacted(text) == text


def test_secrets_hide_inside_of_structures_and_exceptions_too() -> None:
    line = hide_secrets(None, "info", {"event": "x", "data": {"password": "p", "list": [KEY]}, "error": OSError(KEY)})
    assert line["data"] == {"password": HIDDEN, "list": [f"sk-inv-{HIDDEN}"]}
    assert line["error"] == f"sk-inv-{HIDDEN}"


def test_numbers_and_nothing_stay_what_they_are() -> None:
    line = {"event": "x", "count": 3, "share": 0.5, "good": True, "none": None}
    assert hide_secrets(None, "info", dict(line)) == line


def test_a_value_cannot_paint_the_terminal() -> None:
    assert redacted("\x1b[31mred\u2028\r") == "\\x1b[31mred\\x2028\\x0d"


def test_a_long_value_is_cut() -> None:
    assert len(redacted("x" * 100_000)) < MAX_VALUE_LENGTH + 10
