"""One good example of every event and every command, for specifications, codecs and random histories."""

from datetime import timedelta
from typing import Any, TypeVar

from domain import (
    access,
    api_key,
    deployment,
    host,
    instance_commands,
    instance_events,
    model,
    offering,
    organization,
    organization_commands,
    provider_account_commands,
    provider_account_events,
    provider_credentials,
    reservation,
    session,
    setting,
    share,
    upstream,
    user,
)
from domain.activation import Flag
from domain.catalogue import PROVIDERS
from domain.ids import DeploymentId, InstanceId, InvitationId, ModelId, OrganizationId, UserId, WorkerId
from domain.key_scope import KeyScope
from domain.limits import OrganizationLimits
from domain.model_shape import ModelShape
from domain.place import Place
from domain.values import Digest, Sealed
from tests.given import NOON

T = TypeVar("T")

ACME = OrganizationId("0192aaaa-0000-7000-8000-00000000acme")
ALICE = UserId("0192aaaa-0000-7000-8000-0000000a11ce")
BOB = UserId("0192aaaa-0000-7000-8000-00000000b0b0")
DEPLOYED = DeploymentId("0192aaaa-0000-7000-8000-0000000de910")
INSTANCE_1 = InstanceId("0192aaaa-0000-7000-8000-000000000001")
WORKER = WorkerId("0192aaaa-0000-7000-8000-0000000000aa")

_WANTED: dict[str, Any] = {
    "model_code": "mock-echo-model",
    "engine": "simulated",
    "provider": "local",
    "zone": "local",
    "instance_type": "mock-local-instance",
    "startup_timeout_s": 300,
}
_HARDWARE: dict[str, Any] = {"gpu_count": 1, "vram_per_gpu_gb": 2, "price_eur_micros_per_hour": 0}
ELSEWHERE = Place(
    zone="fr-par-2", instance_type="L4-1-24G", gpu_count=1, vram_per_gpu_gb=24, price_eur_micros_per_hour=750_000
)
"""A second place, for what falls back to one."""
_INSTANCE: dict[str, Any] = {
    "deployment_id": DEPLOYED,
    "ordinal": 1,
    "activated": ("technical", "economic"),
    **_WANTED,
    **_HARDWARE,
}
_UPSTREAM: dict[str, Any] = {
    "model_code": "chat",
    "url": "https://api.example.com/v1",
    "upstream_model": "large",
    "key_digest": Digest("k1"),
}
_WORKER: dict[str, Any] = {
    "worker_id": WORKER,
    "token_sha256": "a" * 64,
    "token_prefix": "wk_0192aaaa-",
    "engine_url": "http://127.8.0.1:8000",
    "agent_url": "http://127.8.0.1:8080",
    "agent_version": "1.0.0",
    "agent_sha256": "b" * 64,
}
_VOLUME: dict[str, Any] = {
    "provider_volume_id": "vol-1",
    "volume_type": "sbs_volume",
    "size_gb": 20,
    "is_boot": True,
    "delete_on_terminate": True,
}
_PERSON: dict[str, Any] = {
    "username": Sealed("sealed:username"),
    "username_digest": Digest("d1"),
    "email": Sealed("sealed:email"),
    "email_digest": Digest("d2"),
    "first_name": Sealed("sealed:first"),
    "last_name": Sealed("sealed:last"),
    "role": "user",
}
_MODEL: dict[str, Any] = {
    "code": "mock-echo-model",
    "name": "mock echo model",
    "required_vram_gb": 0,
    "context_length": 2048,
    "data_volume_gb": 0,
    "shape": ModelShape(
        parameters=8_000_000,
        weight_bytes=16_000_000,
        layers=2,
        attention_heads=4,
        kv_heads=2,
        head_dim=16,
        max_context_tokens=2048,
    ),
}
_SESSION: dict[str, Any] = {
    "user_id": ALICE,
    "organization_id": ACME,
    "token_sha256": "c" * 64,
    "expires_at": NOON + timedelta(hours=12),
    "ip": Sealed("sealed:ip"),
    "user_agent": Sealed("sealed:user_agent"),
}
_SCOPE = KeyScope(role="owner")
_KEY: dict[str, Any] = {
    "name": "ci",
    "owner": ALICE,
    "created_by": ALICE,
    "key_sha256": "e" * 64,
    "key_prefix": "sk-inv-12345",
    "scope": _SCOPE,
}
_ROTATED: dict[str, Any] = {
    "key_sha256": "f" * 64,
    "key_prefix": "sk-inv-67890",
    "previous_valid_until": NOON + timedelta(hours=1),
}
INVITATION = InvitationId("0192aaaa-0000-7000-8000-000000001071")
_INVITED: dict[str, Any] = {
    "invitation_id": INVITATION,
    "email": Sealed("sealed:email"),
    "email_digest": Digest("d3"),
    "role": "user",
    "token_sha256": "d" * 64,
    "expires_at": NOON + timedelta(days=7),
}
_RESET: dict[str, Any] = {"token_sha256": "a" * 64, "expires_at": NOON + timedelta(hours=1)}
GLOBEX = OrganizationId("0192aaaa-0000-7000-8000-0000000910be")
OFFERED = offering.offering_id_of(ACME, "chat")
_TERMS = offering.Terms(name="Chat", visibility="public", access_policy="request_required")
_OFFERED: dict[str, Any] = {
    "model_id": ModelId("0192aaaa-0000-7000-8000-00000000e0de"),
    "model_code": "mock-echo-model",
    "code": "chat",
    "terms": _TERMS,
}
_SHARE_TERMS = share.ShareTerms(starts_at=NOON)
_PAIR: dict[str, Any] = {"offering_id": OFFERED, "consumer": GLOBEX}
_BOTH: tuple[Flag, ...] = ("technical", "economic")
_DENIED: dict[str, Any] = {"action": "members.invite", "target": "/organizations/current/invitations", "unrecorded": 0}


