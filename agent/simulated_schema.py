"""A value that fits a JSON schema, always the same one: what the simulated engine says where a schema is demanded.

It knows what tools and structured outputs use: types, enums, constants, objects, arrays, unions, references within the
schema. What it does not know is null, which the client's own check then refuses.
"""

from typing import Any

MAX_DEPTH = 16
"""A schema that contains itself is cut off here."""


def fitting(schema: dict[str, Any]) -> Any:
    return _fitting(schema, schema, 0)


def _fitting(schema: dict[str, Any], root: dict[str, Any], depth: int) -> Any:
    if depth > MAX_DEPTH:
        return None
    if "$ref" in schema:
        return _fitting(_referred(str(schema["$ref"]), root), root, depth + 1)
    for union in ("anyOf", "oneOf", "allOf"):
        if schema.get(union):
            return _fitting(schema[union][0], root, depth + 1)
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    kind = schema.get("type", "object" if "properties" in schema else None)
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: _fitting(one, root, depth + 1) for name, one in schema.get("properties", {}).items()}
    if kind == "array":
        return [_fitting(schema.get("items", {}), root, depth + 1)] * max(1, schema.get("minItems", 1))
    return _simple(kind, schema)


def _simple(kind: Any, schema: dict[str, Any]) -> Any:
    least = schema.get("minimum", 1)
    values = {"string": "mock", "integer": int(least), "number": float(least), "boolean": True}
    return values.get(kind)


def _referred(reference: str, root: dict[str, Any]) -> dict[str, Any]:
    found: Any = root
    for name in reference.removeprefix("#/").split("/"):
        found = found.get(name, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}
