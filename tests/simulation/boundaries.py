"""Numbers every call of a port that a process of the control plane makes, and can end the process at any of them.

    dispatch, clouds, volumes, shell, timers, turns ──> before n ──> the call ──> after n

Nothing is annotated by hand: ports are wrapped here, so new steps are covered by themselves. The surprising rule: a
call that has begun goes on in the world when its caller dies, as it would; only its answer is heard by nobody.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

T = TypeVar("T")

When = Literal["before", "after"]


class ProcessKilled(BaseException):
    """The process ended on this line; no handler of exceptions may stop it."""


@dataclass
class Boundaries:
    """One process's calls.

    Attributes:
        kill_at: (number, before or after) of the call at which it dies; None never.
        on_kill: what ends it.
        on_call: hears the name of each call before it is made.
        names: of the calls so far, in order.
    """

    kill_at: tuple[int, When] | None = None
    on_kill: Callable[[], None] = lambda: None
    on_call: Callable[[str], None] = lambda _name: None
    names: list[str] = field(default_factory=list)
    alive: bool = True

    def die(self) -> None:
        self.alive = False
        self.on_kill()

    async def cross(self, name: str, call: Callable[[], Awaitable[T]]) -> T:
        self._require_life()
        self.names.append(name)
        number = len(self.names)
        self.on_call(name)
        if self.kill_at == (number, "before"):
            self.die()
            raise ProcessKilled(name)
        under_way = asyncio.ensure_future(call())
        try:
            return await asyncio.shield(under_way)
        except asyncio.CancelledError:
            under_way.add_done_callback(_unheard)
            raise
        finally:
            self._require_life()
            if self.kill_at == (number, "after"):  # whatever was answered: a refusal is an answer too
                self.die()
                raise ProcessKilled(name)

    def _require_life(self) -> None:
        if not self.alive:
            raise ProcessKilled


class Counted:
    """Anything whose awaited methods are calls of a port: each crosses the boundary; what it has besides is passed on.

    `inside`: attributes that are ports themselves, e.g. a cloud's volumes.
    """

    def __init__(self, port: Any, name: str, boundaries: Boundaries, *, inside: tuple[str, ...] = ()) -> None:
        self._port = port
        self._name = name
        self._boundaries = boundaries
        self._inside = inside

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._port, name)
        if name in self._inside:
            return None if found is None else Counted(found, name, self._boundaries)
        return self._crossing(f"{self._name}.{name}", found) if asyncio.iscoroutinefunction(found) else found

    async def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return await self._boundaries.cross(self._name, lambda: self._port(*args, **kwargs))

    def _crossing(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def call(*args: Any, **kwargs: Any) -> Any:
            return await self._boundaries.cross(name, lambda: method(*args, **kwargs))

        return call


def _unheard(done: asyncio.Future[Any]) -> None:
    if not done.cancelled():
        done.exception()  # fetched, so that asyncio does not complain; nobody is there to hear it
