"""One look at an account, both ways: what the provider has and no record wants, what a record has and the provider not.

    records ─> the provider's complete lists ─> compare ─> record what was found ─> delete, or tell the instances
                                                           (the account's own laws: seen before, grace, breaker)

It starts from the provider's list, and keeps nothing in memory: what was seen once stands in the account's events, so a
restart forgets nothing and any process may look. A deletion is on record before the provider is told. The surprising
rule: without a complete list, or with records that lag behind the log, nothing is concluded at all.
"""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import assert_never

import structlog

from domain.ids import PLATFORM, InstanceId
from domain.instance import INSTANCE
from domain.instance_commands import GONE_CONFIRMATION_S, RecordServerGone
from domain.message import Context
from domain.provider_account import PROVIDER_ACCOUNT, ProviderAccount, Stray, key_of, provider_account_id_of
from domain.provider_account_commands import (
    ProviderAccountCommand,
    RecordReconciled,
    RecordReconciliationFailed,
    Signed,
)
from handlers.account_listing import CallFailedError, Judge, Judged, Listing, asked
from handlers.cloud_ports import Absent, Account, Cloud, Existence, Present, Unknown, Volume
from handlers.ports import Doors, Owning
from handlers.provider_words import Trouble, trouble_of

GRACE_S = 60.0
"""A stray is left alone this long after it was first seen; a provider with a listing lag gets twice that lag."""
MISSED_APART_S = 10.0
"""Two looks that miss a server lie this far apart at least; with a listing lag, that."""
MASS_MISSED_S = 600.0
"""So long when more than half of an account's servers are missed at once: they may be another account's credentials."""
MAX_PAGES = 40
MAX_DELETES = 50
"""In one look; the next look goes on."""
LOOK_LIMIT_S = 120.0
BUSY = timedelta(seconds=120)
"""A server is switched off before it is deleted, a volume let go: it takes a while, and is no trouble before that."""
ACTOR = "system:handlers"
CONTEXT = Context(actor=ACTOR, correlation="")
"""Without an intent of its own: it goes on with the story that the account, or the instance, is in."""

_log = structlog.get_logger(__name__)


async def reconcile(account: Account, doors: Doors) -> None:
    """What goes wrong at the provider, or with the records, is recorded and not raised.

    Raises:
        OSError: the log or the vault cannot be reached.
    """
    look = _Look(account, doors, await _load(account, doors))
    try:
        async with asyncio.timeout(LOOK_LIMIT_S):
            await look()
    except CallFailedError as failed:
        await look.note(failed)
    except TimeoutError:
        words = f"The look was not over after {LOOK_LIMIT_S:.0f} s."
        await look.note(CallFailedError("reconcile", Trouble("transient", words)))


async def _load(account: Account, doors: Doors) -> ProviderAccount:
    account_id = provider_account_id_of(account.organization, account.provider)
    return (await doors.load(PROVIDER_ACCOUNT, account.organization, account_id)).state


