"""An e-mail address as a request spells it."""

import re

from web.errors import ApiError

MAX_EMAIL_LENGTH = 254
"""RFC 5321's longest path."""
_EMAIL = re.compile(r"[^\s@<>\"(),:;\[\]\\]{1,64}@[^\s@<>\"(),:;\[\]\\.]+(\.[^\s@<>\"(),:;\[\]\\.]+)+")
"""One address and nothing around it; whether it exists only its mail server knows."""


def checked_email(text: str) -> str:
    """Without the blanks around it. Raises ApiError: 400 email_required, invalid_email_format."""
    email = text.strip()
    if not email:
        raise ApiError(400, "email_required", "Give an e-mail address.")
    if len(email) > MAX_EMAIL_LENGTH or not email.isprintable() or not _EMAIL.fullmatch(email):
        raise ApiError(400, "invalid_email_format", "An e-mail address is written like name@example.org.")
    return email
