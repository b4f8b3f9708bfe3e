"""Which of an organisation's models the catalogue means by an id; a part of routing_table.py.

    (organisation, code) wanted ──> both of its ids: as the platform's model, and as the organisation's own ──> code

Ids are derived from codes, never the other way round, so what is not wanted by anybody has none here. The surprising
rule: one id is found under each organisation that wants the model, and under no other.
"""

from functools import lru_cache

from domain.catalogue import model_id_of
from domain.ids import ModelId, OrganizationId
from domain.model import own_model_id

REMEMBERED = 4096


class ModelIds:
    """Mutable; adding twice is adding once."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], str] = {}

    def add(self, organization: str, code: str) -> None:
        for model_id in _ids(organization, code):
            self._codes[organization, model_id] = code

    def remove(self, organization: str, code: str) -> None:
        for model_id in _ids(organization, code):
            self._codes.pop((organization, model_id), None)

    def find(self, organization: str, model_id: str) -> str | None:
        """The model's code; `model_id` in lower case."""
        return self._codes.get((organization, model_id))


@lru_cache(maxsize=REMEMBERED)
def _ids(organization: str, code: str) -> tuple[ModelId, ModelId]:
    return model_id_of(code), own_model_id(OrganizationId(organization), code)
