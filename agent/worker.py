"""What this worker is right now: the one mutable thing that the agent's tasks share, all on one event loop.

    engine's watch ──milestones──┐                ┌──> heartbeats (woken by `changed`)
    control plane ──drain, stop──┼──> Worker ─────┼──> /readyz, /metrics, /info
    SIGTERM ──────────stop───────┘                ├──> the end (woken by `stopping`)
    silence too long ──switch_off┘                └──> tunnels (woken by `registered`)

Draining is one-way: a worker that was told to drain never becomes ready again.
"""

import asyncio

from agent.engine import Milestones
from agent.protocol import WorkerStatus


class Worker:
    def __init__(self) -> None:
        self.milestones = Milestones()
        self.draining = False
        self.switching_off = False
        """Whether the machine goes off with the agent."""
        self.token = ""
        """The worker's own, as of now; never for a log."""
        self.registered = asyncio.Event()
        self.changed = asyncio.Event()
        self.stopping = asyncio.Event()

    @property
    def status(self) -> WorkerStatus:
        if self.draining:
            return "draining"
        return "ready" if self.milestones.warm else "starting"

    def reach(self, milestones: Milestones) -> None:
        if milestones != self.milestones:
            self.milestones = milestones
            self.changed.set()

    def drain(self) -> None:
        if not self.draining:
            self.draining = True
            self.changed.set()

    def hold(self, token: str) -> None:
        self.token = token
        self.registered.set()

    def switch_off(self) -> None:
        """Stop, and take the machine along. There is no way back: who came back meanwhile finds a drained worker."""
        self.switching_off = True
        self.stop()

    def stop(self) -> None:
        """Drain, and end as soon as nothing runs any more."""
        self.drain()
        self.stopping.set()
