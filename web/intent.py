"""One request as an intent: its chance, its correlation, and the door through which its commands go.

    endpoint ──> intent.send(decider, organisation, id, command) ──> dispatch ──> position ──> header `Event-Position`

All events of one request share a correlation. When an earlier attempt of the same request died half-way (its
Idempotency-Key was resumed), send looks first whether this very command already left its events, and adds none.
"""

from dataclasses import dataclass
from typing import Annotated, TypeVar

from fastapi import Depends, Request

from domain.decider import Decider
from domain.message import Context, subject_of
from web.auth import Caller, services_of
from web.draw import Draw
from web.services import Services

C = TypeVar("C")
E = TypeVar("E")
S = TypeVar("S")

SEED_BYTES = 32


@dataclass(frozen=True)
class Intent:
    """Made per request; `send` is the only way from this room to the log."""

    services: Services
    draw: Draw
    request: Request

    @property
    def position(self) -> int:
        """Of the newest event that this request caused; 0 before."""
        position: int = getattr(self.request.state, "position", 0)
        return position

    async def send(
        self,
        decider: Decider[C, E, S],
        organization: str,
        aggregate_id: str,
        command: C,
        *,
        actor: str,
        is_news: bool = False,
    ) -> int:
        """Dispatches the command; returns the position after which its effect is visible.

        What `is_news` is nobody's new intent: its events go on with the story that the aggregate is in.

        Raises:
            Rejected, OSError: as domain.ports.Dispatch.
        """
        correlation = self.draw.id("correlation")
        position = None
        if self.draw.resumed:
            position = await self._earlier(subject_of(organization, decider.aggregate, aggregate_id), correlation)
        if position is None:
            context = Context(actor=actor, correlation="" if is_news else correlation, origin=origin_of(self.request))
            receipt = await self.services.dispatch(decider, organization, aggregate_id, command, context)
            position = receipt.position
        self.request.state.position = max(self.position, position)
        return position

    async def rehearse(self, decider: Decider[C, E, S], organization: str, aggregate_id: str, command: C) -> None:
        """Refuses what send would refuse now, and does nothing: for a command that needs something made for it first.

        Raises:
            Rejected, OSError: as send. An attempt that goes on with an earlier one is not refused here.
        """
        if not self.draw.resumed:
            loaded = await self.services.load(decider, organization, aggregate_id)
            decider.decide(loaded.state, command, self.services.clock())

    async def _earlier(self, subject: str, correlation: str) -> int | None:
        """Where the last event stands that this intent already caused on that aggregate."""
        history = await self.services.log.read(subject)
        own = [recorded.position for recorded in history if recorded.envelope.correlation == correlation]
        return max(own, default=None)


def origin_of(request: Request) -> str:
    """By which door the caller came, for the envelopes of what it asks for; "" for one without a credential."""
    caller: Caller | None = getattr(request.state, "caller", None)
    return caller.origin if caller else ""


def fresh_draw(services: Services) -> Draw:
    return Draw(seed=services.chance(SEED_BYTES), at=services.clock())


def intent_of(request: Request) -> Intent:
    services = services_of(request)
    draw: Draw = getattr(request.state, "draw", None) or fresh_draw(services)
    return Intent(services, draw, request)


Intended = Annotated[Intent, Depends(intent_of)]
