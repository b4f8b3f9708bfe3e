"""Requests that go on until whoever plays has seen enough, and what became of each."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.chaos.gateway.clients import Told

SHOWN = 3
FAILED_PAUSE_S = 0.05
"""Of a client that has failed: controls would fail by the ten thousand."""


@dataclass
class Load:
    """Attributes:
    wanted: at least so many; more when whoever plays is not done yet.
    ends: set by whoever plays.
    """

    wanted: int = 0
    told: list[Told] = field(default_factory=list)
    ends: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def goes_on(self) -> bool:
        return len(self.told) < self.wanted or not self.ends.is_set()

    @property
    def failed(self) -> Sequence[Told]:
        return [told for told in self.told if not told.is_answered]

    async def take(self, told: Told) -> None:
        self.told.append(told)
        if not told.is_answered:
            await asyncio.sleep(FAILED_PAUSE_S)

    def complain(self, part: str) -> None:
        """Shows the first failures."""
        for told in self.failed[:SHOWN]:
            print(f"{part}: failed: {told}", flush=True)
