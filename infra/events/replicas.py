"""Is each copy of the log whole? The server does not say: a node with a rotten block reports itself healthy.

    counted   each node's own figures (/jsz): as many messages as positions, from the first, none deleted, none behind
    read      messages at random positions, from whichever copy answers ── not found? ──> which copies cannot read it

The surprising rule: both are needed. With its index intact a node counts messages that it cannot read any more; it
answers "not found" to one Direct Get in three, and leaves a consumer that was placed on it waiting for ever, with
heartbeats.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import httpx
import msgspec
import nats.errors
import structlog
from nats.aio.client import Client

from infra.cancellation import heed_cancellation
from infra.events.reads import ApiError, last_position
from infra.events.streams import EVENTS, MONITOR_TIMEOUT_S, SEALS, USAGE

_log = structlog.get_logger(__name__)

KEPT_FOR_EVER = (EVENTS, USAGE, SEALS)
SETTLE_S = 2.0
"""A copy may be some messages behind; after this long it must have what the others had before."""
WATCH_INTERVAL_S = 60.0
PROBES = 100
"""Reads of each stream a minute: of ten blocks on three copies each, one that is rotten is met 29 times in 30."""
REPLY_TIMEOUT_S = 2.0
LOCATE_ATTEMPTS = 12
"""The server places each consumer on a copy by chance: all three are met with 98 %."""
DELIVERY_WAIT_S = 1.0
_NANOSECONDS = 1_000_000_000


class ReplicaFinding(msgspec.Struct, frozen=True, kw_only=True):
    """Something is wrong with one copy of a stream.

    Attributes:
        kind: "damaged" needs a person; "behind" and "unreachable" may heal by themselves.
        node: the server's name, or its monitoring address when it does not answer.
        stream: its name; "" when the node does not answer at all.
    """

    kind: Literal["damaged", "behind", "unreachable"]
    node: str
    stream: str
    fact: str
    cure: str


class _State(msgspec.Struct):
    messages: int = 0
    first_seq: int = 0
    last_seq: int = 0
    num_deleted: int = 0


class _Config(msgspec.Struct):
    num_replicas: int = 1


class _Stream(msgspec.Struct):
    name: str
    state: _State
    config: _Config = msgspec.field(default_factory=_Config)


class _Account(msgspec.Struct):
    stream_detail: list[_Stream] = []


class _Jsz(msgspec.Struct):
    account_details: list[_Account] = []


_Copies = dict[str, dict[str, _Stream]]
"""Stream -> node -> what the node says of its copy."""


async def replica_findings(monitor_url: str, *, settle_s: float = SETTLE_S) -> list[ReplicaFinding]:
    """What the nodes' own figures give away about EVENTS, USAGE and SEALS.

    Args:
        monitor_url: bases of the nodes' monitoring endpoints, separated by commas.
        settle_s: patience with copies that are behind; spent only when one is.
    """
    urls = [url.strip().rstrip("/") for url in monitor_url.split(",") if url.strip()]
    copies, findings = await _ask_all(urls)
    findings += [finding for stream, nodes in copies.items() for finding in _damages(stream, nodes, len(urls))]
    if any(len({copy.state.last_seq for copy in nodes.values()}) > 1 for nodes in copies.values()):
        await asyncio.sleep(settle_s)
        later, _ = await _ask_all(urls)
        findings += [f for stream, nodes in copies.items() for f in _behind(stream, nodes, later.get(stream, {}))]
    return findings


async def unreadable_replicas(nc: Client, *, probes: int = PROBES) -> list[ReplicaFinding]:
    """Reads messages of EVENTS, USAGE and SEALS at random positions, and finds the copies that cannot.

    Args:
        nc: a connection that may use Direct Get and create ephemeral consumers.
        probes: reads of each stream; each is answered by some copy.

    Raises:
        nats.errors.Error, ApiError: the servers do not answer.
    """
    findings = []
    for stream in KEPT_FOR_EVER:
        head = await last_position(nc, stream, timeout_s=REPLY_TIMEOUT_S)
        for position in random.sample(range(1, head + 1), min(probes, head)):
            if not await _is_found(nc, stream, position):
                findings += await _locate(nc, stream, position)
                break  # one rotten block is reason enough to replace the copy
    return findings


async def watch_replicas(nc: Client, monitor_url: str, *, interval_s: float = WATCH_INTERVAL_S) -> None:
    """Looks every interval_s until cancelled; what it finds is logged, damage as critical `replica_damaged`."""
    while True:  # endless by contract
        heed_cancellation()
        findings = await replica_findings(monitor_url)
        try:
            findings += await unreadable_replicas(nc)
        except (nats.errors.Error, ApiError, OSError) as error:
            _log.info("replicas_not_read", reason=repr(error))
        for found in findings:
            say = _log.critical if found.kind == "damaged" else _log.warning
            say(f"replica_{found.kind}", node=found.node, stream=found.stream, fact=found.fact, cure=found.cure)
        await asyncio.sleep(interval_s)


async def _ask_all(urls: Sequence[str]) -> tuple[_Copies, list[ReplicaFinding]]:
    copies: _Copies = {stream: {} for stream in KEPT_FOR_EVER}
    findings = []
    async with httpx.AsyncClient(timeout=MONITOR_TIMEOUT_S, trust_env=False) as client:
        for url, answer in zip(urls, await asyncio.gather(*(_ask(client, url) for url in urls)), strict=True):
            if isinstance(answer, ReplicaFinding):
                findings.append(answer)
                continue
            node, streams = answer
            for stream in streams:
                if stream.name in copies:
                    copies[stream.name][node or url] = stream
    return copies, findings


async def _ask(client: httpx.AsyncClient, url: str) -> tuple[str, list[_Stream]] | ReplicaFinding:
    """The node's name and its streams."""
    try:
        name = (await client.get(f"{url}/varz")).raise_for_status().json()["server_name"]
        reply = (await client.get(f"{url}/jsz?accounts=1&streams=1&config=1")).raise_for_status()
        streams = [
            s
            for account in msgspec.json.decode(reply.content, type=_Jsz).account_details
            for s in account.stream_detail
        ]
    except (httpx.HTTPError, ValueError, KeyError) as error:
        cure = "start it, or correct INVENTIV_NATS_MONITOR_URL; the log goes on while most of the nodes answer"
        fact = f"its monitoring does not answer ({type(error).__name__})"
        return ReplicaFinding(kind="unreachable", node=url, stream="", fact=fact, cure=cure)
    return str(name), streams


