"""What may stand in a log line: no secret, no control character, no endless text. Every role's last log processor.

    password=hunter2 ─> [hidden]      "key sk-inv-12ab... refused" ─> "key sk-inv-[hidden] refused"      ESC ─> visible

Secrets are known by the name they come under and by how they look, for an exception's text has no names. The surprising
rule: a traceback keeps its line breaks where the renderer escapes them, since without them nobody could read it.
"""

import re
from typing import Any

from structlog.typing import EventDict

HIDDEN = "[hidden]"
HIDDEN_KEYS = frozenset(
    {"password", "new_password", "current_password", "token", "api_key", "authorization", "secret", "cookie", "seed"}
)
MAX_VALUE_LENGTH = 8192
"""Characters of one value; a log is no place for documents."""

_SECRETS = re.compile(
    r"(?P<key>sk-inv-|w[bk]_|hf_|SU[A-Z2-7]{2}|eyJ)[A-Za-z0-9_\-.]{12,}"  # our keys, agents', models', NATS', JWTs
    r"|(?P<login>[a-z][a-z0-9+.-]*://[^\s:/@]+:)[^\s@]+(?=@)"  # a password in a URL
    r"|(?P<header>(?i:bearer|basic)\s)[A-Za-z0-9+/_\-.=]{8,}"
)
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]")
"""All but tab and newline, which every renderer escapes or quotes."""


def redacted(text: str) -> str:
    """The text without what looks like a secret, printable, and cut to MAX_VALUE_LENGTH."""
    shown = _SECRETS.sub(lambda found: f"{found['key'] or found['login'] or found['header']}{HIDDEN}", text)
    shown = _CONTROL.sub(lambda found: f"\\x{ord(found[0]):02x}", shown)
    return shown if len(shown) <= MAX_VALUE_LENGTH else f"{shown[:MAX_VALUE_LENGTH]} [cut]"


def hide_secrets(_logger: object, _method: str, line: EventDict) -> EventDict:
    """The processor; takes what is not text as it prints."""
    return {key: HIDDEN if key in HIDDEN_KEYS else _shown(value) for key, value in line.items()}


def _shown(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, dict):
        return {str(key): HIDDEN if key in HIDDEN_KEYS else _shown(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(inner) for inner in value]
    return redacted(value if isinstance(value, str) else str(value))
