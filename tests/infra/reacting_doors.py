"""Doors onto a given log, with no cloud behind them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from uuid_utils import uuid7

from domain.decider import Decider
from handlers.ports import Doors, HandlerSettings, Unsettled
from infra.dispatch import Dispatcher
from infra.doors import history_of
from infra.effects import EffectLedger, MemoryEffectRows
from infra.events.codec import Codec
from infra.events.port import EventLog
from tests.handlers.world import FakeSealer, Secrets, Signer


async def none_unsettled(_after: str) -> Sequence[Unsettled]:
    return ()


def now() -> datetime:
    return datetime.now(UTC)


def doors_on(log: EventLog, aggregates: Sequence[Decider[Any, Any, Any]], ledger: EffectLedger | None = None) -> Doors:
    """Without a ledger given, deeds are remembered for as long as the doors are."""
    dispatcher = Dispatcher(log, Codec(aggregates), now, lambda: str(uuid7()))
    return Doors(
        dispatch=dispatcher,
        load=dispatcher.load,
        clouds={},
        secrets=Secrets(),
        signer=Signer(),
        clock=now,
        settings=HandlerSettings(control_plane_url="", heartbeat_interval_s=5.0, drain_deadline_s=300),
        list_unsettled=none_unsettled,
        effects=ledger or EffectLedger(MemoryEffectRows(now)),
        history=history_of(log),
        sealer=FakeSealer(),
    )
