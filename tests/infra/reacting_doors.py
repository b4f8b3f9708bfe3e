"""Doors onto a given log, with no cloud behind them."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from uuid_utils import uuid7

from domain.decider import Decider
from domain.ids import DeploymentId, OrganizationId
from handlers.ports import Doors, HandlerSettings, Owning, Unsettled
from infra.clouds import never_heard, no_probe
from infra.dispatch import Dispatcher
from infra.doors import history_of
from infra.effects import EffectLedger, MemoryEffectRows
from infra.events.codec import Codec
from infra.events.port import EventLog
from tests.handlers.fixed_clouds import FixedClouds, NoShell
from tests.handlers.world import (
    Effects,
    FakeEraser,
    FakeMailer,
    FakeSealer,
    FakeTokens,
    FakeUpstreamKeys,
    FakeVault,
    Secrets,
    Signer,
    no_credentials,
    no_traces,
)


async def none_unsettled(_after: str) -> Sequence[Unsettled]:
    return ()


async def none_owning(
    _after: str, /, *, organization: str = "", provider: str = "", current: bool = False
) -> Sequence[Owning]:
    return ()


async def none_standing(_organization: OrganizationId, /, *, position: int) -> Sequence[DeploymentId]:
    return ()


def now() -> datetime:
    return datetime.now(UTC)


def doors_on(log: EventLog, aggregates: Sequence[Decider[Any, Any, Any]], ledger: EffectLedger | None = None) -> Doors:
    """Without a ledger given, deeds are remembered for as long as the doors are."""
    dispatcher = Dispatcher(log, Codec(aggregates), now, lambda: str(uuid7()))
    return Doors(
        dispatch=dispatcher,
        load=dispatcher.load,
        clouds=FixedClouds({}),
        shell=NoShell(),
        bootstrap_script=lambda _environment: "",
        probe=no_probe,
        last_heard=never_heard,
        secrets=Secrets(),
        signer=Signer(),
        clock=now,
        settings=HandlerSettings(control_plane_url="", console_url="", heartbeat_interval_s=5.0, drain_deadline_s=300),
        list_unsettled=none_unsettled,
        list_owning=none_owning,
        list_standing=none_standing,
        effects=ledger or EffectLedger(MemoryEffectRows(now)),
        history=history_of(log),
        sealer=FakeSealer(),
        mailer=FakeMailer(effects := Effects()),
        vault=(vault := FakeVault()),
        tokens=FakeTokens(),
        credentials=no_credentials,
        upstream_keys=FakeUpstreamKeys(effects, now),
        find_traces=no_traces,
        eraser=FakeEraser(effects, vault),
    )
