"""The ledger of what was done to the outside world, and because of which event.

    once:    (new) ──> intended ──act──> done, refused     such a row is never acted on again
                          │ cut off
                          └──> ask: happened ──> done      not happened ──> intended, act again      unknown ──> later

    record:  the same rows around a deed that somebody else guards (the log's intents): written down, never prevented

The surprising rule: a deed that was cut off is not asked about at once. What a killed process had sent may still be on
its way, so the question waits until the deed's own time is over; only then is "not happened" an answer.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Literal, Protocol, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from domain.ports import Clock
from handlers.cloud_ports import CloudRefusedError
from handlers.ports import Effect, Happened, MailRefusedError

T = TypeVar("T")

State = Literal["intended", "done", "refused", "unknown"]

_log = structlog.get_logger(__name__)


class EffectsUnavailableError(OSError):
    """The ledger's store does not answer. Before the deed: nothing was done. After it: the next look will ask."""


class EffectUnsettledError(OSError):
    """Whether the deed was done cannot be known now; it is neither repeated nor forgotten."""


class EffectRow(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the ledger.

    Attributes:
        state: intended (begun, and perhaps cut off), done, refused (the receiver said no, for good), or unknown (it
            failed, and may have happened all the same).
        attempts: how often it was begun.
        intended_at: the last of those.
        ended_at: when the state became another than intended.
        age_s: seconds since intended_at by the store's own clock.
        detail: a code or the name of a fault; never its words, which may hold what is nobody's business.
    """

    effect: Effect
    state: State
    attempts: int
    intended_at: datetime
    ended_at: datetime | None
    age_s: float
    detail: str = ""


class EffectRows(Protocol):
    """Where the rows are. Every method raises OSError when that cannot be reached, and returns only what is durable."""

    async def intend(self, effect: Effect) -> EffectRow | None:
        """Writes a first row; the row that is there already is returned instead, unchanged."""
        ...

    async def intend_again(self, found: EffectRow) -> bool:
        """One attempt more; False when the row is no longer as found: somebody else was quicker."""
        ...

    async def end(self, effect: Effect, state: State, detail: str) -> None: ...


class EffectLedger:
    """Implements handlers.ports.Effects over any rows."""

    def __init__(self, rows: EffectRows) -> None:
        self._rows = rows

    async def once(
        self,
        effect: Effect,
        *,
        act: Callable[[], Awaitable[object]],
        ask: Callable[[], Awaitable[Happened]],
        timeout_s: float,
    ) -> None:
        """See the port."""
        found = await self._rows.intend(effect)
        if found is not None:
            if found.state in {"done", "refused"}:
                return
            if await self._has_happened(found, ask, timeout_s):
                await self._rows.end(effect, "done", "found done")
                return
            if not await self._rows.intend_again(found):
                raise EffectUnsettledError(f"{_words(effect)}: another process is at it")
        await self._act(effect, act, timeout_s)

    async def _has_happened(self, found: EffectRow, ask: Callable[[], Awaitable[Happened]], timeout_s: float) -> bool:
        if found.age_s < 2 * timeout_s:
            raise EffectUnsettledError(f"{_words(found.effect)} was cut off, and may still be on its way")
        async with asyncio.timeout(timeout_s):
            answer = await ask()
        _log.info("effect_asked", effect=_words(found.effect), answer=answer, attempts=found.attempts)
        if answer == "unknown":
            raise EffectUnsettledError(f"{_words(found.effect)}: the world does not tell whether it happened")
        return answer == "happened"

    async def _act(self, effect: Effect, act: Callable[[], Awaitable[object]], timeout_s: float) -> None:
        try:
            async with asyncio.timeout(timeout_s):
                await act()
        except MailRefusedError as refused:
            await self._note(effect, "refused", refused.code)
            raise
        except Exception as fault:
            await self._note(effect, "unknown", type(fault).__name__)
            raise
        await self._rows.end(effect, "done", "")

    async def record(self, effect: Effect, act: Callable[[], Awaitable[T]]) -> T:
        """See the port."""
        found = await self._rows.intend(effect)
        if found is not None:
            await self._rows.intend_again(found)
        try:
            result = await act()
        except CloudRefusedError as refused:
            await self._note(effect, "refused", refused.code)
            raise
        except Exception as fault:
            await self._note(effect, "unknown", type(fault).__name__)
            raise
        await self._note(effect, "done", "")
        return result

    async def _note(self, effect: Effect, state: State, detail: str) -> None:
        """How it ended, where a lost note does no harm: the row stays intended, and that is what it then says."""
        try:
            await self._rows.end(effect, state, detail)
        except OSError as away:
            _log.warning("effect_not_noted", effect=_words(effect), state=state, error=repr(away))


class MemoryEffectRows:
    """Rows that live as long as the object, for tests and simulations."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: dict[Effect, EffectRow] = {}

    @property
    def rows(self) -> Sequence[EffectRow]:
        return list(self._rows.values())

    async def intend(self, effect: Effect) -> EffectRow | None:
        """See the port."""
        now = self._clock()
        found = self._rows.get(effect)
        if found is not None:
            return replace(found, age_s=(now - found.intended_at).total_seconds())
        self._rows[effect] = EffectRow(
            effect=effect, state="intended", attempts=1, intended_at=now, ended_at=None, age_s=0.0
        )
        return None

    async def intend_again(self, found: EffectRow) -> bool:
        """See the port."""
        current = self._rows[found.effect]
        if current.attempts != found.attempts or (current.state == "done") != (found.state == "done"):
            return False
        self._rows[found.effect] = EffectRow(
            effect=found.effect,
            state="intended",
            attempts=found.attempts + 1,
            intended_at=self._clock(),
            ended_at=None,
            age_s=0.0,
        )
        return True

    async def end(self, effect: Effect, state: State, detail: str) -> None:
        """See the port."""
        self._rows[effect] = replace(self._rows[effect], state=state, ended_at=self._clock(), detail=detail)


def _words(effect: Effect) -> str:
    return f"{effect.reaction}: {effect.name} {effect.key}".rstrip()
