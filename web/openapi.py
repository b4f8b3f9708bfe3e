"""Writes openapi.json from the code: `python -m web.openapi`. The file is committed, and a test compares the two."""

import json
from pathlib import Path
from typing import Any, cast

from web.app import create_app
from web.services import Services, Settings

OPENAPI_FILE = Path(__file__).parent / "openapi.json"


class _Unused:
    """Stands for the ports: the document is made of types, no request is served."""

    settings = Settings(token_key=b"")
    log: Any = None


def document() -> str:
    """The OpenAPI document as it is committed; its version is the API's, not the build's."""
    schema = create_app(cast("Services", _Unused())).openapi()
    return json.dumps(schema, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    OPENAPI_FILE.write_text(document())
