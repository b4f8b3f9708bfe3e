"""What gateways tell one another about the limits that they share; shared_counts.py says and hears it.

Everything is told as it stands, never as a difference, so that what is lost or doubled does no harm: the next statement
says it again. The one exception: buckets that did not change since the last statement are left out of most.
"""

from collections.abc import Mapping
from typing import Literal

import msgspec

from gateway.tally import Amounts

COUNTS_SUBJECT = "gw.counts"
"""On NATS; infra/limit_exchange.py speaks and listens there."""
State = Literal["serving", "leaving", "gone"]
"""Of a gateway: leaving, it admits nothing new and finishes what runs; gone, nothing runs there any more."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """One subject, as one gateway has it.

    Attributes:
        limits: as the teller knows them; rights pass only between those who agree on them.
        since: buckets of this second and later are all told; earlier ones have not changed.
        buckets: (second, requests, tokens), on the teller's clock.
        spare: rights that it could give away. wanted: what the greatest refused request lacked.
        given: to each other gateway, in all. held: from each other gateway, in all.
    """

    subject: str
    limits: Amounts
    since: int
    buckets: tuple[tuple[int, int, int], ...]
    running: int
    spare: Amounts
    wanted: Amounts
    given: Mapping[str, Amounts]
    held: Mapping[str, Amounts]


class Statement(msgspec.Struct, frozen=True, array_like=True):
    """What one gateway tells the others.

    Attributes:
        replica: its name, drawn anew by each process.
        sequence: rises with each statement; older ones are not listened to.
        second: on the teller's monotonic clock, when it spoke.
        members: who shares the limits, as the teller knows it, itself included unless it leaves; sorted.
    """

    replica: str
    sequence: int
    second: int
    state: State
    members: tuple[str, ...]
    told: tuple[Told, ...]
