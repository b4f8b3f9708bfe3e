"""One that called an engine and writes down what it is told; it insists on the order that `Answering` promises."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.http import Headers, UpstreamFailure
from gateway.origin import Origin
from tests.gateway.scripted_engine import BOUND_S


@dataclass
class Told:
    """What one call was told.

    Attributes:
        pieces: the data of each call to `answer_data`.
        then: called with it once the head has come, with each data, and at the end.
    """

    statuses: list[int] = field(default_factory=list)
    headers: Headers = ()
    pieces: list[bytes] = field(default_factory=list)
    failure: UpstreamFailure | None = None
    ended: bool = False
    then: Callable[["Told"], None] = lambda _: None

    def __post_init__(self) -> None:
        self.over = asyncio.Event()

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)

    @property
    def kind(self) -> str:
        return self.failure.kind if self.failure is not None else ""

    @property
    def has_heard(self) -> bool:
        return bool(self.statuses or self.pieces or self.over.is_set())

    def answer_begun(self, status: int, headers: Headers) -> None:
        assert not self.statuses, "a second head"
        assert not self.over.is_set(), "a head after the end"
        self.statuses.append(status)
        self.headers = headers
        self.then(self)

    def answer_data(self, data: bytes, *, ended: bool) -> None:
        assert self.statuses, "data before the head"
        assert not self.over.is_set(), "data after the end"
        assert data or ended, "nothing told"
        self.pieces.append(data)
        if ended:
            self.ended = True
            self.over.set()
        self.then(self)

    def answer_failed(self, failure: UpstreamFailure) -> None:
        assert not self.over.is_set(), "a failure after the end"
        self.failure = failure
        self.over.set()
        self.then(self)


def request_to(origin: Origin, body: bytes = b"{}", path: str = "/v1/chat/completions") -> list[bytes]:
    """A complete request, as the gateway writes one."""
    target = (origin.path + path).encode()
    return [
        b"POST %s HTTP/1.1\r\nhost: %s\r\ncontent-length: %d\r\n\r\n" % (target, origin.host_header, len(body)),
        body,
    ]


async def until(holds: Callable[[], bool]) -> None:
    """Waits for a state, bounded."""
    async with asyncio.timeout(BOUND_S):
        while not holds():  # noqa: ASYNC110 - any state, not only events
            await asyncio.sleep(0.005)


async def over(told: Told) -> Told:
    """Waits for a call's end, bounded."""
    async with asyncio.timeout(BOUND_S):
        await told.over.wait()
    return told