class _Look:
    """One look. `before`: what was known of the account when it began."""

    def __init__(self, account: Account, doors: Doors, before: ProviderAccount) -> None:
        self._account = account
        self._doors = doors
        self._before = before
        self._judge = Judge(account, doors, before)

    async def __call__(self) -> None:
        owning = await self._records()
        cloud = await self._open()
        listing = await self._list(cloud)
        judged = await self._judge.judge(cloud, listing, {one.provider_instance_id for one in owning})
        missed = await self._missed(owning, listing, cloud)
        await self._record(self._reconciled(cloud, listing, judged, missed))
        for failed in self._judge.failed:
            await self.note(failed)
        await self._delete_strays(cloud, judged)
        await self._tell_the_instances(cloud, owning, missed)

    async def note(self, failed: CallFailedError) -> None:
        trouble = failed.trouble
        _log.warning(
            "account_not_reconciled",
            provider=self._account.provider,
            organization=self._account.organization,
            call=failed.call,
            kind=trouble.kind,
            reason=trouble.message,
        )
        asked_at = self._before.reconciliation_requested_at
        provider = self._account.provider
        await self._record(
            RecordReconciliationFailed(
                provider=provider, asked_at=asked_at, call=failed.call, kind=trouble.kind, message=trouble.message
            )
        )

    async def _record(self, command: ProviderAccountCommand) -> None:
        organization = self._account.organization
        account_id = provider_account_id_of(organization, self._account.provider)
        await self._doors.dispatch(PROVIDER_ACCOUNT, organization, account_id, command, CONTEXT)

    async def _records(self) -> list[Owning]:
        """Before the provider is asked: what is on record by then has to be in its lists."""
        organization = "" if self._account.organization == PLATFORM else self._account.organization
        owning: list[Owning] = []
        try:
            for _ in range(MAX_PAGES):
                page = await self._doors.list_owning(
                    owning[-1].instance_id if owning else "",
                    organization=organization,
                    provider=self._account.provider,
                    current=True,
                )
                if not page:
                    break
                owning += page
        except OSError as behind:
            raise CallFailedError("read_records", Trouble("records_behind", trouble_of(behind).message)) from behind
        return owning

    async def _open(self) -> Cloud:
        cloud = await asked("open_account", self._doors.clouds.of(self._account.organization, self._account.provider))
        if cloud is None:
            raise CallFailedError("open_account", Trouble("auth", "There are no credentials for this provider."))
        return cloud

    async def _list(self, cloud: Cloud) -> Listing:
        """Without the volumes, servers are compared all the same."""
        servers = await asked("list_servers", cloud.list_servers())
        if cloud.volumes is None:
            return Listing(servers, None)
        try:
            return Listing(servers, await asked("list_volumes", cloud.volumes.list_own_volumes()))
        except CallFailedError as failed:
            await self.note(failed)
            return Listing(servers, None)

    async def _missed(self, owning: Sequence[Owning], listing: Listing, cloud: Cloud) -> dict[str, InstanceId]:
        """Servers that a record has and a complete list lacks; each is asked for by its id as well."""
        listed = {server.provider_instance_id for server in listing.servers}
        missed: dict[str, InstanceId] = {}
        for one in owning:
            server = one.provider_instance_id
            if not server or server in listed:
                continue
            record = (await self._doors.load(INSTANCE, one.organization, one.instance_id)).state
            if not record.may_own_a_server or record.provider_instance_id != server:
                continue
            found = await self._find(cloud, server)
            match found:
                case Absent():
                    missed[server] = one.instance_id
                case Unknown():
                    missed |= {server: one.instance_id} if server in self._before.missed else {}
                case Present():
                    pass
                case _:
                    assert_never(found)
        return missed

    async def _find(self, cloud: Cloud, provider_instance_id: str) -> Existence:
        try:
            return await asked("find_server", cloud.find_server(provider_instance_id=provider_instance_id))
        except CallFailedError as failed:
            await self.note(failed)
            return Unknown(failed.trouble.message)

    def _reconciled(
        self, cloud: Cloud, listing: Listing, judged: Sequence[Judged], missed: Mapping[str, InstanceId]
    ) -> RecordReconciled:
        volumes = frozenset(one.signed.provider_resource_id for one in judged if one.signed.resource == "volume")
        return RecordReconciled(
            provider=self._account.provider,
            asked_at=self._before.reconciliation_requested_at,
            servers=frozenset(one.signed.provider_resource_id for one in judged if one.signed.resource == "server"),
            volumes=None if listing.volumes is None else volumes,
            strays=tuple(one.signed for one in judged if one.standing == "stray"),
            held=frozenset(self._judge.held),
            unrecorded=tuple(one.signed for one in judged if one.standing == "unrecorded"),
            missed=dict(missed),
            grace_s=max(GRACE_S, 2 * cloud.traits.list_lag_s),
        )

    async def _delete_strays(self, cloud: Cloud, judged: Sequence[Judged]) -> None:
        """Those whose deletion is on record; each one's record is read once more before the provider is told."""
        strays = [one for one in judged if one.standing == "stray"]
        if not strays:
            return
        known = (await _load(self._account, self._doors)).strays
        due = [(one, at) for one in strays if (at := _intended_at(known, one)) is not None]
        for one, intended_at in due[:MAX_DELETES]:
            attached = isinstance(one.found, Volume) and one.found.attached_to
            if not attached and await self._judge.is_stray(one):
                await self._delete(cloud, one.signed, intended_at)

    async def _delete(self, cloud: Cloud, stray: Signed, intended_at: datetime) -> None:
        """Asked again by each look until it is gone. "Still busy" is the usual answer for a while, and no news."""
        call, name = f"delete_{stray.resource}", stray.provider_resource_id
        _log.warning("stray_deleted", provider=self._account.provider, resource=stray.resource, id=name)
        try:
            if stray.resource == "server":
                await asked(call, cloud.delete_server(name))
            elif cloud.volumes is not None:
                await asked(call, cloud.volumes.delete_volume(name))
        except CallFailedError as failed:
            busy = failed.trouble.kind == "transient" and self._doors.clock() - intended_at < BUSY
            if not busy and failed.trouble.kind != "not_found":
                await self.note(failed)

    async def _tell_the_instances(
        self, cloud: Cloud, owning: Sequence[Owning], missed: Mapping[str, InstanceId]
    ) -> None:
        """Those whose server an earlier look missed already; the instance's own laws want to hear it twice."""
        lag_s, recorded = cloud.traits.list_lag_s, sum(bool(one.provider_instance_id) for one in owning)
        many = len(missed) > 1 and 2 * len(missed) > recorded
        apart = timedelta(seconds=max(MASS_MISSED_S if many else MISSED_APART_S, lag_s))
        organizations = {one.instance_id: one.organization for one in owning}
        for server, instance_id in missed.items():
            first = self._before.missed.get(server)
            if first is None or self._doors.clock() - first < apart:
                continue
            organization = organizations[instance_id]
            record = (await self._doors.load(INSTANCE, organization, instance_id)).state
            if record.provider_instance_id == server:  # else it has another one by now, of which this says nothing
                confirm_after_s = max(GONE_CONFIRMATION_S, lag_s)
                gone = RecordServerGone(confirm_after_s=confirm_after_s, attempt=record.attempt)
                await self._doors.dispatch(INSTANCE, organization, instance_id, gone, CONTEXT)


def _intended_at(known: Mapping[str, Stray], one: Judged) -> datetime | None:
    stray = known.get(key_of(one.signed))
    return stray.delete_intended_at if stray else None
