"""What all requests and replies share at the REST edge: strict bodies in, plain views out. Pydantic stays here."""

from typing import Annotated
from uuid import UUID

from fastapi import Path
from pydantic import BaseModel, ConfigDict, Field

from web.errors import not_found

EUR_MICROS = 1_000_000


class Body(BaseModel):
    """A request's body: an unknown field is a mistake that should be heard, not swallowed."""

    model_config = ConfigDict(extra="forbid", str_max_length=4096)


class Reply(BaseModel):
    """Made from a read model's view, field by field."""

    model_config = ConfigDict(from_attributes=True)


class Refused(BaseModel):
    """Every reply that is not a success."""

    error: str
    message: str


def uuid_or_404(what: str, value: str) -> str:
    """An id as the log spells it; what is no id at all is answered like an id that does not exist."""
    try:
        return str(UUID(value))
    except ValueError:
        raise not_found(what) from None


MAX_OFFSET = 1_000_000
"""Who wants more filters; the database would count its way through all the rows before."""
Offset = Annotated[int, Field(ge=0, le=MAX_OFFSET)]
PathId = Annotated[str, Path(description="The id, a UUID.")]


def euros(micros: int) -> float:
    return micros / EUR_MICROS
