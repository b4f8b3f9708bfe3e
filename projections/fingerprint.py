"""The shape of what is stored as JSON, in sixteen letters: in a table's DDL, and at the head of the gateway's snapshot.

A changed type has another fingerprint. The surprising rule: a changed docstring has not.
"""

from hashlib import sha256
from typing import Any

import msgspec


def fingerprint(stored: Any) -> str:
    """Of a type whose JSON a table holds; put it into the DDL, so that a changed type asks for a new version.

    A row of the old shape would decode with the defaults of its new fields, and nobody would fold it again.
    """
    return sha256(msgspec.json.encode(_bare(msgspec.json.schema(stored)), order="deterministic")).hexdigest()[:16]


def _bare(schema: Any) -> Any:
    """Without the words about it: a better docstring is no other shape."""
    if isinstance(schema, dict):
        return {key: _bare(value) for key, value in schema.items() if key not in {"description", "title"}}
    return [_bare(value) for value in schema] if isinstance(schema, list) else schema