_SIGNED: dict[str, Any] = {
    "resource": "server",
    "provider_resource_id": "fr-par-2/srv-9",
    "organization_id": ACME,
    "instance_id": INSTANCE_1,
    "attempt": 1,
}
_STRAY: dict[str, Any] = {"provider": "scaleway", **_SIGNED}
_STRAY_NAMED: dict[str, Any] = {f: _STRAY[f] for f in ("provider", "resource", "provider_resource_id")}
HOST_FACTS = host.HostFacts(
    name="rack-1",
    host_key_fingerprint="SHA256:" + "k" * 43,
    gpu_count=2,
    vram_per_gpu_gb=48,
    price_eur_micros_per_hour=900_000,
    slots=(host.Slot(day=0, start_minute=480, end_minute=1080),),
)
_ADDRESSED: dict[str, Any] = {"address": "192.0.2.7", "ssh_port": 22, "facts": HOST_FACTS}
L4 = provider_account_events.Offer(
    zone="fr-par-2",
    instance_type="L4-1-24G",
    gpu_count=1,
    vram_per_gpu_gb=24,
    cpu_count=8,
    ram_gb=48,
    price_eur_micros_per_hour=750_000,
    stock="available",
)


def key_to_issue(name: str = "ci", owner: UserId = ALICE, key_sha256: str = "e" * 64) -> api_key.IssueApiKey:
    """A key without restrictions, for tests about something else."""
    return api_key.IssueApiKey(
        name=name,
        owner=owner,
        created_by=owner,
        key_sha256=key_sha256,
        key_prefix="sk-inv-12345",
        scope=_SCOPE,
        limit=_SCOPE,
        activate=_BOTH,
    )


