"""Small values that several aggregates share."""

import re
from typing import Literal, NewType

import msgspec

Sealed = NewType("Sealed", str)
"""Personal data as ciphertext under its person's own key; only the vault opens it. Without the key it is forgotten."""

Digest = NewType("Digest", str)
"""Keyed hash of a unique personal value (a username, an e-mail address), so that it can be compared but not read."""

Plan = Literal["free", "subscriber"]
"""Of a person or an organisation: which models of others it reaches (SPEC 6.2)."""

MAX_SLUG_LENGTH = 64
MAX_NAME_LENGTH = 100


class Refusal(msgspec.Struct, frozen=True):
    """Why an intent was turned down: one of the SPEC's codes and a sentence."""

    code: str
    message: str


def slug_of(name: str, fallback: str) -> str:
    """Lowercase letters and digits, every other run as one hyphen, at most 64 characters; else `fallback`."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:MAX_SLUG_LENGTH].rstrip("-")
    return slug or fallback
