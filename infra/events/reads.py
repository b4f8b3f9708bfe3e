"""Reads stored messages of a JetStream stream: through the leader (never stale), or in pages from any replica (fast).

nats-py has neither the batch form of Direct Get nor next-by-subject through the leader; both are small JSON requests.
"""

import asyncio
import itertools
from typing import Any

import msgspec
import nats.errors
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from infra.events import wire

PAGE_MESSAGES = 1000
PAGE_BYTES = 8_000_000
"""There is no flow control inside a page: this is what may arrive at once."""
NO_MESSAGE_FOUND = 10037
_MSG_ID = b"nats-msg-id:"
_STATUS = b"NATS/1.0 "
"""Headers that begin so are the server's own; those of a message begin with NATS/1.0 and a new line."""


class ApiError(Exception):
    """JetStream's own answer to a request that it did not do.

    Attributes:
        status: as in HTTP; 503 says that it may work later.
        code: JetStream's err_code.
    """

    def __init__(self, status: int, code: int, description: str) -> None:
        super().__init__(f"{description} (code {status}, err_code {code})")
        self.status = status
        self.code = code


class ApiFault(msgspec.Struct):
    code: int
    err_code: int = 0
    description: str = ""


class Stored(msgspec.Struct, frozen=True, gc=False):
    """A message as it lies in the stream; `headers` are the raw bytes, b"" when it has none."""

    position: int
    subject: str
    payload: bytes
    headers: bytes = b""

    def message_id(self) -> str:
        """Its Nats-Msg-Id; "" when it has none."""
        for line in self.headers.split(b"\r\n"):
            if line.lower().startswith(_MSG_ID):
                return line[len(_MSG_ID) :].strip().decode()
        return ""


class _GetMessage(msgspec.Struct):
    seq: int
    subject: str
    data: bytes = b""  # base64 in JSON, both of them
    hdrs: bytes = b""


class _GetReply(msgspec.Struct):
    message: _GetMessage | None = None
    error: ApiFault | None = None


class _StreamState(msgspec.Struct):
    last_seq: int


class _InfoReply(msgspec.Struct):
    state: _StreamState | None = None
    error: ApiFault | None = None


_get_replies = msgspec.json.Decoder(_GetReply)
_info_replies = msgspec.json.Decoder(_InfoReply)


async def leader_last(nc: Client, stream: str, subject: str, *, timeout_s: float) -> Stored | None:
    """The newest message of a subject."""
    return await _leader_get(nc, stream, {"last_by_subj": subject}, timeout_s)


async def leader_next(nc: Client, stream: str, subject: str, position: int, *, timeout_s: float) -> Stored | None:
    """The first message of a subject at `position` or after it."""
    return await _leader_get(nc, stream, {"seq": position, "next_by_subj": subject}, timeout_s)


async def last_position(nc: Client, stream: str, *, timeout_s: float) -> int:
    """Position of the stream's newest message, 0 before the first."""
    reply = await nc.request(f"$JS.API.STREAM.INFO.{stream}", timeout=timeout_s)
    info = _info_replies.decode(reply.data)
    if info.error is not None or info.state is None:
        raise _api_error(info.error)
    return info.state.last_seq


async def _leader_get(nc: Client, stream: str, query: dict[str, Any], timeout_s: float) -> Stored | None:
    reply = await nc.request(f"$JS.API.STREAM.MSG.GET.{stream}", msgspec.json.encode(query), timeout=timeout_s)
    found = _get_replies.decode(reply.data)
    if found.error is not None and found.error.err_code == NO_MESSAGE_FOUND:
        return None
    if found.message is None:
        raise _api_error(found.error)
    return Stored(found.message.seq, found.message.subject, found.message.data, found.message.hdrs)


def _api_error(fault: ApiFault | None) -> ApiError:
    return ApiError(fault.code, fault.err_code, fault.description) if fault else ApiError(500, 0, "no answer in reply")


class _Page:
    def __init__(self) -> None:
        self.messages: list[Stored] = []
        self.more: asyncio.Future[bool] = asyncio.get_running_loop().create_future()


class PageReader:
    """Reads one subject in pages by Direct Get; one subscription serves all pages of a connection.

    A follower may answer, and be some messages behind: the reader decides whether that matters.
    """

    def __init__(self, nc: Client, stream: str) -> None:
        self._nc = nc
        self._api = f"$JS.API.DIRECT.GET.{stream}"
        self._inbox = nc.new_inbox()
        self._tokens = itertools.count()
        self._pages: dict[str, _Page] = {}
        self._subscription: asyncio.Future[Subscription] | None = None

    async def page(
        self, subject: str, position: int, *, timeout_s: float, messages: int = PAGE_MESSAGES
    ) -> tuple[list[Stored], bool]:
        """Messages of a literal subject (or of all, ">") from `position` on, at most `messages` and PAGE_MESSAGES.

        Returns:
            The messages, and whether there are more.

        Raises:
            nats.errors.Error: no answer, or not in time.
            ApiError: the server refused.
        """
        await self._subscribed()
        token = str(next(self._tokens))
        page = self._pages[token] = _Page()
        batch = min(messages, PAGE_MESSAGES)
        query = {"seq": position, "next_by_subj": subject, "batch": batch, "max_bytes": PAGE_BYTES}
        try:
            await self._nc.publish(self._api, msgspec.json.encode(query), reply=f"{self._inbox}.{token}")
            async with asyncio.timeout(timeout_s):
                return page.messages, await page.more
        except TimeoutError as error:
            raise nats.errors.TimeoutError from error
        finally:
            del self._pages[token]

    async def _subscribed(self) -> None:
        """Subscribes once, however many pages are asked for at the same time."""
        if self._subscription is None:
            self._subscription = asyncio.ensure_future(wire.subscribe(self._nc, f"{self._inbox}.*", self._on_message))
        try:
            await asyncio.shield(self._subscription)
        except nats.errors.Error:
            self._subscription = None
            raise

    def _on_message(self, subject: bytes, _reply: bytes, headers: bytes, payload: bytes) -> None:
        page = self._pages.get(subject.rpartition(b".")[2].decode())
        if page is None or page.more.done():
            return  # its reader gave up waiting
        if not headers.startswith(_STATUS):
            position, of = int(_header(headers, b"\r\nNats-Sequence: ")), _header(headers, b"\r\nNats-Subject: ")
            page.messages.append(Stored(position, of.decode(), payload))
            return
        found = wire.read_headers(headers)
        match found["Status"]:
            case "204":
                page.more.set_result(int(found.get("Nats-Num-Pending", "0")) > 0)
            case "404":
                page.more.set_result(False)
            case "503":
                page.more.set_exception(nats.errors.NoRespondersError())
            case status:
                page.more.set_exception(ApiError(int(status), 0, found.get("Description", "")))


def _header(headers: bytes, name: bytes) -> bytes:
    """The value of one header that is there; reading them all costs ten times as much."""
    begin = headers.index(name) + len(name)
    return headers[begin : headers.index(b"\r\n", begin)]