EVENT_EXAMPLES: tuple[object, ...] = (
    organization.OrganizationCreated(name="Acme", slug="acme"),
    organization.MemberAdded(user_id=ALICE, role="owner"),
    organization.MemberRemoved(user_id=ALICE),
    organization.OrganizationRenamed(name="Acme Two", slug="acme-two"),
    organization.SidebarColorChosen(color="#2f6f4f"),
    organization.OrganizationPlanChanged(plan="subscriber"),
    organization.OrganizationLimitsChanged(limits=OrganizationLimits(requests_per_minute=600, concurrency=20)),
    organization.OrganizationDeleted(),
    organization.MemberRoleChanged(user_id=ALICE, role="owner"),
    organization.MemberInvited(invited_by=ALICE, **_INVITED),
    organization.InvitationRevoked(invitation_id=INVITATION),
    organization.InvitationAccepted(invitation_id=INVITATION, user_id=BOB),
    api_key.ApiKeyIssued(activated=_BOTH, **_KEY),
    api_key.ApiKeyRenamed(name="ci two"),
    api_key.ApiKeyScopeChanged(scope=_SCOPE),
    api_key.ApiKeyRotated(**_ROTATED),
    api_key.ApiKeyActivated(flag="technical"),
    api_key.ApiKeyDeactivated(flag="economic"),
    api_key.ApiKeyRevoked(),
    access.AttemptDenied(code="insufficient_permissions", **_DENIED),
    access.AuditLogExported(format="csv", filters={"type": "MemberAdded"}),
    user.UserCreated(**_PERSON),
    user.PasswordSet(),
    user.ProfileUpdated(**{k: v for k, v in _PERSON.items() if k != "role"}),
    user.PlatformRoleChanged(role="admin"),
    user.AccountPlanChanged(plan="subscriber"),
    user.PasswordResetRequested(**_RESET),
    user.UserForgotten(),
    offering.OfferingPublished(activated=_BOTH, **_OFFERED),
    offering.OfferingRevised(terms=_TERMS),
    offering.OfferingWithdrawn(),
    offering.OfferingActivated(flag="technical"),
    offering.OfferingDeactivated(flag="economic"),
    share.AccessRequested(**_PAIR),
    share.AccessRefused(),
    share.OfferingShared(terms=_SHARE_TERMS, activated=_BOTH, **_PAIR),
    share.TrialStarted(terms=_SHARE_TERMS, **_PAIR),
    share.ShareTermsChanged(terms=_SHARE_TERMS),
    share.SharePaused(),
    share.ShareResumed(),
    share.ShareRevoked(),
    share.ShareActivated(flag="technical"),
    share.ShareDeactivated(flag="economic"),
    setting.SettingSet(key="WORKER_HEALTH_PORT", value=8080, provider="local"),
    setting.SettingUnset(key="WORKER_HEALTH_PORT", provider="local"),
    provider_credentials.ProviderCredentialsSet(provider="scaleway", names=("project_id", "secret_key")),
    provider_credentials.ProviderCredentialsRemoved(provider="scaleway"),
    provider_account_events.ReconciliationRequested(provider="scaleway"),
    provider_account_events.ReconciliationCompleted(
        provider="scaleway", servers=3, volumes=3, strays=1, unrecorded=1, missed=1, answered=True
    ),
    provider_account_events.ReconciliationFailed(
        provider="scaleway", call="list_servers", kind="auth", message="authentication is denied", answered=True
    ),
    provider_account_events.StraySeen(**_STRAY),
    provider_account_events.StrayDeleteIntended(**_STRAY_NAMED),
    provider_account_events.StrayCleared(**_STRAY_NAMED, reason="gone"),
    provider_account_events.UnrecordedServerSeen(**_STRAY),
    provider_account_events.ServerMissed(
        provider="scaleway", provider_instance_id="fr-par-2/srv-1", instance_id=INSTANCE_1
    ),
    provider_account_events.MissedServerSettled(provider="scaleway", provider_instance_id="fr-par-2/srv-1"),
    provider_account_events.DeletionHalted(provider="scaleway", due=5, deleted=1, limit=1),
    provider_account_events.CatalogueSyncRequested(provider="scaleway"),
    provider_account_events.CatalogueSynced(
        provider="scaleway", offers=(L4,), withdrawn=(provider_account_events.OfferKey("fr-par-1", "RENDER-S"),)
    ),
    provider_account_events.CatalogueSyncFailed(provider="scaleway", kind="transient", message="HTTP 503"),
    host.HostEnrolled(**_ADDRESSED),
    host.HostChanged(facts=HOST_FACTS),
    host.HostWithdrawn(),
    session.SessionOpened(**_SESSION),
    session.WorkspaceSwitched(organization_id=None),
    session.SessionRevoked(),
    model.ModelListed(**_MODEL),
    model.ModelDelisted(),
    deployment.DeploymentRequested(instances=2, activated=_BOTH, **_WANTED, **_HARDWARE),
    deployment.DeploymentRefused(code="INVALID_MODEL", message="Model x is not in the catalogue."),
    deployment.DeploymentStopped(),
    upstream.UpstreamConnected(activated=_BOTH, **_UPSTREAM),
    upstream.UpstreamKeyReplaced(key_digest=Digest("k2")),
    upstream.UpstreamActivated(flag="technical"),
    upstream.UpstreamDeactivated(flag="economic"),
    reservation.NameReserved(holder=f"organization/{ACME}"),
    reservation.NameReleased(),
    instance_events.InstanceRequested(**_INSTANCE),
    instance_events.InstanceActivated(flag="technical"),
    instance_events.InstanceDeactivated(flag="economic"),
    instance_events.ServerCreateIntended(attempt=1, server_name="inventiv-worker-1-1"),
    instance_events.ServerCreated(attempt=1, provider_instance_id="srv-1"),
    instance_events.ServerCreateFailed(attempt=1, code="PROVIDER_CREATE_FAILED", message="The provider said no."),
    instance_events.VolumeDiscovered(**_VOLUME),
    instance_events.VolumesListed(),
    instance_events.VolumeResized(provider_volume_id="vol-1", size_gb=200),
    instance_events.VolumeResizeFailed(
        provider_volume_id="vol-1", code="PROVIDER_VOLUME_RESIZE_FAILED", message="Too large."
    ),
    instance_events.VolumeDeleted(provider_volume_id="vol-1"),
    instance_events.ServerStarted(),
    instance_events.ServerStartFailed(code="PROVIDER_OUT_OF_STOCK", message="No L4 left."),
    instance_events.ServerReplacementRequested(reason="Lost for 300 s."),
    instance_events.ServerDiscarded(attempt=1, provider_instance_id="srv-1"),
    instance_events.ProviderCallFailed(call="create_server", kind="transient", message="503 try again"),
    instance_events.AddressAssigned(ip_address="127.8.0.1"),
    instance_events.PortsOpened(ports=(22, 8080, 8000)),
    instance_events.InstanceBooted(),
    instance_events.SshReached(),
    instance_events.BootstrapPhaseDone(phase="docker_install"),
    instance_events.BootstrapFailed(phase="docker_install", message="no space left"),
    instance_events.WorkerRegistered(**_WORKER),
    instance_events.WorkerTokenConfirmed(),
    instance_events.WorkerTokenRotated(token_sha256="e" * 64, token_prefix="wk_0192bbbb-"),
    instance_events.EngineAnswered(),
    instance_events.ModelLoaded(endpoints=("chat", "completions"), context_tokens=32_768),
    instance_events.EngineWarmedUp(),
    instance_events.InstanceReady(),
    instance_events.InstanceStartupFailed(code="STARTUP_TIMEOUT", message="Not ready after 300 s."),
    instance_events.StartupResumed(),
    instance_events.WorkerLost(reason="No heartbeat for 30 s."),
    instance_events.DrainStarted(reason="user", deadline_s=300),
    instance_events.WorkerDrained(),
    instance_events.TerminationRequested(reason="user"),
    instance_events.TerminationOverdue(after_s=600),
    instance_events.ServerSeenGone(),
    instance_events.InstanceTerminated(reason="user"),
    instance_events.InstanceArchived(),
    instance_events.ReinstallRequested(),
    instance_events.ServerReinstalled(),
)

