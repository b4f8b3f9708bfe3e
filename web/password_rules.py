"""Which passwords may be chosen: length above all (NIST SP 800-63B), and none that a guesser tries first.

No classes of characters are asked for, and nothing is ever cut off. A password is refused as too common when it *is* a
well-known one, or when little remains of it after its guessable parts are taken out: well-known words, the product's,
the person's own, runs like "1234" and repeats like "aaaa". The surprising rule: that is judged in lower case and with
"p4ssw0rd" read as "password", for guessers do so too.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

MAX_PASSWORD_LENGTH = 128
MIN_UNGUESSABLE = 8
"""Characters that must remain when everything guessable is taken out."""
MIN_OWN_WORD = 4
"""Shorter parts of a name stand by chance in many a good password."""
MIN_RUN = 4
MIN_DIFFERENT = 5
"""Different characters in a password."""

_AS_READ = str.maketrans({"4": "a", "@": "a", "3": "e", "1": "i", "!": "i", "0": "o", "5": "s", "$": "s", "7": "t"})
_ROWS = ("abcdefghijklmnopqrstuvwxyz", "01234567890", "qwertyuiop", "asdfghjkl", "zxcvbnm", "azertyuiop", "qsdfghjklm")
_PRODUCT = ("inventiv", "inventivagents", "agents", "localhost", "nats", "postgres", "jetstream", "vllm", "openai")
_COMMON = """
    password passwort passphrase motdepasse contrasena secret letmein welcome bienvenue willkommen changeme change
    default admin administrator root superuser user username login guest testing test demo example sample temporary
    temp master access system server service manager owner account private company business office monkey dragon
    sunshine princess football baseball basketball soccer hockey superman batman spiderman starwars pokemon iloveyou
    loveyou lovely love forever freedom whatever trustno internet computer michael jennifer jordan hunter thomas
    charlie daniel jessica ashley nicole robert matthew andrew joshua george summer winter spring autumn january
    february august september october november december monday friday sunday hello shadow killer ranger buster
    tigger ginger pepper cheese cookie flower orange banana purple yellow silver golden diamond mustang ferrari
    porsche harley yamaha arsenal chelsea liverpool manchester barcelona juventus london paris berlin france germany
    england america canada marseille bonjour soleil doudou chouchou azerty qwerty qwertz asdf zxcv correct horse
    battery staple mypassword thepassword verysecret supersecret topsecret docker kubernetes production staging
    development security database
"""

_WORDS = tuple(sorted({*_COMMON.split(), *_PRODUCT}, key=len, reverse=True))


@dataclass(frozen=True)
class Weakness:
    """Why a password is refused: SPEC's code and a sentence; never the password."""

    code: str
    message: str


def weakness_of(password: str, *, min_length: int, own_words: Sequence[str] = ()) -> Weakness | None:
    """None for a password that may be chosen.

    Args:
        password: as typed; nothing of it is trimmed.
        min_length: in characters.
        own_words: the person's username, e-mail address and names.
    """
    if len(password) < min_length:
        return Weakness("password_too_short", f"A password has at least {min_length} characters; a sentence will do.")
    if len(password) > MAX_PASSWORD_LENGTH:
        return Weakness("password_too_long", f"A password has at most {MAX_PASSWORD_LENGTH} characters.")
    if is_guessable(password, own_words):
        return Weakness(
            "password_too_common",
            "This password is made of what is guessed first: common words, your own names, or runs of characters.",
        )
    return None


def is_guessable(password: str, own_words: Sequence[str] = ()) -> bool:
    read = password.casefold()
    if len(set(read)) < MIN_DIFFERENT or _is_repeated(read):
        return True
    words = [*_parts(own_words), *_WORDS]
    return any(_remains(spelled, words) < MIN_UNGUESSABLE for spelled in (read, read.translate(_AS_READ)))


def _is_repeated(text: str) -> bool:
    """The same piece over and over: "abcxyzabcxyzabcxyz"."""
    return text in (text + text)[1:-1]


def _parts(own_words: Iterable[str]) -> list[str]:
    """Of ann.smith@example.org: itself, "smith" and "example"; "ann" and "org" are too short."""
    whole = {word.casefold().strip() for word in own_words}
    parts = whole | {part for word in whole for part in re.split(r"[^\w]+|_", word)}
    return sorted((part for part in parts if len(part) >= MIN_OWN_WORD), key=len, reverse=True)


def _remains(text: str, words: Iterable[str]) -> int:
    """How many different characters are left when the guessable parts are gone."""
    for word in words:
        text = text.replace(word, " ")
    return len(set(_without_runs(text)) - {" "})


def _without_runs(text: str) -> str:
    """Without "abcd", "4321", "aaaa" and rows of a keyboard: each such run shrinks to nothing."""
    kept, run = [], text[:1]
    for before, character in pairwise(text):
        if _follows(before, character):
            run += character
            continue
        kept.append(run if len(run) < MIN_RUN else " ")
        run = character
    return "".join([*kept, run if len(run) < MIN_RUN else " "])


def _follows(before: str, character: str) -> bool:
    pair, back = before + character, character + before
    return before == character or any(pair in row or back in row for row in _ROWS)
