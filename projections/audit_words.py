"""What each event type means to a person: verb, SPEC 2.7's action code, category, outcome; and who acted, and on what.

    "MemberInvited" ──> "invited a member", ORG_INVITATION_CREATED, people, success

The surprising rule: words follow from the type alone, never from an event's fields. So a filter on words, codes or
outcomes is a filter on types, which the audit log has an index for, and no words are stored with any row. A type of a
newer release is told by its own name. (An instance's timeline looks into the fields too: instance_words.py.)
"""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

Outcome = Literal["success", "failed", "in_progress"]
OUTCOMES: tuple[Outcome, ...] = ("success", "failed", "in_progress")


class EventWords(msgspec.Struct, frozen=True):
    """How an event type is told.

    Attributes:
        verb: past tense, the actor understood before it: "invited a member".
        action: SPEC 2.7's code, or one in its manner.
        category: what it belongs to; the console's colour.
        outcome: in_progress: it begins what another event ends.
    """

    verb: str
    action: str
    category: str
    outcome: Outcome = "success"


def _people(verb: str, action: str) -> EventWords:
    return EventWords(verb, action, "people")


def _keys(verb: str, action: str) -> EventWords:
    return EventWords(verb, action, "keys")


def _sharing(verb: str, action: str) -> EventWords:
    return EventWords(verb, action, "sharing")


def _server(verb: str, action: str) -> EventWords:
    return EventWords(verb, action, "create")


def _health(verb: str, action: str, outcome: Outcome = "success") -> EventWords:
    return EventWords(verb, action, "health", outcome)


def _reconcile(verb: str, action: str, outcome: Outcome = "success") -> EventWords:
    return EventWords(verb, action, "reconcile", outcome)


def _flag(what: str, action: str) -> dict[str, EventWords]:
    """Words of the two events of double activation."""
    name = f"{what[0].upper()}{what[1:]}".replace(" ", "")
    return {
        f"{name}Activated": EventWords(f"activated the {what.lower()}", f"{action}_ACTIVATED", "activation"),
        f"{name}Deactivated": EventWords(f"deactivated the {what.lower()}", f"{action}_DEACTIVATED", "activation"),
    }


