"""The platform's streams, as the server must hold them: created by a migration, verified by every service at its start.

    ensure_streams: creates what is missing         verify_server: refuses to run on a server that could lose the log

What exists is not changed here, but for one former setting (ensure_streams). A setting that drifted is a finding for a
person: an update can destroy data (max_age, max_msgs_per_subject), and a stream that is gone may mean a wrong
encryption key rather than a new house.
"""

import asyncio
import contextlib
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any, Literal
from urllib.request import ProxyHandler, build_opener

import msgspec
import nats.errors
from nats.aio.client import Client

EVENTS = "EVENTS"
USAGE = "USAGE"
TELEMETRY = "TELEMETRY"
SNAPSHOTS = "SNAPSHOTS"
TIMERS = "TIMERS"
PARKED = "PARKED"
SEALS = "SEALS"

API_TIMEOUT_S = 3.0
API_ATTEMPTS = 5
"""A cluster's stream has no leader for 5.2 to 6.6 s after a crash, and a request of that time is never answered."""
RETRY_PAUSE_S = 0.5
MONITOR_TIMEOUT_S = 5.0
STREAM_NOT_FOUND = 10059
MAX_MESSAGE_BYTES = 262_144
MAX_SNAPSHOT_BYTES = 1_000_000
TELEMETRY_MAX_BYTES = 4_000_000_000
"""A hundred instances, a sample of 400 bytes every second, for a day: 3.5 GB."""

_UNAVAILABLE = 503
_opener = build_opener(ProxyHandler({}))  # no proxy: the log's server is ours
_NANOSECONDS = 1_000_000_000
_HOUR = 3600 * _NANOSECONDS

_STORED = {"retention": "limits", "storage": "file", "compression": "none", "allow_direct": True}
# Not s2: after a kill -9, nats-server 2.15.1 cannot read a compressed block of a replica again ("s2: corrupt input"),
# which then never catches up; see the README.
_FORMER_COMPRESSION = "s2"
_FOR_EVER = {
    **_STORED,
    "max_age": 0,
    "max_msgs": -1,
    "max_bytes": -1,
    "max_msgs_per_subject": -1,
    "max_msg_size": MAX_MESSAGE_BYTES,
    "discard": "new",
    "deny_delete": True,
    "deny_purge": True,
    "allow_rollup_hdrs": False,
    "allow_msg_ttl": False,
    "allow_atomic": True,
    "duplicate_window": _HOUR,  # longer than any writer's retries; costs some 190 bytes of memory per message
}

STREAMS: Mapping[str, Mapping[str, Any]] = {
    EVENTS: {**_FOR_EVER, "subjects": ["evt.>", "uniq.>"]},
    USAGE: {**_FOR_EVER, "subjects": ["use.>"]},
    SEALS: {**_FOR_EVER, "subjects": ["seal.>"]},
    TELEMETRY: {
        **_STORED,
        "subjects": ["tel.>"],
        "max_age": 24 * _HOUR,
        "max_bytes": TELEMETRY_MAX_BYTES,
        "max_msg_size": MAX_MESSAGE_BYTES,
        "discard": "old",
    },
    SNAPSHOTS: {
        **_STORED,
        "subjects": ["snap.>"],
        "max_msgs_per_subject": 1,
        "max_msg_size": MAX_SNAPSHOT_BYTES,
        "discard": "old",
    },
    TIMERS: {
        **_STORED,
        "subjects": ["timer.>", "due.>"],
        "max_msg_size": MAX_MESSAGE_BYTES,
        "discard": "old",  # schedules ask for it; nothing is discarded, for there is no limit
        "allow_msg_schedules": True,
        "allow_msg_ttl": True,
        "allow_rollup_hdrs": True,  # schedules switch it on, and deny_purge off: hence a stream of their own
    },
    PARKED: {
        **_STORED,
        "subjects": ["park.>"],
        "max_msg_size": MAX_MESSAGE_BYTES,
        "discard": "new",
        "duplicate_window": _HOUR,
    },
}
"""Stream -> settings, spelled as the server spells them; durations in nanoseconds."""

_FORBIDDEN = {"persist_mode": ("async",), "sealed": (True,)}
"""persist_mode async overrides sync_interval always, and lost acknowledged messages even without a power cut."""


class UnfitServerError(RuntimeError):
    """The server must not be trusted with the log; the message lists what is wrong and the cure of each."""

    def __init__(self, findings: list[str]) -> None:
        super().__init__("this NATS server is not fit for the event log:\n  - " + "\n  - ".join(findings))
        self.findings = tuple(findings)


async def ensure_streams(nc: Client, *, replicas: int = 1) -> list[str]:
    """Creates the streams that are missing; returns their names. Needs an administrator's connection.

    Of what exists it changes one thing: compression, which an earlier release asked for, is switched off. What is
    stored stays as it is, and readable; only new blocks differ.

    Args:
        nc: connected as a user that may create streams.
        replicas: copies of each stream; 3 in production.

    Raises:
        UnfitServerError: the server refused, or this user may not.
    """
    created = []
    for stream, settings in STREAMS.items():
        stored = await _stored_settings(nc, stream)
        if stored is None:
            await _put(nc, "CREATE", {"name": stream, "num_replicas": replicas, **settings})
            created.append(stream)
        elif stored.get("compression") == _FORMER_COMPRESSION:
            await _put(nc, "UPDATE", {**stored, "compression": settings["compression"]})
    return created


