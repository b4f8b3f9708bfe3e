"""What of an aggregate's state or an event is shown to nobody: ciphertext, keyed digests, hashes of secrets.

A field's name decides, and the names come from the domain's own types: whatever is declared Sealed or Digest. So a new
sealed field is hidden without anybody thinking of it.
"""

from functools import cache
from typing import Any, get_args, get_type_hints

import msgspec

from domain.aggregates import AGGREGATES
from domain.values import Digest, Sealed

SEALED = "•sealed•"
HIDDEN = "•hidden•"
_HASHED = "sha256"


def hidden(path: str, value: Any) -> Any:
    """The value at a dotted path, or the mark that stands for it; what is inside of it is looked at too."""
    name = path.rpartition(".")[2]
    if isinstance(value, dict):
        return {key: hidden(str(key), inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hidden(path, inner) for inner in value]
    if not isinstance(value, str) or not value:
        return value
    if name in sealed_fields():
        return SEALED
    return HIDDEN if name.endswith(_HASHED) else value


@cache
def sealed_fields() -> frozenset[str]:
    """Names of all fields, of events and states, that hold personal data as ciphertext or digest."""
    found: set[str] = set()
    seen: set[Any] = set()
    waiting: list[Any] = [kind for decider in AGGREGATES for kind in (*decider.events, decider.state_type)]
    while waiting:
        kind = waiting.pop()
        if kind in seen:
            continue
        seen.add(kind)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            hints = get_type_hints(kind)
            found |= {name for name, hint in hints.items() if {Sealed, Digest} & {hint, *get_args(hint)}}
            waiting += hints.values()
        else:
            waiting += [inner for inner in get_args(kind) if not isinstance(inner, str)]
    return frozenset(found)
