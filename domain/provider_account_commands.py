"""What may be asked of an account, and the news that looks at its provider bring."""

from datetime import datetime

import msgspec

from domain.ids import InstanceId, OrganizationId
from domain.provider_account_events import Offer, Resource


class Signed(msgspec.Struct, frozen=True, kw_only=True):
    """A listed server or volume that carries our signature: for which attempt of which instance."""

    resource: Resource
    provider_resource_id: str
    organization_id: OrganizationId
    instance_id: InstanceId
    attempt: int


class RequestReconciliation(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


class RecordReconciled(msgspec.Struct, frozen=True, kw_only=True):
    """A complete look at the provider's lists.

    Attributes:
        asked_at: of the request that was open when the look began; None: nobody had asked.
        servers: all of ours that are listed, by their ids.
        volumes: likewise; None: not listed, so nothing is known about any of them.
        strays: those of both that no record wants.
        held: of the strays, by "<resource>/<id>", those that must not be deleted yet.
        unrecorded: those of both that no record knows of.
        missed: instance by server: recorded, not listed, and absent when asked for by id.
        grace_s: how long a stray must have been known before it is deleted.
    """

    provider: str
    asked_at: datetime | None
    servers: frozenset[str]
    volumes: frozenset[str] | None
    strays: tuple[Signed, ...]
    unrecorded: tuple[Signed, ...]
    missed: dict[str, InstanceId]
    grace_s: float
    held: frozenset[str] = frozenset()


class RecordReconciliationFailed(msgspec.Struct, frozen=True, kw_only=True):
    """`asked_at` as above; `call`, `kind`, `message` as in the event."""

    provider: str
    asked_at: datetime | None
    call: str
    kind: str
    message: str


class RequestCatalogueSync(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


class RecordOffers(msgspec.Struct, frozen=True, kw_only=True):
    """All that the provider offers now."""

    provider: str
    offers: tuple[Offer, ...]


class RecordCatalogueSyncFailed(msgspec.Struct, frozen=True, kw_only=True):
    provider: str
    kind: str
    message: str


ProviderAccountCommand = (
    RequestReconciliation
    | RecordReconciled
    | RecordReconciliationFailed
    | RequestCatalogueSync
    | RecordOffers
    | RecordCatalogueSyncFailed
)