async def verify_server(nc: Client, monitor_url: str | None, *, replicas: int = 1) -> None:
    """Returns when the server holds the streams as they must be and syncs each write to disk.

    Args:
        nc: any connection to it.
        monitor_url: base of its monitoring endpoint ("http://127.0.0.1:8222"); of a cluster all, separated by commas.
            A client connection cannot see how the server syncs, so this is the only witness.
        replicas: fewest copies that the streams must have.

    Raises:
        UnfitServerError: with all that is wrong.
    """
    findings = []
    for stream, settings in STREAMS.items():
        stored = await _stored_settings(nc, stream)
        if stored is None:
            findings.append(
                f"stream {stream} is missing; on a new server create it with `inventiv migrate`, "
                "on an old one look first: a wrong encryption key shows an empty server"
            )
        else:
            findings += _differences(stream, settings, stored, replicas)
    findings += await _sync_findings(monitor_url)
    if findings:
        raise UnfitServerError(findings)


async def _put(nc: Client, verb: Literal["CREATE", "UPDATE"], config: Mapping[str, Any]) -> None:
    stream = config["name"]
    reply = await _api(nc, f"$JS.API.STREAM.{verb}.{stream}", msgspec.json.encode(config))
    if error := reply.get("error"):  # an attempt whose answer was lost is no error: doing the same again is welcome
        words = f"stream {stream} cannot be {verb.lower()}d: {error.get('description')}"
        raise UnfitServerError([words])


async def _stored_settings(nc: Client, stream: str) -> dict[str, Any] | None:
    reply = await _api(nc, f"$JS.API.STREAM.INFO.{stream}", b"")
    error = reply.get("error")
    if error and error.get("err_code") == STREAM_NOT_FOUND:
        return None
    if error:
        raise UnfitServerError([f"stream {stream} cannot be inspected: {error.get('description')}"])
    return dict(reply["config"])


async def _api(nc: Client, subject: str, body: bytes) -> dict[str, Any]:
    """The server's answer; a cluster gets several chances, for it may be electing."""
    for _ in range(API_ATTEMPTS - 1):
        with contextlib.suppress(UnfitServerError):
            reply = await _ask(nc, subject, body)
            if reply.get("error", {}).get("code") != _UNAVAILABLE:
                return reply
            await asyncio.sleep(RETRY_PAUSE_S)
    return await _ask(nc, subject, body)


async def _ask(nc: Client, subject: str, body: bytes) -> dict[str, Any]:
    try:
        reply = await nc.request(subject, body, timeout=API_TIMEOUT_S)
    except nats.errors.NoRespondersError:
        raise UnfitServerError(["JetStream is off; switch it on with jetstream { sync_interval: always }"]) from None
    except nats.errors.TimeoutError:
        raise UnfitServerError(
            [f"no answer to {subject} within {API_ATTEMPTS} x {API_TIMEOUT_S} s; connect with permission for it"]
        ) from None
    return msgspec.json.decode(reply.data, type=dict[str, Any])


def _differences(stream: str, wanted: Mapping[str, Any], stored: Mapping[str, Any], replicas: int) -> list[str]:
    """The server leaves out what is off, so absent reads as False or 0."""
    findings = [
        f"stream {stream} has {name} = {found!r} instead of {value!r}; let an administrator correct it"
        for name, value in wanted.items()
        if (found := stored.get(name, type(value)())) != value
    ]
    findings += [
        f"stream {stream} has {name} = {stored[name]!r}, which can lose what was acknowledged; recreate it without"
        for name, values in _FORBIDDEN.items()
        if stored.get(name) in values
    ]
    if (copies := stored.get("num_replicas", 1)) < replicas:
        findings.append(f"stream {stream} has {copies} copies instead of {replicas}; raise num_replicas")
    return findings


async def _sync_findings(monitor_url: str | None) -> list[str]:
    if not monitor_url:
        return [
            (
                "nothing shows that the server syncs each write to disk; "
                "set INVENTIV_NATS_MONITOR_URL to its monitoring endpoint (http: ... in its configuration)"
            )
        ]
    findings: list[str] = []
    silent: list[str] = []
    urls = [url.strip().rstrip("/") for url in monitor_url.split(",")]
    for url in urls:
        answered, found = await _sync_findings_of(url)
        (findings if answered else silent).extend(found)
    if 2 * len(silent) < len(urls):  # a cluster serves without a minority, so services start without it too
        return findings
    return findings + silent


async def _sync_findings_of(url: str) -> tuple[bool, list[str]]:
    """Whether it answered, and what is wrong."""
    try:
        reply = msgspec.json.decode(await asyncio.to_thread(_fetched, f"{url}/varz"))
        jetstream = reply.get("jetstream") or {}
    except (OSError, HTTPException, ValueError, AttributeError) as error:
        words = f"{url}/varz does not answer ({error!r}); correct INVENTIV_NATS_MONITOR_URL or open the endpoint"
        return False, [words]
    if (jetstream.get("config") or {}).get("sync_always") is not True:
        words = (
            f"{url} does not sync each write to disk, so a power cut can lose the whole log; "
            "put sync_interval: always into its jetstream block and restart it"
        )
        return True, [words]
    return True, []


def _fetched(url: str) -> bytes:
    """The body of a page, asked for by nobody but the standard library: a client of more comfort costs a gateway 6 MB.

    Raises:
        OSError: nobody answers, or not with 2xx.
        HTTPException, ValueError: the answer is not HTTP; the address is none.
    """
    if not url.startswith(("http://", "https://")):
        raise ValueError("not an address of http")
    with _opener.open(url, timeout=MONITOR_TIMEOUT_S) as reply:
        return bytes(reply.read())
