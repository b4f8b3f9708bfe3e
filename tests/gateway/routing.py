"""Routing tables for specifications: what happened, told in one line each, folded by the real table.

routing(ready("i1", port=8000), key(CLEAR_KEY))        entries in the given order, positions 1, 2, 3 ...

A key is told with its organisation and owner, without whom it would be nobody's.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

import msgspec
from msgspec.structs import replace

from domain.activation import FLAGS
from domain.api_key import ApiKeyIssued, key_from, key_hash
from domain.deployment import DeploymentRequested
from domain.ids import EventId, OrganizationId, UserId
from domain.instance_events import DrainStarted, InstanceReady, InstanceRequested, WorkerRegistered
from domain.key_scope import KeyScope
from domain.message import Envelope, payload_hash, subject_of
from domain.offering import OfferingPublished, Terms, offering_id_of
from domain.organization import MemberAdded, OrganizationCreated
from domain.share import OfferingShared, ShareTerms, share_id_of
from domain.upstream import UpstreamConnected
from infra.events.port import Append, EventLog
from projections.projection import Entry
from projections.routing_table import RoutingTable
from tests.examples import ACME, ALICE, GLOBEX, example
from tests.given import EVENTS, NOON

MODEL = "mock-echo-model"
CLEAR_KEY = key_from(b"\x07" * 28)
STRANGERS_KEY = key_from(b"\x08" * 28)
SLUGS: dict[str, str] = {ACME: "acme", GLOBEX: "globex"}

Said = tuple[str, str, Any]
"""(organisation, aggregate id, event)"""


def entries(said: Iterable[Said], *, after: int = 0) -> list[Entry]:
    """Each as the log would show it, one second apart."""
    return [_entry(position, *one) for position, one in enumerate(said, start=after + 1)]


def routing(*told: Iterable[Said]) -> RoutingTable:
    table = RoutingTable()
    for entry in entries(one for many in told for one in many):
        table.apply(entry)
    return table


def founded(organization: str = ACME, slug: str = "", *, member: UserId = ALICE) -> list[Said]:
    """An organisation of one member."""
    slug = slug or SLUGS[organization]
    joined = MemberAdded(user_id=member, role="owner")
    return [
        (organization, organization, OrganizationCreated(name=slug, slug=slug)),
        (organization, organization, joined),
    ]


def key(clear: str = CLEAR_KEY, *, organization: str = ACME, key_id: str = "k1", **changes: Any) -> list[Said]:
    changes = {"key_sha256": key_hash(clear), "key_prefix": clear[:12], **changes}
    return [*founded(organization), (organization, key_id, replace(example(ApiKeyIssued), **changes))]


def scoped(**limits: Any) -> list[Said]:
    """The one key, with a scope."""
    return key(scope=KeyScope(role="owner", **limits))


def offered(
    code: str = "chat", *, organization: str = ACME, model: str = MODEL, activated: Sequence[str] = FLAGS, **terms: Any
) -> list[Said]:
    wanted: dict[str, Any] = {"visibility": "public", "access_policy": "free", **terms}
    changes = {"code": code, "model_code": model, "terms": Terms(name=code, **wanted), "activated": tuple(activated)}
    published = replace(example(OfferingPublished), **changes)
    return [(organization, offering_id_of(OrganizationId(organization), code), published)]


def shared(
    consumer: str, code: str = "chat", *, organization: str = ACME, at: datetime = NOON, **terms: Any
) -> list[Said]:
    offering_id = offering_id_of(OrganizationId(organization), code)
    whom = OrganizationId(consumer)
    granted = ShareTerms(starts_at=at, **terms)
    share = replace(example(OfferingShared), offering_id=offering_id, consumer=whom, terms=granted)
    return [(organization, share_id_of(offering_id, whom), share)]


def deployed(model: str = MODEL, *, organization: str = ACME, deployment_id: str = "d1") -> list[Said]:
    return [(organization, deployment_id, replace(example(DeploymentRequested), model_code=model))]


def connected(
    model: str = MODEL,
    url: str = "https://api.example.com/v1",
    *,
    organization: str = ACME,
    deployment_id: str = "u1",
    **changes: Any,
) -> list[Said]:
    """A foreign upstream, with both flags unless told otherwise."""
    changes = {"model_code": model, "url": url, **changes}
    return [(organization, deployment_id, replace(example(UpstreamConnected), **changes))]


def registered(
    instance_id: str, url: str = "http://127.8.0.1:8000", *, organization: str = ACME, model: str = MODEL, gpus: int = 1
) -> list[Said]:
    requested = replace(example(InstanceRequested), model_code=model, gpu_count=gpus)
    return [
        (organization, instance_id, requested),
        (organization, instance_id, replace(example(WorkerRegistered), engine_url=url)),
    ]


def ready(
    instance_id: str, url: str = "http://127.8.0.1:8000", *, organization: str = ACME, model: str = MODEL, gpus: int = 1
) -> list[Said]:
    told = registered(instance_id, url, organization=organization, model=model, gpus=gpus)
    return [*told, (organization, instance_id, InstanceReady())]


def draining(instance_id: str, *, organization: str = ACME) -> list[Said]:
    return [(organization, instance_id, example(DrainStarted))]


def _entry(position: int, organization: str, aggregate_id: str, event: Any) -> Entry:
    decider = EVENTS[type(event)]
    envelope = Envelope(
        event_id=EventId(f"e{position}"),
        aggregate=decider.aggregate,
        id=aggregate_id,
        version=1,
        type=type(event).__name__,
        schema=1,
        organization=OrganizationId(organization),
        actor="system:test",
        cause=None,
        correlation="c",
        at=NOON + timedelta(seconds=position),
        previous="",
        data=msgspec.Raw(msgspec.json.encode(event)),
    )
    subject = subject_of(organization, decider.aggregate, aggregate_id)
    return Entry(position, subject, msgspec.json.encode(envelope), envelope, event)


async def tell(log: EventLog, *told: Iterable[Said]) -> int:
    """Writes it to a log, each event as the successor of its aggregate's last; returns the last one's position."""
    position = await log.head()
    for entry in entries((one for many in told for one in many), after=position):
        last = await log.last(entry.subject)
        version, previous = (last.envelope.version + 1, payload_hash(last.payload)) if last else (1, "")
        linked = replace(entry.envelope, event_id=EventId(f"{uuid4()}"), version=version, previous=previous)
        message = (linked.event_id, msgspec.json.encode(linked))
        position = await log.append([Append(entry.subject, last.position if last else 0, (message,))])
    return position
