"""The right to a unique name, held on a subject of its own (`uniq.<kind>.<digest>`).

No one commands a reservation: dispatch writes it in the same atomic batch as the event that claims or releases the
name, so two claimants cannot both succeed. The subject carries a digest, never the name.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Never, assert_never

import msgspec

from domain.decider import Decider
from domain.message import RESERVATION_AGGREGATE


class NameReserved(msgspec.Struct, frozen=True, kw_only=True):
    """`holder` is "<aggregate>/<id>"."""

    holder: str


class NameReleased(msgspec.Struct, frozen=True):
    pass


ReservationEvent = NameReserved | NameReleased


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    holder: str = ""


def evolve(_state: Reservation, event: ReservationEvent, _at: datetime) -> Reservation:
    match event:
        case NameReserved():
            return Reservation(holder=event.holder)
        case NameReleased():
            return Reservation()
        case _:
            assert_never(event)


def decide(_state: Reservation, command: Never, _at: datetime) -> Sequence[ReservationEvent]:
    assert_never(command)


RESERVATION: Decider[Never, ReservationEvent, Reservation] = Decider(
    aggregate=RESERVATION_AGGREGATE,
    events=(NameReserved, NameReleased),
    initial=Reservation(),
    state_type=Reservation,
    evolve=evolve,
    decide=decide,
)
