"""What happens to an organisation's account at a provider; how it changes the account's state stands beside the laws.

reconciliation asked ─> completed | failed          catalogue asked ─> synced | failed
stray seen ─> delete intended ─> cleared            server missed ─> settled

Every event names its provider, because the account's id is derived and tells nothing. Words of a provider are its own,
shortened, without addresses and names of people.
"""

from typing import Literal

import msgspec

from domain.ids import InstanceId, OrganizationId

Resource = Literal["server", "volume"]
Stock = Literal["available", "scarce", "out", "unknown"]


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What the provider rents out in a zone; memory in GB, price None where it says none in EUR."""

    zone: str
    instance_type: str
    gpu_count: int
    vram_per_gpu_gb: int
    cpu_count: int
    ram_gb: int
    price_eur_micros_per_hour: int | None
    stock: Stock = "unknown"

    @property
    def key(self) -> "OfferKey":
        return OfferKey(self.zone, self.instance_type)


class OfferKey(msgspec.Struct, frozen=True, order=True):
    zone: str
    instance_type: str


class ReconciliationRequested(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


class ReconciliationCompleted(msgspec.Struct, frozen=True, kw_only=True):
    """What a complete look at the provider's own lists found; said when it differs from the last, and once an hour.

    Attributes:
        servers: ours by signature that are listed.
        volumes: likewise; None where the provider has none, or did not list them.
        strays: servers and volumes of ours that no record wants.
        unrecorded: ours by signature, of which no record knows anything.
        missed: servers that a record has and the provider has not.
        answered: whether this is the answer to who asked.
    """

    provider: str
    servers: int
    volumes: int | None
    strays: int
    unrecorded: int
    missed: int
    answered: bool


class ReconciliationFailed(msgspec.Struct, frozen=True, kw_only=True):
    """`call`: what was asked, e.g. "list_servers"; `kind`: of trouble, e.g. "auth"; `message`: the provider's words."""

    provider: str
    call: str
    kind: str
    message: str
    answered: bool


class StraySeen(msgspec.Struct, frozen=True, kw_only=True):
    """Signed by us for this attempt of this instance, which does not want it."""

    provider: str
    resource: Resource
    provider_resource_id: str
    organization_id: OrganizationId
    instance_id: InstanceId
    attempt: int


class StrayDeleteIntended(msgspec.Struct, frozen=True, kw_only=True):
    """Written before the provider is told; from now on it is told until the stray is gone."""

    provider: str
    resource: Resource
    provider_resource_id: str


class StrayCleared(msgspec.Struct, frozen=True, kw_only=True):
    """`reason`: a complete listing lacks it, or its record wants it after all."""

    provider: str
    resource: Resource
    provider_resource_id: str
    reason: Literal["gone", "wanted"]


class UnrecordedServerSeen(msgspec.Struct, frozen=True, kw_only=True):
    """Signed by us, yet no record knows of that attempt: was a part of the log lost? It is never deleted by us."""

    provider: str
    resource: Resource
    provider_resource_id: str
    organization_id: OrganizationId
    instance_id: InstanceId
    attempt: int


class ServerMissed(msgspec.Struct, frozen=True, kw_only=True):
    """A record has it; a complete listing lacks it, and asked for by its id it is absent."""

    provider: str
    provider_instance_id: str
    instance_id: InstanceId


class MissedServerSettled(msgspec.Struct, frozen=True, kw_only=True):
    """It was found again, or its record has no server any more."""

    provider: str
    provider_instance_id: str


class DeletionHalted(msgspec.Struct, frozen=True, kw_only=True):
    """So many strays are due that our own records may be wrong: no further one is deleted for a while.

    Attributes:
        due: strays that wait.
        deleted: those whose deletion was intended within the window.
        limit: of them.
    """

    provider: str
    due: int
    deleted: int
    limit: int


class CatalogueSyncRequested(msgspec.Struct, frozen=True, kw_only=True):
    provider: str


class CatalogueSynced(msgspec.Struct, frozen=True, kw_only=True):
    """What changed since the last time: `offers` are new or different, `withdrawn` are not offered any more."""

    provider: str
    offers: tuple[Offer, ...] = ()
    withdrawn: tuple[OfferKey, ...] = ()


class CatalogueSyncFailed(msgspec.Struct, frozen=True, kw_only=True):
    """See ReconciliationFailed."""

    provider: str
    kind: str
    message: str


ProviderAccountEvent = (
    ReconciliationRequested
    | ReconciliationCompleted
    | ReconciliationFailed
    | StraySeen
    | StrayDeleteIntended
    | StrayCleared
    | UnrecordedServerSeen
    | ServerMissed
    | MissedServerSettled
    | DeletionHalted
    | CatalogueSyncRequested
    | CatalogueSynced
    | CatalogueSyncFailed
)


def is_mended_by(call: str, completed: ReconciliationCompleted) -> bool:
    """Whether a completed look proves that a call which failed before works again."""
    if call in {"list_volumes", "delete_volume"}:
        return completed.volumes is not None and (call == "list_volumes" or not completed.strays)
    return call != "delete_server" or not completed.strays