_ORGANIZATION = {
    "OrganizationCreated": _people("created the organisation", "ORG_CREATED"),
    "OrganizationRenamed": _people("renamed the organisation", "ORG_RENAMED"),
    "SidebarColorChosen": _people("chose the organisation's colour", "ORG_COLOR_CHOSEN"),
    "OrganizationPlanChanged": _people("changed the organisation's plan", "ORG_PLAN_CHANGED"),
    "OrganizationLimitsChanged": _people("changed the organisation's limits", "ORG_LIMITS_CHANGED"),
    "OrganizationDeleted": _people("deleted the organisation", "ORG_DELETED"),
    "MemberAdded": _people("added a member", "ORG_MEMBER_ADDED"),
    "MemberRoleChanged": _people("changed a member's role", "ORG_MEMBER_ROLE_UPDATED"),
    "MemberRemoved": _people("removed a member", "ORG_MEMBER_REMOVED"),
    "MemberInvited": _people("invited a member", "ORG_INVITATION_CREATED"),
    "InvitationRevoked": _people("revoked an invitation", "ORG_INVITATION_REVOKED"),
    "InvitationAccepted": _people("accepted an invitation", "ORG_INVITATION_ACCEPTED"),
}
_PERSON = {
    "UserCreated": _people("created the user", "USER_CREATED"),
    "PasswordSet": _people("set a password", "USER_PASSWORD_SET"),
    "ProfileUpdated": _people("updated the profile", "USER_PROFILE_UPDATED"),
    "PlatformRoleChanged": _people("changed the user's platform role", "USER_ROLE_UPDATED"),
    "AccountPlanChanged": _people("changed the user's plan", "USER_PLAN_CHANGED"),
    "PasswordResetRequested": _people("asked for a password reset", "USER_PASSWORD_RESET_REQUESTED"),
    "UserForgotten": _people("forgot the person", "USER_FORGOTTEN"),
    "SessionOpened": EventWords("signed in", "SESSION_OPENED", "access"),
    "WorkspaceSwitched": EventWords("switched the workspace", "SESSION_WORKSPACE_SWITCHED", "access"),
    "SessionRevoked": EventWords("ended the session", "SESSION_REVOKED", "access"),
    "AttemptDenied": EventWords("was refused", "ATTEMPT_DENIED", "access", "failed"),
    "AuditLogExported": EventWords("exported the audit log", "AUDIT_LOG_EXPORTED", "access"),
}
_KEY = {
    "ApiKeyIssued": _keys("issued the API key", "API_KEY_ISSUED"),
    "ApiKeyRenamed": _keys("renamed the API key", "API_KEY_RENAMED"),
    "ApiKeyScopeChanged": _keys("changed what the API key may do", "API_KEY_SCOPE_CHANGED"),
    "ApiKeyRotated": _keys("rotated the API key", "API_KEY_ROTATED"),
    "ApiKeyRevoked": _keys("revoked the API key", "API_KEY_REVOKED"),
    "ApiKeyActivated": EventWords("activated the API key", "API_KEY_ACTIVATED", "activation"),
    "ApiKeyDeactivated": EventWords("deactivated the API key", "API_KEY_DEACTIVATED", "activation"),
}
_MODEL = {
    "ModelListed": _sharing("listed the model", "MODEL_LISTED"),
    "ModelDelisted": _sharing("delisted the model", "MODEL_DELISTED"),
    "OfferingPublished": _sharing("published the offering", "OFFERING_PUBLISHED"),
    "OfferingRevised": _sharing("revised the offering", "OFFERING_REVISED"),
    "OfferingWithdrawn": _sharing("withdrew the offering", "OFFERING_WITHDRAWN"),
    **_flag("offering", "OFFERING"),
    "AccessRequested": EventWords("asked for access", "SHARE_ACCESS_REQUESTED", "sharing", "in_progress"),
    "AccessRefused": _sharing("refused access", "SHARE_ACCESS_REFUSED"),
    "OfferingShared": _sharing("shared the offering", "SHARE_GRANTED"),
    "TrialStarted": _sharing("began a trial", "SHARE_TRIAL_STARTED"),
    "ShareTermsChanged": _sharing("changed the share's terms", "SHARE_TERMS_CHANGED"),
    "SharePaused": _sharing("paused the share", "SHARE_PAUSED"),
    "ShareResumed": _sharing("resumed the share", "SHARE_RESUMED"),
    "ShareRevoked": _sharing("revoked the share", "SHARE_REVOKED"),
    **_flag("share", "SHARE"),
}
_PLATFORM = {
    "DeploymentRequested": EventWords("requested the deployment", "DEPLOYMENT_REQUESTED", "create", "in_progress"),
    "DeploymentRefused": EventWords("refused the deployment", "DEPLOYMENT_REFUSED", "create", "failed"),
    "DeploymentStopped": EventWords("stopped the deployment", "DEPLOYMENT_STOPPED", "terminate"),
    "UpstreamConnected": EventWords("connected an upstream", "UPSTREAM_CONNECTED", "create"),
    "UpstreamKeyReplaced": EventWords("replaced the upstream's key", "UPSTREAM_KEY_REPLACED", "settings"),
    **_flag("upstream", "UPSTREAM"),
    "SettingSet": EventWords("set a setting", "SETTING_SET", "settings"),
    "SettingUnset": EventWords("reset a setting", "SETTING_UNSET", "settings"),
    "ProviderCredentialsSet": EventWords("set the provider's credentials", "PROVIDER_CREDENTIALS_SET", "settings"),
    "ProviderCredentialsRemoved": EventWords(
        "removed the provider's credentials", "PROVIDER_CREDENTIALS_REMOVED", "settings"
    ),
    "NameReserved": EventWords("reserved a unique name", "NAME_RESERVED", "platform"),
    "NameReleased": EventWords("released a unique name", "NAME_RELEASED", "platform"),
}
_ACCOUNT = {
    "ReconciliationRequested": _reconcile("asked for a reconciliation", "RECONCILE_REQUESTED", "in_progress"),
    "ReconciliationCompleted": _reconcile("compared the provider's servers with the records", "RECONCILE_COMPLETED"),
    "ReconciliationFailed": _reconcile("could not compare the servers", "RECONCILE_FAILED", "failed"),
    "StraySeen": _reconcile("saw a server or volume that no record wants", "STRAY_SEEN"),
    "StrayDeleteIntended": _reconcile("began to delete what no record wants", "STRAY_DELETE", "in_progress"),
    "StrayCleared": _reconcile("saw what no record wanted settled", "STRAY_CLEARED"),
    "UnrecordedServerSeen": _reconcile("saw a server of ours without a record", "UNRECORDED_SEEN", "failed"),
    "ServerMissed": _reconcile("missed a server at the provider", "PROVIDER_DELETED_DETECTED"),
    "MissedServerSettled": _reconcile("settled a missed server", "MISSED_SERVER_SETTLED"),
    "DeletionHalted": _reconcile("halted deletions, for they were too many", "DELETION_HALTED", "failed"),
    "CatalogueSyncRequested": EventWords(
        "asked for the provider's catalogue", "CATALOG_SYNC_REQUESTED", "catalogue", "in_progress"
    ),
    "CatalogueSynced": EventWords("read the provider's catalogue", "CATALOG_SYNCED", "catalogue"),
    "CatalogueSyncFailed": EventWords(
        "could not read the provider's catalogue", "CATALOG_SYNC_FAILED", "catalogue", "failed"
    ),
}
_HOST = {
    "HostEnrolled": EventWords("enrolled the host", "HOST_ENROLLED", "hosts"),
    "HostChanged": EventWords("changed the host", "HOST_CHANGED", "hosts"),
    "HostWithdrawn": EventWords("withdrew the host", "HOST_WITHDRAWN", "hosts"),
}
_INSTANCE_BEGINS = {
    "InstanceRequested": EventWords("requested the instance", "REQUEST_CREATE", "create", "in_progress"),
    "ServerCreateIntended": EventWords("began to create the server", "EXECUTE_CREATE", "create", "in_progress"),
    "ServerCreated": _server("created the server", "PROVIDER_CREATE"),
    "ServerCreateFailed": EventWords("could not create the server", "PROVIDER_CREATE", "create", "failed"),
    "VolumeDiscovered": _server("found a volume", "PROVIDER_CREATE_VOLUME"),
    "VolumesListed": _server("listed the server's volumes", "PROVIDER_VOLUMES_LISTED"),
    "VolumeResizeFailed": EventWords("could not resize a volume", "PROVIDER_VOLUME_RESIZE", "create", "failed"),
    "VolumeResized": _server("resized a volume", "PROVIDER_VOLUME_RESIZE"),
    "VolumeDeleted": EventWords("deleted a volume", "PROVIDER_DELETE_VOLUME", "terminate"),
    "ServerStarted": _server("started the server", "PROVIDER_START"),
    "ServerStartFailed": EventWords("could not start the server", "PROVIDER_START", "create", "failed"),
    "ServerReplacementRequested": EventWords("asked for another server", "REQUEUE_PROVISION", "create", "in_progress"),
    "ServerDiscarded": _server("discarded the server", "SERVER_DISCARDED"),
    "ProviderCallFailed": EventWords("got no answer from the provider", "PROVIDER_CALL", "create", "failed"),
    "AddressAssigned": _server("learned the server's address", "PROVIDER_GET_IP"),
    "PortsOpened": _server("opened ports", "PROVIDER_SECURITY_GROUP"),
    "InstanceBooted": _server("saw the server run", "INSTANCE_CREATED"),
    "SshReached": _health("reached the server by SSH", "WORKER_SSH_ACCESSIBLE"),
    "BootstrapPhaseDone": _server("finished a phase of the installation", "WORKER_SSH_INSTALL"),
    "BootstrapFailed": EventWords("could not install the server", "WORKER_SSH_INSTALL", "create", "failed"),
    "WorkerRegistered": _health("registered as the instance's worker", "WORKER_REGISTERED"),
    "WorkerTokenConfirmed": _health("used its own token first", "WORKER_TOKEN_CONFIRMED"),
    "WorkerTokenRotated": _health("offered the worker a new token", "WORKER_TOKEN_ROTATED"),
    "EngineAnswered": _health("saw the engine answer", "WORKER_VLLM_HTTP_OK"),
    "ModelLoaded": _health("loaded the model", "WORKER_MODEL_LOADED"),
    "EngineWarmedUp": _health("warmed the engine up", "WORKER_VLLM_WARMUP"),
    "InstanceReady": _health("made the instance ready", "INSTANCE_READY"),
    "InstanceStartupFailed": _health("gave up the start", "INSTANCE_STARTUP_FAILED", "failed"),
    "StartupResumed": _health("went on with the start after all", "INSTANCE_STARTUP_RESUMED"),
    "WorkerLost": _health("lost the worker", "HEALTH_CHECK", "failed"),
    **_flag("instance", "INSTANCE"),
}
_INSTANCE_ENDS = {
    "DrainStarted": EventWords("began to drain the worker", "DRAIN_STARTED", "terminate", "in_progress"),
    "WorkerDrained": EventWords("drained the worker", "WORKER_DRAINED", "terminate"),
    "TerminationRequested": EventWords(
        "requested the instance's termination", "REQUEST_TERMINATE", "terminate", "in_progress"
    ),
    "ServerSeenGone": EventWords("saw the server gone", "TERMINATION_CONFIRMED", "terminate"),
    "TerminationOverdue": EventWords("could not end the instance yet", "TERMINATION_PENDING", "terminate", "failed"),
    "InstanceTerminated": EventWords("terminated the instance", "INSTANCE_TERMINATED", "terminate"),
    "InstanceArchived": EventWords("archived the instance", "ARCHIVE_INSTANCE", "archive"),
    "ReinstallRequested": EventWords("requested a reinstallation", "REQUEST_REINSTALL", "repair", "in_progress"),
    "ServerReinstalled": EventWords("reinstalled the server", "EXECUTE_REINSTALL", "repair"),
}
WORDS: Mapping[str, EventWords] = {
    **_ORGANIZATION,
    **_PERSON,
    **_KEY,
    **_MODEL,
    **_PLATFORM,
    **_ACCOUNT,
    **_HOST,
    **_INSTANCE_BEGINS,
    **_INSTANCE_ENDS,
}
"""Of every event type that this release knows."""