def _damages(stream: str, nodes: Mapping[str, _Stream], asked: int) -> list[ReplicaFinding]:
    findings = [
        ReplicaFinding(kind="damaged", node=node, stream=stream, fact=fact, cure=_cure(stream, copies=len(nodes)))
        for node, copy in nodes.items()
        if (fact := _hole(copy.state))
    ]
    wanted = max((copy.config.num_replicas for copy in nodes.values()), default=1)
    if len(nodes) < min(wanted, asked):
        fact = f"{len(nodes)} of {wanted} copies were found, on {', '.join(sorted(nodes)) or 'no node'}"
        cure = "start the nodes that do not answer; the streams of one that lost its disk are copied when it starts"
        findings.append(ReplicaFinding(kind="behind", node="cluster", stream=stream, fact=fact, cure=cure))
    return findings


def _hole(state: _State) -> str:
    """What the figures say against a stream from which nothing is ever removed; "" for nothing."""
    if state.num_deleted:
        return f"{state.num_deleted} of its messages count as deleted"
    if state.messages != state.last_seq:
        return f"it has {state.messages} messages up to position {state.last_seq}"
    if state.messages and state.first_seq != 1:
        return f"its first position is {state.first_seq}"
    return ""


def _behind(stream: str, before: Mapping[str, _Stream], after: Mapping[str, _Stream]) -> list[ReplicaFinding]:
    """Copies that do not have by now what another one had before."""
    head = max(copy.state.last_seq for copy in before.values()) if before else 0
    return [
        ReplicaFinding(
            kind="behind",
            node=node,
            stream=stream,
            fact=f"it ends at position {copy.state.last_seq}, another copy was at {head} before",
            cure="wait, it copies; one that stays behind needs its log of errors read, then: "
            + _cure(stream, copies=2),
        )
        for node, copy in after.items()
        if copy.state.last_seq < head
    ]


def _cure(stream: str, *, copies: int) -> str:
    if copies < 2:
        return "there is no other copy: stop the platform, keep the folder, and see `inventiv events restore`"
    return (
        f"stop this node, move the folder jetstream/<account>/streams/{stream} out of its store, start it: "
        "it copies the stream from the others"
    )


async def _is_found(nc: Client, stream: str, position: int) -> bool:
    query = msgspec.json.encode({"seq": position})
    reply = await nc.request(f"$JS.API.DIRECT.GET.{stream}", query, timeout=REPLY_TIMEOUT_S)
    return (reply.headers or {}).get("Status") != "404"


async def _locate(nc: Client, stream: str, position: int) -> list[ReplicaFinding]:
    """The copies that do not deliver the message at `position`; all are tried, as far as chance allows.

    None, when a copy was only a moment late.
    """
    answers: dict[str, bool] = {}
    for _ in range(LOCATE_ATTEMPTS):
        node, delivered = await _delivers(nc, stream, position)
        answers[node] = delivered
    silent = sorted(node for node, delivered in answers.items() if not delivered)
    return [
        ReplicaFinding(
            kind="damaged",
            node=node,
            stream=stream,
            fact=f"it counts the message at position {position} but cannot read it",
            cure=_cure(stream, copies=len(answers)),
        )
        for node in silent
    ]


async def _delivers(nc: Client, stream: str, position: int) -> tuple[str, bool]:
    """Which node a new consumer was placed on, and whether it delivers exactly the message at `position`."""
    config: dict[str, Any] = {
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": position,
        "ack_policy": "none",
        "mem_storage": True,
        "num_replicas": 1,
        "headers_only": True,
        "inactive_threshold": 5 * _NANOSECONDS,
    }
    request = msgspec.json.encode({"stream_name": stream, "config": config})
    reply = await nc.request(f"$JS.API.CONSUMER.CREATE.{stream}", request, timeout=REPLY_TIMEOUT_S)
    created = msgspec.json.decode(reply.data, type=dict[str, Any])
    if fault := created.get("error"):
        raise ApiError(fault.get("code", 500), fault.get("err_code", 0), fault.get("description", ""))
    node = str((created.get("cluster") or {}).get("leader") or "the only node")
    pull = msgspec.json.encode({"batch": 1, "expires": int(DELIVERY_WAIT_S * _NANOSECONDS)})
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{created['name']}"
    try:
        # An inbox of its own: a delivery carries its stored subject, by which the shared inbox would not know it.
        message = await nc.request(subject, pull, timeout=2 * DELIVERY_WAIT_S, old_style=True)
    except nats.errors.TimeoutError:
        return node, False
    tokens = message.reply.split(".")  # a status has none; see pull.py for the two forms of the others
    return node, len(tokens) >= 9 and tokens[5 if len(tokens) == 9 else 7] == str(position)
