"""An aggregate whose one event was stored by three releases, each with fields of its own.

    release 1: weight (grams) ──> release 2: weight_kg ──> release 3: weight_kg, carrier

The three classes share the stored name, as one class in three years of one file would.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from domain.decider import Decider
from infra.events.upcasts import Upcasts

NAME = "ParcelSent"
WORD = "parcel"


def release(schema: int, fields: Sequence[tuple[str, type]], *, name: str = NAME) -> type[msgspec.Struct]:
    return msgspec.defstruct(name, fields, frozen=True, namespace={"SCHEMA": schema})


FIRST = release(1, [("weight", int)])
SECOND = release(2, [("weight_kg", float)])
THIRD = release(3, [("weight_kg", float), ("carrier", str)])

UPCASTS_OF_PARCEL: Upcasts = {
    (NAME, 1): lambda data: {"weight_kg": data["weight"] / 1000},
    (NAME, 2): lambda data: {**data, "carrier": "unknown"},
}


class Sent(msgspec.Struct, frozen=True):
    """What today's release makes of a history: total weight, and who carried it."""

    kg: float = 0.0
    carriers: tuple[str, ...] = ()


def parcels(event: type[Any]) -> Decider[Any, Any, Any]:
    """The aggregate as the release that knows `event` has it; its command is the event to happen."""

    def evolve(state: Sent, happened: Any, _at: datetime) -> Sent:
        kg = getattr(happened, "weight_kg", 0.0)
        return Sent(kg=state.kg + kg, carriers=(*state.carriers, getattr(happened, "carrier", "")))

    return Decider(
        aggregate=WORD,
        events=(event,),
        initial=Sent(),
        state_type=Sent,
        evolve=evolve,
        decide=lambda _state, happened, _at: (happened,) if happened is not None else (),
    )