TARGETS: Mapping[str, str] = {
    "organization": "organisation",
    "user": "user",
    "session": "session",
    "api_key": "API key",
    "access": "access",
    "model": "model",
    "offering": "offering",
    "share": "share",
    "deployment": "deployment",
    "instance": "instance",
    "setting": "settings",
    "provider_credentials": "provider credentials",
    "provider_account": "provider account",
    "host": "host",
    "reservation": "unique name",
}
"""Aggregate -> what a person calls it."""

_COMPONENTS: Mapping[str, str] = {"user": "api", "key": "api", "worker": "worker"}
ORCHESTRATOR = "handlers"
"""The service whose acts SPEC 2.7 files under the component `orchestrator`."""


def words_for(event_type: str) -> EventWords:
    """Also for a type that this release does not know."""
    known = WORDS.get(event_type)
    if known is not None:
        return known
    parts = re.findall(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])", event_type) or [event_type]
    return EventWords(" ".join(parts).lower(), "_".join(parts).upper(), "other")


def target_kind(aggregate: str) -> str:
    return TARGETS.get(aggregate, aggregate.replace("_", " "))


def component_of(actor: str) -> str:
    """SPEC 2.7's component, from an envelope's actor: api, orchestrator, worker, or a service's own name."""
    kind, _, name = actor.partition(":")
    return _COMPONENTS.get(kind) or ("orchestrator" if name == ORCHESTRATOR else name or kind)


def types_of_action(action: str) -> list[str]:
    """The event types that an action's code stands for."""
    return [name for name, words in WORDS.items() if words.action == action]


def types_of_outcome(outcome: Outcome) -> list[str]:
    """The event types that end so. `success` also has every type that this release does not know."""
    return [name for name, words in WORDS.items() if words.outcome == outcome]


def types_told_by(text: str) -> list[str]:
    """The known event types in whose name, verb, code or category the text occurs, whatever its case."""
    wanted = text.casefold()
    return [
        name
        for name, words in WORDS.items()
        if any(wanted in told.casefold() for told in (name, words.verb, words.action, words.category))
    ]
