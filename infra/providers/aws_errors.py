"""What AWS's error codes mean to us. Pure.

    auth · out_of_stock · quota ──> refused        rate_limited · busy · unclear ──> unavailable, ask again

The surprising rule: a code that is not in the table is a refusal only where AWS answered 4xx, for then it did nothing.
"""

from collections.abc import Mapping
from typing import Literal

from handlers.cloud_ports import CloudRefusedError, CloudUnavailableError, RefusalKind
from infra.providers.calling import StillBusyError

Meaning = Literal["auth", "out_of_stock", "quota", "rate_limited", "busy", "unclear"]

MEANINGS: Mapping[str, Meaning] = {
    "AuthFailure": "auth",
    "UnauthorizedOperation": "auth",
    "InvalidClientTokenId": "auth",
    "SignatureDoesNotMatch": "auth",
    "ExpiredToken": "auth",
    "AccessDenied": "auth",
    "AccessDeniedException": "auth",
    "UnrecognizedClientException": "auth",
    "MissingAuthenticationToken": "auth",
    "InvalidAccessKeyId": "auth",
    "OptInRequired": "auth",
    "PendingVerification": "auth",
    "Blocked": "auth",
    "InsufficientInstanceCapacity": "out_of_stock",
    "InsufficientCapacity": "out_of_stock",
    "InsufficientHostCapacity": "out_of_stock",
    "Unsupported": "out_of_stock",
    "VcpuLimitExceeded": "quota",
    "InstanceLimitExceeded": "quota",
    "MaxSpotInstanceCountExceeded": "quota",
    "VolumeLimitExceeded": "quota",
    "ResourceLimitExceeded": "quota",
    "SecurityGroupLimitExceeded": "quota",
    "RulesPerSecurityGroupLimitExceeded": "quota",
    "NetworkInterfaceLimitExceeded": "quota",
    "RequestLimitExceeded": "rate_limited",
    "Throttling": "rate_limited",
    "ThrottlingException": "rate_limited",
    "ThrottledException": "rate_limited",
    "TooManyRequestsException": "rate_limited",
    "IncorrectInstanceState": "busy",
    "IncorrectState": "busy",
    "VolumeInUse": "busy",
    "IncorrectModificationState": "busy",
    "VolumeModificationRateExceeded": "busy",
    "DependencyViolation": "busy",
    "ConcurrentTagAccess": "busy",
    "RequestExpired": "unclear",
    "IdempotentParameterMismatch": "unclear",
}
"""`Unsupported`: the zone does not have the type, so another place may do, as when it is sold out. The busy ones were
answered 4xx, and yet are worth another try: a state is passing. The unclear ones: a clock that is off, and a token that
came before with other words, so that a server may exist."""

CODES: Mapping[str, str] = {
    "run_instances": "PROVIDER_CREATE_FAILED",
    "start_instances": "PROVIDER_START_FAILED",
    "stop_instances": "PROVIDER_STOP_FAILED",
    "terminate_instances": "PROVIDER_DELETE_FAILED",
    "create_replace_root_volume_task": "PROVIDER_REINSTALL_FAILED",
    "create_security_group": "PROVIDER_SECURITY_GROUP_FAILED",
    "authorize_security_group_ingress": "PROVIDER_SECURITY_GROUP_FAILED",
    "modify_volume": "PROVIDER_VOLUME_RESIZE_FAILED",
    "attach_volume": "PROVIDER_VOLUME_ATTACH_FAILED",
    "delete_volume": "PROVIDER_VOLUME_DELETE_FAILED",
}
CALL_FAILED = "PROVIDER_CALL_FAILED"


def translated(operation: str, error: Exception) -> CloudRefusedError | CloudUnavailableError | None:
    """What an exception of boto3 means; None: it holds no answer of AWS."""
    response = getattr(error, "response", None)
    if not isinstance(response, dict):
        return None
    said = response.get("Error", {})
    theirs, status = str(said.get("Code", "")), int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    words = f"{theirs}: {said.get('Message', '')}"
    match MEANINGS.get(theirs):
        case "out_of_stock":
            return CloudRefusedError("PROVIDER_OUT_OF_STOCK", words, "out_of_stock")
        case "quota":
            return CloudRefusedError("PROVIDER_QUOTA_EXCEEDED", words, "quota")
        case "auth":
            return CloudRefusedError(CODES.get(operation, CALL_FAILED), words, "auth")
        case "rate_limited":
            return CloudUnavailableError(words, "rate_limited")
        case "busy":
            return StillBusyError(words)
        case "unclear":
            return CloudUnavailableError(words)
        case None:
            return _by_status(operation, theirs, status, words)


def _by_status(operation: str, theirs: str, status: int, words: str) -> CloudRefusedError | CloudUnavailableError:
    if status == 429:
        return CloudUnavailableError(words, "rate_limited")
    if not 400 <= status < 500:
        return CloudUnavailableError(words)
    kind: RefusalKind = "auth" if status in {401, 403} else "permanent"
    if theirs.endswith(("NotFound", ".Malformed")):  # an id that AWS cannot even read is nobody's either
        kind = "not_found"
    return CloudRefusedError(CODES.get(operation, CALL_FAILED), words, kind)