_LOCAL = PROVIDERS[0]

COMMAND_EXAMPLES: tuple[object, ...] = (
    organization_commands.CreateOrganization(name="Acme", owner=ALICE, fallback_slug="org-0192aaaa"),
    organization_commands.AddMember(user_id=BOB, role="user"),
    organization_commands.RemoveMember(user_id=BOB),
    organization_commands.RenameOrganization(name="Acme Two", slug="acme-two"),
    organization_commands.ChooseSidebarColor(color="#2f6f4f"),
    organization_commands.ChangeOrganizationPlan(plan="subscriber"),
    organization_commands.ChangeOrganizationLimits(requests_per_minute=600, tokens_per_minute=None),
    organization_commands.ChangeMemberRole(by=ALICE, user_id=BOB, role="admin"),
    organization_commands.DismissMember(by=ALICE, user_id=BOB),
    organization_commands.InviteMember(by=ALICE, **_INVITED),
    organization_commands.RevokeInvitation(by=ALICE, invitation_id=INVITATION),
    organization_commands.AcceptInvitation(invitation_id=INVITATION, user_id=BOB, email_digest=Digest("d3")),
    organization_commands.DeleteOrganization(live_instances=0),
    api_key.IssueApiKey(limit=_SCOPE, activate=_BOTH, **_KEY),
    api_key.RenameApiKey(name="ci two"),
    api_key.ChangeApiKeyScope(scope=_SCOPE, limit=_SCOPE),
    api_key.RotateApiKey(limit=_SCOPE, **_ROTATED),
    api_key.ActivateApiKey(flag="technical"),
    api_key.DeactivateApiKey(flag="economic"),
    api_key.RevokeApiKey(),
    access.RecordDenied(code="insufficient_permissions", **_DENIED),
    access.RecordExport(format="csv", filters={"type": "MemberAdded"}),
    user.CreateUser(**_PERSON),
    user.RecordPasswordSet(),
    user.UpdateProfile(**{k: v for k, v in _PERSON.items() if k != "role"}),
    user.ChangePlatformRole(role="admin"),
    user.ChangeAccountPlan(plan="subscriber"),
    user.RequestPasswordReset(**_RESET),
    user.ForgetUser(),
    offering.PublishOffering(activate=_BOTH, **_OFFERED),
    offering.ReviseOffering(terms=_TERMS),
    offering.WithdrawOffering(),
    offering.ActivateOffering(flag="technical"),
    offering.DeactivateOffering(flag="economic"),
    share.RequestAccess(provider=ACME, plan="subscriber", **_PAIR),
    share.RefuseAccess(),
    share.ShareOffering(provider=ACME, terms=_SHARE_TERMS, activate=_BOTH, **_PAIR),
    share.StartTrial(provider=ACME, trial_days=14, **_PAIR),
    share.ChangeShareTerms(terms=_SHARE_TERMS),
    share.PauseShare(),
    share.ResumeShare(),
    share.RevokeShare(),
    share.ActivateShare(flag="technical"),
    share.DeactivateShare(flag="economic"),
    setting.SetSetting(key="WORKER_HEALTH_PORT", value=8081, provider="local"),
    setting.UnsetSetting(key="WORKER_HEALTH_PORT", provider="local"),
    provider_credentials.RecordCredentialsSet(provider="scaleway", names=("project_id", "secret_key")),
    provider_credentials.RecordCredentialsRemoved(provider="scaleway"),
    provider_account_commands.RequestReconciliation(provider="scaleway"),
    provider_account_commands.RecordReconciled(
        provider="scaleway",
        asked_at=None,
        servers=frozenset({"fr-par-2/srv-9"}),
        volumes=None,
        strays=(provider_account_commands.Signed(**_SIGNED),),
        unrecorded=(),
        missed={"fr-par-2/srv-1": INSTANCE_1},
        grace_s=0.0,
    ),
    provider_account_commands.RecordReconciliationFailed(
        provider="scaleway", asked_at=None, call="list_servers", kind="transient", message="HTTP 503"
    ),
    provider_account_commands.RequestCatalogueSync(provider="scaleway"),
    provider_account_commands.RecordOffers(provider="scaleway", offers=(L4,)),
    provider_account_commands.RecordCatalogueSyncFailed(provider="scaleway", kind="auth", message="denied"),
    host.EnrolHost(allowed=True, **_ADDRESSED),
    host.ChangeHost(facts=HOST_FACTS),
    host.WithdrawHost(serves=False),
    session.OpenSession(**_SESSION),
    session.SwitchWorkspace(organization_id=None),
    session.RevokeSession(),
    model.ListModel(**_MODEL),
    model.DelistModel(),
    deployment.RequestDeployment(
        instances=2,
        provider_known=True,
        zone_known=True,
        model=model.ModelListed(**_MODEL),
        offer=_LOCAL.instance_types[0],
        offered_in_zone=True,
        activate=_BOTH,
        **_WANTED,
    ),
    deployment.StopDeployment(),
    upstream.ConnectUpstream(found=True, allowed=True, activate=_BOTH, **_UPSTREAM),
    upstream.ReplaceUpstreamKey(key_digest=Digest("k2")),
    upstream.ActivateUpstream(flag="technical"),
    upstream.DeactivateUpstream(flag="economic"),
    instance_commands.RequestInstance(**_INSTANCE),
    instance_commands.ActivateInstance(flag="technical"),
    instance_commands.DeactivateInstance(flag="economic"),
    instance_commands.IntendServerCreate(server_name="inventiv-worker-1-1"),
    instance_commands.RecordServerCreated(provider_instance_id="srv-1"),
    instance_commands.RecordServerCreateFailed(code="PROVIDER_CREATE_FAILED", message="The provider said no."),
    instance_commands.RecordVolume(**_VOLUME),
    instance_commands.RecordVolumes(volumes=(instance_commands.RecordVolume(**_VOLUME),)),
    instance_commands.RecordVolumeResized(provider_volume_id="vol-1", size_gb=200),
    instance_commands.RecordVolumeResizeFailed(
        provider_volume_id="vol-1", code="PROVIDER_VOLUME_RESIZE_FAILED", message="Too large."
    ),
    instance_commands.RecordVolumeDeleted(provider_volume_id="vol-1"),
    instance_commands.RecordServerStarted(),
    instance_commands.RecordServerStartFailed(code="PROVIDER_OUT_OF_STOCK", message="No L4 left."),
    instance_commands.RequestReplacement(reason="Lost for 300 s."),
    instance_commands.RecordProviderTrouble(call="create_server", kind="transient", message="503 try again"),
    instance_commands.RecordAddress(ip_address="127.8.0.1"),
    instance_commands.RecordPortsOpened(ports=(22, 8080, 8000)),
    instance_commands.RecordSshReached(),
    instance_commands.RecordBootstrapPhase(phase="docker_install"),
    instance_commands.RecordBootstrapFailed(phase="docker_install", message="no space left"),
    instance_commands.RegisterWorker(**_WORKER),
    instance_commands.RotateWorkerToken(token_sha256="e" * 64, token_prefix="wk_0192bbbb-"),
    instance_commands.ObserveWorker(
        status="ready", engine_up=True, model_loaded=True, warmed_up=True, queue_depth=0, agent_sha256="b" * 64
    ),
    instance_commands.RecordWorkerLost(reason="No heartbeat for 30 s."),
    instance_commands.FailStartup(code="STARTUP_TIMEOUT", message="Not ready after 300 s."),
    instance_commands.StopInstance(reason="user"),
    instance_commands.RequestTermination(reason="user"),
    instance_commands.RecordOverdue(),
    instance_commands.RecordServerGone(),
    instance_commands.ArchiveInstance(),
    instance_commands.RequestReinstall(),
    instance_commands.RecordServerReinstalled(),
)


def example(wanted: type[T]) -> T:
    """The example of one event or command type."""
    return next(e for e in (*EVENT_EXAMPLES, *COMMAND_EXAMPLES) if isinstance(e, wanted))
