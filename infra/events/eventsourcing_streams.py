"""The streams of our persistence module for the `eventsourcing` library: one per application, one more per purpose.

    ES_BANKACCOUNTS               events of the application BankAccounts, and its tracking
    ES_BANKACCOUNTS-snapshots     its snapshots

As the platform's own EVENTS, but of any message size that the server takes: kept for ever, nothing removed, atomic
batches. An existing stream is only looked at; one that would lose events is refused.
"""

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
import nats.errors
from eventsourcing.persistence import ProgrammingError
from nats.aio.client import Client

from infra.events.eventsourcing_messages import token
from infra.events.streams import EVENTS, STREAM_NOT_FOUND, STREAMS

REQUEST_TIMEOUT_S = 5.0
RETRY_DELAY_S = 0.1
NAME_IN_USE = 10058
_NEEDED = (
    "retention",
    "max_age",
    "max_msgs",
    "max_bytes",
    "max_msgs_per_subject",
    "deny_delete",
    "deny_purge",
    "allow_direct",
    "allow_atomic",
)


def stream_name(prefix: str, application_name: str, purpose: str = "events") -> str:
    """ES_<NAME> for events, ES_<NAME>-<purpose> for the rest; the library too makes no difference between a and A."""
    stream = f"{token(prefix)}_{token(application_name.upper() or 'STORED')}"
    return stream if purpose == "events" else f"{stream}-{token(purpose.lower())}"


def stream_settings(stream: str) -> dict[str, Any]:
    """Spelled as the server spells them."""
    return {**STREAMS[EVENTS], "subjects": [f"{stream}.>"], "max_msg_size": -1}


async def ensure_stream(nc: Client, stream: str, *, replicas: int, creating: bool) -> None:
    """Creates the stream when it is missing. A cluster that still finds itself is asked again, until cancelled.

    Raises:
        ProgrammingError: it is missing though not `creating`; it is refused; or its settings would lose events.
    """
    while True:  # bounded by the caller's timeout
        info = await _api(nc, f"$JS.API.STREAM.INFO.{stream}", None)
        error = info.get("error")
        if error and error.get("err_code") == STREAM_NOT_FOUND:
            if not creating:
                raise ProgrammingError(f"stream {stream} is missing; create it, or let CREATE_TABLE be y")
            config = {"name": stream, "num_replicas": replicas, **stream_settings(stream)}
            info = await _api(nc, f"$JS.API.STREAM.CREATE.{stream}", config)
            error = info.get("error")
        if error is None:
            _check(stream, info["config"])
            return
        if error.get("code") != 503 and error.get("err_code") != NAME_IN_USE:
            raise ProgrammingError(f"stream {stream} cannot be opened: {error.get('description')}")
        await asyncio.sleep(RETRY_DELAY_S)


async def _api(nc: Client, subject: str, body: Mapping[str, Any] | None) -> dict[str, Any]:
    try:
        reply = await nc.request(subject, msgspec.json.encode(body) if body else b"", timeout=REQUEST_TIMEOUT_S)
    except (nats.errors.NoRespondersError, nats.errors.TimeoutError, nats.errors.OutboundBufferLimitError) as error:
        return {"error": {"code": 503, "description": repr(error)}}
    return msgspec.json.decode(reply.data, type=dict[str, Any])


def _check(stream: str, stored: Mapping[str, Any]) -> None:
    """The server leaves out what is off, so absent reads as False or 0."""
    wanted = stream_settings(stream)
    for name in _NEEDED:
        if (found := stored.get(name, type(wanted[name])())) != wanted[name]:
            raise ProgrammingError(f"stream {stream} has {name} = {found!r} instead of {wanted[name]!r}")
    if stored.get("subjects") != wanted["subjects"]:
        raise ProgrammingError(f"stream {stream} takes {stored.get('subjects')} instead of {wanted['subjects']}")
    if stored.get("persist_mode") == "async":
        raise ProgrammingError(f"stream {stream} has persist_mode = async, which loses acknowledged events")
